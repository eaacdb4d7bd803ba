"""The keys, key sets and tokens that a case file names, made anew each time it is read, and the texts they appear in.

`${good}` is the token of that name, `${good.header}`, `${good.payload}` and `${good.signature}` its sections,
`${jwks:a,b}` the key set of two keys as a quoted text, `${keyset:odd}` one that the file describes, `${now+60}` a
time, `${$}` a dollar sign.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from extauthz.broken_tokens import BROKEN_TOKENS, broken_token
from extauthz.errors import UsageError
from extauthz.minting import SigningKey, key_set

_PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
_NOW = re.compile(r"now(?:([+-]\d+(?:\.\d+)?))?")
_SECTIONS = {"header": 0, "payload": 1, "signature": 2}


class Vocabulary:
    """What the placeholders of one document of a case file stand for.

    `document` is that document; its parts `keys`, `keysets`, `claims` and `tokens` are read. Raises UsageError with the
    name of what is wrong.
    """

    def __init__(self, document: Mapping[str, Any], now: float | None = None) -> None:
        self._now = time.time() if now is None else now
        self._keys = {name: _key(name, wanted) for name, wanted in (document.get("keys") or {}).items()}
        self._sets = document.get("keysets") or {}
        self._claims: Mapping[str, Any] = document.get("claims") or {}
        self._wanted: Mapping[str, Any] = document.get("tokens") or {}
        self._tokens: dict[str, str] = {}

    def fill(self, text: str, variables: Mapping[str, str] | None = None) -> str:
        """`text` with every placeholder replaced; `variables` are more of them."""
        return _PLACEHOLDER.sub(lambda match: self._meaning(match[1], variables or {}), text)

    def token(self, name: str) -> str:
        """The token of a name; the same one each time. Raises UsageError for an unknown one."""
        made = self._tokens.get(name)
        if made is None:
            if name not in self._wanted:
                raise UsageError(f"${{{name}}}: no token or variable of that name")
            self._tokens[name] = made = self._mint(name, self._wanted[name])
        return made

    def key_set(self, name: str) -> str:
        """The text of `jwks:KEY,KEY` or `keyset:NAME`. Raises UsageError for another form, or an unknown name."""
        kind, _, rest = name.partition(":")
        if kind == "jwks":
            return json.dumps(key_set(*map(self._key, rest.split(","))))
        if kind == "keyset":
            return self._set(rest)
        raise UsageError(f"{name!r}: write jwks:KEY,KEY or keyset:NAME")

    def _meaning(self, name: str, variables: Mapping[str, str]) -> str:
        if name in variables:
            return variables[name]
        if name == "$":
            return "$"
        if name.startswith(("jwks:", "keyset:")):
            return json.dumps(self.key_set(name))
        if match := _NOW.fullmatch(name):
            return str(int(self._now) + int(match[1] or 0))
        token, dot, section = name.rpartition(".")
        if dot and section in _SECTIONS and token in self._wanted:
            return self.token(token).split(".")[_SECTIONS[section]]
        return self.token(name)

    def _key(self, name: str) -> SigningKey:
        if name not in self._keys:
            raise UsageError(f"no key {name!r} under `keys`")
        return self._keys[name]

    def _set(self, name: str) -> str:
        if name not in self._sets:
            raise UsageError(f"no key set {name!r} under `keysets`")
        described = self._sets[name]
        if isinstance(described, str):
            return described
        return json.dumps({"keys": [self._member(entry) for entry in described]})

    def _member(self, entry: Any) -> Any:
        """A member of a key set: with `from`, the key of that name with some members changed (null removes one)."""
        if not isinstance(entry, Mapping) or "from" not in entry:
            return entry
        changed = {name: value for name, value in entry.items() if name != "from"}
        return self._key(entry["from"]).jwk(**changed)

    def _mint(self, name: str, wanted: Mapping[str, Any] | str) -> str:
        if isinstance(wanted, str):
            return self.fill(wanted)
        unknown = wanted.keys() - {"key", "claims", "without", "header", "payload", "alg", "broken", "head"}
        if unknown:
            raise UsageError(f"token {name!r}: unknown member {', '.join(sorted(unknown))}")
        key = self._key(wanted.get("key") or next(iter(self._keys), ""))
        base = {member: value for member, value in self._claims.items() if member not in (wanted.get("without") or ())}
        claims = self._timed({**base, **(wanted.get("claims") or {})})
        if "broken" in wanted:
            if wanted["broken"] not in BROKEN_TOKENS:
                raise UsageError(f"token {name!r}: unknown kind {wanted['broken']!r}")
            return broken_token(wanted["broken"], key, claims)
        payload = self.fill(wanted["payload"]).encode("latin-1") if "payload" in wanted else claims
        algorithm = wanted.get("alg", "")
        if "head" in wanted:
            body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
            return key.token_of(wanted["head"].encode("latin-1"), body, algorithm)
        return key.token(payload, header=wanted.get("header"), algorithm=algorithm)

    def _timed(self, value: Any) -> Any:
        """Claims with `${now+60}` as numbers."""
        if isinstance(value, Mapping):
            return {name: self._timed(member) for name, member in value.items()}
        if isinstance(value, list):
            return [self._timed(member) for member in value]
        if isinstance(value, str) and (match := re.fullmatch(r"\$\{(now[^{}]*)\}", value)):
            offset = _NOW.fullmatch(match[1])
            if offset:
                number = int(self._now) + float(offset[1] or 0)
                return int(number) if number.is_integer() else number
        return value


def _key(name: str, wanted: Any) -> SigningKey:
    """A key of a case file: `a: RS256`, or `a: {alg: RS256, kid: k}`; its id is its name unless it says otherwise."""
    described = wanted if isinstance(wanted, Mapping) else {"alg": wanted}
    try:
        return SigningKey.generate(described.get("alg", "RS256"), described.get("kid", name))
    except ValueError as error:
        raise UsageError(f"key {name!r}: {error}") from None


def as_pairs(headers: Any) -> Sequence[tuple[str, str]]:
    """Headers as a case file gives them: a list of [name, value], or a mapping of names to a value or several."""
    if isinstance(headers, Mapping):
        pairs: list[tuple[str, str]] = []
        for name, values in headers.items():
            pairs.extend((str(name), str(value)) for value in (values if isinstance(values, list) else [values]))
        return pairs
    return [(str(name), str(value)) for name, value in headers or ()]
