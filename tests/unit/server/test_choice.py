"""Which transport runs, and why."""

from __future__ import annotations

import pytest

from extauthz.errors import UsageError
from extauthz.server.transport import choose

BUILT = (True, "")
MISSING = (False, "install libnghttp2-dev and a C compiler, and build again")


@pytest.mark.parametrize(
    ("wanted", "tls", "native", "name", "reason"),
    [
        ("auto", False, BUILT, "native", "it is built"),
        ("auto", True, BUILT, "grpcio", "TLS was asked for"),
        ("auto", False, MISSING, "grpcio", "install libnghttp2-dev"),
        ("grpcio", False, BUILT, "grpcio", "asked for"),
        ("grpcio", True, MISSING, "grpcio", "asked for"),
        ("native", False, BUILT, "native", "asked for"),
    ],
)
def test_the_choice_comes_with_its_reason(
    wanted: str, tls: bool, native: tuple[bool, str], name: str, reason: str
) -> None:
    choice = choose(wanted, tls=tls, native=native)
    assert choice.name == name
    assert reason in choice.reason


@pytest.mark.parametrize(
    ("wanted", "tls", "native", "complaint"),
    [
        ("native", True, BUILT, "does not speak TLS: use --transport grpcio"),
        ("native", False, MISSING, "not available: install libnghttp2-dev"),
        ("quic", False, BUILT, "use auto, grpcio or native"),
    ],
)
def test_what_cannot_be_had_is_refused(wanted: str, tls: bool, native: tuple[bool, str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        choose(wanted, tls=tls, native=native)
