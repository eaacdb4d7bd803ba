"""Asks a server how it is, over grpc.health.v1: what a container's health check runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from extauthz.errors import UsageError
from extauthz.server import listeners
from extauthz.server.listeners import Address, for_worker

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class HealthQuestion:
    """Whom to ask: `--listen` addresses of a server as that server was given them, and the client's side of its TLS."""

    listen: tuple[str, ...]
    workers: int = 1
    seconds: float = 1.0
    ca: str = ""
    certificate: str = ""
    key: str = ""


def unhealthy(question: HealthQuestion) -> list[str]:
    """Ask every address; returns one line for each that does not answer SERVING. Raises UsageError."""
    addresses: dict[Address, None] = {}
    for text in question.listen:
        address = listeners.parse(text)
        workers = question.workers if address.is_per_worker else 1
        addresses.update((for_worker(address, worker), None) for worker in range(workers))
    credentials = _credentials(question)
    answers = {str(address): _ask(_target(address), credentials, question.seconds) for address in addresses}
    return [f"{address}: {answer}" for address, answer in answers.items() if answer != "SERVING"]


def _ask(target: str, credentials: grpc.ChannelCredentials | None, seconds: float) -> str:
    options = (("grpc.enable_http_proxy", 0),)
    channel = (
        grpc.insecure_channel(target, options)
        if credentials is None
        else grpc.secure_channel(target, credentials, options)
    )
    with channel:
        try:
            answer = HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=seconds)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def _target(address: Address) -> str:
    return str(Address(host=_WILDCARDS.get(address.host, address.host), port=address.port, path=address.path))


def _credentials(question: HealthQuestion) -> grpc.ChannelCredentials | None:
    if not question.ca:
        if question.certificate or question.key:
            raise UsageError("--tls-cert and --tls-key are of no use without --tls-ca")
        return None
    ca, key, certificate = (_read(path) for path in (question.ca, question.key, question.certificate))
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _read(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
