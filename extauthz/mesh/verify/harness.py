"""One real Envoy that enforces many sets of policies at once, each on its own listener, and answers probes.

Envoy, the upstream, the recorder and the clients are made for one event loop; nothing here judges an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from envoy_data_plane.envoy.config.bootstrap.v3 import (
    Admin,
    Bootstrap,
    BootstrapDynamicResources,
    BootstrapStaticResources,
)
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.core.v3 import ApiVersion, ConfigSource, Node, PathConfigSource
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.service.discovery.v3 import DiscoveryResponse
from envoy_data_plane.google.protobuf import Any

from extauthz.mesh.bootstrap import as_document
from extauthz.mesh.envoy import Envoy, EnvoyError, run_envoy
from extauthz.mesh.pieces import UPSTREAM_CLUSTER, address, cluster
from extauthz.mesh.verify.certificates import Certificates
from extauthz.mesh.verify.http1 import Client, ConnectionLost, Head, Receipts, Response, Upstream
from extauthz.mesh.verify.listeners import RECORDER_CLUSTER
from extauthz.mesh.verify.probe import Probe
from extauthz.mesh.verify.recorder import Recorder, Recordings

ANSWER_SECONDS = 30.0
"""How long one answer may take; far more than it does, since a busy machine must not look like a difference."""

LOAD_SECONDS = 60.0

_POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Observation:
    """What one probe led to: the client's answer, what the upstream got, what Envoy would have asked us.

    `received` is None when the request was answered before the upstream, `check` when Envoy answered it before any
    filter saw it. `response` is None when the connection was closed without an answer.
    """

    response: Response | None
    received: Head | None
    check: bytes | None


class Harness:
    """A running Envoy with its upstream and recorder. Made by `run_harness`."""

    def __init__(self, envoy: Envoy, receipts: Receipts, recordings: Recordings, certificates: Certificates) -> None:
        self.envoy = envoy
        self.certificates = certificates
        self._receipts = receipts
        self._recordings = recordings
        self._listening: dict[str, tuple[tuple[str, int], ...]] = {}
        self._idle: dict[tuple[str, Probe], list[_Connection]] = {}
        self._loads = self._loaded()

    async def load(self, listeners: Sequence[Listener]) -> Mapping[str, str]:
        """Replace all listeners; gives those that Envoy rejects, by name, with its reasons.

        Names must not have been used before. Raises EnvoyError when Envoy does not survive or does not answer.
        """
        self.drop_connections()
        async with asyncio.timeout(LOAD_SECONDS):
            if self._listening:
                # A new listener would take over the socket of one with the same address (port 0) that still drains.
                await self._update(())
                while await asyncio.to_thread(self.envoy.counter, "listener_manager.total_listeners_draining"):
                    await asyncio.sleep(_POLL_SECONDS)
            await self._update(listeners)
            states = await asyncio.to_thread(self.envoy.listeners)
        self._listening = {name: state.addresses for name, state in states.items() if state.addresses}
        rejected = {name: state.error for name, state in states.items() if state.error}
        missing = [one.name for one in listeners if one.name not in self._listening and one.name not in rejected]
        if missing:
            raise EnvoyError(f"Envoy neither took nor rejected {', '.join(missing)}: {self.envoy.log()[-2000:]}")
        return rejected

    async def _update(self, listeners: Sequence[Listener]) -> None:
        self._loads += 1
        _write_listeners(self.envoy.directory, listeners, self._loads)
        while await asyncio.to_thread(self._loaded) < self._loads:
            await asyncio.sleep(_POLL_SECONDS)

    def _loaded(self) -> int:
        prefix = "listener_manager.lds.update_"
        return self.envoy.counter(f"{prefix}success") + self.envoy.counter(f"{prefix}rejected")

    async def ask(self, name: str, probe: Probe) -> Observation:
        """Put one probe to a listener. Raises EnvoyError when there is no answer in time or Envoy is gone."""
        kept = self._idle.setdefault((name, probe.connection), [])
        try:
            connection = kept.pop() if kept else await self._connect(name, probe)
        except OSError as error:
            raise EnvoyError(f"no connection for {probe}: {error}") from error
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                response = await connection.client.ask(probe.encode())
        except ConnectionLost:
            if not self.envoy.running():
                raise EnvoyError("Envoy ended during a request") from None
            return Observation(None, None, self._recordings.take(connection.local))
        except TimeoutError:
            connection.client.close()
            raise EnvoyError(f"no answer within {ANSWER_SECONDS:.0f} s to {probe}") from None
        if connection.client.usable:
            kept.append(connection)
        else:
            connection.client.close()
        return Observation(response, self._receipts.take(response), self._recordings.take(connection.local))

    def drop_connections(self) -> None:
        """Close all idle client connections."""
        for connections in self._idle.values():
            for connection in connections:
                connection.client.close()
        self._idle.clear()

    async def _connect(self, name: str, probe: Probe) -> _Connection:
        family = socket.AF_INET6 if ":" in probe.source else socket.AF_INET
        target = next(place for place in self._listening[name] if (":" in place[0]) == (":" in probe.source))
        loop = asyncio.get_running_loop()
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            made.bind((probe.source, 0))
            await loop.sock_connect(made, target)
            local = (probe.source, int(made.getsockname()[1]))
            protocol = "TCP6" if family == socket.AF_INET6 else "TCP4"
            line = f"PROXY {protocol} {probe.source} {probe.destination} {local[1]} {probe.port}\r\n"
            await loop.sock_sendall(made, line.encode())
            context = self.certificates.client_context(probe.peer) if probe.tls else None
            _, client = await loop.create_connection(
                Client, sock=made, ssl=context, server_hostname=probe.server_name if context else None
            )
        except BaseException:
            made.close()
            raise
        return _Connection(client, local)


@dataclass(frozen=True, slots=True)
class _Connection:
    client: Client
    local: tuple[str, int]


@asynccontextmanager
async def run_harness(*, binary: str = "", clusters: Sequence[Cluster] = ()) -> AsyncIterator[Harness]:
    """An Envoy without listeners yet, ended with the block. `clusters` are added to the upstream's and the recorder's.

    Raises UsageError without an Envoy and EnvoyError when it does not start.
    """
    loop = asyncio.get_running_loop()
    receipts, recordings = Receipts(), Recordings()
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="extauthz-verify-")))
        upstream = await loop.create_server(lambda: Upstream(receipts), "127.0.0.1", 0)
        await stack.enter_async_context(upstream)
        recorder = await loop.create_server(lambda: Recorder(recordings), "127.0.0.1", 0)
        await stack.enter_async_context(recorder)
        own = (
            cluster(UPSTREAM_CLUSTER, [_place(upstream)], grpc=False),
            cluster(RECORDER_CLUSTER, [_place(recorder)], grpc=True),
        )
        own[1].health_checks = []
        _write_listeners(directory, (), 0)
        bootstrap = _bootstrap(directory, [*own, *clusters])
        # Started here and not in a thread: it takes a tenth of a second, before there is anything else to do.
        envoy = stack.enter_context(run_envoy(as_document(bootstrap), binary=binary, directory=directory))
        harness = Harness(envoy, receipts, recordings, Certificates(directory))
        stack.callback(harness.drop_connections)
        yield harness


def _place(server: asyncio.Server) -> str:
    host, port = server.sockets[0].getsockname()[:2]
    return f"{host}:{port}"


def _bootstrap(directory: Path, clusters: list[Cluster]) -> Bootstrap:
    source = ConfigSource(
        path_config_source=PathConfigSource(path=str(directory / "listeners.pb")), resource_api_version=ApiVersion.V3
    )
    return Bootstrap(
        node=Node(id="extauthz-verify", cluster="extauthz-verify"),
        admin=Admin(address=address("127.0.0.1:0")),
        static_resources=BootstrapStaticResources(clusters=clusters),
        dynamic_resources=BootstrapDynamicResources(lds_config=source),
    )


def _write_listeners(directory: Path, listeners: Sequence[Listener], version: int) -> None:
    """Write what Envoy listens on; it watches for the file being replaced."""
    resources = [Any.pack(one) for one in listeners]
    response = DiscoveryResponse(version_info=str(version), resources=resources)
    temporary = directory / "listeners.new"
    temporary.write_bytes(bytes(response))
    temporary.replace(directory / "listeners.pb")
