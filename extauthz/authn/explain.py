"""Why authentication came out as it did: where tokens were found, which checks each passed, and which one it failed.

Data for people and programs to print. It comes from the very walk that decides, which tells each step to an observer.
A token's text is in it only where somebody asks for it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from extauthz.authn import jws
from extauthz.authn.authenticator import Authentication, Authenticator
from extauthz.authn.limits import CLOCK_SKEW
from extauthz.authn.locations import Found, Place
from extauthz.authn.provider import Finding, Provider
from extauthz.authn.statuses import Status
from extauthz.request import Request


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a token: its name, whether it passed, and what was seen and wanted."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class TokenReport:
    """One token under one rule. `rule` is Istio's provider name (`origins-0`), `place` says where the token was."""

    rule: str
    issuer: str
    place: str
    checks: tuple[Check, ...]
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RuleReport:
    """One rule's turn: the places where it looked, and how many tokens it found there."""

    rule: str
    issuer: str
    places: tuple[str, ...]
    found: int


@dataclass(frozen=True, slots=True)
class AuthenticationExplanation:
    """What authentication made of a request, and how. `rules` and `tokens` are in the order of the walk."""

    authentication: Authentication
    rules: tuple[RuleReport, ...]
    tokens: tuple[TokenReport, ...]


def explain(authenticator: Authenticator, request: Request, now: float) -> AuthenticationExplanation:
    """Why `authenticator.authenticate` answers this request as it does at the time `now` (Unix seconds)."""
    notes = _Notes(now)
    authentication = authenticator.work_out(request, now, notes)
    return AuthenticationExplanation(authentication, tuple(notes.rules), tuple(notes.tokens))


class _Notes:
    """The observer of one walk."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.rules: list[RuleReport] = []
        self.tokens: list[TokenReport] = []

    def looked(self, provider: Provider, found: Sequence[Found]) -> None:
        self.rules.append(RuleReport(provider.name, provider.issuer, tuple(_places(provider)), len(found)))

    def examined(self, provider: Provider, found: Found, finding: Finding) -> None:
        place = f"{found.place} {found.name}"
        checks = tuple(_checks(provider, found, finding, self.now))
        self.tokens.append(TokenReport(provider.name, provider.issuer, place, checks, found.text))


def _places(provider: Provider) -> Iterator[str]:
    for name, prefix in provider.locations.headers:
        yield f"header {name} after {prefix!r}" if prefix else f"header {name}"
    for name in provider.locations.parameters:
        yield f"{Place.PARAMETER} {name}"
    for name in provider.locations.cookies:
        yield f"{Place.COOKIE} {name}"


_ORDER: Final = ("form", "header", "payload", "signature encoding", "issuer", "times", "audience", "key", "signature")

_FAILS: Final = {
    Status.FORM: "form",
    Status.SIGNATURE_BASE64: "signature encoding",
    Status.ISSUER_UNKNOWN: "issuer",
    Status.NOT_YET_VALID: "times",
    Status.EXPIRED: "times",
    Status.AUDIENCE_NOT_ALLOWED: "audience",
    Status.NO_VALID_KEYS: "key",
    Status.NO_MATCHING_KEY: "key",
    Status.ED25519_LENGTH: "signature",
    Status.VERIFICATION_FAILS: "signature",
}


def _checks(provider: Provider, found: Found, finding: Finding, now: float) -> Iterator[Check]:
    """The checks in Envoy's order, up to and including the first that failed."""
    failed = "" if finding.status is None else _FAILS.get(finding.status, _by_text(finding.status))
    for name in _ORDER:
        if name == failed and finding.status is not None:
            wanted = _detail(name, provider, finding.token, now)
            yield Check(name, False, f"{finding.status.value}{f': {wanted}' if wanted else ''}")
            return
        if name == "audience" and not provider.audiences:
            continue
        yield Check(name, True, _detail(name, provider, finding.token, now))


def _by_text(status: Status) -> str:
    return "header" if status.value.startswith("Jwt header") else "payload"


def _detail(name: str, provider: Provider, token: jws.Jws | None, now: float) -> str:
    if token is None:
        return ""
    if name == "header":
        return f"alg {token.algorithm}, " + (f"kid {token.key_id}" if token.key_id else "no kid")
    if name == "issuer":
        return f"token has {token.issuer!r}, rule has {provider.issuer!r}" if provider.issuer else "the rule names none"
    if name == "times":
        parts = [f"nbf {_moment(token.not_before)}"] if token.not_before else []
        parts.append(f"exp {_moment(token.expires)}" if token.expires else "no exp")
        return f"{', '.join(parts)}, now {_moment(int(now))}, skew {CLOCK_SKEW} s"
    if name == "audience":
        return f"token has {list(token.audiences)}, rule has {sorted(provider.audiences)}"
    if name == "key":
        keys = provider.source.key_set.keys
        return "the rule has " + ", ".join(
            f"{key.description} ({f'kid {key.kid}' if key.kid else 'no kid'})" for key in keys
        )
    return ""


def _moment(seconds: int) -> str:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(seconds)
