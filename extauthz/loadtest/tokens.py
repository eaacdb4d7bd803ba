"""The tokens of a load test: read from a file or minted, good ones and others in given shares, and how popular each is.

A group is a share of all requests whose tokens are of one kind; within a group tokens are drawn by Zipf's law. The
group of absent tokens has one member, the empty text.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from extauthz.broken_tokens import BROKEN_TOKENS, broken_token
from extauthz.errors import UsageError
from extauthz.loadtest.outcomes import Floats
from extauthz.minting import ALGORITHMS, SigningKey

GOOD = "good"
NONE = "none"
BAD = "bad"
"""Short for `signature`: good but for its signature."""

_OTHERS_PER_GOOD = 10
_MOST_OTHERS = 1000
_MINTED_LIFETIME = 24 * 3600.0
_GOLDEN = 0.6180339887498949
_NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TokenGroup:
    """Tokens of one kind (`good`, `none`, or a kind of `broken_tokens`) and the share of requests that carry one."""

    kind: str
    share: float
    tokens: tuple[str, ...] = field(repr=False)

    def weights(self, zipf: float) -> Floats:
        """How often each token is drawn, adding up to the group's share: the n-th as 1 / n**zipf."""
        weights: Floats = np.arange(1, len(self.tokens) + 1, dtype=np.float64) ** -zipf
        weights *= self.share / weights.sum()
        return weights


NO_TOKENS = (TokenGroup(NONE, 1.0, ("",)),)


def parse_shares(text: str, option: str, known: Sequence[str]) -> dict[str, float]:
    """Read `good=90,expired=5,none=5` into shares that add up to 1. A single name alone has all. Raises UsageError."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = part.strip().partition("=")
        if name not in known:
            raise UsageError(f"{option} {text!r}: {name!r} is not known; use {', '.join(known)}")
        try:
            shares[name] = float(number) if equals else 1.0
        except ValueError:
            raise UsageError(f"{option} {text!r}: {number!r} is not a number") from None
    whole = sum(shares.values())
    if whole <= 0 or min(shares.values()) < 0:
        raise UsageError(f"{option} {text!r}: shares must not be negative, and not all 0")
    return {name: share / whole for name, share in shares.items() if share}


def parse_mix(text: str) -> dict[str, float]:
    """Read `--mix`: the share of each kind of token. Raises UsageError."""
    return parse_shares(text, "--mix", (GOOD, NONE, BAD, *BROKEN_TOKENS))


def parse_algorithms(text: str) -> dict[str, float]:
    """Read `--alg`: the share of each algorithm among minted tokens. Raises UsageError."""
    return parse_shares(text, "--alg", ALGORITHMS)


def parse_claim(text: str) -> tuple[str, Any]:
    """Read `--claim NAME=VALUE`, where VALUE is JSON or plain text. Raises UsageError."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--claim {text!r}: write NAME=VALUE, where VALUE is JSON or plain text")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def read_tokens(path: Path, mix: Mapping[str, float]) -> tuple[TokenGroup, ...]:
    """The tokens of a file, one a line; blank lines and those that begin with # do not count. Raises UsageError."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="latin-1").splitlines()]
    except OSError as error:
        raise UsageError(f"--tokens {path}: {error.strerror}") from None
    tokens = tuple(line for line in lines if line and not line.startswith("#"))
    if not tokens:
        raise UsageError(f"--tokens {path}: no token in it; write one a line")
    others = mix.keys() - {GOOD, NONE}
    if others:
        raise UsageError(f"--mix: {', '.join(sorted(others))} can only be minted: use --mint instead of --tokens")
    return tuple(TokenGroup(kind, share, tokens if kind == GOOD else ("",)) for kind, share in mix.items())


@dataclass(frozen=True, slots=True)
class Mint:
    """What to mint: `count` good tokens with these claims (and a `sub` of their own each), signed by `keys`.

    `keys` are pairs of a key and the share of tokens that it signs.
    """

    count: int
    keys: Sequence[tuple[SigningKey, float]] = field(repr=False)
    claims: Mapping[str, Any] = field(default_factory=dict)

    def groups(
        self, mix: Mapping[str, float], progress: Callable[[int, int], None] | None = None
    ) -> tuple[TokenGroup, ...]:
        """Mint tokens of every kind of `mix`. Of each broken kind there are a tenth as many, at most 1,000.

        `progress` is told how many of how many are made.
        """
        others = min(max(self.count // _OTHERS_PER_GOOD, 1), _MOST_OTHERS)
        counts = {kind: {NONE: 0, GOOD: self.count}.get(kind, others) for kind in mix}
        whole, made = sum(counts.values()), 0
        groups = []
        for kind, share in mix.items():
            tokens = []
            for number, key in enumerate(self._signers(counts[kind])):
                tokens.append(self._token(kind, number, key))
                made += 1
                if progress is not None:
                    progress(made, whole)
            groups.append(TokenGroup(kind, share, tuple(tokens) or ("",)))
        return tuple(groups)

    def fitting(self, number: int, claims: Mapping[str, Any]) -> str:
        """A good token that has these claims as well; tokens of different numbers come from all keys in turn."""
        shares = [share for _, share in self.keys]
        # The golden ratio's multiples lie evenly, however many of them are taken.
        place = number * _GOLDEN % 1.0 * sum(shares)
        ends = accumulate(shares)
        key = next((key for (key, _), end in zip(self.keys, ends, strict=True) if place < end), self.keys[-1][0])
        return self._token(GOOD, number, key, claims)

    def _signers(self, count: int) -> list[SigningKey]:
        """Whose turn it is for each of `count` tokens: spread evenly, so that popular ones come from every key."""
        owed = [0.0] * len(self.keys)
        turns = []
        for _ in range(count):
            owed = [before + share for before, (_, share) in zip(owed, self.keys, strict=True)]
            turn = owed.index(max(owed))
            owed[turn] -= 1.0
            turns.append(self.keys[turn][0])
        return turns

    def _token(self, kind: str, number: int, key: SigningKey, wanted: Mapping[str, Any] = _NO_CLAIMS) -> str:
        now = int(time.time())
        claims = {"sub": f"user-{number}", "iat": now, "exp": now + int(_MINTED_LIFETIME), **self.claims, **wanted}
        if kind == GOOD:
            return key.token(claims)
        return broken_token("signature" if kind == BAD else kind, key, claims)
