"""Which sender runs, and why; what it is made of is in `sender`."""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.errors import UsageError
from extauthz.loadtest.outcomes import Protocol
from extauthz.loadtest.sender import Sender


@dataclass(frozen=True, slots=True)
class Choice:
    """Which sender runs, and the reason, in words for the report."""

    name: str
    reason: str


def choose(wanted: str, protocol: Protocol, *, tls: bool, native: tuple[bool, str]) -> Choice:
    """Pick `native`, `grpcio` or `epoll` for `--sender auto|native|portable`.

    `native` is `sender_native.available()`. Raises UsageError where what is wanted cannot be had.
    """
    available, explanation = native
    portable = "grpcio" if protocol is Protocol.CHECK else "epoll"
    if wanted not in ("auto", "native", "portable"):
        raise UsageError(f"--sender {wanted!r}: use auto, native or portable")
    if wanted == "native" or (wanted == "auto" and available and not tls):
        if tls:
            raise UsageError("--sender native does not speak TLS: use --sender portable, or leave TLS out")
        if not available:
            raise UsageError(f"--sender native is not available: {explanation}")
        return Choice("native", "asked for" if wanted == "native" else "it is built, and no TLS was asked for")
    if protocol is Protocol.H2C:
        reason = (
            ", which does not speak TLS" if tls else "" if available else f", which is not available: {explanation}"
        )
        raise UsageError(f"--http 2 needs the native sender{reason}")
    if wanted == "portable":
        return Choice(portable, "asked for")
    return Choice(portable, "TLS was asked for" if tls else f"native is not available: {explanation}")


def load(choice: Choice) -> type[Sender]:
    """The class of the sender that was chosen; imports no other."""
    if choice.name == "native":
        from extauthz.loadtest.sender_native import NativeSender

        return NativeSender
    if choice.name == "grpcio":
        from extauthz.loadtest.sender_grpcio import GrpcioSender

        return GrpcioSender
    from extauthz.loadtest.sender_epoll import EpollSender

    return EpollSender
