"""The kinds of key that a signature is checked with, and Envoy's rules for each (`kty` picks the scheme, `alg` only
the hash).

That an ECDSA signature passes under the name RS256 is odd but harmless: whoever made it knew the private key of that
very key. What must never happen is that a public value serves as a secret, and it cannot: HMAC is done with `OctKey`
only, whose bytes come from a member `k`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from jwt.algorithms import HMACAlgorithm, OKPAlgorithm

from extauthz.authn.statuses import Status

ED25519_SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Key(ABC):
    """One key of a set.

    `kid` and `algorithm` (its `alg`) are empty where the key does not say; `kind` is its `kty`; `description` tells a
    person its size or curve. `has_private_members` says that the set gave away more than a public key, `not_after`
    (Unix seconds) when the certificate it came in ends; neither changes an answer.
    """

    kid: str = ""
    algorithm: str = ""
    kind: str
    description: str
    has_private_members: bool = False
    not_after: float | None = None

    @abstractmethod
    def verify(self, algorithm: str, signed: bytes, signature: bytes) -> Status | None:
        """None when `signature` over `signed` is good under the token's `alg`, else the status that Envoy gives.

        After `Status.VERIFICATION_FAILS` other keys may be tried, any other status is the answer.
        """


_SHA: Final[dict[str, hashes.HashAlgorithm]] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_RSA: Final[dict[str, tuple[padding.AsymmetricPadding, hashes.HashAlgorithm]]] = {
    **{f"RS{bits}": (padding.PKCS1v15(), sha) for bits, sha in _SHA.items()},
    **{f"PS{bits}": (padding.PSS(padding.MGF1(sha), sha.digest_size), sha) for bits, sha in _SHA.items()},
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RsaKey(Key):
    """RSASSA-PKCS1-v1_5 for RS*, RSASSA-PSS with a salt as long as the digest for PS*; nothing else."""

    public: rsa.RSAPublicKey
    signature_bytes: int

    def verify(self, algorithm: str, signed: bytes, signature: bytes) -> Status | None:
        scheme = _RSA.get(algorithm)
        # OpenSSL takes a signature whose leading zero bytes were cut off, BoringSSL does not.
        if scheme is None or len(signature) != self.signature_bytes:
            return Status.VERIFICATION_FAILS
        try:
            self.public.verify(signature, signed, *scheme)
        except (InvalidSignature, ValueError):  # or the digest does not fit a key of this size
            return Status.VERIFICATION_FAILS
        return None


_ECDSA: Final = {"ES384": ec.ECDSA(_SHA["384"]), "ES512": ec.ECDSA(_SHA["512"])}
_ECDSA_SHA256: Final = ec.ECDSA(_SHA["256"])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EcKey(Key):
    """ECDSA on the key's own curve, with SHA-256 under every `alg` but ES384 and ES512."""

    public: ec.EllipticCurvePublicKey

    def verify(self, algorithm: str, signed: bytes, signature: bytes) -> Status | None:
        # Envoy takes the two halves for r and s, whatever their length; an odd last byte falls away.
        half = len(signature) // 2
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half : 2 * half], "big")
        bits = self.public.curve.key_size
        if not (0 < r.bit_length() <= bits and 0 < s.bit_length() <= bits):
            return Status.VERIFICATION_FAILS
        try:
            self.public.verify(encode_dss_signature(r, s), signed, _ECDSA.get(algorithm, _ECDSA_SHA256))
        except InvalidSignature:
            return Status.VERIFICATION_FAILS
        return None


_HMAC: Final = {"HS384": HMACAlgorithm(HMACAlgorithm.SHA384), "HS512": HMACAlgorithm(HMACAlgorithm.SHA512)}
_HMAC_SHA256: Final = HMACAlgorithm(HMACAlgorithm.SHA256)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OctKey(Key):
    """HMAC, with SHA-256 under every `alg` but HS384 and HS512. Secrets of any length, as in Envoy."""

    secret: bytes

    def verify(self, algorithm: str, signed: bytes, signature: bytes) -> Status | None:
        scheme = _HMAC.get(algorithm, _HMAC_SHA256)
        return None if scheme.verify(signed, self.secret, signature) else Status.VERIFICATION_FAILS


_EDDSA: Final = OKPAlgorithm()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ed25519Key(Key):
    """Ed25519 under every `alg`."""

    public: ed25519.Ed25519PublicKey

    def verify(self, algorithm: str, signed: bytes, signature: bytes) -> Status | None:
        if len(signature) != ED25519_SIGNATURE_BYTES:
            return Status.ED25519_LENGTH
        return None if _EDDSA.verify(signed, self.public, signature) else Status.VERIFICATION_FAILS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NoKey(Key):
    """A key that nothing verifies against, and that every token may try: istiod's made-up RSA key."""

    def verify(self, algorithm: str, signed: bytes, signature: bytes) -> Status | None:
        return Status.VERIFICATION_FAILS
