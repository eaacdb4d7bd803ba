"""OpenID Connect Discovery 1.0: from an issuer to the URL of its key set (sections 4.1 and 4.3)."""

from __future__ import annotations

import json

from extauthz.authn.fetch.failure import Cause, FetchFailure
from extauthz.authn.fetch.url import Url

WELL_KNOWN = "/.well-known/openid-configuration"


def document_url(issuer: str) -> Url:
    """Where the discovery document of `issuer` is: the issuer less one slash at its end, and the well-known path.

    Raises ValueError for an issuer that is no http or https URL.
    """
    return Url.parse(issuer.removesuffix("/") + WELL_KNOWN)


def key_set_url(body: bytes, issuer: str, found_at: Url) -> Url:
    """The `jwks_uri` in a discovery document. Raises FetchFailure.

    A document that names another issuer is refused (a slash at the end aside): its keys would vouch for tokens that
    they were never meant for. One that names none is taken, as Istio takes it.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise FetchFailure(Cause.CONTENT, "the discovery document is not JSON") from None
    if not isinstance(document, dict):
        raise FetchFailure(Cause.CONTENT, "the discovery document is not a JSON object")
    named = document.get("issuer", issuer)
    if not isinstance(named, str) or named.removesuffix("/") != issuer.removesuffix("/"):
        shown = ascii(named)[:200] if isinstance(named, str) else "something that is no string"
        raise FetchFailure(Cause.ISSUER, f"the discovery document is of issuer {shown}, not {issuer!r}")
    uri = document.get("jwks_uri")
    if not isinstance(uri, str):
        raise FetchFailure(Cause.CONTENT, "the discovery document has no jwks_uri")
    try:
        url = Url.parse(uri)
    except ValueError as error:
        raise FetchFailure(Cause.CONTENT, f"jwks_uri in the discovery document: {error}") from None
    if found_at.scheme == "https" and url.scheme != "https":
        raise FetchFailure(Cause.REDIRECT, f"the discovery document came over https, its jwks_uri is {url.shown}")
    return url
