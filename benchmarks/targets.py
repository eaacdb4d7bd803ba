"""What this project set out to reach, and what the results say: every figure and verdict is computed from result files.

Ratios are of figures of one run. `note` puts a figure in context, from the same results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.results_files import Measured, Parts, combined, median

NGHTTPD = "nghttpd, a static file"
GET = f"{NGHTTPD}, requests without a body"
EMPTY = "empty grpcio handler"
NATIVE, GRPCIO, NULL = "extauthz, native", "extauthz, grpcio", "null, native"
SOCKET = "Unix socket"
MANY = "64"


@dataclass(frozen=True, slots=True)
class Target:
    """One target: the figure has to be `at_most` or at least `limit`; `stretch` is what would be better still."""

    name: str
    unit: str
    at_most: bool
    limit: float
    measure: Callable[[Parts], Measured]
    stretch: float | None = None
    note: Callable[[Parts], str] = lambda parts: ""

    def reached(self, value: float, limit: float) -> bool:
        """Whether a value is on the right side of a limit."""
        return value <= limit if self.at_most else value >= limit


@dataclass(frozen=True, slots=True)
class Judgement:
    """A target and what was measured; None when the results do not tell."""

    target: Target
    measured: Measured | None
    note: str

    @property
    def verdict(self) -> str:
        """`met`, `met, stretch too`, `missed`, or `not measured`."""
        target = self.target
        if self.measured is None:
            return "not measured"
        if not target.reached(self.measured.value, target.limit):
            return "missed"
        stretched = target.stretch is not None and target.reached(self.measured.value, target.stretch)
        return "met, stretch too" if stretched else "met"


def judge(parts: Parts) -> list[Judgement]:
    """Every target against the results that there are."""
    judgements = []
    for target in TARGETS:
        measured: Measured | None = None
        note = ""
        with suppress(KeyError, ValueError, ZeroDivisionError):
            measured = target.measure(parts)
            note = target.note(parts)
        judgements.append(Judgement(target, measured, note))
    return judgements


def table(parts: Parts) -> Iterator[str]:
    """The targets as a Markdown table."""
    yield "| target | wanted | measured (lowest to highest round) | |"
    yield "|---|---:|---:|---|"
    for judgement in judge(parts):
        target, measured = judgement.target, judgement.measured
        word = "at most" if target.at_most else "at least"
        wanted = f"{word} {target.limit:g}" + (f" (stretch {target.stretch:g})" if target.stretch else "")
        found = (
            ""
            if measured is None
            else f"{_digits(measured.value)} ({_digits(measured.low)} to {_digits(measured.high)})"
        )
        note = f"; {judgement.note}" if judgement.note else ""
        verdict = judgement.verdict if judgement.verdict.startswith("met") else f"**{judgement.verdict}**"
        yield f"| {target.name}, {target.unit} | {wanted} | {found} | {verdict}{note} |"


def document(parts: Parts) -> list[dict[str, Any]]:
    """The same for the result file."""
    return [
        {
            "target": judgement.target.name,
            "unit": judgement.target.unit,
            "at_most" if judgement.target.at_most else "at_least": judgement.target.limit,
            "stretch": judgement.target.stretch,
            "measured": None if judgement.measured is None else asdict(judgement.measured),
            "verdict": judgement.verdict,
            "note": judgement.note,
        }
        for judgement in judge(parts)
    ]


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ratio(above: float, below: float) -> float:
    return above / below


def _transport(parts: Parts, side: str, figure: str = "calls_per_second") -> Any:
    return parts["transport"]["figures"]["one core"][side][figure]


def _envoy(parts: Parts, side: str, figure: str = "requests_per_second", connections: str = MANY) -> Any:
    return parts["through_envoy"]["figures"][connections][side][figure]


def _above_null(suffix: str) -> Callable[[Parts], Measured]:
    def measure(parts: Parts) -> Measured:
        ours, null = (_transport(parts, side + suffix, "cpu_us_per_call") for side in (NATIVE, NULL))
        return combined(lambda whole, part: whole - part, ours, null)

    return measure


def _rates(ours: str, other: str) -> Callable[[Parts], Measured]:
    return lambda parts: combined(_ratio, _transport(parts, ours), _transport(parts, other))


def _limit(parts: Parts) -> Any:
    """nghttpd's rate, asked with a body as we are or without: whichever is higher."""
    sides = parts["transport"]["figures"]["one core"]
    return max((sides[side]["calls_per_second"] for side in (NGHTTPD, GET) if side in sides), key=median)


def _of_limit(parts: Parts) -> Measured:
    return combined(_ratio, _transport(parts, NATIVE), _limit(parts))


def _through(other: str) -> Callable[[Parts], Measured]:
    return lambda parts: combined(_ratio, _envoy(parts, f"{NATIVE}, {SOCKET}"), _envoy(parts, other))


def _null_through(parts: Parts) -> str:
    null, builtin = f"{NULL}, {SOCKET}", "built-in"
    reaches = median(_envoy(parts, null)) / median(_envoy(parts, builtin))
    asking, filters = (median(_envoy(parts, side, "cpu_us_envoy")) for side in (null, builtin))
    return (
        f"ext_authz to `extauthz null`, which does nothing, has {reaches:.2f}: Envoy itself spends {asking:.0f} us of "
        f"CPU on a request with ext_authz and {filters:.0f} with the built-in filters"
    )


def _service_cpu(parts: Parts) -> str:
    ours, null = (median(_envoy(parts, f"{side}, {SOCKET}", "cpu_us_authorization")) for side in (NATIVE, NULL))
    reading, empty = (median(_envoy(parts, f"{side}, {SOCKET}", "cpu_us_envoy")) for side in (NATIVE, NULL))
    beside = combined(_ratio, *(_envoy(parts, f"{side}, {SOCKET}, Envoy's core") for side in (NATIVE, NULL)))
    return (
        f"on Envoy's core {beside.value:.2f}; the service takes {ours:.0f} us of the core that it shares with wrk, "
        f"`extauthz null` {null:.0f}; Envoy spends {reading:.0f} us on a request whose answer has the token's payload, "
        f"{empty:.0f} with an empty answer"
    )


def _grpcio_cpu(parts: Parts) -> str:
    ours, empty = (median(_transport(parts, side, "cpu_us_per_call")) for side in (GRPCIO, EMPTY))
    return f"{ours:.0f} us of CPU per call, the empty handler {empty:.0f}"


def _decisions(parts: Parts) -> str:
    ours, limit = median(_transport(parts, NATIVE)), median(_limit(parts))
    return f"{ours:,.0f} decisions/s where nghttpd does {limit:,.0f}"


def _p50_added(parts: Parts) -> Measured:
    sides = (f"{NATIVE}, {SOCKET}", f"{NULL}, {SOCKET}", "no filter")
    figures = (_envoy(parts, side, "p50_us", "1") for side in sides)
    return combined(lambda ours, null, nothing: (ours - nothing) / (null - nothing), *figures)


def _p50_note(parts: Parts) -> str:
    nothing = median(_envoy(parts, "no filter", "p50_us", "1"))
    ours, null = (median(_envoy(parts, f"{side}, {SOCKET}", "p50_us", "1")) - nothing for side in (NATIVE, NULL))
    return f"{ours:.0f} us where `extauthz null` adds {null:.0f}"


def _first_seen(parts: Parts) -> Measured:
    return combined(float, parts["decide"]["figures"]["first_seen"]["RS256"]["above_us"])


def _signature(parts: Parts) -> str:
    return f"the signature takes {median(parts['decide']['figures']['first_seen']['RS256']['signature_us']):.0f} us"


def _rule_growth(parts: Parts) -> Measured:
    rules = parts["decide"]["figures"]["rules"]
    answers = ("allowed_us", "denied_us")
    return max((combined(_ratio, rules["1000"][one], rules["10"][one]) for one in answers), key=lambda m: m.value)


def _start(parts: Parts) -> Measured:
    return combined(float, parts["start"]["figures"]["native, 10 policies"]["ready_ms"])


def _tokens(parts: Parts) -> Measured:
    return combined(float, parts["cost"]["figures"]["native, 100,000 cached tokens"]["resident_mb"])


TARGETS = (
    Target("CPU per call above `extauthz null`, native, TCP", "us", True, 4.0, _above_null(""), 2.5),
    Target("CPU per call above `extauthz null`, native, Unix socket", "us", True, 4.0, _above_null(f", {SOCKET}"), 2.5),
    Target("native transport against our own grpcio", "times the rate", False, 15.0, _rates(NATIVE, GRPCIO)),
    Target("native transport against nghttpd", "of the rate", False, 0.28, _of_limit, note=_decisions),
    Target(
        "our grpcio against an empty grpcio handler", "of the rate", False, 0.85,
        _rates(GRPCIO, EMPTY), note=_grpcio_cpu,
    ),
    Target(
        "through Envoy, Unix socket, against `extauthz null`", "of the throughput", False, 0.95,
        _through(f"{NULL}, {SOCKET}"), note=_service_cpu,
    ),
    Target(
        "through Envoy, Unix socket, against the built-in filters", "of the throughput", False, 0.9,
        _through("built-in"), note=_null_through,
    ),
    Target(
        "p50 added at one connection, against what `extauthz null` adds", "times", True, 1.1, _p50_added, note=_p50_note
    ),
    Target("first-seen RS256 token above the signature", "us", True, 15.0, _first_seen, note=_signature),
    Target("1,000 path rules against ten", "times the time", True, 2.0, _rule_growth),
    Target("exec to ready, native, ten policies", "ms", True, 400.0, _start),
    Target("resident with 100,000 cached tokens", "MB", True, 250.0, _tokens),
)  # fmt: skip
