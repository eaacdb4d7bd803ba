"""What the operator wrote: Istio resources as typed data, where each stands, which of them apply to a workload."""
