"""A difference brought down to the smallest request that still shows it: pieces are left out or made simpler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

from extauthz.mesh.verify.engine import Comparison
from extauthz.mesh.verify.probe import HOST, Probe

MOST_ATTEMPTS = 200
"""Requests spent on one difference."""

Again = Callable[[Comparison], Awaitable[Comparison]]
"""Puts a comparison's probe to both sides once more."""


async def shrink(comparison: Comparison, again: Again) -> Comparison:
    """The smallest variation that differs in the same things. A difference that does not come again stays as it was."""
    wanted = {difference.what for difference in comparison.differences}
    attempts = 0
    shrunk = True
    while shrunk and attempts < MOST_ATTEMPTS:
        shrunk = False
        for candidate in _simpler(comparison.probe):
            attempts += 1
            found = await again(replace(comparison, probe=candidate))
            if {difference.what for difference in found.differences} == wanted:
                comparison, shrunk = found, True
                break
            if attempts >= MOST_ATTEMPTS:
                break
    return comparison


def _simpler(probe: Probe) -> Iterator[Probe]:
    """Variations that are simpler in one thing, the boldest first."""
    plain = Probe(name=probe.name)
    if (probe.source, probe.destination) != (plain.source, plain.destination):
        # Together: both have to be of one family.
        yield replace(probe, source=plain.source, destination=plain.destination)
    for name in ("method", "host", "body", "port", "server_name", "peer"):
        if getattr(probe, name) != getattr(plain, name):
            yield replace(probe, **{name: getattr(plain, name)})
    for index in range(len(probe.metadata)):
        yield replace(probe, metadata=probe.metadata[:index] + probe.metadata[index + 1 :])
    for index in range(len(probe.headers)):
        yield replace(probe, headers=probe.headers[:index] + probe.headers[index + 1 :])
    path, mark, query = probe.target.partition("?")
    if mark:
        yield replace(probe, target=path)
        pieces = query.split("&")
        for index in range(len(pieces)):
            yield replace(probe, target=f"{path}?{'&'.join(pieces[:index] + pieces[index + 1 :])}")
    if path != "/":
        yield replace(probe, target=f"/{mark}{query}")
        segments = path.split("/")
        for index in range(1, len(segments)):
            shorter = "/".join(segments[:index] + segments[index + 1 :])
            yield replace(probe, target=f"{shorter or '/'}{mark}{query}")
        if len(path) > 2:
            yield replace(probe, target=f"{path[: len(path) // 2]}{mark}{query}")
    for index, (name, value) in enumerate(probe.headers):
        for shorter in _shorter(name, value):
            yield replace(probe, headers=(*probe.headers[:index], (name, shorter), *probe.headers[index + 1 :]))
    if probe.host not in (HOST, None, ""):
        yield replace(probe, host="")


def _shorter(name: str, value: str) -> Iterator[str]:
    for separator in (",", ";"):
        pieces = value.split(separator)
        if len(pieces) > 1:
            for index in range(len(pieces)):
                yield separator.join(pieces[:index] + pieces[index + 1 :]).strip()
    # Half a token is another token: long values are left alone.
    if 1 < len(value) < 60:
        yield value[: len(value) // 2]
        yield value[1:]
        yield value[:-1]
