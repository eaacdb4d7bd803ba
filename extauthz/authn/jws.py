"""One token's text -> what it says, without any question of trust: sections, header, payload, in Envoy's order.

    token     = section "." section "." section     ; empty sections are dropped before counting: ".h..p.s." is fine
    section   = base64url text (see `base64url`)
    header    = JSON object with `alg`, one of `ALGORITHMS`, and perhaps a string `kid`
    payload   = JSON object whose registered claims have their types (RFC 7519 section 4.1); null is a wrong type

Anything else in a header (`typ`, `crit`, `b64`) is not looked at. What is signed is header and payload as they were
sent.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, NoReturn

from extauthz.authn.base64url import decode
from extauthz.authn.limits import MAX_TOKEN_CHARACTERS
from extauthz.authn.statuses import Status
from extauthz.authn.struct_json import InvalidJson, parse_object

try:
    from extauthz.authn import _jws
except ImportError:  # The extension is optional.
    _jws = None  # type: ignore[assignment]

ALGORITHMS: Final = frozenset(
    (
        "ES256",
        "ES384",
        "ES512",
        "HS256",
        "HS384",
        "HS512",
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "PS512",
        "EdDSA",
    )
)
RSA_ALGORITHMS: Final = frozenset(("RS256", "RS384", "RS512"))
"""What Anthos Service Mesh took before its version 1.13."""

_BEYOND_UINT64: Final = 2.0**64


class InvalidToken(Exception):
    """A text is no token that Envoy would look at further. `status` says why."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.value)
        self.status = status


class Jws(NamedTuple):
    """A token that was read but not verified.

    `issuer` is `iss`, empty when absent, as are `key_id` and `not_before`, `expires` (0) and `audiences`. `claims` is
    the whole payload; `header` and `payload` are sections as they were sent.
    """

    algorithm: str
    key_id: str
    issuer: str
    not_before: int
    expires: int
    audiences: tuple[str, ...]
    claims: dict[str, Any]
    header: str
    payload: str
    signed: bytes
    signature: bytes


Headers = dict[str, tuple[str, str]]
"""What `parse_header` made of header sections. An issuer's tokens have the same one until it changes keys."""


def parse_again(token: str, algorithms: frozenset[str], known: Headers) -> Jws:
    """As `parse`, at a fraction of its cost for plain tokens of which the header is known (under `algorithms`)."""
    fields = _read_plain(token, known, _COMMON_NAMES)
    # What `Jws._make` does, less its count of the fields.
    return parse(token, algorithms) if fields is None else tuple.__new__(Jws, fields)


_COMMON_NAMES: Final = {
    name: name
    for name in (
        "iss sub aud exp nbf iat jti scope scp permission azp acr amr auth_time nonce sid typ name given_name "
        "family_name preferred_username nickname email email_verified picture locale updated_at at_hash c_hash "
        "client_id groups roles realm_access resource_access entitlements permissions tenant tid oid ver uti"
    ).split()
}
"""Names of claims (IANA's registry, OpenID Connect, the large issuers) that remembered tokens share."""


def _nothing_is_plain(token: str, known: Headers, names: dict[str, str]) -> tuple[Any, ...] | None:
    return None


_read_plain: Final = _nothing_is_plain if _jws is None else _jws.read


def parse(token: str, algorithms: frozenset[str] = ALGORITHMS) -> Jws:
    """Read a token (wire text) that may use one of `algorithms`. Raises InvalidToken."""
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise InvalidToken(Status.FORM)
    sections = [section for section in token.split(".") if section]
    if len(sections) != 3:
        raise InvalidToken(Status.FORM)
    header, payload, signature = sections
    algorithm, key_id = parse_header(header, algorithms)
    data = decode(payload)
    if data is None:
        raise InvalidToken(Status.PAYLOAD_BASE64)
    try:
        claims = parse_object(data)
    except InvalidJson:
        raise InvalidToken(Status.PAYLOAD_JSON) from None
    issuer, not_before, expires, audiences = _registered_claims(claims)
    signature_bytes = decode(signature)
    if signature_bytes is None:
        raise InvalidToken(Status.SIGNATURE_BASE64)
    signed = f"{header}.{payload}".encode("latin-1")
    return Jws(
        algorithm, key_id, issuer, not_before, expires, audiences, claims, header, payload, signed, signature_bytes
    )  # fmt: skip


def parse_header(section: str, algorithms: frozenset[str] = ALGORITHMS) -> tuple[str, str]:
    """`alg` and `kid` (empty when absent) of a header section (RFC 7515 section 4.1). Raises InvalidToken."""
    data = decode(section)
    if data is None:
        raise InvalidToken(Status.HEADER_BASE64)
    try:
        header = parse_object(data)
    except InvalidJson:
        raise InvalidToken(Status.HEADER_JSON) from None
    algorithm, key_id = header.get("alg"), header.get("kid", "")
    if type(algorithm) is not str:
        raise InvalidToken(Status.ALGORITHM_MISSING)
    if algorithm not in algorithms:
        raise InvalidToken(Status.ALGORITHM_UNSUPPORTED)
    if type(key_id) is not str:
        raise InvalidToken(Status.KEY_ID_TYPE)
    return algorithm, key_id


def _registered_claims(claims: dict[str, Any]) -> tuple[str, int, int, tuple[str, ...]]:
    """`iss`, `nbf`, `exp` and `aud`, after the types of all registered claims were checked, in Envoy's order."""
    get = claims.get
    issuer = get("iss", "")
    if type(issuer) is not str:
        raise InvalidToken(Status.ISSUER_TYPE)
    if type(get("sub", "")) is not str:
        raise InvalidToken(Status.SUBJECT_TYPE)
    issued_at, not_before, expires = get("iat", 0.0), get("nbf", 0.0), get("exp", 0.0)
    if type(issued_at) is not float or not 0 <= issued_at < _BEYOND_UINT64:
        _refuse_time(issued_at, Status.ISSUED_AT_TYPE, Status.ISSUED_AT_RANGE)
    if type(not_before) is not float or not 0 <= not_before < _BEYOND_UINT64:
        _refuse_time(not_before, Status.NOT_BEFORE_TYPE, Status.NOT_BEFORE_RANGE)
    if type(expires) is not float or not 0 <= expires < _BEYOND_UINT64:
        _refuse_time(expires, Status.EXPIRY_TYPE, Status.EXPIRY_RANGE)
    if type(get("jti", "")) is not str:
        raise InvalidToken(Status.TOKEN_ID_TYPE)
    audience = get("aud", [])
    if type(audience) is str:
        audience = [audience]
    elif type(audience) is not list or not all(type(value) is str for value in audience):
        raise InvalidToken(Status.AUDIENCE_TYPE)
    return issuer, int(not_before), int(expires), tuple(audience)


def _refuse_time(value: Any, wrong_type: Status, out_of_range: Status) -> NoReturn:
    raise InvalidToken(out_of_range if type(value) is float else wrong_type)
