"""Mutated CheckRequests: what Envoy would send, with tokens good, forged or none, in both forms of headers, and broken.

Half of the messages that are mutated hold no token that anybody signed with a test key; mutations cannot make one, so
those are denied by construction. The other half hold good tokens, and what is allowed of them is judged by a second
reading (see hostile_subject).
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from hostile_families import ALLOWED, DENIED, REFUSED
from hostile_subject import DENIED_PATH, DENIED_TEXT, ISSUER, Judge, Subject, allows
from hostile_wire import mutated_bytes, mutated_message

from extauthz.checkapi.build import Connection, check_request
from extauthz.errors import MalformedCheckRequest
from extauthz.minting import SigningKey
from extauthz.protos.external_auth_pb2 import CheckRequest

PATHS = (
    "/allowed", "/allowed", "/allowed/x?q=1", "/allowed/y", "/allowed/z#f", "/", "/other", DENIED_PATH,
    "/allowed/secret?x", "/allowed%2Fsecret", "/ALLOWED",
)  # fmt: skip
METHODS = ("GET", "GET", "GET", "GET", "GET", "POST", "DELETE")
ORDINARY = (
    ("user-agent", "curl/8.5"), ("accept", "*/*"), ("x-request-id", "0f0c1f2e"), ("cookie", "a=b; c=x.y.z"),
    ("x-forwarded-for", "192.0.2.1, 10.0.0.1"), ("content-type", "application/grpc"), ("x-blocked", "no"),
    ("accept-language", "\xc3\xa9"),
)  # fmt: skip


class Requests:
    """Mutated CheckRequests (see `hostile_families.Family`)."""

    name = "CheckRequests"

    def __init__(self, subject: Subject, seed: int) -> None:
        rng = random.Random(seed)
        self._check = subject.check
        self._fault = Judge(subject.keys).fault
        stranger = SigningKey.generate("ES256", "e")
        self._without = [*_messages(rng, 150, [stranger], subject)]
        self._with = [*_messages(rng, 150, list(subject.keys), subject)]

    def make(self, rng: random.Random) -> bytes:
        pool = self._with if rng.random() < 0.5 else self._without
        message = rng.choice(pool)
        kind = rng.random()
        if kind < 0.05:
            # Two messages one after the other are one to protobuf: the later field counts, lists and maps are joined.
            message += rng.choice(self._with if pool is self._with else self._without)
        if kind < 0.35:
            return mutated_bytes(rng, message)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            message = mutated_message(rng, message)
        return message

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


def sample_messages(rng: random.Random, subject: Subject) -> list[bytes]:
    """A few requests, with good tokens and without, that are not mutated."""
    return [*_messages(rng, 12, list(subject.keys), subject)]


def _messages(rng: random.Random, count: int, keys: list[SigningKey], subject: Subject) -> Iterator[bytes]:
    tokens = [rng.choice(keys).token(subject.claims(sub=f"u{number}")) for number in range(20)]
    while count:
        target = rng.choice(PATHS)
        headers = rng.sample(ORDINARY, rng.randrange(len(ORDINARY)))
        headers += rng.choice(([], [], [], [], [("x-blocked", "yes")], [("x-token", "a.b.c")]))
        place = rng.choice(("authorization", "authorization", "x-token", "query", "cookie", "none"))
        token = rng.choice(tokens)
        if place == "query":
            target = f"{target.partition('?')[0]}?token={token}"
        elif place == "authorization":
            headers.append((place, f"Bearer {token}"))
        elif place != "none":
            headers.append((place, f"session={token}" if place == "cookie" else token))
        headers += [(f"x-filler-{number}", "v" * rng.randrange(40)) for number in range(rng.choice((0, 0, 5, 40)))]
        message = check_request(
            rng.choice(METHODS),
            target,
            headers,
            host="h",
            connection=Connection(principal=f"{ISSUER}/u", server_name="h", tls=True),
            raw_headers=rng.random() < 0.5,
        )
        if message is not None:
            count -= 1
            yield _odd_path(message) if rng.random() < 0.1 else message


def _odd_path(message: bytes) -> bytes:
    """The message with the denied path beyond ASCII, which Envoy passes on where it does not normalise paths."""
    request = CheckRequest.FromString(message)
    request.attributes.request.http.path = DENIED_TEXT + "?x"
    return request.SerializeToString()
