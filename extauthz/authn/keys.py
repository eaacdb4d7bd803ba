"""Key sets: what an issuer signs with, where it comes from at each moment, and which of its keys a token is tried with.

Reading is as lenient as Envoy's: keys that cannot be used are passed over, and remembered with the reason for whoever
wants to show it. A `KeySet` is immutable and compared by identity: a token that was verified against one is known to be
good for as long as its source still gives that very object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from extauthz.authn.jwk import CERTIFICATE_BEGIN, CERTIFICATE_END, UnusableKey, read_certificate, read_jwk
from extauthz.authn.limits import MAX_KEY_SET_BYTES, MAX_KEYS
from extauthz.authn.public_keys import Key, NoKey
from extauthz.authn.statuses import KeyStatus, Status
from extauthz.authn.struct_json import InvalidJson, parse_object


class KeySetError(ValueError):
    """No key of a set can be used. `reason` is Envoy's text: of the set, or of the first bad key in it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class SkippedKey:
    """A member of a set that is passed over: its place in the list (from 0), its key id if it has one, and why."""

    index: int
    kid: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class KeySet:
    """The usable keys of a set, in their order, and what was passed over."""

    keys: tuple[Key, ...]
    skipped: tuple[SkippedKey, ...] = ()

    @classmethod
    def parse(cls, text: str) -> KeySet:
        """Read a JSON Web Key Set (RFC 7517 section 5), or a map of key ids to PEM certificates.

        Raises KeySetError when it is neither or has no usable key.
        """
        data = text.encode("utf-8", "surrogatepass")
        if len(data) > MAX_KEY_SET_BYTES:
            raise KeySetError(f"the key set is longer than {MAX_KEY_SET_BYTES} bytes")
        try:
            document = parse_object(data)
        except InvalidJson:
            raise KeySetError(KeyStatus.SET_JSON) from None
        if "keys" not in document:
            return cls(_certificates(document))
        members = document["keys"]
        if not isinstance(members, list):
            raise KeySetError(KeyStatus.SET_KEYS_TYPE)
        if len(members) > MAX_KEYS:
            raise KeySetError(f"the key set has more than {MAX_KEYS} keys")
        return cls(*_usable(members))

    def verify(
        self, algorithm: str, kid: str, signed: bytes, signature: bytes, *, rsa_only: bool = False
    ) -> Status | None:
        """None when a key of the set verifies, else why not.

        `algorithm` and `kid` are the token's; an empty `kid` matches every key, and so does a key without one.
        `rsa_only` looks at RSA keys as if there were no others.
        """
        status = Status.NO_MATCHING_KEY
        for key in self.keys:
            if kid and key.kid and key.kid != kid:
                continue
            if key.algorithm and key.algorithm != algorithm:
                continue
            if rsa_only and key.kind != "RSA":
                continue
            outcome = key.verify(algorithm, signed, signature)
            if outcome is not Status.VERIFICATION_FAILS:
                return outcome
            status = Status.VERIFICATION_FAILS
        if rsa_only and not any(key.kind == "RSA" for key in self.keys):
            return Status.NO_VALID_KEYS
        return status


def _usable(members: list[Any]) -> tuple[tuple[Key, ...], tuple[SkippedKey, ...]]:
    keys: list[Key] = []
    skipped: list[SkippedKey] = []
    reason = KeyStatus.SET_EMPTY
    for index, member in enumerate(members):
        if not isinstance(member, dict):
            skipped.append(SkippedKey(index, "", KeyStatus.NOT_AN_OBJECT))
            continue
        try:
            keys.append(read_jwk(member))
        except UnusableKey as error:
            kid = member.get("kid")
            skipped.append(SkippedKey(index, kid if isinstance(kid, str) else "", error.status))
            if reason is KeyStatus.SET_EMPTY:
                reason = error.status
    if not keys:
        raise KeySetError(reason)
    return tuple(keys), tuple(skipped)


def _certificates(document: dict[str, Any]) -> tuple[Key, ...]:
    """{kid: PEM certificate}: every member has to look like one, and every certificate has to be usable."""
    for kid, pem in document.items():
        if not (kid and isinstance(pem, str) and pem.startswith(CERTIFICATE_BEGIN) and pem.endswith(CERTIFICATE_END)):
            raise KeySetError(KeyStatus.SET_WITHOUT_KEYS)
    if not document:
        raise KeySetError(KeyStatus.SET_WITHOUT_KEYS)
    if len(document) > MAX_KEYS:
        raise KeySetError(f"the key set has more than {MAX_KEYS} keys")
    try:
        return tuple(read_certificate(kid, pem) for kid, pem in document.items())
    except UnusableKey as error:
        raise KeySetError(error.status) from None


UNAVAILABLE: Final = KeySet((NoKey(kind="RSA", description="none"),))
"""Stands in before a first fetch (as istiod's made-up key does): every token that is read answers
`Jwt verification fails`."""


class KeySource(Protocol):
    """Where the keys of a rule come from. `key_set` is replaced by one assignment when they change, read at each use.

    An unchanged set should stay the same object: a new one makes every token be verified again.
    """

    @property
    def key_set(self) -> KeySet: ...


@runtime_checkable
class RefreshableKeySource(Protocol):
    """A key source that wants to know when a token named a key that its set lacks. The call returns at once."""

    def note_missing_key(self) -> None: ...


@dataclass(frozen=True, slots=True)
class InlineKeys:
    """The `jwks` of a rule: always the same set."""

    key_set: KeySet
