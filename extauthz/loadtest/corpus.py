"""What is sent: requests from options or a file, and tokens put into them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from extauthz.errors import UsageError
from extauthz.loadtest.tokens import GOOD, TokenGroup
from extauthz.mesh.verify.probe import Probe

MOST_PAYLOADS = 20_000
"""Where every request with every token would be more, each token is combined with its share of the requests only (but
with one at least), so that memory stays bounded and tokens keep their popularity."""


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """The header that carries a token, and what stands before it."""

    header: str = "authorization"
    prefix: str = "Bearer "

    @classmethod
    def parse(cls, text: str) -> TokenPlace:
        """Read `--token-header 'NAME: PREFIX'`. Raises UsageError."""
        name, colon, prefix = text.partition(":")
        if not name.strip() or (colon and not prefix.strip()):
            raise UsageError(f"--token-header {text!r}: write NAME, or 'NAME: PREFIX' as in 'authorization: Bearer'")
        prefix = prefix.strip()
        return cls(name.strip().lower(), f"{prefix} " if prefix else "")

    def put(self, probe: Probe, token: str) -> Probe:
        """The request with this token instead of what the header had; unchanged for no token."""
        if not token:
            return probe
        kept = tuple(line for line in probe.headers if line[0].lower() != self.header)
        return replace(probe, headers=(*kept, (self.header, self.prefix + token)))


def parse_headers(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Read `--header 'name: value'`, repeatable. Raises UsageError."""
    headers = []
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise UsageError(f"--header {text!r}: write 'name: value'")
        headers.append((name.strip(), value.strip().encode("utf-8", "surrogateescape").decode("latin-1")))
    return tuple(headers)


def single_request(method: str, target: str, host: str, headers: Sequence[tuple[str, str]]) -> Probe:
    """The request that `--method`, `--path` and `--header` describe; a header `host` names the host."""
    named = next((value for name, value in headers if name.lower() == "host"), host)
    others = tuple((name, value) for name, value in headers if name.lower() != "host")
    return Probe(method=method, target=target, headers=others, host=named)


def requests_from_file(path: Path, headers: Sequence[tuple[str, str]]) -> tuple[Probe, ...]:
    """The requests of a corpus in the format of `verify` (JSON lines), each with `headers` added. Raises UsageError."""
    # What reads cases brings Envoy's whole API along, which takes seconds.
    from extauthz.mesh.verify.casefile import read_requests

    probes = tuple(case.probe for case in read_requests(path))
    if not probes:
        raise UsageError(f"--requests {path}: no request in it; write one JSON object a line")
    return tuple(replace(probe, headers=(*probe.headers, *headers)) for probe in probes)


@dataclass(frozen=True, slots=True)
class Combination:
    """One request with one token in it, and how often it is sent (all add up to 1)."""

    probe: Probe
    weight: float
    token_kind: str


def combine(
    probes: Sequence[Probe],
    groups: Sequence[TokenGroup],
    place: TokenPlace,
    zipf: float,
    fitting: Callable[[int], str] = lambda index: "",
) -> Iterator[Combination]:
    """Every request with every token, or as many as `MOST_PAYLOADS` allows.

    `fitting` gives the token that a request (by its index) takes instead of any good one; empty for most requests.
    """
    tokens = sum(len(group.tokens) for group in groups)
    variants = min(len(probes), max(MOST_PAYLOADS // tokens, 1))
    turn = 0
    for group in groups:
        for token, weight in zip(group.tokens, group.weights(zipf).tolist(), strict=True):
            for _ in range(variants):
                index = turn % len(probes)
                turn += 1
                own = fitting(index) if group.kind == GOOD else ""
                yield Combination(place.put(probes[index], own or token), weight / variants, group.kind)
