"""Where one rule looks for tokens (`fromHeaders`, `fromParams`, `fromCookies`), and what it finds there in a request.

Order matters: headers sorted by name and prefix run together, then parameters, then cookies, each by their bytes.
Policy text is brought to wire text here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from extauthz.authn import cookies, query
from extauthz.authn.live_request import LiveRequest
from extauthz.istio.resources import JwtRule
from extauthz.request import wire_text

DEFAULT_HEADER: Final = ("authorization", "Bearer ")
DEFAULT_PARAMETER: Final = "access_token"

_START_OF_TOKEN: Final = re.compile(r"[A-Za-z0-9_.-]")


class Place(StrEnum):
    """The kinds of place that a token can be in."""

    HEADER = "header"
    PARAMETER = "parameter"
    COOKIE = "cookie"


class Found(NamedTuple):
    """A token that a request carries, or what stands where one should: its text, and the name of its place."""

    text: str
    place: Place
    name: str


@dataclass(frozen=True, slots=True)
class Locations:
    """The places of one rule: (header, prefix) pairs, parameter names, cookie names, in the order of looking."""

    headers: tuple[tuple[str, str], ...]
    parameters: tuple[str, ...]
    cookies: tuple[str, ...]

    @classmethod
    def of(cls, rule: JwtRule) -> Locations:
        """The places of a rule; the defaults count only when it names none of any kind."""
        if not (rule.from_headers or rule.from_params or rule.from_cookies):
            return cls((DEFAULT_HEADER,), (DEFAULT_PARAMETER,), ())
        headers: dict[str, tuple[str, str]] = {}
        for header in rule.from_headers:
            name, prefix = header_name(header.name), wire_text(header.prefix)
            # Envoy's key is name and prefix run together: of two that make the same text the first counts.
            headers.setdefault(name + prefix, (name, prefix))
        return cls(
            tuple(headers[key] for key in sorted(headers)),
            _sorted_texts(rule.from_params),
            _sorted_texts(rule.from_cookies),
        )

    def find(self, request: LiveRequest) -> list[Found]:
        """Every token in the request at these places, in their order."""
        found: list[Found] = []
        for name, prefix in self.headers:
            for line in request.lines(name):
                token = after_prefix(line, prefix) if prefix else line
                if token is not None:
                    found.append(Found(token, Place.HEADER, name))
        if self.parameters and "?" in request.path:
            values: dict[str, str] = {}
            for name, value in query.read(request.path):
                values.setdefault(name, value)
            found += [Found(values[name], Place.PARAMETER, name) for name in self.parameters if name in values]
        if self.cookies and (lines := request.lines("cookie")):
            values = cookies.read(lines, self.cookies)
            found += [Found(values[name], Place.COOKIE, name) for name in self.cookies if name in values]
        return found


def header_name(name: str) -> str:
    """A header's name as requests hold it: wire text in lower case (ASCII only, as in Envoy)."""
    return name.encode().lower().decode("latin-1")


def after_prefix(line: str, prefix: str) -> str | None:
    """The token behind a prefix, which may stand anywhere in the line; None without the prefix.

    Characters that begin no token are skipped. When nothing is left, the whole line is taken for the token.
    """
    at = line.find(prefix)
    if at < 0:
        return None
    at += len(prefix)
    if line.startswith("e", at):
        # A JSON object in base64url (`eyJ...`), as it mostly is: nothing to search.
        return line[at:]
    start = _START_OF_TOKEN.search(line, at)
    return line[start.start() :] if start else line


def _sorted_texts(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({wire_text(text) for text in texts}))
