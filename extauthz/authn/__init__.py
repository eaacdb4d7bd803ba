"""Request authentication: who sent a request, worked out as Envoy's `jwt_authn` does under Istio's configuration.

The questions are cut as in that filter: `locations` says where tokens are, `jws` reads one, `keys` checks signatures,
`provider` is one rule, `authenticator` walks all of them and remembers answers, `answers` turns a refusal into what the
client sees. No sockets, no clock: time is passed in, keys come from a `KeySource`.
"""
