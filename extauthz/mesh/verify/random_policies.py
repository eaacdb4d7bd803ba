"""Random policies that use every field: what the project checks itself with when nobody gives it any.

Names and values come from small sets, so that policies, tokens and requests meet often.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]

_ISSUERS = ("https://a.example", "https://b.example/", "c")
_SUBJECTS = ("u", "user", "*", "a/b")
_PATHS = (
    "/", "/a", "/a/b", "/a*", "*", "/*", "*.jpg", "*/b", "/a/", "/A", "/a%2Fb", "/a/*/b", "*a*", "/{*}", "/a/{*}/b",
    "/a/{**}", "/{**}/b", "/{*}/{**}", "/x/{*}/{*}", "/productpage", "/a;b", "/\u00e9",
)  # fmt: skip
_HOSTS = ("httpbin.foo:8000", "httpbin.foo", "*.foo:8000", "HTTPBIN.*", "*", "a.example", "[::1]:80")
_METHODS = ("GET", "POST", "HEAD", "OPTIONS", "P*", "*T", "*", "get")
_PORTS = ("8000", "80", "9000", "65535", "0")
_BLOCKS = (
    "127.0.0.1", "127.0.0.0/30", "10.0.0.0/8", "192.0.2.0/24", "192.0.2.7", "192.0.2.99/24", "0.0.0.0/0", "::/0",
    "2001:db8::/32", "::1", "::ffff:192.0.2.7", "::ffff:0:0/96", "127.0.0.2/31",
)  # fmt: skip
_TRUST_DOMAINS = ("cluster.local", "td1", "td2", "*", "td*", "*local", "old.example")
_NAMESPACES = ("foo", "f*", "*o", "*", "b.r", "f*o")
_PRINCIPALS = (
    "cluster.local/ns/foo/sa/bar", "td1/ns/foo/sa/bar", "td2/ns/foo/sa/x", "*/ns/foo/sa/bar", "*",
    "cluster.local/ns/foo/*", "*/sa/bar", "*local/ns/foo/sa/bar", "td*/ns/foo/sa/bar", "bar",
    "*.local/ns/foo/sa/b.r", "peer.example",
)  # fmt: skip
_ACCOUNTS = ("bar", "foo/bar", "x", "foo/b.r", "other/bar")
_HEADER_NAMES = (
    "x-h", "X-Other", "x-sub", "authorization", "cookie", "accept", "user-agent", "x-forwarded-for", ":path", ":method",
    ":authority", "host", ":scheme", "content-type", "x-payload", "te", "referer", "x-forwarded-proto", "x-tok",
)  # fmt: skip
_TEXTS = ("v", "w", "v*", "*v", "*", "a,b", "v w", "", "*a*", "/a", "GET", "http", "application/grpc", "\u00e9")
_CLAIM_KEYS = (
    "[groups]", "[scope]", "[roles]", "[nested][roles]", "[nested][a][b]", "[nest.k]", "[https://x.example/r]", "[iss]",
    "[sub]", "[aud]", "[a:b]", "[sp ace]", "[permission]", "[deep][scope]",
)  # fmt: skip
_CLAIM_TEXTS = ("g1", "g2", "admin", "read", "*", "g*", "*d", "a b", "*a*", "u", "\u00e9")
_SERVER_NAMES = ("www.example.com", "*.example.com", "www*", "*", "WWW.example.com")
_FILTERS = ("http.x[k]", "http.x[l.m]", "network.y[k]")
_METADATA_TEXTS = ("v", "v*", "*w", "*", "[v]", "[v*]", "[*]", "[*w]")
_CLAIM_NAMES = ("sub", "groups", "roles", "scope", "nested.roles", "nested.a.b", "nest.k", "n", "obj", "exp", "flag")
_OUTPUT_HEADERS = (
    "x-sub", "x-claim", "X-Roles", "x-user", "x-h", "x-sub", "x-claim", "x-user", "authorization", "cookie",
    "x-forwarded-for", "user-agent", "x-request-id",
)  # fmt: skip
_TOKEN_HEADERS = (
    ("x-tok", ""),
    ("cookie", "ck="),
    ("x-forwarded-for", ""),
    ("X-Tok", "Tok "),
    ("authorization", "Bearer "),
    ("authorization", ""),
    ("x-b", "b"),
)
_PARAMS = ("tk", "access_token", "jwt", "a b")
_COOKIES = ("ck", "session", "__Host-t")
_SPLIT_CLAIMS = ("roles", "groups", "nest.k", "scope")


OUR_PROVIDER = "ours"


@dataclass(frozen=True, slots=True)
class RandomPolicies:
    """Policies as YAML, and the options they are to be enforced with."""

    title: str
    text: str
    trust_domain: str
    trust_domain_aliases: tuple[str, ...]
    trusted_hops: int
    provider: str


def random_policies(rng: random.Random, title: str) -> RandomPolicies:
    """Policies for one workload; key sets are left to be filled in (`jwksUri`)."""
    documents = [_authentication(rng, index) for index in range(rng.choice((0, 1, 1, 1, 2)))]
    fewest = 0 if documents else 1
    documents += [_policy(rng, index) for index in range(max(fewest, rng.choice((0, 1, 1, 2, 2, 3, 4))))]
    return RandomPolicies(
        title=title,
        text="\n---\n".join(json.dumps(document, ensure_ascii=False) for document in documents),
        trust_domain=rng.choice(("cluster.local", "td1")),
        trust_domain_aliases=rng.choice(((), (), ("td2",), ("td2", "old.example"))),
        trusted_hops=rng.choice((0, 0, 0, 1, 2)),
        provider=rng.choice(("", OUR_PROVIDER)),
    )


def _some(rng: random.Random, values: Sequence[Any], most: int = 3) -> list[Any]:
    return rng.sample(values, k=min(len(values), rng.randint(1, most)))


def _metadata(rng: random.Random, name: str) -> Document:
    return {"name": name, "namespace": rng.choice(("foo", "foo", "istio-system"))}


def _authentication(rng: random.Random, index: int) -> Document:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": _metadata(rng, f"ra-{index}"),
        "spec": {"jwtRules": [_jwt_rule(rng) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]},
    }


def _jwt_rule(rng: random.Random) -> Document:
    rule: Document = {"issuer": rng.choice(_ISSUERS), "jwksUri": "https://keys.invalid/jwks"}
    if rng.random() < 0.1:
        del rule["issuer"]
    if rng.random() < 0.3:
        rule["audiences"] = _some(rng, ("api", "https://api.example/", "x"))
    if rng.random() < 0.4:
        rule["fromHeaders"] = [
            {"name": name, "prefix": prefix} if prefix else {"name": name}
            for name, prefix in _some(rng, _TOKEN_HEADERS)
        ]
    if rng.random() < 0.3:
        rule["fromParams"] = _some(rng, _PARAMS, 2)
    if rng.random() < 0.2:
        rule["fromCookies"] = _some(rng, _COOKIES, 2)
    if rng.random() < 0.3:
        rule["outputPayloadToHeader"] = rng.choice(("x-payload", "x-h", "x-tok"))
    if rng.random() < 0.4:
        rule["outputClaimToHeaders"] = [
            {"header": rng.choice(_OUTPUT_HEADERS), "claim": name} for name in _some(rng, _CLAIM_NAMES, 4)
        ]
    if rng.random() < 0.4:
        rule["forwardOriginalToken"] = rng.random() < 0.8
    if rng.random() < 0.3:
        rule["spaceDelimitedClaims"] = _some(rng, _SPLIT_CLAIMS)
    return rule


def _policy(rng: random.Random, index: int) -> Document:
    action = rng.choice(("ALLOW", "ALLOW", "ALLOW", "DENY", "DENY", "DENY", "AUDIT", "CUSTOM"))
    spec: Document = {"action": action}
    rules = [_rule(rng, custom=action == "CUSTOM") for _ in range(rng.choice((1, 1, 1, 2, 3, 12)))]
    if action in ("ALLOW", "AUDIT") and rng.random() < 0.05:
        rules = []
    if rules:
        spec["rules"] = rules
    if action == "CUSTOM":
        spec["provider"] = {"name": rng.choice((OUR_PROVIDER, "nobody"))}
    document: Document = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": _metadata(rng, f"ap-{index}"),
        "spec": spec,
    }
    if action in ("ALLOW", "DENY") and rng.random() < 0.2:
        document["metadata"]["annotations"] = {"istio.io/dry-run": rng.choice(("true", "false", "T", "0"))}
    return document


def _rule(rng: random.Random, *, custom: bool) -> Document:
    rule: Document = {}
    if rng.random() < 0.5:
        rule["from"] = [{"source": _source(rng, custom=custom)} for _ in range(rng.choice((1, 1, 2)))]
    if rng.random() < 0.6:
        rule["to"] = [{"operation": _operation(rng)} for _ in range(rng.choice((1, 1, 2)))]
    if rng.random() < 0.5:
        rule["when"] = [_condition(rng, custom=custom) for _ in range(rng.choice((1, 1, 2)))]
    return rule


def _negatable(rng: random.Random, part: Document, name: str, values: Sequence[str]) -> None:
    negated = f"not{name[0].upper()}{name[1:]}"
    for field in rng.choice(((name,), (name,), (negated,), (name, negated))):
        part[field] = _some(rng, values)


def _operation(rng: random.Random) -> Document:
    operation: Document = {}
    for name, values in _some(
        rng, (("hosts", _HOSTS), ("methods", _METHODS), ("paths", _PATHS), ("paths", _PATHS), ("ports", _PORTS)), 2
    ):
        _negatable(rng, operation, name, values)
    return operation


def _request_principals(rng: random.Random) -> list[str]:
    forms = (
        "*",
        "*/*",
        f"{rng.choice(_ISSUERS)}/{rng.choice(_SUBJECTS)}",
        f"{rng.choice(_ISSUERS)}/*",
        f"{rng.choice(_ISSUERS)}/u*",
        f"*/{rng.choice(_SUBJECTS)}",
        f"*{rng.choice(_SUBJECTS[:2])}",
        f"{rng.choice(_ISSUERS)}*",
        rng.choice(_ISSUERS),
        "*example/u",
    )
    return [str(form) for form in _some(rng, forms)]


def _source(rng: random.Random, *, custom: bool) -> Document:
    source: Document = {}
    fields: list[tuple[str, Sequence[str]]] = [("ipBlocks", _BLOCKS), ("remoteIpBlocks", _BLOCKS)]
    if not custom:
        fields += [
            ("requestPrincipals", _request_principals(rng)),
            ("requestPrincipals", _request_principals(rng)),
            rng.choice((("principals", _PRINCIPALS), ("namespaces", _NAMESPACES), ("serviceAccounts", _ACCOUNTS))),
            ("trustDomains", _TRUST_DOMAINS),
        ]
    for name, values in _some(rng, fields, 2):
        _negatable(rng, source, name, values)
    # istiod: serviceAccounts excludes principals and namespaces; one alternative is drawn above.
    return source


def _condition(rng: random.Random, *, custom: bool) -> Document:
    kinds: list[Callable[[random.Random], tuple[str, Sequence[str]]]] = [
        lambda rng: (f"request.headers[{rng.choice(_HEADER_NAMES)}]", [text for text in _TEXTS if text]),
        lambda rng: (f"request.headers[{rng.choice(_HEADER_NAMES)}]", [text for text in _TEXTS if text]),
        lambda rng: ("source.ip", _BLOCKS),
        lambda rng: ("remote.ip", _BLOCKS),
        lambda rng: ("destination.ip", _BLOCKS),
        lambda rng: ("destination.port", _PORTS),
        lambda rng: ("connection.sni", _SERVER_NAMES),
        lambda rng: (f"experimental.envoy.filters.{rng.choice(_FILTERS)}", _METADATA_TEXTS),
    ]
    if not custom:
        kinds += [
            lambda rng: (f"request.auth.claims{rng.choice(_CLAIM_KEYS)}", _CLAIM_TEXTS),
            lambda rng: (f"request.auth.claims{rng.choice(_CLAIM_KEYS)}", _CLAIM_TEXTS),
            lambda rng: ("request.auth.principal", _request_principals(rng)),
            lambda rng: ("request.auth.audiences", ("api", "x", "*", "https://api.example/")),
            lambda rng: ("request.auth.presenter", ("client", "*", "c*")),
            lambda rng: ("source.namespace", _NAMESPACES),
            lambda rng: ("source.principal", _PRINCIPALS),
            lambda rng: ("source.serviceAccount", _ACCOUNTS),
            lambda rng: ("source.trustDomain", _TRUST_DOMAINS),
        ]
    key, values = rng.choice(kinds)(rng)
    condition: Document = {"key": key}
    for field in rng.choice((("values",), ("values",), ("notValues",), ("values", "notValues"))):
        condition[field] = _some(rng, values)
    return condition
