"""One `jwtRules` entry, compiled: whether a token is good under it, for how long that holds, and what a good one does.

What a token is found to be depends on the token, the time and the keys, so a `Finding` says in which span of time and
under which key set it stays what it is. That is what makes it safe to remember.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from extauthz.authn import jws
from extauthz.authn.keys import KeySet, KeySource, RefreshableKeySource
from extauthz.authn.limits import CLOCK_SKEW, MAX_KNOWN_HEADER_CHARACTERS, MAX_KNOWN_HEADERS
from extauthz.authn.live_request import LiveRequest
from extauthz.authn.locations import Found, Locations, Place, header_name
from extauthz.authn.outputs import ALWAYS_SPACE_DELIMITED, claim_value, header_value, split_claims
from extauthz.authn.statuses import Status
from extauthz.istio.resources import JwtRule

ALWAYS: Final = (float("-inf"), float("inf"))


class Finding(NamedTuple):
    """What one token is under one rule.

    `status` is None for a good one. It holds while `begin <= now < end` and, unless `key_set` is None, while the rule's
    keys are that very set. `token` is None when the text could not be read.
    """

    status: Status | None
    token: jws.Jws | None
    begin: float
    end: float
    key_set: KeySet | None


class Provider:
    """A rule, its keys and its place among the others (`name` is Istio's: `origins-0`, ...)."""

    __slots__ = (
        "algorithms",
        "audiences",
        "claim_headers",
        "forwards_token",
        "issuer",
        "known_headers",
        "locations",
        "name",
        "note_missing_key",
        "output_headers",
        "payload_header",
        "rsa_only",
        "rule",
        "source",
        "split",
    )

    def __init__(self, name: str, rule: JwtRule, source: KeySource, *, rsa_only: bool = False) -> None:
        self.name = name
        self.rule = rule
        self.source = source
        self.rsa_only = rsa_only
        self.algorithms = jws.RSA_ALGORITHMS if rsa_only else jws.ALGORITHMS
        self.issuer = rule.issuer
        self.audiences = frozenset(map(bare_audience, rule.audiences))
        self.locations = Locations.of(rule)
        self.payload_header = header_name(rule.output_payload_to_header)
        self.claim_headers = tuple(
            (header_name(output.header), tuple(output.claim.split("."))) for output in rule.output_claim_to_headers
        )
        names = (self.payload_header, *(header for header, _ in self.claim_headers))
        self.output_headers = tuple(dict.fromkeys(header for header in names if header))
        self.forwards_token = rule.forward_original_token
        self.split = tuple(dict.fromkeys((*ALWAYS_SPACE_DELIMITED, *rule.space_delimited_claims)))
        self.known_headers: jws.Headers = {}
        """What header sections of tokens that verified say; see `jws.parse_again`."""
        self.note_missing_key = source.note_missing_key if isinstance(source, RefreshableKeySource) else None

    def examine(self, text: str, now: float) -> Finding:
        """What a token (wire text) is at the time `now` in Unix seconds: form, issuer, times, audience, signature."""
        try:
            token = jws.parse_again(text, self.algorithms, self.known_headers)
        except jws.InvalidToken as error:
            return Finding(error.status, None, *ALWAYS, None)
        if self.issuer and token.issuer != self.issuer:
            return Finding(Status.ISSUER_UNKNOWN, token, *ALWAYS, None)
        # Envoy compares whole seconds: now + skew < nbf, and now > exp + skew; an exp of 0 is none.
        begin = token.not_before - CLOCK_SKEW
        end = token.expires + CLOCK_SKEW + 1 if token.expires else ALWAYS[1]
        if now < begin:
            return Finding(Status.NOT_YET_VALID, token, ALWAYS[0], begin, None)
        if now >= end:
            return Finding(Status.EXPIRED, token, max(begin, end), ALWAYS[1], None)
        if self.audiences and self.audiences.isdisjoint(map(bare_audience, token.audiences)):
            return Finding(Status.AUDIENCE_NOT_ALLOWED, token, begin, end, None)
        key_set = self.source.key_set
        status = key_set.verify(
            token.algorithm, token.key_id, token.signed, token.signature, rsa_only=self.rsa_only
        )  # fmt: skip
        if status is None:
            if token.header not in self.known_headers:
                self._keep_header(token)
        elif status is Status.NO_MATCHING_KEY and self.note_missing_key is not None:
            # Not to be remembered: each such token is a reason to look for newer keys, and no signature was checked.
            self.note_missing_key()
            end = now
        return Finding(status, token, begin, end, key_set)

    def _keep_header(self, token: jws.Jws) -> None:
        """Remember what the header of a token says. It verified, so nobody but the issuer can fill this memory."""
        if len(token.header) <= MAX_KNOWN_HEADER_CHARACTERS:
            if len(self.known_headers) >= MAX_KNOWN_HEADERS:
                self.known_headers.clear()
            self.known_headers[token.header] = token.algorithm, token.key_id

    def apply(self, request: LiveRequest, found: Found, token: jws.Jws) -> None:
        """Do to the request what a good token does: write the output headers, then take the token away."""
        if self.payload_header:
            request.add(self.payload_header, token.payload)
        for header, path in self.claim_headers:
            value = header_value(claim_value(token.claims, path))
            if value:
                request.add(header, value)
        if self.forwards_token:
            return
        if found.place is Place.HEADER:
            request.remove(found.name)
        elif found.place is Place.PARAMETER:
            request.remove_parameter(found.name)

    def claims(self, token: jws.Jws) -> dict[str, Any]:
        """The payload as policies read it: blank-separated claims split."""
        return split_claims(token.claims, self.split)


def bare_audience(audience: str) -> str:
    """What Envoy compares of an audience: less `http://` or `https://` in front and one `/` behind."""
    return audience.removeprefix("https://" if audience.startswith("https://") else "http://").removesuffix("/")


def compile_providers(rules: Iterable[tuple[JwtRule, KeySource]], *, rsa_only: bool = False) -> tuple[Provider, ...]:
    """Istio's providers of a workload: all rules that apply, sorted by issuer in byte order."""
    by_issuer = sorted(rules, key=lambda entry: entry[0].issuer.encode())
    return tuple(
        Provider(f"origins-{index}", rule, source, rsa_only=rsa_only) for index, (rule, source) in enumerate(by_issuer)
    )
