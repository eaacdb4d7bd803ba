"""Tokens for a rule: good ones with chosen claims, and ones that are wrong in each way that has its own answer."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from extauthz.broken_tokens import BROKEN_TOKENS, broken_token
from extauthz.mesh.verify.keyring import HeldRule
from extauthz.minting import SigningKey, base64url, compact_json

Claims = dict[str, Any]

_COSTLY = frozenset({"other-key"})
"""Kinds of broken tokens that need a new key each time."""

_KINDS = sorted(BROKEN_TOKENS.keys() - _COSTLY)

_SKEW = 60
_MARGIN = 25
"""Times stay this many seconds away from where the answer changes: each side reads the clock at its own moment."""


def good_claims(rng: random.Random, held: HeldRule) -> Claims:
    """Claims that a rule accepts."""
    rule = held.rule
    claims: Claims = {"iss": rule.issuer or "https://any.example", "sub": "u"}
    if rule.audiences:
        audience = rng.choice(rule.audiences)
        claims["aud"] = rng.choice((audience, [audience], ["x", audience], f"{audience}/"))
    if rng.random() < 0.8:
        claims["exp"] = rng.choice((4_102_444_800, int(time.time()) + 3600, int(time.time()) - _SKEW + _MARGIN, 0))
    if rng.random() < 0.2:
        claims["nbf"] = rng.choice((0, int(time.time()) + _SKEW - _MARGIN, 1.5))
    return claims


def good_token(rng: random.Random, held: HeldRule, claims: Claims) -> str:
    """A token of a rule's issuer by a key of its set; header members that do not matter vary."""
    key = rng.choice(held.keys)
    header: dict[str, Any] = {}
    if rng.random() < 0.3:
        header = rng.choice(({"kid": None}, {"kid": ""}, {"typ": "at+jwt"}, {"crit": ["exp"]}, {"b64": False}))
    return key.token(claims, header=header)


def bad_token(rng: random.Random, held: HeldRule, claims: Claims, others: Sequence[HeldRule]) -> str:
    """A token that is wrong in one way or another (a few are odd and right)."""
    key = rng.choice(held.keys)
    way = rng.random()
    if way < 0.35:
        return broken_token(rng.choice(_KINDS), key, claims)
    if way < 0.45:
        return rng.choice(others).keys[0].token(claims)
    if way < 0.6:
        return key.token({**claims, **rng.choice(_ODD_CLAIMS)(rng)})
    if way < 0.75:
        return key.token(rng.choice(_ODD_PAYLOADS)(compact_json(claims)))
    if way < 0.85:
        header = rng.choice(_ODD_HEADERS)
        return key.token_of(header(key), compact_json(claims))
    return rng.choice(_ODD_FORMS)(key.token(claims))


def _times(name: str) -> Callable[[random.Random], Mapping[str, Any]]:
    def odd(rng: random.Random) -> Mapping[str, Any]:
        now = int(time.time())
        value: Any = rng.choice(
            (now - _SKEW - _MARGIN, now + _SKEW + _MARGIN, 1, 0.5, -1, -0.0, 1e30, 2**63, "5", None, True, [now], {})
        )
        return {name: value}

    return odd


_ODD_CLAIMS: tuple[Callable[[random.Random], Mapping[str, Any]], ...] = (
    _times("exp"),
    _times("nbf"),
    _times("iat"),
    lambda rng: {"iss": rng.choice((None, 5, "", [], "https://nobody.example"))},
    lambda rng: {"sub": rng.choice((None, 5, "", [], {}, "a/b", "*", "u\nu"))},
    lambda rng: {"aud": rng.choice((None, 5, "", [], [""], ["x", 5], "https://nobody.example", [["x"]]))},
    lambda rng: {"jti": rng.choice((None, 5, "", []))},
)

_ODD_PAYLOADS: tuple[Callable[[bytes], bytes], ...] = (
    lambda payload: payload + b" \n\t",
    lambda payload: payload + b"x",
    lambda payload: payload + b"\0",
    lambda payload: b"\xef\xbb\xbf" + payload,
    lambda payload: payload[:-1] + b",}",
    lambda payload: payload[:-1] + b',"n":NaN}',
    lambda payload: payload[:-1] + b',"n":1e999}',
    lambda payload: payload[:-1] + b',"n":01}',
    lambda payload: payload[:-1] + b',"n":1.}',
    lambda payload: payload[:-1] + b',"n":-}',
    lambda payload: payload[:-1] + b',"n":"\xff"}',
    lambda payload: payload[:-1] + b',"n":"\\ud800"}',
    lambda payload: payload[:-1] + b',"n":"\\ud83d\\ude00"}',
    lambda payload: payload[:-1] + b',"n":"\\U0041\\\'"}',
    lambda payload: payload[:-1] + b',"n":"\\x41"}',
    lambda payload: payload[:-1] + b',"n":"\x01\x7f"}',
    lambda payload: payload[:-1] + b",n:'x'}",
    lambda payload: payload[:-1] + b",true:1}",
    lambda payload: payload[:-1] + b',"":1}',
    lambda payload: payload[:-1] + b',"a":{"b":1,"\\u0062":2}}',
    lambda payload: payload[:-1] + b',"a":' + b"[" * 99 + b"]" * 99 + b"}",
    lambda payload: payload[:-1] + b',"a":' + b"[" * 100 + b"]" * 100 + b"}",
    lambda payload: payload[:-1] + b"/**/}",
    lambda payload: payload.replace(b":", b" : ").replace(b",", b"\r\n,"),
    lambda payload: b"[" + payload + b"]",
    lambda payload: b"null",
    lambda payload: b"",
    lambda payload: b"{}",
    lambda payload: b'{"iss":"a","iss":"b"}',
)


def _header(**members: Any) -> Callable[[SigningKey], bytes]:
    return lambda key: json.dumps({"alg": key.algorithm, "kid": key.kid, **members}).encode()


_ODD_HEADERS: tuple[Callable[[SigningKey], bytes], ...] = (
    _header(kid="zz"),
    _header(kid=5),
    _header(kid=None),
    _header(alg="none"),
    _header(alg="HS256"),
    _header(alg="RS256"),
    _header(alg="ES384"),
    _header(alg="EdDSA"),
    _header(alg="PS512"),
    _header(alg=None),
    _header(alg=[]),
    lambda key: b"{alg:'" + key.algorithm.encode() + b"',}",
    lambda key: b"[]",
    lambda key: b"null",
    lambda key: b"{}",
)


def _sections(token: str) -> list[str]:
    return token.split(".")


_ODD_FORMS: tuple[Callable[[str], str], ...] = (
    lambda token: token + ".",
    lambda token: "." + token,
    lambda token: token.replace(".", ".."),
    lambda token: token + ".x",
    lambda token: token + "=",
    lambda token: token + "==",
    lambda token: token[:-1],
    lambda token: token[:-3],
    lambda token: token + "A",
    lambda token: token.replace(".", ". "),
    lambda token: token.replace(".", ".+"),
    lambda token: token.swapcase(),
    lambda token: "\t" + token,
    lambda token: ".".join((_sections(token)[0], _sections(token)[1], base64url(b"x"))),
    lambda token: ".".join((_sections(token)[0] + "=" * (-len(_sections(token)[0]) % 4), *_sections(token)[1:])),
    lambda token: "a.b.c",
    lambda token: "",
    lambda token: "x",
    lambda token: "..",
    lambda token: _sections(token)[0],
    lambda token: token + "," + token,
    lambda token: '"' + token + '"',
)
