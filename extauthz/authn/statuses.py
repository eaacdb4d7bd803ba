"""What can be wrong with a token or a key, in Envoy's own words: these texts reach clients as response bodies and
operators as reasons, and are compared with what the mesh answers. Nothing else in this package spells them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Why a token was refused (Envoy's `JwtVerify::Status`). The value is the text that the client gets."""

    MISSING = "Jwt is missing"
    """No token at a provider's places. It never reaches a client: Istio allows requests without a token."""

    FORM = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
    HEADER_BASE64 = "Jwt header is an invalid Base64url encoded"
    HEADER_JSON = "Jwt header is an invalid JSON"
    ALGORITHM_MISSING = "Jwt header [alg] field is required and must be a string"
    ALGORITHM_UNSUPPORTED = "Jwt header [alg] is not supported"
    KEY_ID_TYPE = "Jwt header [kid] field is not a string"

    PAYLOAD_BASE64 = "Jwt payload is an invalid Base64url encoded"
    PAYLOAD_JSON = "Jwt payload is an invalid JSON"
    ISSUER_TYPE = "Jwt payload [iss] field is not a string"
    SUBJECT_TYPE = "Jwt payload [sub] field is not a string"
    ISSUED_AT_TYPE = "Jwt payload [iat] field is not an integer"
    ISSUED_AT_RANGE = "Jwt payload [iat] field is not a positive 64 bit integer"
    NOT_BEFORE_TYPE = "Jwt payload [nbf] field is not an integer"
    NOT_BEFORE_RANGE = "Jwt payload [nbf] field is not a positive 64 bit integer"
    EXPIRY_TYPE = "Jwt payload [exp] field is not an integer"
    EXPIRY_RANGE = "Jwt payload [exp] field is not a positive 64 bit integer"
    TOKEN_ID_TYPE = "Jwt payload [jti] field is not a string"
    AUDIENCE_TYPE = "Jwt payload [aud] field is not a string or string list"
    SIGNATURE_BASE64 = "Jwt signature is an invalid Base64url encoded"

    ISSUER_UNKNOWN = "Jwt issuer is not configured"
    NOT_YET_VALID = "Jwt not yet valid"
    EXPIRED = "Jwt is expired"
    AUDIENCE_NOT_ALLOWED = "Audiences in Jwt are not allowed"
    NO_VALID_KEYS = "Jwks doesn't have any valid public key"
    NO_MATCHING_KEY = "Jwks doesn't have key to match kid or alg from Jwt"
    ED25519_LENGTH = "Jwt ED25519 signature is wrong length"
    VERIFICATION_FAILS = "Jwt verification fails"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused request: the body and status that the client gets, and Envoy's response code details."""

    status_text: str
    http_status: int
    reason: str

    @classmethod
    def of(cls, status: Status) -> Refusal:
        """The refusal that `jwt_authn` makes of a status: 403 for a wrong audience, 401 for everything else."""
        http_status = 403 if status is Status.AUDIENCE_NOT_ALLOWED else 401
        # Envoy replaces white space only; brackets and apostrophes stay.
        return cls(status.value, http_status, f"jwt_authn_access_denied{{{status.value.replace(' ', '_')}}}")


class KeyStatus(StrEnum):
    """Why a key set, or one key of it, cannot be used (the `Jwks...` members of Envoy's `JwtVerify::Status`)."""

    SET_JSON = "Jwks is an invalid JSON"
    SET_WITHOUT_KEYS = "Jwks does not have [keys] field"
    SET_KEYS_TYPE = "[keys] in Jwks is not an array"
    SET_EMPTY = "Jwks doesn't have any valid public key"

    NOT_AN_OBJECT = "is not a JSON object"
    """Our words: Envoy passes such a member over without a status."""

    TYPE_MISSING = "[kty] is missing in [keys]"
    TYPE_NOT_STRING = "[kty] is bad in [keys]"
    TYPE_UNSUPPORTED = "[kty] is not supported in [keys]"

    RSA_ALGORITHM = "[alg] is not started with [RS] or [PS] for an RSA key"
    RSA_N_MISSING = "[n] field is missing for a RSA key"
    RSA_N_TYPE = "[n] field is not string for a RSA key"
    RSA_E_MISSING = "[e] field is missing for a RSA key"
    RSA_E_TYPE = "[e] field is not string for a RSA key"
    RSA_UNUSABLE = "Jwks RSA [n] or [e] field is missing or has a parse error"

    EC_ALGORITHM = "[alg] is not started with [ES] for an EC key"
    EC_CURVE_TYPE = "[crv] field is not string for an EC key"
    EC_UNSUPPORTED = "[crv] or [alg] field is not supported for an EC key"
    EC_MISMATCH = "[crv] field specified is not compatible with [alg] for an EC key"
    EC_X_MISSING = "[x] field is missing for an EC key"
    EC_X_TYPE = "[x] field is not string for an EC key"
    EC_Y_MISSING = "[y] field is missing for an EC key"
    EC_Y_TYPE = "[y] field is not string for an EC key"
    EC_BASE64 = "Jwks EC [x] or [y] field is an invalid Base64."
    EC_UNUSABLE = "Jwks EC [x] and [y] fields have a parse error."

    OCT_ALGORITHM = "[alg] does not start with [HS] for an HMAC key"
    OCT_K_MISSING = "[k] field is missing for an HMAC key"
    OCT_K_TYPE = "[k] field is not string for an HMAC key"
    OCT_BASE64 = "Jwks Oct key is an invalid Base64"

    OKP_ALGORITHM = "[alg] is not [EdDSA] for an OKP key"
    OKP_CURVE_MISSING = "[crv] field is missing for an OKP key"
    OKP_CURVE_TYPE = "[crv] field is not string for an OKP key"
    OKP_CURVE_UNSUPPORTED = "[crv] field is not supported for an OKP key"
    OKP_X_MISSING = "[x] field is missing for an OKP key"
    OKP_X_TYPE = "[x] field is not string for an OKP key"
    OKP_BASE64 = "Jwks OKP [x] field is an invalid Base64."
    OKP_LENGTH = "Jwks OKP [x] field is wrong length."

    CERTIFICATE_UNREADABLE = "X509 parse pubkey fails"
    CERTIFICATE_KEY = "X509 parse pubkey internal fails: get pubkey"
