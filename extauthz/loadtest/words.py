"""Figures as people read them, the same in the terminal and in the report."""

from __future__ import annotations

from collections.abc import Mapping

from extauthz.loadtest.results import Counts

_MICROSECONDS = 1e3
_MILLISECONDS = 1e6
_SECONDS = 1e9


def duration(nanoseconds: float) -> str:
    """`85 us`, `1.25 ms`, `2.41 s`: three digits."""
    if nanoseconds >= _SECONDS:
        return f"{nanoseconds / _SECONDS:.2f} s"
    if nanoseconds >= _MILLISECONDS:
        return f"{nanoseconds / _MILLISECONDS:.{2 if nanoseconds < 10 * _MILLISECONDS else 1}f} ms"
    return f"{nanoseconds / _MICROSECONDS:.0f} us"


def rate(per_second: float) -> str:
    """`20,000/s`."""
    return f"{per_second:,.0f}/s" if per_second >= 100 else f"{per_second:.3g}/s"


def named(counts: Mapping[str, int]) -> str:
    """`refused 12, timeout 3`; `-` for none."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "-"


def errors(counts: Counts) -> str:
    """The errors by name, and what was left unfinished."""
    found = dict(counts.errors)
    if counts.unfinished:
        found["unfinished"] = counts.unfinished
    return named(found)


def denied(counts: Counts) -> str:
    """How many were denied, by status."""
    if not counts.denied:
        return "0"
    by = named(counts.denied_by) if len(counts.denied_by) > 1 else next(iter(counts.denied_by))
    return f"{counts.denied:,} ({by})"
