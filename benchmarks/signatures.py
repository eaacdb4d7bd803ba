"""The bare check of a token's signature with the `cryptography` package: nothing can verify a token for less."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from extauthz.minting import SigningKey

_HASHES: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}

Check = Callable[[], object]
"""Verifies one signature; raises when it is wrong."""


def signature_check(key: SigningKey, token: str) -> Check:
    """The check of one token's signature, everything that can be made beforehand made."""
    signed, signature = _parts(token)
    private, algorithm = key.private, key.algorithm
    if isinstance(private, bytes):
        return _hmac(private, signed, signature, f"sha{algorithm[2:]}")
    if isinstance(private, ed25519.Ed25519PrivateKey):
        edwards = private.public_key()
        return lambda: edwards.verify(signature, signed)
    digest = _HASHES[algorithm[2:]]
    if isinstance(private, rsa.RSAPrivateKey):
        modulus = private.public_key()
        probabilistic = padding.PSS(padding.MGF1(digest), digest.digest_size)
        scheme = probabilistic if algorithm.startswith("PS") else padding.PKCS1v15()
        return lambda: modulus.verify(signature, signed, scheme, digest)
    curve, size = private.public_key(), len(signature) // 2
    numbers = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
    der, function = utils.encode_dss_signature(*numbers), ec.ECDSA(digest)
    return lambda: curve.verify(der, signed, function)


def _hmac(secret: bytes, signed: bytes, signature: bytes, name: str) -> Check:
    def check() -> None:
        if not hmac.compare_digest(hmac.digest(secret, signed, name), signature):
            raise ValueError("wrong signature")

    return check


def _parts(token: str) -> tuple[bytes, bytes]:
    signed, _, text = token.rpartition(".")
    return signed.encode(), base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
