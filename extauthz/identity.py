"""Who a request was found to come from: the payload of the last token that verified, as policies read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Identity:
    """A verified payload. Immutable but for `memo`.

    `claims` is the payload after `scope`, `permission` and the rule's `spaceDelimitedClaims` were split into lists; its
    values are what protobuf's Struct holds: None, bool, float, str, list, dict (Istio: `payload_in_metadata`). `issuer`
    and `subject` are the string claims `iss` and `sub`, None where absent. `memo` lets compiled policies keep what they
    worked out about this identity; the owner of an `Identity` drops it with the policies it was made under.
    """

    __slots__ = ("claims", "issuer", "memo", "subject")

    def __init__(self, claims: Mapping[str, Any]) -> None:
        self.claims = claims
        issuer, subject = claims.get("iss"), claims.get("sub")
        self.issuer: str | None = issuer if isinstance(issuer, str) else None
        self.subject: str | None = subject if isinstance(subject, str) else None
        self.memo: dict[Any, Any] = {}


def anonymous() -> Identity:
    """An identity for a request without a verified token. One per set of policies, since `memo` belongs to them."""
    return Identity({})
