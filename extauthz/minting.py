"""Test keys and test tokens, good ones and ones that are broken on purpose: for the demo, `extauthz token`, the load
tester, the verifier and the tests. Nothing here takes part in a decision.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "HS256", "HS384", "HS512", "EdDSA",
)  # fmt: skip

_HASHES: dict[str, type[hashes.HashAlgorithm]] = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
_CURVES: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
_CURVE_NAMES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | bytes


def base64url(data: bytes) -> str:
    """base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def compact_json(value: Any) -> bytes:
    """JSON without blanks, non-ASCII characters as they are."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _integer(value: int, length: int = 0) -> str:
    return base64url(value.to_bytes(length or (value.bit_length() + 7) // 8, "big"))


@dataclass(frozen=True)
class SigningKey:
    """A private (or shared) key with the algorithm and key id that its tokens carry."""

    algorithm: str
    kid: str
    private: PrivateKey

    @classmethod
    def generate(cls, algorithm: str = "RS256", kid: str = "test-key", *, rsa_bits: int = 2048) -> SigningKey:
        """Make a new key that fits one of `ALGORITHMS`. Raises ValueError for another one."""
        if algorithm not in ALGORITHMS:
            raise ValueError(f"unknown algorithm {algorithm!r}; one of {', '.join(ALGORITHMS)}")
        family = algorithm[:2]
        private: PrivateKey
        if family in ("RS", "PS"):
            private = rsa.generate_private_key(65537, rsa_bits)
        elif family == "ES":
            private = ec.generate_private_key(_CURVES[algorithm])
        elif family == "HS":
            private = secrets.token_bytes(int(algorithm[2:]) // 8)
        else:
            private = ed25519.Ed25519PrivateKey.generate()
        return cls(algorithm, kid, private)

    @classmethod
    def from_text(cls, text: str, algorithm: str, kid: str) -> SigningKey:
        """The key that `private_text` wrote: PEM, or for HS* the base64url of the secret. Raises ValueError."""
        if algorithm not in ALGORITHMS:
            raise ValueError(f"unknown algorithm {algorithm!r}; one of {', '.join(ALGORITHMS)}")
        if algorithm[:2] == "HS":
            return cls(algorithm, kid, base64.urlsafe_b64decode(text.strip() + "=="))
        private = serialization.load_pem_private_key(text.encode(), None)
        families = {"RS": rsa.RSAPrivateKey, "PS": rsa.RSAPrivateKey, "ES": ec.EllipticCurvePrivateKey}
        if not isinstance(private, families.get(algorithm[:2], ed25519.Ed25519PrivateKey)):
            raise ValueError(f"not a key for {algorithm}")
        assert isinstance(private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey)
        return cls(algorithm, kid, private)

    def private_text(self) -> str:
        """The private key as PEM (PKCS #8, not encrypted), or for HS* the secret as base64url."""
        if isinstance(self.private, bytes):
            return base64url(self.private) + "\n"
        pem = self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return pem.decode("ascii")

    def jwk(self, *, with_alg: bool = True, **extra: Any) -> dict[str, Any]:
        """The public JSON Web Key (RFC 7517); for HS* the shared key. `extra` members are added, None removes one."""
        key = self.private
        members: dict[str, Any]
        if isinstance(key, bytes):
            members = {"kty": "oct", "k": base64url(key)}
        elif isinstance(key, rsa.RSAPrivateKey):
            numbers = key.public_key().public_numbers()
            members = {"kty": "RSA", "n": _integer(numbers.n), "e": _integer(numbers.e)}
        elif isinstance(key, ec.EllipticCurvePrivateKey):
            point = key.public_key().public_numbers()
            size = (key.curve.key_size + 7) // 8
            members = {
                "kty": "EC",
                "crv": _CURVE_NAMES[key.curve.name],
                "x": _integer(point.x, size),
                "y": _integer(point.y, size),
            }
        else:
            members = {"kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_key().public_bytes_raw())}
        if self.kid:
            members["kid"] = self.kid
        if with_alg:
            members["alg"] = self.algorithm
        members.update(extra)
        return {name: value for name, value in members.items() if value is not None}

    def sign(self, data: bytes, algorithm: str = "") -> bytes:
        """The JWS signature of `data`. `algorithm` defaults to the key's own; another one of its type works."""
        algorithm = algorithm or self.algorithm
        key = self.private
        if isinstance(key, bytes):
            return hmac.new(key, data, f"sha{algorithm[2:]}" if algorithm[:2] == "HS" else hashlib.sha256).digest()
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return key.sign(data)
        digest = _HASHES.get(algorithm[2:], hashes.SHA256)()
        if isinstance(key, ec.EllipticCurvePrivateKey):
            r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
            size = (key.curve.key_size + 7) // 8
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        if algorithm[:2] == "PS":
            return key.sign(data, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        return key.sign(data, padding.PKCS1v15(), digest)

    def token(self, claims: Any, *, header: dict[str, Any] | None = None, algorithm: str = "") -> str:
        """A signed compact JWT. `header` members replace `alg`, `kid` and `typ`; a member that is None is left out.

        `claims` is usually a dict; bytes are taken as the raw payload.
        """
        members: dict[str, Any] = {"alg": algorithm or self.algorithm, "kid": self.kid or None, "typ": "JWT"}
        members.update(header or {})
        payload = claims if isinstance(claims, bytes) else compact_json(claims)
        return self.token_of(compact_json({k: v for k, v in members.items() if v is not None}), payload, algorithm)

    def token_of(self, header: bytes, payload: bytes, algorithm: str = "") -> str:
        """A signed compact JWS of exactly these header and payload bytes, however broken they are as JSON."""
        signed = f"{base64url(header)}.{base64url(payload)}"
        return f"{signed}.{base64url(self.sign(signed.encode(), algorithm))}"


def key_set(*keys: SigningKey | dict[str, Any]) -> dict[str, Any]:
    """A JSON Web Key Set of keys or of ready-made members."""
    return {"keys": [key.jwk() if isinstance(key, SigningKey) else key for key in keys]}
