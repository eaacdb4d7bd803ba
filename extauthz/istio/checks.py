"""Whether single values are well formed: addresses, ports, names, URLs, path templates, keys of conditions.

Each function gives what is wrong with a value, in words that say what to write instead, or nothing. Go's readers decide
(`net/netip`, `net/url`, `strconv`), and Envoy where it takes less than istiod lets pass.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import urlsplit

MAX_PORT = 65535
MAX_URI_CHARACTERS = 2048
MAX_DOMAIN_CHARACTERS = 255
MAX_SHOWN = 60

_DIGITS = re.compile(r"[0-9]{1,10}")
_PREFIX_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")
_DNS_LABEL = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?")
_WILDCARD_LABEL = re.compile(r"\*|(\*-?)?[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?")
_URI_CHARACTERS = re.compile(r"[\x21-\x7e\x80-\U0010ffff]+")
_BAD_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})")
_LITERAL = re.compile(r"[a-zA-Z0-9\-._~%!$&'()+,;:@=]+")

_ONE_SEGMENT, _REST = "{*}", "{**}"
_CLAIMS, _HEADERS, _METADATA = "request.auth.claims", "request.headers", "experimental.envoy.filters."
PLAIN_KEYS = (
    "source.ip", "source.namespace", "source.principal", "source.serviceAccount", "source.trustDomain", "remote.ip",
    "request.auth.principal", "request.auth.audiences", "request.auth.presenter", "destination.ip", "destination.port",
    "connection.sni",
)  # fmt: skip
"""The keys of conditions that are names; the others hold a name in brackets."""

_KEYS_OF_OLD = {
    "destination.namespace": "the policy's own namespace says this",
    "destination.name": "only an older Istio knew it; use a selector",
    "destination.user": "only an older Istio knew it; use a selector",
}


def shown(value: str) -> str:
    """A value in quotes, cut when it is long."""
    return repr(value) if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]!r}..."


def ip_block(value: str) -> str:
    """An IP address or CIDR block; bits beyond the length do not matter."""
    address, slash, length = value.partition("/")
    parse = IPv6Address if ":" in address else IPv4Address
    try:
        bits = parse(address).max_prefixlen if "%" not in address else 0
    except (AddressValueError, ValueError):
        bits = 0
    if not bits:
        several = "," in value or " " in value.strip()
        hint = "write an entry for each" if several else "write one such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32"
        return f"{shown(value)} is no IP address or CIDR block; {hint}"
    if slash and (not _PREFIX_LENGTH.fullmatch(length) or int(length) > bits):
        return f"{shown(value)} is no CIDR block: the prefix length is a number from 0 to {bits}"
    return ""


def port_text(value: str) -> str:
    """A port as text."""
    if _DIGITS.fullmatch(value) and int(value) <= MAX_PORT:
        return ""
    return f"{shown(value)} is no port: write a number from 0 to {MAX_PORT}"


def port_number(value: int) -> str:
    """A port as a number; 0 is none."""
    return "" if 1 <= value <= MAX_PORT else f"{value} is no port: write a number from 1 to {MAX_PORT}"


def dns_name(value: str, *, wildcard: bool = False) -> str:
    """A domain name, with `wildcard` one whose first label may be or begin with `*`."""
    if not value or len(value) > MAX_DOMAIN_CHARACTERS:
        return f"a host name has 1 to {MAX_DOMAIN_CHARACTERS} characters"
    first, *others = value.split(".")
    if others and not others[-1]:
        others.pop()
    good = (_WILDCARD_LABEL if wildcard else _DNS_LABEL).fullmatch(first) and all(map(_DNS_LABEL.fullmatch, others))
    if not good or (others or [first])[-1].isdigit():
        return f"{shown(value)} is no host name"
    return ""


def is_ip_address(value: str) -> bool:
    """Whether a text is a single IP address."""
    return "/" not in value and not ip_block(value)


def http_url(value: str) -> str:
    """A URL that keys can be fetched from."""
    if len(value) > MAX_URI_CHARACTERS:
        return f"a URL has at most {MAX_URI_CHARACTERS} characters here"
    if not _URI_CHARACTERS.fullmatch(value) or _BAD_PERCENT.search(value):
        return f"{shown(value)} is no URL: blanks, control characters and a lone `%` must be percent-encoded"
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        return f"{shown(value)} is no URL: {error}"
    if parts.scheme not in ("http", "https"):
        found = f"scheme {parts.scheme!r}" if parts.scheme else "no scheme"
        return f"{shown(value)} has {found}: write http:// or https://"
    if not parts.hostname:
        return f"{shown(value)} names no host"
    return port_number(port) if port is not None else ""


def service_account(value: str) -> str:
    """`ACCOUNT` or `NAMESPACE/ACCOUNT`."""
    if "*" in value:
        return f"{shown(value)}: `*` is not possible for a service account"
    if value.count("/") > 1 or value.startswith("/") or value.endswith("/"):
        return f"{shown(value)} is no service account: write ACCOUNT or NAMESPACE/ACCOUNT"
    return f"{shown(value)} is longer than 320 characters" if len(value) > 320 else ""


def one_star(value: str) -> str:
    """A pattern of a trust domain: at most one `*`, at one end."""
    if value.count("*") > 1 or "*" in value[1:-1]:
        return f"{shown(value)}: one `*` is possible, at the beginning or the end"
    return ""


def one_line(value: str) -> str:
    """A text that becomes part of a regular expression in Istio, where a line feed never matches."""
    return f"{shown(value)}: a line feed is not possible here" if "\n" in value else ""


def trust_domain(value: str) -> str:
    """A value of `trustDomains`."""
    return f"{shown(value)}: a trust domain has no `/`" if "/" in value else one_star(value)


def is_template(path: str) -> bool:
    """Whether a value of `paths` is a path template."""
    return _ONE_SEGMENT in path or _REST in path


def path(value: str) -> str:
    """A value of `paths`: its braces, and its other characters when it is a template.

    Beyond istiod's checks: a template that does not begin with `/`, or with an empty segment, ends Envoy 1.40.
    """
    if "{" not in value and "}" not in value:
        return ""
    if not is_template(value):
        return f"{shown(value)}: braces are possible only as {{*}} (one segment) and {{**}} (any number of segments)"
    if not value.startswith("/"):
        return f"{shown(value)}: a path template begins with `/`"
    segments = value[1:].split("/")
    if "" in segments[:-1]:
        return f"{shown(value)}: a path template has no empty segments (`//`)"
    for index, segment in enumerate(segments):
        if segment in (_ONE_SEGMENT, _REST):
            if _REST in segments[:index]:
                return f"{shown(value)}: {{**}} must be the last variable of a path template"
        elif "{" in segment or "}" in segment:
            return f"{shown(value)}: {{*}} and {{**}} must stand alone between slashes"
        elif "*" in segment:
            return f"{shown(value)}: no `*` is possible beside {{*}} and {{**}}; they take its place"
        elif segment and not _LITERAL.fullmatch(segment):
            return f"{shown(value)}: {segment!r} has a character that a path template cannot hold; percent-encode it"
    return ""


def condition_key(key: str) -> str:
    """The key of a `when` entry.

    Beyond istiod's checks, which look at the beginning and the brackets only: what Istio would then drop with the rule,
    or widen a DENY by, and empty names, on which Envoy refuses the whole filter.
    """
    if not key:
        return "name a key, such as request.headers[NAME] or request.auth.claims[NAME]"
    if key in PLAIN_KEYS:
        return ""
    for start, form in ((_CLAIMS, "[NAME] or [NAME][NAME]"), (_HEADERS, "[NAME]"), (_METADATA, "FILTER[NAME]")):
        if key.startswith(start):
            return _bracketed(key, start, form)
    if key in _KEYS_OF_OLD or key.startswith("destination.labels"):
        return f"{shown(key)} is no key: {_KEYS_OF_OLD.get(key, 'use the selector')}"
    return f"unknown key {shown(key)}"


def _bracketed(key: str, start: str, form: str) -> str:
    rest = key.removeprefix(start)
    opening = rest.find("[")
    filter_name_there = opening > 0 if start == _METADATA else opening == 0
    if not filter_name_there or not rest.endswith("]") or len(rest) - opening < len("[]") + 1:
        return f"{shown(key)} must have the form {start}{form}"
    if "[]" in rest and start == _CLAIMS:
        return f"{shown(key)} has an empty name in brackets"
    if start == _HEADERS and any(mark in rest for mark in "\0\r\n"):
        return f"{shown(key)}: the name of a header has no line breaks"
    return ""
