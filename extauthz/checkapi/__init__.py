"""The only place that knows the wire: `envoy.service.auth.v3` messages to and from requests and decisions. Pure."""
