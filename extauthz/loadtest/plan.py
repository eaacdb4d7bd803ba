"""A load test as it was asked for, every option read and checked, and everything that is to be sent laid out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from extauthz.errors import UsageError
from extauthz.istio.load import load
from extauthz.loadtest import sender_native
from extauthz.loadtest.arrivals import ArrivalKind, parse_rates
from extauthz.loadtest.corpus import (
    TokenPlace,
    combine,
    parse_headers,
    requests_from_file,
    single_request,
)
from extauthz.loadtest.drawing import Corpus
from extauthz.loadtest.outcomes import Protocol
from extauthz.loadtest.packing import check_fields, packed
from extauthz.loadtest.payloads import build_corpus
from extauthz.loadtest.policy_requests import Drawn, requests_from_policies
from extauthz.loadtest.sender import Tls, Wire
from extauthz.loadtest.sender_choice import Choice, choose
from extauthz.loadtest.target import Target, TlsFiles, check_target, url_target
from extauthz.loadtest.tls import client_context
from extauthz.loadtest.tokens import NO_TOKENS, Mint, TokenGroup, parse_algorithms, parse_claim, parse_mix, read_tokens
from extauthz.minting import SigningKey, key_set

HTTP1_CONNECTIONS = 64
"""An HTTP/1.1 connection carries one request at a time; HTTP/2 ones carry many."""

HTTP2_CONNECTIONS = 4

GRPCIO_CONNECTIONS = 1
"""Each channel of grpcio's client has a thread of its own, and four of them hold a third of the rate of one."""

MOST_SLICES = 120
_LONGEST_QUICK_SLICE = 1.0
_FEWEST_SLICES = 10

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """Where tokens come from: `file` (`--tokens`), or `mint` of them with `key` or new keys."""

    file: Path | None = None
    mint: int = 0
    key: Path | None = None
    kid: str = "test-key"
    jwks_out: Path | None = None
    algorithms: str = "RS256"
    issuer: str = "testing@secure.istio.io"
    audiences: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    mix: str = "good"
    zipf: float = 0.0
    header: str = "authorization: Bearer"


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The options of `extauthz loadtest`; the names are the command line's."""

    target: str = ""
    url: str = ""
    http: str = "1.1"
    tls: TlsFiles = field(default_factory=TlsFiles)
    method: str = "GET"
    path: str = ""
    headers: tuple[str, ...] = ()
    requests: Path | None = None
    policies: tuple[str, ...] = ()
    tokens: TokenOptions = field(default_factory=TokenOptions)
    rate: str = "1000"
    arrivals: str = "constant"
    seconds: float = 10.0
    warmup: float = 1.0
    connections: int = 0
    workers: int = 1
    timeout: float = 5.0
    sender: str = "auto"
    calibration: float = 1.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be sent, how, and where to."""

    options: LoadOptions
    target: Target
    choice: Choice
    wire: Wire
    arrivals: ArrivalKind
    rates: tuple[float, ...]
    slice_seconds: float
    corpus: Corpus
    token_kinds: Mapping[str, int]
    """How many different tokens of each kind there are."""


def make_plan(options: LoadOptions, progress: Progress | None = None) -> Plan:
    """Check the options and lay out the load. `progress` is told of minted tokens. Raises UsageError, PolicyError."""
    if bool(options.target) == bool(options.url):
        raise UsageError("give one of --target ADDRESS (an ext_authz server) and --url URL (a proxy)")
    _check_numbers(options)
    if options.arrivals not in tuple(ArrivalKind):
        raise UsageError(f"--arrivals {options.arrivals!r}: use constant or poisson")
    rates = parse_rates(options.rate)
    if options.target:
        target = check_target(options.target, options.tls)
    else:
        target = url_target(options.url, options.http, options.tls)
    native = sender_native.available()
    choice = choose(options.sender, target.protocol, tls=target.tls is not None, native=native)
    if target.tls is not None:
        _check_tls(target.tls, choice)
    mint = _mint(options.tokens)
    groups = _token_groups(options.tokens, mint, progress)
    requests = _requests(options, target)
    place = TokenPlace.parse(options.tokens.header)
    combinations = combine(
        [one.probe for one in requests], groups, place, options.tokens.zipf, _fitting(requests, mint)
    )
    return Plan(
        options=options,
        target=target,
        choice=choice,
        wire=wire_for(target, options, choice),
        arrivals=ArrivalKind(options.arrivals),
        rates=rates,
        slice_seconds=slice_seconds(options.seconds),
        corpus=build_corpus(combinations, target.protocol),
        token_kinds={group.kind: len(group.tokens) for group in groups},
    )


def wire_for(target: Target, options: LoadOptions, choice: Choice) -> Wire:
    """How one worker speaks to a target: its share of the connections."""
    usual = HTTP1_CONNECTIONS if target.protocol is Protocol.HTTP1 else HTTP2_CONNECTIONS
    usual = GRPCIO_CONNECTIONS if choice.name == "grpcio" else usual
    connections = options.connections or usual
    fields = check_fields(target.authority, options.timeout) if target.protocol is Protocol.CHECK else ()
    return Wire(
        protocol=target.protocol,
        address=target.address,
        headers=packed(fields),
        authority=target.authority,
        connections=max(1, connections // options.workers),
        timeout=options.timeout,
        tls=target.tls,
    )


def slice_seconds(seconds: float) -> float:
    """How long the slices of a step are that show it over time: a second, shorter for short steps, longer for long."""
    return max(min(_LONGEST_QUICK_SLICE, seconds / _FEWEST_SLICES), seconds / MOST_SLICES)


def _check_numbers(options: LoadOptions) -> None:
    least = {
        "--duration": (options.seconds, 0.1),
        "--warmup": (options.warmup, 0),
        "--timeout": (options.timeout, 0.001),
        "--connections": (options.connections, 0),
        "--workers": (options.workers, 1),
        "--calibration": (options.calibration, 0),
        "--mint": (options.tokens.mint, 0),
        "--zipf": (options.tokens.zipf, 0),
    }
    for option, (value, lowest) in least.items():
        if not lowest <= value < float("inf"):
            raise UsageError(f"{option} {value:g}: it must be at least {lowest:g}")


def _check_tls(tls: Tls, choice: Choice) -> None:
    client_context(tls)
    if choice.name == "grpcio" and not tls.verify:
        raise UsageError("--insecure: grpcio always verifies a server's certificate: give its authority with --ca")


def _requests(options: LoadOptions, target: Target) -> Sequence[Drawn]:
    headers = parse_headers(options.headers)
    if options.requests is not None and options.policies:
        raise UsageError("give one of --requests FILE and --policy PATH, not both")
    if options.requests is not None:
        return [Drawn(probe, {}) for probe in requests_from_file(options.requests, headers)]
    if options.policies:
        return requests_from_policies(load(options.policies).resources, options.seed)
    return [Drawn(single_request(options.method, options.path or target.path, target.authority, headers), {})]


def _fitting(requests: Sequence[Drawn], mint: Mint | None) -> Callable[[int], str]:
    """The token of each request that was drawn for a rule about claims, minted once and when it is needed."""

    @cache
    def fitting(index: int) -> str:
        claims = requests[index].claims
        return mint.fitting(index, claims) if mint is not None and claims else ""

    return fitting


def _token_groups(options: TokenOptions, mint: Mint | None, progress: Progress | None) -> tuple[TokenGroup, ...]:
    if options.file is not None:
        return read_tokens(options.file, parse_mix(options.mix))
    if mint is not None:
        return mint.groups(parse_mix(options.mix), progress)
    if options.mix != "good":
        raise UsageError("--mix needs tokens: give --mint N or --tokens FILE")
    return NO_TOKENS


def _mint(options: TokenOptions) -> Mint | None:
    """What `--mint` mints; None without it."""
    if options.file is not None and options.mint:
        raise UsageError("give one of --tokens FILE and --mint N, not both")
    if not options.mint:
        return None
    claims: dict[str, Any] = {"iss": options.issuer}
    if options.audiences:
        claims["aud"] = options.audiences[0] if len(options.audiences) == 1 else list(options.audiences)
    parse_mix(options.mix)  # before keys are made and written
    keys = _signing_keys(options)
    return Mint(options.mint, keys, claims | dict(map(parse_claim, options.claims)))


def _signing_keys(options: TokenOptions) -> list[tuple[SigningKey, float]]:
    shares = parse_algorithms(options.algorithms)
    if options.key is not None and len(shares) > 1:
        raise UsageError("--key holds one key: give one --alg with it, or no --key and --jwks-out for new ones")
    if options.key is None and options.jwks_out is None:
        raise UsageError("--mint needs --key FILE (the issuer's private key) or --jwks-out FILE (for new keys)")
    keys = []
    for algorithm, share in shares.items():
        kid = options.kid if len(shares) == 1 else f"{options.kid}-{algorithm.lower()}"
        keys.append((_signing_key(options.key, algorithm, kid), share))
    if options.jwks_out is not None:
        text = json.dumps(key_set(*(key for key, _ in keys)), indent=2) + "\n"
        try:
            # A key set with a shared secret (HS256) must not be readable by others.
            with open(os.open(options.jwks_out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(text)
        except OSError as error:
            raise UsageError(f"--jwks-out {options.jwks_out}: {error.strerror}") from None
    return keys


def _signing_key(file: Path | None, algorithm: str, kid: str) -> SigningKey:
    if file is None:
        return SigningKey.generate(algorithm, kid)
    try:
        return SigningKey.from_text(file.read_text(), algorithm, kid)
    except OSError as error:
        raise UsageError(f"--key {file}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--key {file}: {error}") from None
