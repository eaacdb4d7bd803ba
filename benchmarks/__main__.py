"""`python -m benchmarks [--quick] [PART ...]`: measure, write results/*.json, and from them tables, plots and targets.

A part, or a side of one, that fails says so and is named in its result file; the others are measured and written.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import documents, report, results_files, tables
from benchmarks.documents import RESULTS
from benchmarks.measure import SEED, machine

PARTS = ("decide", "transport", "through_envoy", "open_loop", "cost", "start", "pauses", "fetch", "senders")


def main() -> int:
    """Run the parts that are asked for; 1 when something failed.

    A quick run writes beside the committed results, not over them. What is written over them is shown in the documents.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which parts to run; all by default")
    parser.add_argument("--quick", action="store_true", help="a minute or two; few rounds, rough figures")
    parser.add_argument("--output", type=Path, help="where results go (results/, with --quick a folder of their own)")
    arguments = parser.parse_args()
    output = (arguments.output or (RESULTS / "quick" if arguments.quick else RESULTS)).resolve()
    output.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    failed = [part for part in arguments.parts or PARTS if not _measure(part, output, quick=arguments.quick)]
    report.write(output)
    if output == RESULTS.resolve():
        for file in documents.fill():
            print(f"wrote {file}")
    print((output / "table.md").read_text())
    print(f"{time.monotonic() - began:.0f} s. " + (f"FAILED, wholly or in part: {', '.join(failed)}" if failed else ""))
    print(tables.section("targets", results_files.read(output)))
    return 1 if failed else 0


def _measure(part: str, output: Path, *, quick: bool) -> bool:
    """Run one part and write its file; whether nothing in it failed."""
    print(f"{part}:", flush=True)
    told, began = machine(), time.monotonic()
    found: dict[str, Any] = {"figures": {}, "failures": {}}
    try:
        found = import_module(f"benchmarks.{part}").run(quick=quick)
    except Exception as error:
        traceback.print_exc()
        found["failures"] = {"all": f"{type(error).__name__}: {error}"}
    took = time.monotonic() - began
    document = {"part": part, "quick": quick, "seed": SEED, "seconds": round(took, 1), "machine": told, **found}
    (output / f"{part}.json").write_text(json.dumps(document, indent=1) + "\n")
    print(f"  {took:.0f} s, written to {output / part}.json", flush=True)
    return not found["failures"]


if __name__ == "__main__":
    sys.exit(main())
