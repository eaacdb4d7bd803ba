"""What a policy may look at: one HTTP request as the proxy saw it, and the same request as authentication left it.

No parsing of messages and no decisions here. Text taken from a request is *wire text*: a `str` with one character per
byte (latin-1), because header values and rewritten paths need not be UTF-8. What an operator wrote is brought to the
same form once, when it is compiled, with `wire_text`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NO_LINES: tuple[str, ...] = ()


def wire_text(text: str) -> str:
    """Bring text (from YAML or a claim) to the form in which requests hold it: its UTF-8 bytes, one character each."""
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("latin-1")


def without_query(path: str) -> str:
    """The path less its query and fragment, which is what `paths` of an AuthorizationPolicy is compared with."""
    end = path.find("?")
    if end >= 0:
        path = path[:end]
    end = path.find("#")
    return path if end < 0 else path[:end]


class Request:
    """One request. Immutable by convention; every attribute is wire text unless it says otherwise.

    A subclass may derive attributes lazily (`checkapi` does, so that only what the policies read is extracted); it must
    offer these names:

    - `method`, `path` (`:path`, query included), `host` (`:authority`), `scheme`;
    - `source_address`, `destination_address`: textual IP addresses, empty when unknown (a Unix socket);
      `source_port`, `destination_port`: 0 when unknown;
    - `peer_principals`: the identities of the peer's certificate that Envoy's RBAC compares (URI SANs, DNS SANs,
      subject), as they stand in the certificate (`spiffe://...` included); empty without a client certificate;
    - `server_name`: SNI, empty without TLS;
    - `metadata`: `filter_metadata` that Envoy sent, filter name -> plain Python value of its Struct.
    """

    __slots__ = (
        "destination_address",
        "destination_port",
        "header_lines",
        "host",
        "metadata",
        "method",
        "path",
        "peer_principals",
        "scheme",
        "server_name",
        "source_address",
        "source_port",
    )

    method: str
    path: str
    host: str
    scheme: str
    header_lines: Mapping[str, Sequence[str]]
    source_address: str
    source_port: int
    destination_address: str
    destination_port: int
    peer_principals: Sequence[str]
    server_name: str
    metadata: Mapping[str, Any]

    def __init__(
        self,
        *,
        method: str = "GET",
        path: str = "/",
        host: str = "",
        scheme: str = "http",
        headers: Mapping[str, Sequence[str]] | None = None,
        source_address: str = "",
        source_port: int = 0,
        destination_address: str = "",
        destination_port: int = 0,
        peer_principals: Sequence[str] = (),
        server_name: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """`headers` maps a lower-case name to its lines in the order received, without pseudo headers and host."""
        self.method = method
        self.path = path
        self.host = host
        self.scheme = scheme
        self.header_lines = headers if headers is not None else {}
        self.source_address = source_address
        self.source_port = source_port
        self.destination_address = destination_address
        self.destination_port = destination_port
        self.peer_principals = peer_principals
        self.server_name = server_name
        self.metadata = metadata if metadata is not None else {}

    def lines(self, name: str) -> Sequence[str]:
        """The lines of one header, in order; empty when it is absent. `name` is lower case.

        Pseudo headers (`:path`, `:method`, `:authority`, `:scheme`) and `host` are answered from the attributes: Envoy
        may be configured to send only some headers, and then leaves them out of the header map.
        """
        if name[:1] == ":" or name == "host":
            attribute = _PSEUDO_HEADERS.get(name)
            if attribute is not None:
                # Every request that reaches a filter has all of them; a Host header may be empty.
                return (getattr(self, attribute),)
        return self.header_lines.get(name, NO_LINES)

    def received_lines(self, name: str) -> Sequence[str]:
        """As `lines`, before authentication changed anything: what the proxy looked at ahead of its filters."""
        return self.lines(name)


_PSEUDO_HEADERS = {
    ":path": "path",
    ":method": "method",
    ":authority": "host",
    "host": "host",
    ":scheme": "scheme",
}


@dataclass(frozen=True, slots=True)
class Changes:
    """What authentication made of a request: the final state of each header that it touched, and the path.

    `headers` maps a lower-case name to the lines that the header has now; no lines: it was removed (or sanitised, or
    would have been, had it been there). `path` is the new `:path`, None when it is as received. The allowed response is
    built from this and policies read the request through it, so what a policy saw and what the upstream gets cannot
    differ.
    """

    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    path: str | None = None

    def __bool__(self) -> bool:
        return bool(self.headers) or self.path is not None

    @property
    def added_bytes(self) -> int:
        """The size of what is written: names and values of headers, and the path. 0 when things are only removed."""
        added = sum(len(name) + sum(map(len, lines)) for name, lines in self.headers.items() if lines)
        return added + len(self.path or "")


NO_CHANGES = Changes()


class ChangedRequest(Request):
    """A request read through `Changes`; everything that did not change is answered by the original."""

    __slots__ = ("_changed", "_original")

    def __init__(self, original: Request, changes: Changes) -> None:
        self._original = original
        self._changed = changes.headers
        if changes.path is not None:
            self.path = changes.path

    def __getattr__(self, name: str) -> Any:
        # Reached only for a slot that is not set yet: take the original's value and keep it.
        value = getattr(self._original, name)
        setattr(self, name, value)
        return value

    def lines(self, name: str) -> Sequence[str]:
        changed = self._changed.get(name)
        if changed is not None:
            return changed
        if name == ":path":
            return (self.path,)
        return self._original.lines(name)

    def received_lines(self, name: str) -> Sequence[str]:
        return self._original.received_lines(name)
