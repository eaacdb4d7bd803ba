"""Values of an AuthorizationPolicy that are accepted and do not do what they look like, and what to write instead.

One function a field; each gives (code, sentence) for what is odd about a value.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping

Finding = tuple[str, str]
Check = Callable[[str], Iterator[Finding]]

_METHOD = re.compile(r"[a-z]")
_NOT_IN_A_PATH = re.compile(r"""["<>^`{|}\x00-\x20\x7f-\U0010ffff]""")
_PERCENT_CODE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def stars(value: str) -> Iterator[Finding]:
    """`*` means something only at one end."""
    if value == "*":
        return
    inner = value.removeprefix("*") if value.startswith("*") else value.removesuffix("*")
    if value.startswith("*") and value.endswith("*") and len(value) > 1:
        yield "literal-star", f"{value!r} is the suffix {value[1:]!r}: the `*` at its end stands for itself"
    elif "*" in inner:
        yield "literal-star", f"a `*` inside {value!r} stands for itself; only one at either end is a pattern"


def path(value: str) -> Iterator[Finding]:
    """A value of `paths`."""
    template = "{*}" in value or "{**}" in value
    if template:
        return
    yield from stars(value)
    for mark, name in (("?", "query"), ("#", "fragment")):
        if mark in value:
            text = f"{value!r} never matches: paths are compared without {name}"
            yield "never-matches", f"{text}; write {value[: value.index(mark)]!r}, or test request.headers[:path]"
    if ".*" in value or value.startswith("^") or value.endswith("$"):
        yield "regular-expression", f"{value!r} is no regular expression: write a prefix (`/a*`), suffix or template"
    if not value.startswith(("/", "*")):
        yield "never-matches", f"{value!r} never matches: every path begins with `/`"
    if _NOT_IN_A_PATH.search(value):
        yield (
            "never-matches",
            f"{value!r} never matches: Envoy escapes or refuses such characters before policies see them",
        )
    for code in _PERCENT_CODE.findall(value):
        character = chr(int(code, 16))
        if character in _UNRESERVED:
            text = f"{value!r} never matches: %{code} reaches policies as {character!r}"
            yield "never-matches", f"{text}; write {value.replace('%' + code, character)!r}"
    if re.search(r"/\.\.?(/|$)", value) or "\\" in value:
        yield (
            "never-matches",
            f"{value!r} never matches: dot segments and backslashes are resolved before policies see them",
        )


def method(value: str) -> Iterator[Finding]:
    """A value of `methods`."""
    yield from stars(value)
    if _METHOD.search(value):
        yield "never-matches", f"methods are case-sensitive: write {value.upper()!r}"


def host(value: str) -> Iterator[Finding]:
    """A value of `hosts`."""
    yield from stars(value)
    if "/" in value or "://" in value:
        yield "never-matches", f"{value!r} never matches: write host or host:port, without scheme and path"


def port(value: str) -> Iterator[Finding]:
    """A value of `ports`."""
    if value == "0":
        yield "never-matches", "no connection comes to port 0"


def request_principal(value: str) -> Iterator[Finding]:
    """A value of `requestPrincipals`: split at its last slash into issuer and subject."""
    if value == "*":
        return
    yield from stars(value)
    issuer, slash, subject = value.rpartition("/")
    if value.endswith("*") and issuer.endswith(("http:/", "https:/")):
        text = f"{value!r} never matches: it is the issuer {issuer!r} and a subject that begins with {subject[:-1]!r}"
        yield "never-matches", f"{text}; write ISSUER/* for any subject of an issuer"
    elif not slash and not value.startswith("*") and not value.endswith("*"):
        yield (
            "never-matches",
            f"{value!r} has no slash: it matches only that issuer with an empty subject; write ISSUER/SUBJECT",
        )


def principal(value: str) -> Iterator[Finding]:
    """A value of `principals`: Istio writes `spiffe://` before it."""
    yield from stars(value)
    bare = value.removeprefix("spiffe://")
    if bare != value:
        yield "never-matches", f"{value!r} never matches: principals are written without spiffe://; write {bare!r}"


def server_name(value: str) -> Iterator[Finding]:
    """A value of connection.sni."""
    if value != value.lower():
        yield "never-matches", f"Envoy lowers the case of server names: write {value.lower()!r}"


def header_value(value: str) -> Iterator[Finding]:
    """A value of request.headers[...]."""
    yield from stars(value)
    if "/" in value:
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            return
        yield "cidr-as-text", f"a header is compared as text: {value!r} is no address range here; use remoteIpBlocks"


FIELDS: Mapping[str, Check] = {
    "hosts": host,
    "methods": method,
    "paths": path,
    "ports": port,
    "request_principals": request_principal,
    "principals": principal,
}
"""What to look at, by field of a source or operation; their `not` forms likewise."""

KEYS: Mapping[str, Check] = {
    "request.auth.principal": request_principal,
    "connection.sni": server_name,
    "source.principal": principal,
    "destination.port": port,
}
"""The same by key of a condition; request.headers[...] and request.auth.claims[...] are looked at by their prefix."""
