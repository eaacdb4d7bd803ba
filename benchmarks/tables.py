"""Result files -> Markdown tables, one for each section that documents show. No figure is shown but from here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from benchmarks import targets
from benchmarks.results_files import Parts, median

Figures = Mapping[str, Any]

_LEAST_SHARE = 0.01
"""Of the CPU time, for a line of a profile to be shown."""

_TRANSPORTS: Mapping[str, str] = {
    "extauthz, native": "this service, native transport",
    "extauthz, native, Unix socket": "this service, native transport, Unix socket",
    "extauthz, grpcio": "this service, grpcio",
    "empty grpcio handler": "an empty handler on grpcio",
    "null, native": "an empty handler on the native transport",
}
_ENVOYS: Mapping[str, str] = {
    "no filter": "no authorization",
    "built-in": "built-in filters",
    "extauthz, native, Unix socket": "asking this service, native, Unix socket",
    "extauthz, native, TCP": "asking this service, native, TCP",
    "extauthz, grpcio, TCP": "asking this service, grpcio, TCP",
    "null, native, Unix socket": "asking an empty handler, native, Unix socket",
}
"""The sides that the short tables show, and what they are called there."""


def section(name: str, parts: Parts) -> str:
    """The Markdown of a section. Raises KeyError for one that there is not, or whose part was not (wholly) measured."""
    try:
        return "\n".join(_SECTIONS[name](parts)).strip() + "\n"
    except (ValueError, ZeroDivisionError, TypeError) as error:
        raise KeyError(f"{type(error).__name__}: {error}") from error


def everything(parts: Parts) -> str:
    """All sections that can be shown, and what failed."""
    shown = []
    for name in _SECTIONS:
        try:
            shown.append(f"<!-- {name} -->\n{section(name, parts)}")
        except KeyError as missing:
            shown.append(f"({name}: not measured, {missing})\n")
    failures = [
        f"- {part}, {side}: {reason.strip().splitlines()[-1]}"
        for part, document in parts.items()
        for side, reason in document.get("failures", {}).items()
    ]
    if failures:
        shown.append("Failed:\n\n" + "\n".join(failures) + "\n")
    return "\n".join(shown)


def _rows(head: str, numbers: int, rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A table; all columns but the first `numbers` less than all are texts."""
    columns = head.split("|")
    yield "| " + " | ".join(column.strip() for column in columns) + " |"
    yield "|" + "---|" * (len(columns) - numbers) + "---:|" * numbers
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _spread(summary: Figures, digits: int = 0, scale: float = 1.0) -> str:
    middle, low, high = (f"{summary[key] * scale:,.{digits}f}" for key in ("median", "min", "max"))
    return f"{middle} ({low} to {high})"


def _plain(summary: Figures, digits: int = 0) -> str:
    return f"{summary['median']:,.{digits}f}"


def _transport(parts: Parts) -> Iterator[str]:
    figures = parts["transport"]["figures"]["one core"]
    limit = _rate(figures, "nghttpd, a static file")
    grpcio = _rate(figures, "extauthz, grpcio")

    def row(name: str, figure: Figures) -> Iterator[str]:
        rate = median(figure["calls_per_second"])
        yield name
        yield _spread(figure["calls_per_second"])
        yield _plain(figure["cpu_us_per_call"], 1)
        yield f"{rate / limit:.2f}" if limit else ""
        yield f"{rate / grpcio:.1f}" if grpcio else ""

    head = (
        "Check calls, one core for the server | calls/s (lowest to highest round) | CPU us per call | of nghttpd | "
        "times our grpcio"
    )
    yield from _rows(head, 4, (row(name, figure) for name, figure in figures.items()))


def _transport_short(parts: Parts) -> Iterator[str]:
    figures = parts["transport"]["figures"]["one core"]
    rows = (
        (words, _plain(figures[name]["calls_per_second"]), _plain(figures[name]["cpu_us_per_call"], 1))
        for name, words in _TRANSPORTS.items()
        if name in figures
    )
    yield from _rows("Check calls, one core for the server | calls/s | CPU us per call", 2, rows)


def _rate(figures: Figures, name: str) -> float:
    return median(figures[name]["calls_per_second"]) if name in figures else 0.0


def _workers(parts: Parts) -> Iterator[str]:
    figures = parts["transport"]["figures"]["both cores"]
    head = "Check calls, server and load on both cores | calls/s (lowest to highest round) | CPU us per call"
    rows = (
        (name, _spread(figure["calls_per_second"]), _plain(figure["cpu_us_per_call"], 1))
        for name, figure in figures.items()
    )
    yield from _rows(head, 2, rows)


def _envoy(parts: Parts) -> Iterator[str]:
    figures = parts["through_envoy"]["figures"]
    one, many, some = figures["1"], figures["64"], figures.get("16", {})
    nothing = median(one["no filter"]["p50_us"])
    builtin = _request_rate(many, "built-in")

    def row(name: str, figure: Figures) -> Iterator[str]:
        rate = figure["requests_per_second"]
        yield name
        yield _spread(rate)
        yield _plain(some[name]["requests_per_second"]) if name in some else ""
        yield f"{median(rate) / builtin:.2f}"
        yield " + ".join(_plain(figure[key]) for key in ("cpu_us_envoy", "cpu_us_authorization") if key in figure)
        yield f"{median(one[name]['p50_us']) - nothing:.0f}" if name in one else ""
        for percentile in ("p99_us", "p999_us"):
            yield _plain(one[name][percentile]) if name in one else ""

    head = (
        "through Envoy, one worker | requests/s, 64 connections (lowest to highest round) | 16 connections | "
        "of built-in | CPU us, Envoy + service | 1 connection: p50 added (us) | p99 | p99.9"
    )
    yield from _rows(head, 7, (row(name, figure) for name, figure in many.items()))


def _envoy_short(parts: Parts) -> Iterator[str]:
    figures = parts["through_envoy"]["figures"]
    one, many = figures["1"], figures["64"]
    nothing, builtin = median(one["no filter"]["p50_us"]), _request_rate(many, "built-in")

    def row(name: str, words: str) -> Iterator[str]:
        yield words
        yield _plain(many[name]["requests_per_second"])
        yield f"{_request_rate(many, name) / builtin:.2f}"
        yield f"{median(one[name]['p50_us']) - nothing:.0f}"

    rows = (row(name, words) for name, words in _ENVOYS.items() if name in many and name in one)
    head = "through Envoy, one worker | requests/s, 64 connections | of built-in | 1 connection: p50 added (us)"
    yield from _rows(head, 3, rows)


def _request_rate(figures: Figures, name: str) -> float:
    return median(figures[name]["requests_per_second"])


def _stages(parts: Parts) -> Iterator[str]:
    figures = parts["decide"]["figures"]["stages"]
    head = "one decision, by stage | us (lowest to highest round)"
    yield from _rows(head, 1, ((name, _spread(stage["us"], 2)) for name, stage in figures.items()))


def _first_seen(parts: Parts) -> Iterator[str]:
    figures = parts["decide"]["figures"]["first_seen"]
    head = "first check of a token | us | signature alone | above it (lowest to highest round)"
    rows = (
        (name, _plain(one["check_us"], 1), _plain(one["signature_us"], 1), _spread(one["above_us"], 1))
        for name, one in figures.items()
    )
    yield from _rows(head, 3, rows)


def _rules(parts: Parts) -> Iterator[str]:
    figures = parts["decide"]["figures"]["rules"]
    rows = (
        (f"{int(count):,}", _plain(one["allowed_us"], 2), _plain(one["denied_us"], 2), _plain(one["compile_ms"]))
        for count, one in figures.items()
    )
    yield from _rows("path rules | allowed by the last (us) | denied by all (us) | compile (ms)", 4, rows)


def _tokens(parts: Parts) -> Iterator[str]:
    figures = parts["decide"]["figures"]["tokens"]
    rows = ((f"{int(count):,}", _spread(one["check_us"], 2)) for count, one in figures.items())
    yield from _rows("distinct tokens, all seen before | check (us, lowest to highest round)", 2, rows)


def _hit_rates(parts: Parts) -> Iterator[str]:
    figures = parts["decide"]["figures"]["hit_rates"]
    rows = ((rate, _spread(one["check_us"], 1)) for rate, one in figures.items())
    yield from _rows("RS256 tokens seen before | check, mean (us, lowest to highest round)", 2, rows)


def _open_loop(parts: Parts) -> Iterator[str]:
    figures = parts["open_loop"]["figures"]

    def row(name: str, one: Figures) -> Iterator[str]:
        yield name
        yield _plain(one["rate"])
        yield _plain(one["done_per_second"])
        for percentile in ("p50_us", "p99_us", "p999_us"):
            yield _spread(one[percentile])
        yield _valid(one)

    head = "open loop, share of the capacity | asked/s | done/s | p50 (us) | p99 | p99.9 | rounds valid"
    yield from _rows(head, 6, (row(name, one) for name, one in figures.items()))


def _valid(one: Figures) -> str:
    return f"{sum(one['valid']['rounds']):.0f} of {len(one['valid']['rounds'])}"


def _memory(parts: Parts) -> Iterator[str]:
    figures = {name: one for name, one in parts["cost"]["figures"].items() if "resident_mb" in one}
    rows = (
        (name, _plain(one["resident_mb"]), _plain(one["bytes_per_token"]) if "bytes_per_token" in one else "")
        for name, one in figures.items()
    )
    yield from _rows("resident memory | MB | bytes per token", 2, rows)


def _calls(parts: Parts) -> Iterator[str]:
    prefix = "CPU, native: "
    figures = {
        name.removeprefix(prefix): one for name, one in parts["cost"]["figures"].items() if name.startswith(prefix)
    }
    rows = ((name, _plain(one["cpu_us_per_call"], 1), _plain(one["calls_per_second"])) for name, one in figures.items())
    yield from _rows("Check calls, native, Unix socket | CPU us per call | calls/s", 2, rows)


def _start(parts: Parts) -> Iterator[str]:
    figures = parts["start"]["figures"]
    rows = ((name, _spread(one["ready_ms"])) for name, one in figures.items())
    yield from _rows("start | exec to ready (ms, lowest to highest round)", 1, rows)


def _pauses(parts: Parts) -> Iterator[str]:
    part = parts["pauses"]

    def row(name: str, one: Figures) -> Iterator[str]:
        kind = "call" if "call_p50_ms" in one else "late"
        yield name
        yield _plain(one["full_collections"])
        yield _spread(one["longest_pause_ms"], 1)
        for percentile in ("p50", "p99", "max"):
            yield _plain(one[f"{kind}_{percentile}_ms"], 2)

    head = "interference.py | full collections | longest pause (ms) | calls: p50 (ms) | p99 | max"
    yield from _rows(head, 5, (row(name, one) for name, one in part["figures"].items()))


def _fetch(parts: Parts) -> Iterator[str]:
    figures = parts["fetch"]["figures"]

    def row(name: str, one: Figures) -> Iterator[str]:
        yield from name.split(", ")
        yield _plain(one["fetches"])
        for percentile in ("p50", "p99", "p999"):
            yield _spread(one[f"service_{percentile}_us"], 2, scale=1e-3)

    head = "transport | key sets | fetches in a round | p50 (ms, lowest to highest round) | p99 | p99.9"
    yield from _rows(head, 4, (row(name, one) for name, one in figures.items()))


def _senders(parts: Parts) -> Iterator[str]:
    figures = parts["senders"]["figures"]

    def row(name: str, one: Figures) -> Iterator[str]:
        yield name.rpartition(", ")[0]
        yield _plain(one["rate"])
        yield _plain(one["done_per_second"])
        for percentile in ("p50_us", "p99_us", "lag_p99_us"):
            yield _plain(one[percentile])
        yield _valid(one)

    head = "sender, to a server that does nothing | asked/s | done/s | p50 (us) | p99 | own delay p99 | rounds valid"
    yield from _rows(head, 6, (row(name, one) for name, one in figures.items()))


def _loadtest(parts: Parts) -> Iterator[str]:
    figures = parts["loadtest"]["figures"]

    def row(name: str, step: Figures) -> Iterator[str]:
        yield name
        yield f"{step['rate']:,.0f}"
        for percentile in ("p50_us", "p90_us", "p99_us", "p999_us"):
            yield f"{step[percentile] / 1e3:,.2f}"
        yield "yes" if step["valid"] else "no"

    rows = (row(name, step) for name, steps in figures.items() for step in steps)
    yield from _rows("behind a real Envoy | requests/s | p50 (ms) | p90 | p99 | p99.9 | valid", 6, rows)


def _libraries(parts: Parts) -> Iterator[str]:
    yield from _shares(parts, "libraries", "library (perf)")


def _functions(parts: Parts) -> Iterator[str]:
    yield from _shares(parts, "functions", "Python function, with the C that it calls (py-spy)")


def _shares(parts: Parts, kind: str, head: str) -> Iterator[str]:
    shares = parts["profile"]["figures"][kind]["shares"]
    shown = ((f"`{name}`", f"{share:.1%}") for name, share in shares.items() if share >= _LEAST_SHARE)
    yield from _rows(f"{head} | of the CPU time", 1, shown)


def _machine(parts: Parts) -> Iterator[str]:
    lines: dict[str, list[str]] = {}
    for name, part in parts.items():
        told = part["machine"]
        quick = "; a quick run, rough figures" if part.get("quick") else ""
        system = f"Linux {told['kernel']}, Python {told['python']}"
        line = f"{told['cpu']}, {told['cores']} cores, {system}, {told['date'][:10]}{quick}"
        lines.setdefault(line, []).append(name)
    if len(lines) == 1:
        yield f"({next(iter(lines))})"
        return
    for line, names in lines.items():
        yield f"({', '.join(names)}: {line})"
        yield ""


_SECTIONS: Mapping[str, Callable[[Parts], Iterator[str]]] = {
    "targets": targets.table,
    "transport": _transport,
    "transport_short": _transport_short,
    "workers": _workers,
    "through_envoy": _envoy,
    "through_envoy_short": _envoy_short,
    "open_loop": _open_loop,
    "stages": _stages,
    "first_seen": _first_seen,
    "rules": _rules,
    "tokens": _tokens,
    "hit_rates": _hit_rates,
    "memory": _memory,
    "calls": _calls,
    "start": _start,
    "pauses": _pauses,
    "fetch": _fetch,
    "senders": _senders,
    "loadtest": _loadtest,
    "libraries": _libraries,
    "functions": _functions,
    "machine": _machine,
}
