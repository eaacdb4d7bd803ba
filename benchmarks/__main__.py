"""`python -m benchmarks [--quick] [PART ...]`: measure, write results/*.json, and from them the table and the plots."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from benchmarks import decide, report, start, through_envoy, transport
from benchmarks.measure import machine

PARTS = {"decide": decide.run, "start": start.run, "transport": transport.run, "through_envoy": through_envoy.run}
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run the parts that are asked for. A quick run writes beside the committed results, not over them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which parts to run; all by default")
    parser.add_argument("--quick", action="store_true", help="about a minute; few rounds, rough figures")
    parser.add_argument("--output", type=Path, help="where results go (results/, with --quick a folder of their own)")
    arguments = parser.parse_args()
    output = arguments.output or (RESULTS / "quick" if arguments.quick else RESULTS)
    output.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts or PARTS:
        began = time.monotonic()
        print(f"{part}:", flush=True)
        figures = PARTS[part](quick=arguments.quick)
        document = {"part": part, "quick": arguments.quick, "machine": machine(), "figures": figures}
        (output / f"{part}.json").write_text(json.dumps(document, indent=1) + "\n")
        print(f"  {time.monotonic() - began:.0f} s, written to {output / part}.json", flush=True)
    report.write(output)
    print((output / "table.md").read_text())


if __name__ == "__main__":
    main()
