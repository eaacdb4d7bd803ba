"""Tokens that are wrong in one way each, one kind for each answer that Envoy's jwt_authn can give, and more."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives import serialization

from extauthz.minting import SigningKey, base64url, compact_json

Claims = Mapping[str, Any]
_Breaker = Callable[[SigningKey, Claims], str]

FAR_FUTURE = 4_102_444_800
"""2100-01-01, in Unix seconds."""


def _with_claims(**changed: Any) -> _Breaker:
    return lambda key, claims: key.token({**claims, **changed})


def _with_header(**changed: Any) -> _Breaker:
    return lambda key, claims: key.token(dict(claims), header=changed)


def _with_section(index: int, section: str) -> _Breaker:
    def breaker(key: SigningKey, claims: Claims) -> str:
        sections = key.token(dict(claims)).split(".")
        sections[index] = section
        return ".".join(sections)

    return breaker


def _flipped_signature(key: SigningKey, claims: Claims) -> str:
    signed, _, signature = key.token(dict(claims)).rpartition(".")
    return f"{signed}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def _other_key(key: SigningKey, claims: Claims) -> str:
    return SigningKey.generate(key.algorithm, key.kid).token(dict(claims))


def _duplicate_claim(key: SigningKey, claims: Claims) -> str:
    payload = compact_json(dict(claims))
    return key.token(b'{"twice":1,"twice":2,' + payload[1:] if len(payload) > 2 else b'{"twice":1,"twice":2}')


def _hmac_with_public_key(key: SigningKey, claims: Claims) -> str:
    """The algorithm confusion attack: the public key's text as the shared secret of an HS256 token."""
    if isinstance(key.private, bytes):
        secret = b"not the shared key"
    else:
        secret = key.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    header = {"alg": "HS256", "typ": "JWT"} | ({"kid": key.kid} if key.kid else {})
    signed = f"{base64url(compact_json(header))}.{base64url(compact_json(dict(claims)))}"
    return f"{signed}.{base64url(hmac.digest(secret, signed.encode(), 'sha256'))}"


BROKEN_TOKENS: Mapping[str, tuple[str, _Breaker]] = {
    "form": ("no signature section", lambda key, claims: key.token(dict(claims)).rpartition(".")[0]),
    "header-base64": ("a header that is no base64url", _with_section(0, "!!!")),
    "header-json": ("a header that is no JSON", _with_section(0, base64url(b"{alg"))),
    "alg-missing": ("a header without alg", _with_header(alg=None)),
    "alg-type": ("an alg that is a number", _with_header(alg=256)),
    "alg-none": ("alg none", _with_header(alg="none")),
    "alg-unknown": ("an alg that nobody knows", _with_header(alg="XX256")),
    "kid-type": ("a kid that is a number", _with_header(kid=7)),
    "kid-unknown": ("a kid that no key has", _with_header(kid="no-such-key")),
    "payload-base64": ("a payload that is no base64url", _with_section(1, "!!!")),
    "payload-json": ("a payload that is no JSON", lambda key, claims: key.token(b"{iss")),
    "duplicate-claim": ("a claim that is given twice", _duplicate_claim),
    "issuer": ("an issuer that no rule names", _with_claims(iss="https://nobody.example")),
    "issuer-missing": ("no issuer", lambda key, claims: key.token({k: v for k, v in claims.items() if k != "iss"})),
    "sub-type": ("a sub that is a number", _with_claims(sub=7)),
    "sub-missing": ("no sub", lambda key, claims: key.token({k: v for k, v in claims.items() if k != "sub"})),
    "exp-type": ("an exp that is a string", _with_claims(exp="tomorrow")),
    "exp-negative": ("a negative exp", _with_claims(exp=-1)),
    "aud-type": ("an aud that is a number", _with_claims(aud=7)),
    "audience": ("an audience that no rule names", _with_claims(aud="https://nobody.example")),
    "expired": ("an exp in 2001", _with_claims(exp=1_000_000_000)),
    "not-yet-valid": ("an nbf in 2100", _with_claims(nbf=FAR_FUTURE)),
    "signature-base64": ("a signature that is no base64url", _with_section(2, "!!!")),
    "signature": ("a signature with a changed character", _flipped_signature),
    "other-key": ("signed by another key of the same id", _other_key),
    "hmac-with-public-key": ("HS256 with the public key's text as secret", _hmac_with_public_key),
}
"""Name -> (what is wrong, how to make it). `sub-missing` verifies, but is no request principal."""


def broken_token(kind: str, key: SigningKey, claims: Claims) -> str:
    """A token with `claims`, signed by `key`, that is wrong in the named way. Raises KeyError for an unknown kind."""
    return BROKEN_TOKENS[kind][1](key, claims)
