"""Hostile key sets, and forged tokens against whatever of them is taken.

A key set is trusted, so that its keys may verify what their owners sign. Nobody may get in who holds none of the
private keys: each set that parses is asked about signatures that anybody can make - empty, zero, one, the padded
message itself (which an RSA key of exponent 1 would "verify"), an HMAC with an empty secret or with what is public of
the keys, and a stranger's. A set that verifies one of them wrongly allows.

Two mistakes of a publisher give everybody a key and are not drawn: a shared secret that is known, and an Ed25519 point
of small order.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import serialization
from hostile_families import ALLOWED, DENIED, REFUSED
from hostile_wire import mutated_bytes

from extauthz.authn.keys import KeySet, KeySetError
from extauthz.minting import SigningKey, base64url, compact_json

Parse = Callable[[str], KeySet]
SIGNED = b"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0In0"
DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
NAMES = ("kty", "alg", "use", "key_ops", "kid", "n", "e", "crv", "x", "y", "k", "d", "p", "q", "x5c", "x5t", "x5u")
NUMBERS = (
    b"", b"\0", b"\1", b"\2", b"\3", b"\0\0\0\1", b"\1\0\1", b"\0\1\0\1", b"\xff" * 32, b"\xff" * 66, bytes(32),
    b"\xff" * 512, b"\x80" + bytes(255), b"\x80" + bytes(254) + b"\1", b"\x80" + bytes(62) + b"\1",
)  # fmt: skip
"""Moduli, exponents and coordinates: none, tiny, even, powers of two, short and long ones."""
OTHERS: tuple[Any, ...] = (
    None, 0, 1, -1, 65537, 1e308, True, "", " ", "AQAB", "AQAB==", "!!", "oct", "RSA", "EC", "OKP", "P-256", "P-384",
    "secp256k1", "Ed25519", "X25519", "none", "HS256", "RS256", "ES256", [], {}, ["AQAB"], "sig", "enc", "\ud800",
    "k" * 5000,
)  # fmt: skip


class KeySets:
    """Hostile key sets (see `hostile_families.Family`)."""

    name = "key sets"

    def __init__(self, parse: Parse = KeySet.parse, seed: int = 1) -> None:
        self._parse = parse
        kinds = ("RS256", "PS384", "ES256", "ES384", "ES512", "EdDSA", "HS256")
        self._keys = [SigningKey.generate(kind, f"k{index}") for index, kind in enumerate(kinds)]
        self._members = [key.jwk() for key in self._keys]
        self._certain = [key.jwk(with_alg=False) for key in self._keys]
        self._forged = _forgeries(self._keys)
        self._pem = self._keys[0].private_text()

    def make(self, rng: random.Random) -> str:
        keys = [
            dict(rng.choice((self._members, self._certain))[rng.randrange(7)]) for _ in range(rng.choice((1, 1, 2, 4)))
        ]
        for key in keys:
            for _ in range(rng.choice((0, 1, 1, 2, 3))):
                self._change(rng, key)
        document: Any = {"keys": keys}
        kind = rng.random()
        if kind < 0.05:
            document = rng.choice(
                (keys, keys[0], {"keys": keys[0]}, {"keys": None}, {"Keys": keys}, [document], None, 7)
            )
        elif kind < 0.07:
            document = {"keys": [rng.choice((None, 1, "x", [], [[]], {}, True)), *keys]}
        elif kind < 0.08:
            document = {"k": rng.choice((self._pem, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))}
        text = json.dumps(document)
        if kind > 0.99:
            return _deep(rng, text)
        if kind > 0.6:
            text = mutated_bytes(rng, text.encode()).decode("latin-1")
        return text

    def _change(self, rng: random.Random, key: dict[str, Any]) -> None:
        name = rng.choice(NAMES)
        kind = rng.random()
        if kind < 0.25:
            key.pop(name, None)
        elif kind < 0.4:
            key[name] = rng.choice(self._members).get(name, "AQAB")
        elif kind < 0.7 and isinstance(key.get(name), str):
            key[name] = mutated_bytes(rng, key[name].encode("utf-8", "surrogatepass")).decode("latin-1")
        elif name == "k":
            # A shared secret that can be guessed is the publisher's gift to everybody, so that no short one is drawn.
            key[name] = rng.choice((7, None, base64url(rng.randbytes(rng.choice((16, 64, 4096))))))
        else:
            key[name] = _nasty(rng)

    def run(self, case: str) -> str:
        try:
            keys = self._parse(case)
        except KeySetError:
            return REFUSED
        for algorithm, kid, signature in self._forged:
            if keys.verify(algorithm, kid, SIGNED, signature) is None:
                return ALLOWED
        return DENIED

    def fault(self, case: str, outcome: str) -> str:
        return "a forged signature verifies" if outcome == ALLOWED else ""

    def stored(self, case: str) -> bytes:
        return case.encode("utf-8", "surrogatepass")


def _nasty(rng: random.Random) -> Any:
    if rng.random() < 0.02:
        return base64url(b"\xff" * rng.choice((2049, 8192, 65_536)))
    return base64url(rng.choice(NUMBERS)) if rng.random() < 0.5 else rng.choice(OTHERS)


def _deep(rng: random.Random, text: str) -> str:
    depth = rng.choice((90, 99, 100, 101, 1000, 100_000))
    return rng.choice(
        (
            '{"keys":' + "[" * depth + "]" * depth + "}",
            '{"x":' * depth + text + "}" * depth,
            '{"keys":[' + ",".join(["{}"] * depth) + "]}",
            text[:-1] + ',"keys":[]}',
            '{"keys":[{"kty":"RSA","e":"AQAB","n":"' + "A" * depth + '"}]}',
            "\ufeff" + text,
            text + text,
            " " * depth + text,
        )
    )


def _forgeries(keys: list[SigningKey]) -> list[tuple[str, str, bytes]]:
    """Signatures of SIGNED that take no private key to make."""
    digest = hashlib.sha256(SIGNED).digest()
    padded = [b"\0\1" + b"\xff" * (size - 54) + b"\0" + DIGEST_INFO + digest for size in (64, 128, 256)]
    secrets = [b"", b"\0" * 32]
    for key in keys:
        if not isinstance(key.private, bytes):
            secrets.append(
                key.private.public_key().public_bytes(
                    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
                )
            )
            secrets.append(compact_json(key.jwk()))
    stranger = SigningKey.generate("ES256", "")
    made = [("RS256", "", signature) for signature in (b"", b"\1", bytes(256), bytes(255) + b"\1", *padded)]
    made += [("HS256", "", hmac.digest(secret, SIGNED, "sha256")) for secret in secrets]
    made += [("ES256", "", bytes(64)), ("ES256", "k2", bytes(63) + b"\1"), ("ES256", "", stranger.sign(SIGNED))]
    made += [("EdDSA", "", bytes(64)), ("none", "", b""), ("none", "", digest)]
    return made
