"""One request that is put to both sides, down to the bytes of its head and the connection that it comes on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from extauthz.mesh.verify import metadata

HOST = "httpbin.foo:8000"

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Peer:
    """The client certificate of a connection: its URI and DNS names, and its subject's common name and organisation."""

    uris: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    common_name: str = ""
    organization: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """One HTTP/1.1 request. Texts are wire text: one character for each byte.

    `host` None sends no Host line. `source` is the client's address (any of 127.0.0.0/8, or ::1); `destination` and
    `port` are what the proxy takes for its own address. With a `peer` or a `server_name` the connection is TLS.
    `metadata` is what other filters of the proxy left: the filter's name, the key, and the value as JSON.
    """

    method: str = "GET"
    target: str = "/"
    headers: Headers = ()
    host: str | None = HOST
    body: str = ""
    source: str = "127.0.0.1"
    destination: str = "127.0.0.1"
    port: int = 8000
    peer: Peer | None = None
    server_name: str = ""
    metadata: tuple[tuple[str, str, str], ...] = ()
    name: str = ""

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.peer is not None or bool(self.server_name)

    @property
    def connection(self) -> Probe:
        """What of this a connection is made for: probes with the same can share one."""
        return Probe(
            source=self.source,
            destination=self.destination,
            port=self.port,
            peer=self.peer,
            server_name=self.server_name,
        )

    def named(self, name: str) -> Probe:
        """The same request under another name."""
        return replace(self, name=name)

    def encode(self) -> bytes:
        """The bytes to send."""
        lines = [f"{self.method} {self.target} HTTP/1.1"]
        if self.host is not None:
            lines.append(f"host: {self.host}")
        brought = (metadata.header((filter_name, key), value) for filter_name, key, value in self.metadata)
        lines.extend(f"{name}: {value}" for name, value in (*brought, *self.headers))
        if self.body and not _names(self.headers) & {"content-length", "transfer-encoding"}:
            lines.append(f"content-length: {len(self.body)}")
        return ("\r\n".join(lines) + "\r\n\r\n" + self.body).encode("latin-1")


def _names(headers: Iterable[tuple[str, str]]) -> set[str]:
    return {name.lower() for name, _ in headers}
