"""The mesh's own enforcement: Istio resources as Envoy's built-in filters, the real Envoy, and a comparison with ours.

Nothing here imports `authn` or `authz`: what checks an implementation must not share its bugs. Only `verify` calls the
public `Authorizer`.
"""
