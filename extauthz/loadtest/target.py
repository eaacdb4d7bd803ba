"""Where the load goes: an ext_authz server or a URL, resolved to an address once, before anything is sent."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from extauthz.errors import UsageError
from extauthz.loadtest.outcomes import Protocol
from extauthz.loadtest.sender import Address, Tls
from extauthz.server import listeners

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The TLS options as given: `--tls`, `--ca`, `--cert`, `--cert-key`, `--tls-name`, `--insecure`."""

    wanted: bool = False
    authority: str = ""
    certificate: str = ""
    key: str = ""
    name: str = ""
    insecure: bool = False

    def client(self, host: str) -> Tls:
        """What a client needs; the server's name is `host` unless another is given."""
        return Tls(self.name or host, self.authority, self.certificate, self.key, not self.insecure)


@dataclass(frozen=True, slots=True)
class Target:
    """What is put under load. `text` is how it was given, `authority` what the server is called, `path` a URL's."""

    text: str
    protocol: Protocol
    address: Address
    authority: str
    path: str = "/"
    tls: Tls | None = None


def check_target(text: str, tls: TlsFiles) -> Target:
    """`--target`: HOST:PORT, [V6]:PORT or unix:PATH of an ext_authz server. Raises UsageError."""
    address = listeners.parse(text, "--target")
    if address.is_per_worker or (not address.is_unix and not address.port):
        raise UsageError(f"--target {text!r}: write HOST:PORT, [IPV6]:PORT or unix:/PATH, of one server")
    if address.is_unix:
        client = tls.client("localhost") if tls.wanted else None
        return Target(text, Protocol.CHECK, address.path, "localhost", tls=client)
    client = tls.client(address.host) if tls.wanted else None
    where = _resolve(address.host, address.port, f"--target {text}")
    return Target(text, Protocol.CHECK, where, str(address), tls=client)


def url_target(text: str, http: str, tls: TlsFiles) -> Target:
    """`--url`: http or https, with `--http 1.1` or `2` (h2c). Raises UsageError."""
    if http not in ("1.1", "2"):
        raise UsageError(f"--http {http!r}: use 1.1, or 2 for HTTP/2 with prior knowledge (h2c)")
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        raise UsageError(f"--url {text!r}: the port is not a number up to 65535") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise UsageError(f"--url {text!r}: write http://HOST:PORT/PATH or https://HOST:PORT/PATH")
    if parts.username is not None:
        raise UsageError("--url: no user name or password in a URL: use --header 'authorization: ...'")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    protocol = Protocol.HTTP1 if http == "1.1" else Protocol.H2C
    client = tls.client(parts.hostname) if parts.scheme == "https" else None
    where = _resolve(parts.hostname, port or _PORTS[parts.scheme], f"--url {text}")
    return Target(text, protocol, where, parts.netloc, path, client)


def _resolve(host: str, port: int, what: str) -> tuple[str, int]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{what}: cannot resolve {host!r}: {error}") from None
    return str(found[0][4][0]), port
