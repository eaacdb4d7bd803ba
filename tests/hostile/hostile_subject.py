"""What is attacked, and the independent judge of what it allows.

The subject is an `Authorizer` whose one ALLOW policy wants three things at once: a token of the test's issuer, the
method GET, and a path under /allowed; and whose DENY policy names a path and a header. Nothing else is ever allowed, so
an answer is wrong exactly when it allows something that fails one of these conditions.

The judge is one-sided and shares no code with the subject. It looks only at what was allowed, and asks for conditions
that are *necessary* in every reading of the message:

- the protobuf runtime reads the bytes, or, where only such parts of the message are broken as no policy looks at (an
  address that is no UTF-8; the subject's fast path passes over them unread), the fields that matter can be read one by
  one;
- the method, the path and the denied header are as the policies want them, by that reading;
- somewhere in a place that the policies name for tokens stands a text of three sections that the holder of a test key
  signed: `cryptography` is asked about every key, scheme and hash that could be meant, so that a token which was only
  written differently (the unused bits of the last base64url character, a `crit` that Envoy ignores) is not called
  forged, and one that nobody signed cannot pass; and whose claims (issuer, audience, exp, nbf) hold, read with the
  standard library's JSON, where a member given twice makes the payload invalid.

What the judge cannot see: requests that were denied and should not have been. The tests of semantics and `extauthz
verify` look for those.
"""

from __future__ import annotations

import base64
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from google.protobuf.message import DecodeError
from hostile_wire import LENGTH, fields

from extauthz.authorizer import Authorizer
from extauthz.istio.load import load
from extauthz.minting import SigningKey, key_set
from extauthz.protos.external_auth_pb2 import CheckRequest, CheckResponse

ISSUER = "https://issuer.test"
AUDIENCE = "api"
DENIED_PATH = "/allowed/secret"
DENIED_TEXT = "/allowed/\u00fcnter"
TOKEN_HEADERS = ("authorization", "x-token", "cookie")
SKEW = 60
HASHES = (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())
WITH_BLANKS = re.compile(r"([\w-]+)\.+([\w-]+)\.+([\w\s=+/-]+)", re.ASCII)
TOKENS = (re.compile(r"[\w.-]+", re.ASCII), re.compile(r"[\w=+/.-]+", re.ASCII))

Check = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Subject:
    """The test's keys, the policies that trust them, and what answers Check calls by those policies."""

    keys: tuple[SigningKey, ...]
    policies: str
    check: Check

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Claims that hold for an hour, with changes."""
        now = int(time.time())
        return {"iss": ISSUER, "sub": "u", "aud": AUDIENCE, "iat": now, "exp": now + 36_000, **changed}


def make_subject() -> Subject:
    """A subject with new keys of each kind that is signed with in practice."""
    keys = tuple(SigningKey.generate(name, kid) for name, kid in (("RS256", "r"), ("ES256", "e"), ("EdDSA", "d")))
    policies = policy_text(json.dumps(key_set(*keys)))
    return Subject(keys, policies, authorizer(policies).check)


def authorizer(policies: str) -> Authorizer:
    """An authorizer of policies as text. Raises PolicyError."""
    return Authorizer(load(["-"], stdin=io.StringIO(policies)).resources)


def policy_text(jwks: str) -> str:
    """The policies of the subject, trusting these keys."""
    return f"""\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata:
  name: tokens
  namespace: foo
spec:
  jwtRules:
  - issuer: {ISSUER}
    audiences: [{AUDIENCE}]
    jwks: '{jwks}'
    fromHeaders:
    - name: authorization
      prefix: "Bearer "
    - name: x-token
    fromParams: [token]
    fromCookies: [session]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: let-in
  namespace: foo
spec:
  action: ALLOW
  rules:
  - from:
    - source:
        requestPrincipals: ["{ISSUER}/*"]
    to:
    - operation:
        methods: ["GET"]
        paths: ["/allowed*"]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: keep-out
  namespace: foo
spec:
  action: DENY
  rules:
  - to:
    - operation:
        paths: ["{DENIED_PATH}", "{DENIED_TEXT}"]
  - when:
    - key: request.headers[x-blocked]
      values: ["yes"]
"""


def allows(answer: bytes) -> bool:
    """Whether Envoy lets a request pass on this answer: status OK, and no denial. Raises DecodeError."""
    response = CheckResponse.FromString(answer)
    return response.status.code == 0 and response.WhichOneof("http_response") != "denied_response"


class Judge:
    """Says why something that was allowed should not have been."""

    def __init__(self, keys: tuple[SigningKey, ...]) -> None:
        self._public = [key.private.public_key() for key in keys if not isinstance(key.private, bytes)]
        self._good = lru_cache(4096)(self._is_good)

    def fault(self, message: bytes) -> str:
        """Why the policies of the subject do not allow this CheckRequest; empty when they may."""
        read = reading(message)
        if read is None:
            return "not a CheckRequest"
        if read.method != "GET":
            return f"method {read.method!r}"
        path = re.split("[?#]", read.path)[0]
        if not path.startswith("/allowed") or path in (DENIED_PATH, DENIED_TEXT.encode().decode("latin-1")):
            return f"path {path!r}"
        if [value for name, value in read.lines if name == "x-blocked"] == ["yes"]:
            return "the blocked header"
        texts = [value for name, value in read.lines if name in TOKEN_HEADERS]
        texts += [read.path, unquote(read.path, "latin-1")]
        if not any(self._good(token) for text in texts for token in tokens_in(text)):
            return "no token that a test key signed"
        return ""

    def _is_good(self, token: str) -> bool:
        signed, _, signature = token.rpartition(".")
        data = decoded(signature)
        return any(_verifies(key, signed.encode(), data) for key in self._public) and claims_hold(
            decoded(signed.partition(".")[2])
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """What a CheckRequest says by the second reading; texts have one character per byte."""

    method: str
    path: str
    lines: tuple[tuple[str, str], ...]


def reading(message: bytes) -> Reading | None:
    """Read a CheckRequest with the protobuf runtime, or field by field when only parts without meaning are broken."""
    try:
        http = CheckRequest.FromString(message).attributes.request.http
    except DecodeError:
        return _reading_by_fields(message)
    raw = [
        (entry.key, (entry.raw_value or entry.value.encode()).decode("latin-1")) for entry in http.header_map.headers
    ]
    joined = [(name, value.encode().decode("latin-1")) for name, value in http.headers.items()]
    return Reading(http.method, http.path.encode().decode("latin-1"), tuple(raw or joined))


def _reading_by_fields(message: bytes) -> Reading | None:
    def values(data: bytes, number: int) -> list[bytes]:
        found = fields(data)
        if found is None:
            raise ValueError("no message")
        return [one.value for one in found if one.number == number and one.kind == LENGTH]

    def last(data: bytes, number: int) -> bytes:
        return values(data, number)[-1] if values(data, number) else b""

    def text(data: bytes, *numbers: int) -> str:
        return next((last(data, number) for number in numbers if last(data, number)), b"").decode("latin-1")

    try:
        http = message
        for number in (1, 4, 2):
            (http,) = values(http, number)
        raw = [entry for one in values(http, 13) for entry in values(one, 1)]
        lines = [(text(entry, 1), text(entry, 3, 2)) for entry in raw]
        lines = lines or [(text(entry, 1), text(entry, 2)) for entry in values(http, 3)]
        return Reading(text(http, 2), text(http, 4), tuple(lines))
    except ValueError:
        return None


def tokens_in(text: str) -> Iterator[str]:
    """Every three sections in a row. As in Envoy, empty ones are none, and blanks in a signature do not count."""
    for run in (run for pattern in TOKENS for run in pattern.findall(text)):
        sections = [section for section in run.split(".") if section]
        yield from (".".join(sections[at : at + 3]) for at in range(len(sections) - 2))
    yield from (".".join(sections) for sections in WITH_BLANKS.findall(text))


def decoded(section: str) -> bytes:
    """base64url read as leniently as anybody does: padding, blanks, the other alphabet and stray bits pass."""
    text = re.sub(r"\s", "", section).rstrip("=").replace("+", "-").replace("/", "_")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""


def claims_hold(payload: bytes) -> bool:
    """Whether a payload is of the issuer, for the audience, and of this time (with Envoy's skew, and 5 s for us)."""

    def once(members: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in members}) != len(members):
            raise ValueError("a member twice")
        return dict(members)

    try:
        claims = json.loads(payload, object_pairs_hook=once)
    except (ValueError, RecursionError):
        return False
    if not isinstance(claims, dict):
        return False
    audiences = claims.get("aud")
    named = audiences if isinstance(audiences, list) else [audiences]
    now, skew = time.time(), SKEW + 5
    return (
        claims.get("iss") == ISSUER
        and AUDIENCE in (re.sub("^https?://|/$", "", one) for one in named if isinstance(one, str))
        and _is_number(claims.get("exp", now))
        and _is_number(claims.get("nbf", now))
        # Envoy cuts fractions and takes an exp of 0 for none.
        and (claims.get("exp", now) > now - skew or not int(claims["exp"]))
        and claims.get("nbf", now) < now + skew
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _verifies(key: Any, signed: bytes, signature: bytes) -> bool:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return _passes(lambda: key.verify(signature, signed))
    if isinstance(key, ec.EllipticCurvePublicKey):
        # Envoy takes the halves as they are, and passes over an odd byte: no way to forge one.
        half = len(signature) // 2
        r, s = (int.from_bytes(signature[at : at + half], "big") for at in (0, half))
        encoded = utils.encode_dss_signature(r, s)
        return any(_passes(lambda h=h: key.verify(encoded, signed, ec.ECDSA(h))) for h in HASHES)  # type: ignore[misc]
    assert isinstance(key, rsa.RSAPublicKey)
    return any(
        _passes(lambda p=p, h=h: key.verify(signature, signed, p, h))  # type: ignore[misc]
        for h in HASHES
        for p in (padding.PKCS1v15(), padding.PSS(padding.MGF1(h), padding.PSS.AUTO))
    )


def _passes(verify: Callable[[], None]) -> bool:
    try:
        verify()
    except InvalidSignature:
        return False
    return True
