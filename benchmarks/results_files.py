"""Result files as they are read again: parts by name, and figures of a side with their rounds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Parts = Mapping[str, Mapping[str, Any]]
"""The documents of a directory of results, by the part that they are of."""


def read(directory: Path) -> dict[str, Mapping[str, Any]]:
    """Every result file of a directory that holds figures."""
    parts: dict[str, Mapping[str, Any]] = {}
    for file in sorted(directory.glob("*.json")):
        document = json.loads(file.read_text())
        if isinstance(document, dict) and "figures" in document:
            parts[file.stem] = document
    return parts


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure, and the lowest and highest that it was in one round."""

    value: float
    low: float
    high: float


def median(summary: Mapping[str, Any]) -> float:
    """The median of a figure's rounds."""
    value: float = summary["median"]
    return value


def combined(function: Callable[..., float], *summaries: Mapping[str, Any]) -> Measured:
    """A function of several figures: of their medians, and of each round's, since rounds belong together."""
    each = [function(*values) for values in zip(*(summary["rounds"] for summary in summaries), strict=False)]
    return Measured(function(*map(median, summaries)), min(each), max(each))
