"""Every way in which a key set fails to arrive, named so that a metric can count it and a person can act on it."""

from __future__ import annotations

from enum import StrEnum

from extauthz.errors import ExtAuthzError


class Cause(StrEnum):
    """What went wrong; the label `result` of `extauthz_jwks_fetch_total` (which is `success` otherwise)."""

    REFUSED = "refused"
    """We do not go there: an egress rule, a forbidden address, a TLS mode that only a sidecar can do."""
    NAME = "name"
    """The host name does not resolve."""
    CONNECT = "connect"
    """No connection, or one that broke."""
    TLS = "tls"
    """The handshake failed, the certificate among its reasons, or our own files for it cannot be read."""
    TIMEOUT = "timeout"
    """The rule's timeout went by."""
    STATUS = "status"
    """An answer other than 2xx."""
    REDIRECT = "redirect"
    """Too many redirects, one from https to http, or one that leads nowhere."""
    TOO_LARGE = "too_large"
    """A body or a number of keys beyond the limits."""
    CONTENT = "content"
    """A body that is no key set, or no discovery document."""
    ISSUER = "issuer"
    """A discovery document of another issuer."""
    INTERNAL = "internal"
    """A bug of ours; the log has its stack."""


class FetchFailure(ExtAuthzError):
    """One fetch brought nothing. The text is for people; it holds no key, token, body or credential.

    The text of two failures of the same kind is the same, so that a change of it is a change of state. `retry_after`
    is what the server asked for (seconds; 0: nothing). `hint` says what to do where we know.
    """

    def __init__(self, cause: Cause, text: str, *, retry_after: float = 0.0, hint: str = "") -> None:
        self.cause = cause
        self.retry_after = retry_after
        self.hint = hint
        super().__init__(f"{text} ({hint})" if hint else text)
