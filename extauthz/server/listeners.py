"""Addresses to listen on: their written form, their expansion over workers, and binding them with clear refusals.

A Unix socket that a live server answers is never taken over, a left-over one is replaced, anything else at its path is
not touched. What is bound here is handed to a transport as a listening socket, or, where a transport insists on binding
by itself, checked here first.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from extauthz.errors import UsageError

DEFAULT_LISTEN = "127.0.0.1:9191"

UNIX_PATH_MAX = 107
"""Bytes of a Unix socket's path that the kernel takes (sun_path, less its NUL)."""

BACKLOG = 1024
"""Connections that wait to be accepted; the kernel cuts it to net.core.somaxconn."""

WORKER = "{worker}"

_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[^:\[\]]+)):(?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Address:
    """One place to listen: a host (name or IP address, IPv6 without brackets) and port, or the path of a Unix socket.

    `last_port` is set for a range, `HOST:FIRST-LAST`, of which each worker takes one port.
    """

    host: str = ""
    port: int = 0
    last_port: int = 0
    path: str = ""

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket."""
        return bool(self.path)

    @property
    def is_per_worker(self) -> bool:
        """Whether each worker has an address of its own (`{worker}` in the path, or a port range)."""
        return WORKER in self.path or bool(self.last_port)

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}-{self.last_port}" if self.last_port else f"{host}:{self.port}"


def parse(text: str, option: str = "--listen") -> Address:
    """Read `HOST:PORT`, `[V6]:PORT`, `HOST:FIRST-LAST` or `unix:PATH`. Raises UsageError that names `option`."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        # gRPC's own spelling of an absolute path, unix:///run/a.sock.
        path = path.removeprefix("//") if path.startswith("///") else path
        if not path or "\0" in path:
            raise UsageError(f"{option} {text!r}: a path must follow unix:, as in unix:/run/extauthz.sock")
        return Address(path=path)
    match = _HOST_PORT.fullmatch(text)
    if match is None or match["v6"] == "":
        raise UsageError(f"{option} {text!r}: write HOST:PORT, [IPV6]:PORT or unix:/PATH")
    first, last = int(match["first"]), int(match["last"] or 0)
    if first > 65535 or last > 65535:
        raise UsageError(f"{option} {text!r}: a port is at most 65535")
    if match["last"] is not None and (first == 0 or last <= first):
        raise UsageError(f"{option} {text!r}: a port range runs from a lower port to a higher one, as in 9191-9194")
    return Address(host=match["v6"] or match["host"], port=first, last_port=last)


def for_worker(address: Address, worker: int) -> Address:
    """The address that worker number `worker` (from 0) listens on."""
    if address.path:
        return replace(address, path=address.path.replace(WORKER, str(worker)))
    if address.last_port:
        return replace(address, port=address.port + worker, last_port=0)
    return address


def check_workers(addresses: Sequence[Address], workers: int) -> None:
    """Raises UsageError when `workers` processes cannot listen on `addresses`."""
    for address in addresses:
        if address.last_port and address.last_port - address.port + 1 != workers:
            ports = address.last_port - address.port + 1
            raise UsageError(f"--listen {address}: a range of {ports} ports needs --workers {ports}, not {workers}")
        if address.is_unix and workers > 1 and not address.is_per_worker:
            raise UsageError(
                f"--listen {address}: {workers} workers need a Unix socket each: put {WORKER} into the path, "
                f"and give Envoy one endpoint per worker"
            )


def resolve(address: Address, option: str = "--listen") -> list[tuple[socket.AddressFamily, str]]:
    """The numeric addresses (family, text) that a host name stands for, each once. Raises UsageError."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{option} {address}: cannot resolve {address.host!r}: {error}") from None
    numeric = {(family, str(sockaddr[0])): None for family, _, _, _, sockaddr in found}
    return list(numeric)


def bind(address: Address, *, mode: int = 0o660, share: bool = False, option: str = "--listen") -> socket.socket:
    """Bind and listen; the socket's own address says which port 0 became.

    `mode` is that of a Unix socket from its first moment. `share`: other processes may listen on the same port
    (SO_REUSEPORT), and the kernel spreads connections over them. A host name is bound at its first address. Raises
    UsageError that says what is wrong with the address.
    """
    if address.is_unix:
        return _bind_unix(address, mode, option)
    family, host = resolve(address, option)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with explained(address, option):
            listener.bind((host, address.port))
            listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def reserve(address: Address, option: str = "--listen") -> socket.socket:
    """Bind without listening, shared: keeps a port (which one 0 becomes) while those who listen on it come and go."""
    family, host = resolve(address, option)[0]
    holder = socket.socket(family, socket.SOCK_STREAM)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with explained(address, option):
            holder.bind((host, address.port))
    except BaseException:
        holder.close()
        raise
    return holder


def bound(listener: socket.socket) -> Address:
    """The address that a bound socket has."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return Address(path=str(name))
    return Address(host=str(name[0]), port=int(name[1]))


def clear_unix_path(address: Address, option: str = "--listen") -> None:
    """Make a Unix socket's path free for binding: remove the socket of a server that is gone.

    Raises UsageError when the path is too long, is anything but a socket, belongs to a live server, or may not be
    looked at.
    """
    path = address.path
    length = len(os.fsencode(path))
    if length > UNIX_PATH_MAX:
        raise UsageError(
            f"{option} {address}: the path is {length} bytes long, a Unix socket's may have {UNIX_PATH_MAX}: "
            f"use a shorter directory, such as /run"
        )
    with explained(address, option):
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise UsageError(f"{option} {address}: something that is not a socket is there, and is not touched")
        if _is_answered(path):
            raise UsageError(f"{option} {address}: in use by a running server")
        if os.lstat(path).st_ino == found.st_ino:
            os.unlink(path)


def remove_unix_path(path: str, inode: int) -> None:
    """Remove the socket that this process made at `path`, unless another one stands there by now."""
    try:
        if os.lstat(path).st_ino == inode:
            os.unlink(path)
    except OSError:
        # Gone already, or in a directory that became read-only: the next start replaces a left-over socket.
        return


@contextmanager
def creating_with_mode(mode: int) -> Iterator[None]:
    """What is created inside has exactly `mode`: a socket must not be open to others even for a moment."""
    before = os.umask(0o777 & ~mode)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def explained(address: Address, option: str = "--listen") -> Iterator[None]:
    """Turn an OSError of binding `address` into a UsageError that says what to do about it."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{option} {address}: {_explanation(address, error)}") from None


def _bind_unix(address: Address, mode: int, option: str) -> socket.socket:
    clear_unix_path(address, option)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with explained(address, option), creating_with_mode(mode):
            listener.bind(address.path)
            listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _is_answered(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True  # Its backlog is full: busy, but alive.
    return True


def _explanation(address: Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "in use by another process: stop it, or choose another address (port 0 picks a free port)"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    if error.errno in (errno.EACCES, errno.EPERM):
        if address.is_unix:
            return f"permission denied: uid {os.geteuid()} may not create a socket in {_directory(address)}"
        return f"permission denied: uid {os.geteuid()} may not listen on port {address.port}; use a port from 1024 up"
    if error.errno == errno.ENOENT and address.is_unix:
        return f"the directory {_directory(address)} does not exist"
    if error.errno == errno.EROFS:
        return f"{_directory(address)} is on a read-only file system"
    return os.strerror(error.errno) if error.errno else str(error)


def _directory(address: Address) -> str:
    return os.path.dirname(os.path.abspath(address.path))
