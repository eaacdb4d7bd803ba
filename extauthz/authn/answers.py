"""A refusal -> what the client sees: status, body and `www-authenticate`, as Envoy's `jwt_authn` writes them."""

from __future__ import annotations

from typing import Final

from extauthz.authn.statuses import Refusal
from extauthz.decision import Decision
from extauthz.request import Request

ORIGINAL_PATH: Final = "x-envoy-original-path"
"""The header with the path before Envoy rewrote it."""

MAX_REALM_PATH: Final = 256
"""Characters of the path, query included, that the realm shows."""


def refuse(request: Request, refusal: Refusal) -> Decision:
    """The denial of a request, as it was received, for which authentication gave a refusal."""
    challenge = f'Bearer realm="{_original_uri(request)}", error="invalid_token"'
    headers = (("www-authenticate", challenge), ("content-type", "text/plain"))
    return Decision(False, refusal.http_status, refusal.status_text, headers, refusal.reason)


def _original_uri(request: Request) -> str:
    """scheme://host + path; the header x-envoy-original-path, when there is one, stands for the path."""
    original = request.lines(ORIGINAL_PATH)
    path = original[0] if original else request.path
    return f"{request.scheme}://{request.host}{path[:MAX_REALM_PATH]}"
