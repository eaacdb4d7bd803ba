"""The answer to one request, in the mesh's own terms, independent of how it travels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from extauthz.request import NO_CHANGES, Changes

RBAC_DENIED_BODY = "RBAC: access denied"


@dataclass(frozen=True, slots=True)
class Decision:
    """Allow or deny, and what the client and the upstream get.

    - `status`: HTTP status of the answer; 200 when allowed. `body` and `response_headers` (lower-case names, in order)
      are what a denied client sees.
    - `reason`: Envoy's response code details (`jwt_authn_access_denied{Jwt_is_expired}`,
      `rbac_access_denied_matched_policy[ns[a]-policy[b]-rule[0]]`), or `allowed`.
    - `changes`: what an allowed request looks like upstream.
    - `metadata`: dynamic metadata for Envoy (JSON-like): verified payload, shadow and audit results.
    """

    allowed: bool
    status: int = 200
    body: str = ""
    response_headers: tuple[tuple[str, str], ...] = ()
    reason: str = "allowed"
    changes: Changes = NO_CHANGES
    metadata: Mapping[str, Any] = field(default_factory=dict)
