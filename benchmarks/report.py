"""Result files -> `targets.json`, `table.md` and plots."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import plots, results_files, tables, targets


def write(directory: Path) -> None:
    """Write what follows from the result files of a directory. A plot that cannot be drawn says so and is left out."""
    parts = results_files.read(directory)
    (directory / "targets.json").write_text(json.dumps(targets.document(parts), indent=1) + "\n")
    (directory / "table.md").write_text(tables.everything(parts))
    for name, draw in plots.PLOTS.items():
        try:
            (directory / f"{name}.png").write_bytes(draw(parts))
        except (KeyError, ImportError, ValueError) as error:
            print(f"  no plot {name}: {type(error).__name__}: {error}")
