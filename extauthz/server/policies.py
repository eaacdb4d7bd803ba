"""The policies in force: read from files, compiled, replaced as a whole or not at all.

Loading happens in a thread that is not one of those that answer calls; taking the result into use is one assignment.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Any

from extauthz.authorizer import Authorizer, RemoteKeys
from extauthz.errors import PolicyError, Problem
from extauthz.istio.load import Loaded, load
from extauthz.istio.resources import Resource, Resources
from extauthz.server.interference import loading
from extauthz.server.options import ServeOptions

_log = logging.getLogger(__name__)

MAX_LOGGED_WARNINGS = 50


@dataclass(frozen=True, slots=True)
class PolicySet:
    """One loaded and compiled set of policies.

    `kinds` says how many resources apply, by kind; `loaded_at` is Unix time; `sizes` has each file's size when read.
    """

    authorizer: Authorizer
    loaded: Loaded
    kinds: Mapping[str, int]
    loaded_at: float
    sizes: Mapping[str, int]

    @property
    def resources(self) -> Resources:
        """What applies."""
        return self.authorizer.resources

    def describe(self) -> list[dict[str, Any]]:
        """What applies, for people: kind, name and file. Not the line: finding it means reading the file again."""
        return [
            {
                "kind": type(resource).__name__,
                "namespace": resource.metadata.namespace,
                "name": resource.metadata.name,
                "file": resource.origin.file,
            }
            for resource in _applied(self.resources)
        ]


def load_policies(options: ServeOptions, remote_keys: RemoteKeys | None, before: PolicySet | None = None) -> PolicySet:
    """Read and compile what `options` name. Raises PolicyError with every problem found.

    With `before`, a file that has become empty is refused: somebody has just begun to write it.
    """
    if before is not None:
        _refuse_emptied(before.sizes)
    with loading():
        loaded = load(options.policy, stdin=StringIO(options.stdin))
        sizes = {file: _size(file) for file in loaded.files}
        authorizer = Authorizer(loaded.resources, options.authorizer, remote_keys=remote_keys)
    kinds = Counter(type(resource).__name__ for resource in _applied(authorizer.resources))
    return PolicySet(authorizer, loaded, kinds, time.time(), sizes)


def report(policies: PolicySet, *, quietly: bool) -> str:
    """Say what a set is, in words; and, unless `quietly`, log what was ignored in the files, and every warning."""
    if not quietly:
        ignored, warnings = policies.loaded.ignored, policies.loaded.warnings
        if ignored:
            _log.info("ignored resources: %s", ", ".join(f"{count} {kind}" for kind, count in sorted(ignored.items())))
        for warning in warnings[:MAX_LOGGED_WARNINGS]:
            _log.warning("%s", warning)
        if len(warnings) > MAX_LOGGED_WARNINGS:
            _log.warning("%d more warnings; see extauthz validate", len(warnings) - MAX_LOGGED_WARNINGS)
    counts = ", ".join(f"{count} {kind}" for kind, count in policies.kinds.items()) or "no resource applies"
    return f"{counts}; files: {len(policies.loaded.files)}"


def _applied(resources: Resources) -> Iterator[Resource]:
    yield from resources.request_authentications
    yield from resources.authorization_policies
    yield from resources.service_entries
    yield from resources.destination_rules


def _refuse_emptied(before: Mapping[str, int]) -> None:
    reason = (
        "became empty, taken for a write in progress: its policies stay in force (remove the file, or leave a comment "
        "in it, to drop them)"
    )
    emptied = [file for file, size in before.items() if size > 0 and _size(file) == 0]
    if emptied:
        raise PolicyError(Problem(file, 0, "", reason, code="emptied") for file in emptied)


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size
    except OSError:
        return -1
