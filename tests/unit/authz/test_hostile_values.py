"""Values and requests made to be slow: everything takes time in proportion to its length."""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time

import pytest

from extauthz.request import Request

LENGTH = 10_000
LIMIT = 2.0
"""Seconds of processor time for compiling and deciding; hundreds of times what it takes, and a fraction of what
backtracking would."""

STARS = "*a" * (LENGTH // 2)
SEGMENTS = "/{*}" * (LENGTH // 4)
PATH = "/a" * (LENGTH // 2)
PRINCIPAL = "spiffe://t" + "/ns/a" * (LENGTH // 10) + "/sa/b" * (LENGTH // 10)


@pytest.mark.parametrize(
    ("request_", "condition"),
    [
        (Request(path=PATH), {"paths": [STARS]}),
        (Request(path=PATH), {"paths": ["/" + "a*" * (LENGTH // 2)]}),
        (Request(path=PATH), {"paths": [SEGMENTS]}),
        (Request(path=PATH), {"paths": [SEGMENTS + "/{**}/b"]}),
        (Request(path=PATH), {"paths": ["/a/{**}" + "/a" * (LENGTH // 2)]}),
        (Request(path=PATH), {"paths": [PATH[:length] + "*" for length in range(1, LENGTH, 100)]}),
        (Request(path=PATH), {"paths": ["*" + PATH[length:] for length in range(1, LENGTH, 100)]}),
        (Request(host="a" * LENGTH), {"hosts": [STARS, "a*" * LENGTH]}),
        (Request(headers={"x-h": ("a" * LENGTH,) * 10}), {"key": "request.headers[x-h]", "values": [STARS]}),
        (Request(peer_principals=(PRINCIPAL,)), {"namespaces": ["a*" * (LENGTH // 2) + "c"]}),
        (Request(peer_principals=(PRINCIPAL,)), {"namespaces": ["/ns/*" * (LENGTH // 5)]}),
        (Request(peer_principals=(PRINCIPAL,)), {"service_accounts": ["a/c"]}),
        (Request(peer_principals=("spiffe://" + "a" * LENGTH,)), {"trust_domains": ["a*"]}),
        (Request(peer_principals=("spiffe://" + "a" * LENGTH,)), {"principals": [STARS]}),
        (Request(headers={"x-forwarded-for": ("," * LENGTH,)}), {"remote_ip_blocks": ["::/0"]}),
    ],
)
def test_a_long_value_costs_its_length(
    allows: Callable[..., bool], request_: Request, condition: dict[str, list[str]]
) -> None:
    start = thread_time()
    allows(request_, **condition)
    assert thread_time() - start < LIMIT


def test_a_long_request_principal_costs_its_length(allows: Callable[..., bool]) -> None:
    claims = {"iss": "a" * LENGTH, "sub": "/" * LENGTH, "groups": ["a" * LENGTH] * 10}
    start = thread_time()
    allows(claims=claims, request_principals=["*" + "a" * LENGTH + "/*", STARS])
    allows(claims=claims, key="request.auth.claims[groups]", values=[STARS])
    allows(claims=claims, key="request.auth.claims" + "[a]" * LENGTH, values=["x"])
    assert thread_time() - start < LIMIT
