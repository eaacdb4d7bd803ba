"""A raw HTTP request -> the CheckRequest that Envoy would send about it, for use where no Envoy stands in front."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from extauthz.envoy_http import METHODS, filter_headers, normalize_path, request_scheme, split_target
from extauthz.protos.external_auth_pb2 import AttributeContext, CheckRequest


@dataclass(frozen=True, slots=True)
class Connection:
    """What Envoy knows of the connection that a request came on. `peer_certificate` is PEM; addresses are IP texts."""

    source_address: str = "127.0.0.1"
    source_port: int = 0
    destination_address: str = "127.0.0.1"
    destination_port: int = 0
    principal: str = ""
    peer_certificate: str = ""
    server_name: str = ""
    tls: bool = False


def check_request(
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]] = (),
    *,
    host: str = "",
    connection: Connection | None = None,
    raw_headers: bool = True,
) -> bytes | None:
    """CheckRequest bytes for a request; None when Envoy would answer 400 before asking.

    `headers` are wire text, in order. `raw_headers` chooses the form that Envoy sends with `encode_raw_headers` (each
    line with its bytes); otherwise values are joined with commas, and bytes that are not UTF-8 become `!`.
    """
    target_scheme, authority, path = split_target(target)
    normalized = normalize_path(path)
    if normalized is None or method not in METHODS:
        return None
    connection = connection or Connection()
    lines = filter_headers((name, value) for name, value in headers if name.lower() != "host")
    forwarded = lines.setdefault("x-forwarded-proto", ["https" if connection.tls else "http"])[0]
    http = AttributeContext.HttpRequest(
        method=method,
        path=normalized,
        host=host if authority is None else authority,
        scheme=request_scheme(target_scheme, forwarded, tls=connection.tls),
    )
    pseudo = {":authority": http.host, ":path": http.path, ":method": http.method, ":scheme": http.scheme}
    everything = [*pseudo.items(), *((name, line) for name, group in lines.items() for line in group)]
    if raw_headers:
        for name, line in everything:
            http.header_map.headers.add(key=name, raw_value=line.encode("latin-1"))
    else:
        for name, line in everything:
            text = line.encode("latin-1").decode("utf-8", "replace").replace("�", "!")
            known = http.headers.get(name)
            http.headers[name] = text if known is None else f"{known},{text}"
    message = CheckRequest()
    message.attributes.request.http.CopyFrom(http)
    _describe(message.attributes, connection)
    return message.SerializeToString()


def _describe(attributes: AttributeContext, connection: Connection) -> None:
    source = attributes.source.address.socket_address
    source.address, source.port_value = connection.source_address, connection.source_port
    destination = attributes.destination.address.socket_address
    destination.address, destination.port_value = connection.destination_address, connection.destination_port
    attributes.source.principal = connection.principal
    attributes.source.certificate = quote(connection.peer_certificate, safe="")
    if connection.server_name:
        attributes.tls_session.sni = connection.server_name
