"""What is installed: versions, licences, what needs what, and whether files are still those that were installed."""

from __future__ import annotations

import base64
import csv
import hashlib
from collections.abc import Iterable
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import cast

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LICENCES = ("Apache", "MIT", "BSD", "ISC", "Python Software Foundation", "PSF", "MPL-2.0", "Mozilla Public License 2.0")
"""Words of licences that may be depended on; others are for a person to look at."""


def distribution(name: str) -> metadata.Distribution | None:
    """An installed distribution."""
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def licence(found: metadata.Distribution) -> str:
    """A distribution's licence: the SPDX expression, else the classifier, else the first line of the older field."""
    fields = cast("Message", found.metadata)
    classifiers = [one.rpartition(" :: ")[2] for one in fields.get_all("Classifier") or () if "OSI Approved ::" in one]
    free = (fields.get("License") or "").strip().partition("\n")[0]
    return fields.get("License-Expression") or ", ".join(classifiers) or free or "unknown"


def is_permitted(text: str) -> bool:
    """Whether a licence is one of `LICENCES`."""
    return any(word in text for word in LICENCES)


def needs(found: metadata.Distribution, extras: Iterable[str] = ()) -> list[Requirement]:
    """What a distribution requires here, with some of its extras."""
    wanted = ("", *extras)
    parsed = (Requirement(text) for text in found.requires or ())
    return [one for one in parsed if one.marker is None or any(one.marker.evaluate({"extra": name}) for name in wanted)]


def closure(requirements: Iterable[Requirement]) -> dict[str, set[str]]:
    """Everything that some requirements bring along: name -> the names that it needs. What is missing is left out."""
    graph: dict[str, set[str]] = {}
    waiting = list(requirements)
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        found = distribution(name)
        if found is None:
            continue
        needed = needs(found, one.extras)
        names = {canonicalize_name(other.name) for other in needed if distribution(other.name)}
        if name not in graph or not names <= graph[name]:
            graph[name] = graph.get(name, set()) | names
            waiting += needed
    return graph


def record_hash(found: metadata.Distribution) -> str:
    """SHA-256 of the list of a distribution's files with their hashes (RECORD); empty when there is none."""
    text = found.read_text("RECORD")
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def changed_files(found: metadata.Distribution) -> list[str]:
    """Files of a distribution that are not what its RECORD says, or gone."""
    changed = []
    # Not `found.files`: newer Pythons leave out of it what is gone.
    rows = csv.reader((found.read_text("RECORD") or "").splitlines())
    for name, said, *_ in (row for row in rows if len(row) > 1):
        algorithm, _, wanted = said.partition("=")
        if algorithm != "sha256":
            continue
        try:
            digest = hashlib.sha256(Path(str(found.locate_file(name))).read_bytes()).digest()
        except OSError:
            changed.append(name)
            continue
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != wanted:
            changed.append(name)
    return changed
