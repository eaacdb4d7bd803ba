"""Requests -> the payloads that a sender takes: CheckRequests as Envoy builds them, or the requests themselves."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from extauthz.checkapi.build import Connection, check_request
from extauthz.errors import UsageError
from extauthz.loadtest.corpus import Combination
from extauthz.loadtest.drawing import Corpus
from extauthz.loadtest.outcomes import Protocol
from extauthz.loadtest.packing import http1_request, http2_request
from extauthz.mesh.verify.probe import Peer, Probe
from extauthz.protos.external_auth_pb2 import CheckRequest

# Fields that our own message definitions leave out, as bytes: AttributeContext.Request.time (1), HttpRequest.protocol
# (10), AttributeContext.route_metadata_context (13).
_TIME = b"\x0a"
_PROTOCOL = b"\x52\x08HTTP/1.1"
_EMPTY_METADATA = b"\x6a\x00"

CLIENT_PORT = 40000
"""The client's port in CheckRequests: one that clients have."""


def build_corpus(combinations: Iterable[Combination], protocol: Protocol) -> Corpus:
    """All payloads. Raises UsageError when there is a request that Envoy would refuse before it asks anybody."""
    payloads: list[bytes] = []
    weights: list[float] = []
    encode = _CheckRequests().encode if protocol is Protocol.CHECK else _ENCODERS[protocol]
    for combination in combinations:
        payloads.append(encode(combination.probe))
        weights.append(combination.weight)
    return Corpus(tuple(payloads), np.array(weights))


class _CheckRequests:
    """Builds CheckRequests. Each peer gets one certificate, made when it is first seen."""

    def __init__(self) -> None:
        self._certificates: dict[Peer, str] = {}

    def encode(self, probe: Probe) -> bytes:
        # Envoy gives each request an id; the filters, and so we, see it as a header.
        headers = (*probe.headers, ("x-request-id", str(uuid.uuid4())))
        message = check_request(
            probe.method, probe.target, headers, host=probe.host or "", connection=self._connection(probe)
        )
        if message is None:
            raise UsageError(f"request {probe.name or probe.target!r}: Envoy answers it 400 and asks no authorization")
        return complete(message)

    def _connection(self, probe: Probe) -> Connection:
        return Connection(
            source_address=probe.source,
            source_port=CLIENT_PORT,
            destination_address=probe.destination,
            destination_port=probe.port,
            principal=_principal(probe.peer),
            peer_certificate=self._certificate(probe.peer),
            server_name=probe.server_name,
            tls=probe.tls,
        )

    def _certificate(self, peer: Peer | None) -> str:
        if peer is None:
            return ""
        if peer not in self._certificates:
            from extauthz.mesh.verify.certificates import Certificates

            with TemporaryDirectory() as directory:
                self._certificates[peer] = Certificates(Path(directory)).issue(peer)[0]
        return self._certificates[peer]


def complete(message: bytes) -> bytes:
    """A CheckRequest with what Envoy also sends and no policy looks at: a server has to read over it."""
    check = CheckRequest.FromString(message)
    attributes = check.attributes
    time = Timestamp()
    time.GetCurrentTime()
    encoded = time.SerializeToString()
    attributes.request.http.id = str(secrets.randbits(63))
    attributes.request.http.MergeFromString(_PROTOCOL)
    attributes.request.MergeFromString(_TIME + bytes([len(encoded)]) + encoded)
    attributes.MergeFromString(_EMPTY_METADATA)
    attributes.metadata_context.SetInParent()
    attributes.tls_session.SetInParent()
    return check.SerializeToString()


def _principal(peer: Peer | None) -> str:
    """`source.principal`: the first URI name of the certificate, else its first DNS name, else its subject."""
    if peer is None:
        return ""
    names = peer.uris or peer.dns_names
    if names:
        return names[0]
    subject = (("CN", peer.common_name), ("O", peer.organization))
    return ",".join(f"{key}={value}" for key, value in subject if value)


def _http1(probe: Probe) -> bytes:
    return http1_request(probe.method, probe.target, probe.host or "", probe.headers, probe.body.encode("latin-1"))


def _http2(probe: Probe) -> bytes:
    return http2_request(probe.method, probe.target, probe.host or "", probe.headers, probe.body.encode("latin-1"))


_ENCODERS = {Protocol.HTTP1: _http1, Protocol.H2C: _http2}
