"""Puts tables into the documents that show them, so that every figure there is one of `benchmarks/results`.

A document marks a place with `<!-- benchmarks: SECTION -->` and `<!-- end -->`, each on a line of its own; what stands
between is replaced. `python -m benchmarks.documents` does it by itself.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import results_files, tables
from benchmarks.results_files import Parts

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
DOCUMENTS = ("README.md", "docs/performance.md", "docs/loadtest.md", "docs/key-sets.md")

_PLACE = re.compile(r"(<!-- benchmarks: ([a-z_]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, parts: Parts) -> str:
    """A document with its tables as the results have them; a section without results stays as it is."""

    def replaced(place: re.Match[str]) -> str:
        begin, name, end = place.groups()
        try:
            return f"{begin}\n{tables.section(name, parts)}\n{end}"
        except KeyError:
            return place[0]

    return _PLACE.sub(replaced, text)


def fill(root: Path = ROOT, results: Path = RESULTS) -> list[Path]:
    """Fill every document; those that changed."""
    parts = results_files.read(results)
    changed = []
    for name in DOCUMENTS:
        file = root / name
        before = file.read_text(encoding="utf-8")
        after = filled(before, parts)
        if after != before:
            file.write_text(after, encoding="utf-8")
            changed.append(file)
    return changed


if __name__ == "__main__":
    for written in fill():
        print(f"wrote {written.relative_to(ROOT)}")
