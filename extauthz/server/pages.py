"""The pages of the admin port: metrics, liveness, readiness, what is loaded, and, where it is allowed, a reload."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from extauthz.server.admin import JSON, Page, Routes
from extauthz.server.logs import timestamp
from extauthz.server.metrics import Snapshot, merge
from extauthz.server.reload import Outcome, Reloads
from extauthz.server.service import Site


class Pages:
    """Makes the pages of one server. `extra` are metrics that the site itself does not have."""

    def __init__(self, site: Site, reloads: Reloads, extra: Callable[[], Snapshot]) -> None:
        self.draining = False
        self._site = site
        self._reloads = reloads
        self._extra = extra

    def routes(self, *, reload: bool) -> Routes:
        """Which pages there are; `reload` adds `POST /reload`."""
        routes: dict[tuple[str, str], Callable[[], Page]] = {
            ("GET", "/metrics"): self.metrics,
            ("GET", "/healthz"): self.healthz,
            ("GET", "/readyz"): self.readyz,
            ("GET", "/policies"): self.policies,
        }
        if reload:
            routes["POST", "/reload"] = self.reload
        return routes

    def metrics(self) -> Page:
        """Prometheus text."""
        from extauthz.server.exposition import CONTENT_TYPE, exposition

        snapshot = merge([self._site.snapshot(), self._reloads.snapshot(), self._extra()])
        return Page(exposition(snapshot), CONTENT_TYPE)

    def healthz(self) -> Page:
        """Whether the process lives: it does, if it answers."""
        return Page(b"ok\n")

    def readyz(self) -> Page:
        """Whether calls should be sent here. Key sets that are missing do not change that: the mesh serves, too."""
        if self.draining:
            return _json({"ready": False, "reason": "draining"}, HTTPStatus.SERVICE_UNAVAILABLE)
        if not self._site.serving():
            return _json({"ready": False, "reason": "no worker is serving"}, HTTPStatus.SERVICE_UNAVAILABLE)
        return _json({"ready": True, "missing": list(self._site.missing())})

    def policies(self) -> Page:
        """What is in force, what the key sets are, and how the last reload went."""
        return _json({**_readable(self._site.describe()), "last_reload": _outcome(self._reloads.last)})

    def reload(self) -> Page:
        """Reload now and say how it went."""
        outcome = self._reloads.now("asked for on the admin port")
        status = HTTPStatus.OK if outcome.succeeded else HTTPStatus.UNPROCESSABLE_ENTITY
        return _json(_outcome(outcome), status)


def _readable(description: Mapping[str, Any]) -> dict[str, Any]:
    loaded_at = description.get("loaded_at")
    return {**description, "loaded_at": timestamp(loaded_at) if loaded_at is not None else None}


def _outcome(outcome: Outcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    return {
        "at": timestamp(outcome.at),
        "cause": outcome.cause,
        "result": "success" if outcome.succeeded else "error",
        "summary": outcome.summary,
        "problems": list(outcome.problems),
    }


def _json(value: object, status: HTTPStatus = HTTPStatus.OK) -> Page:
    return Page(json.dumps(value, indent=1).encode() + b"\n", JSON, status)
