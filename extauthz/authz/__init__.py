"""May it pass? AuthorizationPolicies compiled to predicates over a request and an identity (Envoy's RBAC filters)."""
