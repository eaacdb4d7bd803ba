"""One member of a key set -> a `Key`: JSON Web Keys (RFC 7517, 7518, 8037) and PEM certificates, as Envoy reads them.

Members are checked in Envoy's order, so that the reason is Envoy's. What it does not look at (`use`, `key_ops`, `x5c`,
`x5t`) is not looked at here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from extauthz.authn.base64url import decode
from extauthz.authn.public_keys import EcKey, Ed25519Key, Key, OctKey, RsaKey
from extauthz.authn.statuses import KeyStatus

Members = Mapping[str, Any]

RSA_BITS: Final = range(512, 16384 + 1)
"""Sizes of a modulus that BoringSSL takes."""

RSA_EXPONENTS: Final = (3, 65537)

CERTIFICATE_BEGIN: Final = "-----BEGIN CERTIFICATE-----\n"
CERTIFICATE_END: Final = "\n-----END CERTIFICATE-----\n"

_PRIVATE_MEMBERS: Final = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth"))


class UnusableKey(Exception):
    """A member of a key set is no key that Envoy would use. `status` says why."""

    def __init__(self, status: KeyStatus) -> None:
        super().__init__(status.value)
        self.status = status


def read_jwk(members: Members) -> Key:
    """The key of one member of `keys`. Raises UnusableKey."""
    kind = members.get("kty")
    if not isinstance(kind, str):
        raise UnusableKey(KeyStatus.TYPE_NOT_STRING if "kty" in members else KeyStatus.TYPE_MISSING)
    algorithm = _optional_text(members, "alg")
    match kind:
        case "RSA":
            return _rsa(members, algorithm)
        case "EC":
            return _ec(members, algorithm)
        case "oct":
            return _oct(members, algorithm)
        case "OKP":
            return _okp(members, algorithm)
    raise UnusableKey(KeyStatus.TYPE_UNSUPPORTED)


def read_certificate(kid: str, pem: str) -> Key:
    """The RSA key of a certificate; its dates and signature do not matter. Raises UnusableKey.

    `pem` begins with `CERTIFICATE_BEGIN` and ends with `CERTIFICATE_END`; the first certificate in it counts.
    """
    body = pem[len(CERTIFICATE_BEGIN) :].partition(CERTIFICATE_END)[0]
    try:
        if ":" in body:  # cryptography reads past PEM headers, BoringSSL takes them for encryption
            raise UnusableKey(KeyStatus.CERTIFICATE_UNREADABLE)
        certificate = x509.load_pem_x509_certificate(f"{CERTIFICATE_BEGIN}{body}{CERTIFICATE_END}".encode())
    except ValueError:
        raise UnusableKey(KeyStatus.CERTIFICATE_UNREADABLE) from None
    try:
        public = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise UnusableKey(KeyStatus.CERTIFICATE_KEY) from None
    if not isinstance(public, rsa.RSAPublicKey) or public.key_size not in RSA_BITS:
        raise UnusableKey(KeyStatus.CERTIFICATE_KEY)
    return RsaKey(
        kid=kid,
        kind="RSA",
        description=f"RSA {public.key_size} (certificate)",
        not_after=certificate.not_valid_after_utc.timestamp(),
        public=public,
        signature_bytes=(public.key_size + 7) // 8,
    )


def _optional_text(members: Members, name: str) -> str:
    """`kid` and `alg`: of another type they count as absent."""
    value = members.get(name)
    return value if isinstance(value, str) else ""


def _text(members: Members, name: str, missing: KeyStatus, wrong_type: KeyStatus) -> str:
    value = members.get(name)
    if isinstance(value, str):
        return value
    raise UnusableKey(wrong_type if name in members else missing)


def _common(members: Members, algorithm: str) -> dict[str, Any]:
    return {
        "kid": _optional_text(members, "kid"),
        "algorithm": algorithm,
        "has_private_members": not _PRIVATE_MEMBERS.isdisjoint(members),
    }


def _integer(text: str) -> int | None:
    data = decode(text)
    return None if data is None else int.from_bytes(data, "big")


def _rsa(members: Members, algorithm: str) -> Key:
    # A prefix is enough: `RSA-OAEP` is kept, and matches no token.
    if algorithm and not algorithm.startswith(("RS", "PS")):
        raise UnusableKey(KeyStatus.RSA_ALGORITHM)
    modulus = _integer(_text(members, "n", KeyStatus.RSA_N_MISSING, KeyStatus.RSA_N_TYPE))
    exponent = _integer(_text(members, "e", KeyStatus.RSA_E_MISSING, KeyStatus.RSA_E_TYPE))
    usable = modulus is not None and modulus.bit_length() in RSA_BITS and modulus % 2 == 1
    if modulus is None or exponent is None or not usable or exponent not in RSA_EXPONENTS:
        raise UnusableKey(KeyStatus.RSA_UNUSABLE)
    bits = modulus.bit_length()
    try:
        public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        raise UnusableKey(KeyStatus.RSA_UNUSABLE) from None
    return RsaKey(
        kind="RSA",
        description=f"RSA {bits}",
        public=public,
        signature_bytes=(bits + 7) // 8,
        **_common(members, algorithm),
    )


_CURVE_OF_ALGORITHM: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}


def _ec(members: Members, algorithm: str) -> Key:
    if algorithm and not algorithm.startswith("ES"):
        raise UnusableKey(KeyStatus.EC_ALGORITHM)
    name = _ec_curve(members, algorithm)
    x_text = _text(members, "x", KeyStatus.EC_X_MISSING, KeyStatus.EC_X_TYPE)
    y_text = _text(members, "y", KeyStatus.EC_Y_MISSING, KeyStatus.EC_Y_TYPE)
    x, y = _integer(x_text), _integer(y_text)
    if x is None or y is None:
        raise UnusableKey(KeyStatus.EC_BASE64)
    try:
        public = ec.EllipticCurvePublicNumbers(x, y, _CURVES[name]).public_key()
    except ValueError:
        raise UnusableKey(KeyStatus.EC_UNUSABLE) from None
    return EcKey(kind="EC", description=f"EC {name}", public=public, **_common(members, algorithm))


def _ec_curve(members: Members, algorithm: str) -> str:
    """The curve by `crv`, else by `alg`, else P-256; where both are given they have to agree."""
    curve = members.get("crv", "")
    if not isinstance(curve, str):
        raise UnusableKey(KeyStatus.EC_CURVE_TYPE)
    if algorithm and curve and _CURVE_OF_ALGORITHM.get(algorithm) != curve:
        raise UnusableKey(KeyStatus.EC_MISMATCH)
    if not curve:
        curve = _CURVE_OF_ALGORITHM.get(algorithm, "") if algorithm else "P-256"
    if curve not in _CURVES:
        raise UnusableKey(KeyStatus.EC_UNSUPPORTED)
    return curve


def _oct(members: Members, algorithm: str) -> Key:
    if algorithm and algorithm not in ("HS256", "HS384", "HS512"):
        raise UnusableKey(KeyStatus.OCT_ALGORITHM)
    secret = decode(_text(members, "k", KeyStatus.OCT_K_MISSING, KeyStatus.OCT_K_TYPE))
    if not secret:
        raise UnusableKey(KeyStatus.OCT_BASE64)
    return OctKey(kind="oct", description=f"oct {8 * len(secret)}", secret=secret, **_common(members, algorithm))


def _okp(members: Members, algorithm: str) -> Key:
    if algorithm and algorithm != "EdDSA":
        raise UnusableKey(KeyStatus.OKP_ALGORITHM)
    curve = _text(members, "crv", KeyStatus.OKP_CURVE_MISSING, KeyStatus.OKP_CURVE_TYPE)
    if curve != "Ed25519":
        raise UnusableKey(KeyStatus.OKP_CURVE_UNSUPPORTED)
    data = decode(_text(members, "x", KeyStatus.OKP_X_MISSING, KeyStatus.OKP_X_TYPE))
    if data is None:
        raise UnusableKey(KeyStatus.OKP_BASE64)
    if len(data) != 32:
        raise UnusableKey(KeyStatus.OKP_LENGTH)
    public = ed25519.Ed25519PublicKey.from_public_bytes(data)
    return Ed25519Key(kind="OKP", description="OKP Ed25519", public=public, **_common(members, algorithm))
