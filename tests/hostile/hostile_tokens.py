"""Hostile tokens, one to three of them in a request that would be allowed with a good one.

Most are forged by construction: signed by a stranger, by an HMAC whose secret is anything public, or by nobody. Some
are signed by a test key over claims that must not hold. Those that are good tokens written differently may hold; what
is allowed is judged by the second reading (see hostile_subject).
"""

from __future__ import annotations

import hmac
import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import serialization
from hostile_families import ALLOWED, DENIED, REFUSED
from hostile_subject import Judge, Subject, allows
from hostile_wire import mutated_bytes

from extauthz.broken_tokens import BROKEN_TOKENS, broken_token
from extauthz.checkapi.build import check_request
from extauthz.errors import MalformedCheckRequest
from extauthz.minting import SigningKey, base64url, compact_json

CHARACTERS = string.ascii_letters + string.digits + "-_=+/.,;' \t%\x00\xff"
NUMBERS: tuple[Any, ...] = (
    -1, -0.5, 0.5, 1, 1_000_000_000, 2**31, 2**53, 2**63, 2**64, 1e308, -1e308, "9999999999", None, True, [], {}, "",
)  # fmt: skip
ALGORITHMS = (
    "none", "None", "NONE", "nOnE", "", " ", "HS256", "HS384", "HS512", "RS256", "PS512", "ES256", "ES256K", "EdDSA",
    "RSA1_5", "dir", "A256KW", "rs256", "RS256 ", "RS256\0", None, 256, True, [], {}, ["RS256"],
)  # fmt: skip
KIDS = (
    "r", "e", "d", "", "../../../../dev/null", "/etc/passwd", "' OR 1=1 --", "r\0", "R", "http://stranger.test/k", "*",
    None, 7, [], {}, ["r"], "k" * 10_000, "\u0000", "\ud800",
)  # fmt: skip
HEADERS: tuple[dict[str, Any], ...] = (
    {"crit": ["b64"], "b64": False}, {"crit": ["exp"]}, {"crit": []}, {"zip": "DEF"}, {"cty": "JWT"},
)  # fmt: skip
PAYLOADS = (b"", b"null", b"[]", b"{}", b'"x"', b"\xff", b"\xef\xbb\xbf{}", b"{" * 500)


@dataclass(frozen=True)
class _Material:
    """What tokens are made of. Signing is dear, so that most are drawn from pools."""

    good: list[str]
    claims: bytes
    secrets: list[bytes]
    stranger: SigningKey
    signed: list[str] = field(default_factory=list)


class Tokens:
    """Hostile tokens (see `hostile_families.Family`)."""

    name = "tokens"

    def __init__(self, subject: Subject, seed: int) -> None:
        rng = random.Random(seed)
        self._check = subject.check
        self._fault = Judge(subject.keys).fault
        self._material = _material(rng, subject)

    def make(self, rng: random.Random) -> bytes:
        headers: list[tuple[str, str]] = []
        target = "/allowed"
        for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
            token = rng.choice(_KINDS)(rng, self._material)
            place = rng.choice(("authorization", "authorization", "authorization", "x-token", "query", "cookie"))
            if place == "query":
                target += f"{'&' if '?' in target else '?'}token={token}"
            elif place == "cookie":
                headers.append((place, f"a=b; session={token}"))
            else:
                prefix = rng.choice(("Bearer ", "Bearer ", "Bearer ", "Bearer  ", "bearer ", "Bearer", "x Bearer '"))
                headers.append((place, token if place == "x-token" else prefix + token))
        message = check_request("GET", target, headers, host="h", raw_headers=rng.random() < 0.5)
        return message if message is not None else self.make(rng)

    def run(self, case: bytes) -> str:
        try:
            answer = self._check(case)
        except MalformedCheckRequest:
            return REFUSED
        return ALLOWED if allows(answer) else DENIED

    def fault(self, case: bytes, outcome: str) -> str:
        return self._fault(case) if outcome == ALLOWED else ""

    def stored(self, case: bytes) -> bytes:
        return case


def _material(rng: random.Random, subject: Subject) -> _Material:
    keys = subject.keys
    secrets = [b"", b"\0" * 32, b"secret", compact_json({"keys": [key.jwk() for key in keys]})]
    for key in keys:
        assert not isinstance(key.private, bytes)
        public = key.private.public_key()
        for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
            secrets.append(public.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))
        secrets.append(secrets[-2].strip())
        secrets.append(compact_json(key.jwk()))
        secrets += [str(value).encode() for value in key.jwk().values()]
    made = _Material(
        [rng.choice(keys).token(subject.claims(sub=f"u{number}")) for number in range(60)],
        compact_json(subject.claims()),
        secrets,
        SigningKey.generate("EdDSA", "d"),
    )
    made.signed.extend(_badly_signed(rng, subject, made.stranger))
    return made


def _badly_signed(rng: random.Random, subject: Subject, stranger: SigningKey) -> list[str]:
    """Tokens with true signatures, of test keys over claims that do not hold and of strangers over those that do."""
    made = []
    for key in subject.keys:
        made += [broken_token(kind, key, subject.claims()) for kind in BROKEN_TOKENS]
        for claim in ("exp", "nbf", "iat"):
            made += [key.token(subject.claims(**{claim: value})) for value in NUMBERS]
        for claim in ("iss", "sub", "aud", "jti"):
            made += [key.token(subject.claims(**{claim: value})) for value in (None, 7, [], {}, ["api", 7], "", "*")]
        text = json.dumps(subject.claims())
        for twice in ('"exp":1,', '"exp":9999999999,', '"iss":"https://issuer.test",', '"\\u0069ss":"x",'):
            made.append(key.token(b"{" + twice.encode() + text[1:].encode()))
            made.append(key.token_of(b'{"alg":"none",' + compact_json({"alg": key.algorithm})[1:], text.encode()))
        for depth in (50, 99, 100, 101, 1000):
            made.append(key.token(b'{"x":' + b"[" * depth + b"]" * depth + b"," + text[1:].encode()))
            made.append(key.token(b'{"x":' + b'{"a":' * depth + b"1" + b"}" * depth + b"," + text[1:].encode()))
        for header in (
            {"crit": ["b64"], "b64": False},
            {"crit": ["exp"]},
            {"crit": []},
            {"zip": "DEF"},
            {"cty": "JWT"},
        ):
            made.append(key.token(subject.claims(), header=header))
        for payload in (
            b"",
            b"null",
            b"[]",
            b"{}",
            b'"x"',
            b"\xff",
            b"\xef\xbb\xbf{}",
            text.encode("utf-16"),
            b"{" * 500,
        ):
            made.append(key.token(payload))
    embedded = [{"jwk": stranger.jwk()}, {"jku": "https://stranger.test/jwks"}, {"x5u": "https://stranger.test"}]
    made += [stranger.token(subject.claims(), header={**header, "kid": kid}) for header in embedded for kid in KIDS]
    made += [stranger.token(subject.claims(), header={"alg": name, "kid": kid}) for name in ALGORITHMS for kid in KIDS]
    return made


# ---- kinds of tokens -------------------------------------------------------------------------------------------------


def _drawn(rng: random.Random, material: _Material) -> str:
    return rng.choice(material.signed)


def _changed(rng: random.Random, material: _Material) -> str:
    """A good token, some characters changed."""
    return mutated_bytes(rng, rng.choice(material.good).encode()).decode("latin-1")


def _changed_characters(rng: random.Random, material: _Material) -> str:
    token = list(rng.choice(material.good))
    for _ in range(rng.randrange(1, 4)):
        token[rng.choice((-1, -2, rng.randrange(len(token))))] = rng.choice(CHARACTERS)
    return "".join(token)


def _sections(rng: random.Random, material: _Material) -> str:
    """Sections of good tokens, put together otherwise."""
    sections = [section for _ in range(2) for section in rng.choice(material.good).split(".")]
    sections += ["", "A", "====", base64url(b"{}"), base64url(b"null"), "e30" * 2000]
    return ".".join(rng.choice(sections) for _ in range(rng.choice((1, 2, 3, 3, 3, 3, 4, 5, 5, 6))))


def _header_swapped(rng: random.Random, material: _Material) -> str:
    """A good signature under another header."""
    _, payload, signature = rng.choice(material.good).split(".")
    return f"{base64url(_header(rng))}.{payload}.{rng.choice((signature, '', 'AA', signature[:-2]))}"


def _unsigned(rng: random.Random, material: _Material) -> str:
    """Claims that hold, and a signature of zeros, of chance or none."""
    signature = rng.choice((b"", bytes(64), bytes(256), b"\1" * 64, rng.randbytes(rng.choice((1, 32, 64, 96, 256)))))
    return f"{base64url(_header(rng))}.{base64url(material.claims)}.{base64url(signature)}"


def _hmac(rng: random.Random, material: _Material) -> str:
    """The algorithm confusion attack, with every text of the public keys as the secret."""
    bits = rng.choice((256, 384, 512))
    header = {"alg": f"HS{bits}", "kid": rng.choice(KIDS)}
    if header["kid"] is None:
        del header["kid"]
    signed = f"{base64url(compact_json(header))}.{base64url(material.claims)}"
    signature = hmac.digest(rng.choice(material.secrets), signed.encode(), f"sha{bits}")
    return f"{signed}.{base64url(signature)}"


def _encrypted(rng: random.Random, material: _Material) -> str:
    """The shape of a JWE, and of JWS in JSON."""
    if rng.random() < 0.2:
        payload = base64url(material.claims)
        return json.dumps({"payload": payload, "signatures": [{"protected": base64url(_header(rng)), "signature": ""}]})
    header = compact_json({"alg": rng.choice(("dir", "RSA-OAEP", "none")), "enc": "A256GCM", "kid": "r"})
    return ".".join(
        base64url(part) for part in (header, rng.randbytes(32), rng.randbytes(12), material.claims, bytes(16))
    )


def _other_base64(rng: random.Random, material: _Material) -> str:
    """A good token in another spelling of base64."""
    token = rng.choice(material.good)
    return rng.choice(
        (
            token + "=", token + "==", token.replace("-", "+").replace("_", "/"), token.replace(".", "=."), token + " ",
            token.replace(".", " . "), token + "\n", token[:50] + "\r\n" + token[50:], token + ".", "." + token,
            token[:-1] + rng.choice(string.ascii_letters), token + rng.choice(string.ascii_letters), token + "\x00",
            token.upper(), token[:-1], token * 2, "".join(f"%{ord(c):02x}" for c in token), token + "," + token,
        )
    )  # fmt: skip


def _huge(rng: random.Random, material: _Material) -> str:
    """Much of something; rare, as it takes its time to make."""
    if rng.random() < 0.95:
        return _changed(rng, material)
    size = rng.choice((5_000, 50_000, 300_000))
    payload = rng.choice(
        (
            b'{"iss":"https://issuer.test","x":"' + b"x" * size + b'"}',
            b'{"x":' + b"[" * size + b"]" * size + b"}",
            b'{"iss":"https://issuer.test","exp":' + b"9" * size + b"}",
            b"{" + b",".join(b'"%d":1' % number for number in range(size // 10)) + b"}",
            b'{"x":"' + b"\\u0041" * (size // 6) + b'"}',
        )
    )
    return rng.choice(
        (f"{base64url(_header(rng))}.{base64url(payload)}.AAAA", "." * size, "A" * size, ".e30" * (size // 4))
    )


def _header(rng: random.Random) -> bytes:
    members = {"alg": rng.choice(ALGORITHMS), "kid": rng.choice(KIDS), "typ": rng.choice(("JWT", "at+jwt", None, 1))}
    if rng.random() < 0.1:
        members[rng.choice(("crit", "b64", "jku", "x5c", "jwk"))] = rng.choice((["b64"], False, "x", None, {}))
    data = compact_json({name: value for name, value in members.items() if value is not None or rng.random() < 0.2})
    if rng.random() < 0.1:
        data = b'{"alg":"RS256",' + data[1:]
    return mutated_bytes(rng, data) if rng.random() < 0.1 else data


_KINDS: tuple[Callable[[random.Random, _Material], str], ...] = (
    _drawn, _changed, _changed_characters, _sections, _header_swapped, _unsigned, _hmac, _encrypted, _other_base64,
    _huge,
)  # fmt: skip
