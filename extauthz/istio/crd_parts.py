"""What resources of several kinds have in common, from YAML fields: metadata, selectors, targets, choices, times."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from extauthz.istio.fields import NO_PLACES, Fields
from extauthz.istio.resources import Metadata, TargetRef

DEFAULT_NAMESPACE = "default"
"""Where kubectl puts what names no namespace."""

_DURATION = re.compile(r"(?P<sign>[-+]?)(?:0|(?P<parts>(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+))")
_DURATION_PART = re.compile(r"([0-9.]+)([a-zµμ]+)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_MAX_DURATION_CHARACTERS = 100

E = TypeVar("E", bound=StrEnum)


def envelope(fields: Fields, places: Mapping[str, str] = NO_PLACES) -> None:
    """The fields around `spec`; what a cluster adds (`status`) does not matter. `places` as for `Fields.done`."""
    fields.ignore("apiVersion", "kind", "metadata", "status", "spec")
    fields.done(places)


def metadata(fields: Fields) -> Metadata:
    """`metadata`, of which server-set fields are passed over."""
    found = fields.mapping("metadata")
    name = found.text("name")
    if not name:
        found.report(("name",), found.line, "a resource needs a name", "no-name")
    return Metadata(
        name=name,
        namespace=found.text("namespace") or DEFAULT_NAMESPACE,
        labels=found.text_map("labels"),
        annotations=found.text_map("annotations"),
        creation_timestamp=found.text("creationTimestamp"),
    )


def selector(spec: Fields, name: str = "selector", labels: str = "matchLabels") -> Mapping[str, str] | None:
    """The labels of a workload selector; None when there is none."""
    if not spec.has(name):
        return None
    found = spec.mapping(name)
    chosen = found.text_map(labels)
    found.done()
    return chosen


def target_refs(spec: Fields) -> tuple[TargetRef, ...]:
    """`targetRefs`, or the one `targetRef` of older policies."""
    found = [_target_ref(entry) for entry in spec.mappings("targetRefs")]
    if spec.has("targetRef"):
        if found:
            spec.report(
                ("targetRef",), spec.take("targetRef")[1], "give targetRef or targetRefs, not both", "target-ref"
            )
        found.insert(0, _target_ref(spec.mapping("targetRef")))
    return tuple(found)


def _target_ref(fields: Fields) -> TargetRef:
    reference = TargetRef(
        group=fields.text("group"),
        kind=fields.text("kind"),
        name=fields.text("name"),
        namespace=fields.text("namespace"),
    )
    fields.done()
    return reference


def choice(fields: Fields, name: str, values: type[E], default: E) -> E:
    """One of an enumeration's values; the default when absent."""
    text = fields.text(name)
    if not text:
        return default
    try:
        return values(text)
    except ValueError:
        known = ", ".join(values)
        fields.report((name,), fields.take(name)[1], f"unknown value {text!r}; one of {known}", "unknown-value")
        return default


def duration(fields: Fields, name: str) -> float | None:
    """Seconds of a Go duration (`5s`, `1m30s`, `500ms`); None when absent."""
    if not fields.has(name):
        return None
    text = fields.text(name)
    match = _DURATION.fullmatch(text) if len(text) <= _MAX_DURATION_CHARACTERS else None
    if match is None:
        if isinstance(fields.take(name)[0], str):
            reason = f"{text[:_MAX_DURATION_CHARACTERS]!r} is no duration; write a number and a unit, like 5s"
            fields.report((name,), fields.take(name)[1], reason, "duration")
        return None
    parts = _DURATION_PART.findall(match["parts"] or "")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return -seconds if match["sign"] == "-" else seconds
