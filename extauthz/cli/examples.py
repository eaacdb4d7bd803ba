"""The examples at the end of each command's `--help`."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "serve": (
        "extauthz serve --policy policies/ --workload shop/app=web",
        "extauthz serve --policy policies/ --listen unix:/run/extauthz.sock --decision-log -",
    ),
    "check": (
        "extauthz check --policy policies/ http://shop.example/items?page=2",
        "extauthz check --policy policies/ -X POST -H 'authorization: Bearer TOKEN' /items",
    ),
    "validate": ("extauthz validate policies/", "kubectl get ra,ap -A -o yaml | extauthz validate --strict -"),
    "verify": (
        "extauthz verify --policy policies/ --workload shop/app=web",
        "extauthz verify --policy policies/ --fuzz 10000 --seed 7 --save differences.yaml",
        "extauthz verify --cases examples/story/cases.yaml",
    ),
    "envoy-config": (
        "extauthz envoy-config --policy policies/ --mode ext-authz >envoy.yaml",
        "extauthz envoy-config --policy policies/ --istio",
    ),
    "jwks": ("extauthz jwks https://login.example/keys", "extauthz jwks policies/"),
    "loadtest": ("extauthz loadtest --target 127.0.0.1:9191 --rate 2000 --duration 30 --slo 'p99<2ms@2000'",),
    "token": (
        "extauthz token --issuer https://login.example --claim role=admin --jwks-out jwks.json",
        "extauthz token --broken list",
    ),
    "demo": ("extauthz demo", "extauthz demo --keep"),
    "null": ("extauthz null --listen 127.0.0.1:9191",),
    "healthcheck": ("extauthz healthcheck --listen 127.0.0.1:9191",),
    "version": ("extauthz version --verbose",),
}
