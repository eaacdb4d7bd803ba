"""The campaign: `python tests/hostile [--inputs N] [--seed N]` prints a table and writes build/hostile/summary.json.

Exit status 1 when anything was wrongly allowed, crashed, hung or grew. See hostile_subject for what is judged and how,
hostile_runner for how it is counted, and hostile_frames for the families that attack a running server.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hostile_families import Family
from hostile_frames import attack, idle
from hostile_keys import KeySets
from hostile_policies import Policies
from hostile_requests import Requests
from hostile_runner import Store, Tally, run_apart, summaries
from hostile_subject import make_subject
from hostile_tokens import Tokens
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
SHARES = {"CheckRequests": 0.6, "tokens": 0.32, "key sets": 0.05, "policies": 0.03}
"""Of the inputs: by what an attacker can send, and by what one costs to try."""


def campaign(inputs: int, seed: int, seconds: float, connections: int, jobs: int, directory: Path) -> list[Tally]:
    """Run every family; what breaks something is stored in `directory`, with the policies of the subject."""
    subject = make_subject()
    (directory / "policies.yaml").write_text(subject.policies)
    families: tuple[Callable[[], Family], ...] = (
        lambda: Requests(subject, seed),
        lambda: Tokens(subject, seed),
        lambda: KeySets(seed=seed),
        lambda: Policies(subject, seed),
    )
    tallies = []
    for make in families:
        family = make()
        count = max(1, round(inputs * SHARES[family.name]))
        tallies.append(_told(run_apart(family, seed, count, Store(directory), jobs)))
    for transport in ("native", "grpcio"):
        tallies.append(_told(attack(transport, seconds, seed)))
        tallies.append(_told(idle(transport, connections)))
    return tallies


def _told(tally: Tally) -> Tally:
    print(
        f"{tally.family}: {tally.inputs:,} inputs in {tally.seconds:.0f} s, {tally.violations} violations", flush=True
    )
    for note in tally.notes[:10]:
        print(f"  {note[:300]}", flush=True)
    return tally


def show(tallies: list[Tally]) -> None:
    """The table for people."""
    table = Table("family", title="Hostile input")
    for name in ("inputs", "wrongly allowed", "crashes", "hangs", "growth MiB", "slowest ms", "of these"):
        table.add_column(name, justify="left" if name == "of these" else "right")
    for one in tallies:
        outcomes = ", ".join(f"{name} {count:,}" for name, count in sorted(one.outcomes.items()))
        counts = (f"{number:,}" for number in (one.inputs, one.wrongly_allowed, one.crashes, one.hangs))
        table.add_row(one.family, *counts, f"{one.growth / 2**20:.1f}", f"{one.slowest * 1000:.0f}", outcomes)
    Console(width=150).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it with these arguments (the process's own); the exit status."""
    parser = argparse.ArgumentParser(prog="python tests/hostile", description="Give the service hostile input.")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="in-process inputs of all families")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="draws the inputs; printed")
    parser.add_argument("--seconds", type=float, default=30.0, help="of HTTP/2 attacks on each transport")
    parser.add_argument("--idle", type=int, default=10_000, help="idle connections on each transport")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "hostile")
    options = parser.parse_args(arguments)
    if options.directory.exists():
        # What an earlier campaign found is kept until it was looked at, one campaign long.
        shutil.rmtree(options.directory.with_name(options.directory.name + "-before"), ignore_errors=True)
        options.directory.rename(options.directory.with_name(options.directory.name + "-before"))
    options.directory.mkdir(parents=True)
    print(f"seed {options.seed}", flush=True)
    began = time.monotonic()
    tallies = campaign(options.inputs, options.seed, options.seconds, options.idle, options.jobs, options.directory)
    show(tallies)
    violations = sum(tally.violations for tally in tallies)
    summary = {
        "seed": options.seed,
        "seconds": round(time.monotonic() - began, 1),
        "inputs": sum(tally.inputs for tally in tallies),
        "violations": violations,
        "families": summaries(tallies),
    }
    (options.directory / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"{summary['inputs']:,} inputs, {violations} violations; {options.directory / 'summary.json'}")
    return 1 if violations else 0
