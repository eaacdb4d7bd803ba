"""Values of an AuthorizationPolicy as the matchers that istiod writes for them: text, headers, addresses, metadata.

One function for each kind of value; what a value is compared with is `rbac_filter`'s business.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

from envoy_data_plane.envoy.config.core.v3 import CidrRange
from envoy_data_plane.envoy.config.route.v3 import HeaderMatcher
from envoy_data_plane.envoy.type.matcher.v3 import (
    ListMatcher,
    MetadataMatcher,
    MetadataMatcherPathSegment,
    OrMatcher,
    RegexMatcher,
    StringMatcher,
    ValueMatcher,
)

from extauthz.errors import UsageError

JWT_FILTER = "envoy.filters.http.jwt_authn"

JWT_PAYLOAD = "payload"
"""Key under JWT_FILTER's metadata where Istio has the verified payload put (`payload_in_metadata`)."""

_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")


def quoted(text: str) -> str:
    """Text as an RE2 expression that matches exactly it."""
    return _SPECIAL.sub(lambda special: f"\\{special[0]}", text)


def regex(expression: str) -> StringMatcher:
    """A matcher for an RE2 expression, which has to cover the whole text."""
    return StringMatcher(safe_regex=RegexMatcher(regex=expression))


def not_empty() -> StringMatcher:
    """What a lone `*` becomes: `.+`, which a text with a line feed does not match."""
    return regex(".+")


def text(value: str) -> StringMatcher:
    """`*` not empty, `*x` suffix, `x*` prefix, else exact."""
    return not_empty() if value == "*" else _text(value)


def _text(value: str, *, ignore_case: bool = False) -> StringMatcher:
    if value.startswith("*"):
        return StringMatcher(suffix=value[1:], ignore_case=ignore_case)
    if value.endswith("*"):
        return StringMatcher(prefix=value[:-1], ignore_case=ignore_case)
    return StringMatcher(exact=value, ignore_case=ignore_case)


def spiffe(value: str) -> StringMatcher:
    """`text` of a principal, which policies write without its scheme."""
    if value == "*":
        return not_empty()
    if value.startswith("*"):
        return regex(f"spiffe://.*{quoted(value[1:])}")
    return _text(f"spiffe://{value}")


def header(name: str, value: str, *, ignore_case: bool = False) -> HeaderMatcher:
    """A header's lines against a value; `*` asks for presence alone, so an empty header matches it."""
    if value == "*":
        return HeaderMatcher(name=name, present_match=True)
    return HeaderMatcher(name=name, string_match=_text(value, ignore_case=ignore_case))


def address_range(value: str) -> CidrRange:
    """An address or a block (bits beyond its prefix are ignored). Raises UsageError for anything else."""
    address, slash, length = value.partition("/")
    try:
        parsed = ipaddress.ip_address(address)
        prefix = int(length) if slash else parsed.max_prefixlen
        if not 0 <= prefix <= parsed.max_prefixlen:
            raise ValueError
    except ValueError:
        raise UsageError(f"{value!r} is neither an IP address nor a block of them") from None
    return CidrRange(address_prefix=address, prefix_len=prefix)


def metadata(filter_name: str, path: Sequence[str], value: ValueMatcher) -> MetadataMatcher:
    """Dynamic metadata of a filter at a path of keys."""
    return MetadataMatcher(filter=filter_name, path=[MetadataMatcherPathSegment(key=key) for key in path], value=value)


def any_value(matchers: Sequence[ValueMatcher]) -> ValueMatcher:
    """One matcher for any of several."""
    return matchers[0] if len(matchers) == 1 else ValueMatcher(or_match=OrMatcher(value_matchers=list(matchers)))


def member(value: ValueMatcher) -> ValueMatcher:
    """A list that has a member which matches."""
    return ValueMatcher(list_match=ListMatcher(one_of=value))


def claim(path: Sequence[str], values: Iterable[str]) -> MetadataMatcher:
    """A claim of the verified token (nested names descend): a string, or any string of a list."""
    wanted = any_value([ValueMatcher(string_match=text(value)) for value in values])
    return metadata(JWT_FILTER, [JWT_PAYLOAD, *path], any_value([member(wanted), wanted]))


def claim_text(name: str, value: StringMatcher) -> MetadataMatcher:
    """A top-level claim of the verified token that is a string."""
    return metadata(JWT_FILTER, [JWT_PAYLOAD, name], ValueMatcher(string_match=value))
