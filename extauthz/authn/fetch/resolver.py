"""Host names to IP addresses: `--resolve`, the system's resolver, and which addresses are never used.

A lookup runs in a thread of its own that nothing waits for at exit: a resolver that hangs must hold up neither the
other fetches nor the end of the process.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from extauthz.authn.fetch.failure import Cause, FetchFailure
from extauthz.authn.fetch.names import ip_address, why_forbidden
from extauthz.errors import UsageError

_UNKNOWN_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address and a port to connect to."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class Overrides:
    """`--resolve`: addresses by host name, and by host name and port. A port of 0 in an address keeps the URL's."""

    by_host: dict[tuple[str, int], tuple[Address, ...]] = field(default_factory=dict)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Overrides:
        """Read `HOST[:PORT]=ADDRESS[:PORT][,ADDRESS...]`. An IPv6 address with a port is in brackets.

        Raises UsageError.
        """
        found: dict[tuple[str, int], tuple[Address, ...]] = {}
        for text in texts:
            name, equals, addresses = text.partition("=")
            try:
                host, port = _split(name)
                if not equals or not host:
                    raise ValueError
                found[host.lower().removesuffix("."), port] = tuple(_address(part) for part in addresses.split(","))
            except ValueError:
                message = f"--resolve {text!r}: write HOST=ADDRESS, with an IP address (keys.example.com=192.0.2.7)"
                raise UsageError(message) from None
        return cls(found)

    def get(self, host: str, port: int) -> tuple[Address, ...]:
        """Where `host:port` is, empty without an override."""
        found = self.by_host.get((host, port)) or self.by_host.get((host, 0), ())
        return tuple(Address(address.ip, address.port or port) for address in found)


class Resolver:
    """Resolves for one event loop, with at most `concurrency` lookups at once."""

    def __init__(self, overrides: Overrides, concurrency: int) -> None:
        self._overrides = overrides
        self._lookups = asyncio.Semaphore(concurrency)

    async def resolve(self, names: tuple[str, ...], port: int) -> tuple[Address, ...]:
        """The addresses of the first of `names` that has any, in the order to try them.

        Raises FetchFailure when none resolves, and when all addresses are forbidden.
        """
        for name in names:
            if overridden := self._overrides.get(name, port):
                return _allowed(name, overridden)
        problem = ""
        for name in names:
            if ip_address(name) is not None:
                return _allowed(name, (Address(name, port),))
            try:
                return _allowed(name, tuple(Address(ip, port) for ip in await self._look_up(name)))
            except socket.gaierror as error:
                problem = (error.strerror or "not found").lower()
                # A name with dots may be somebody's on the internet: only the certain answer "no such name" in the
                # cluster leads there. A single label is not, so that /etc/hosts may have it.
                if error.errno not in _UNKNOWN_NAME and "." in names[-1]:
                    break
            except (OSError, UnicodeError) as error:
                problem = str(error)
        tried = f" (tried {', '.join(names)})" if len(names) > 1 else ""
        raise FetchFailure(Cause.NAME, f"host {names[-1]} does not resolve{tried}: {problem}")

    async def _look_up(self, name: str) -> list[str]:
        await self._lookups.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def deliver(found: list[str] | Exception) -> None:
            # A slot is free when its thread has ended, however long ago the fetch gave up.
            self._lookups.release()
            if answer.done():
                return
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def work() -> None:
            found: list[str] | Exception
            try:
                rows = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
                found = list(dict.fromkeys(str(row[4][0]) for row in rows))
            except (OSError, UnicodeError) as error:
                found = error
            try:
                loop.call_soon_threadsafe(deliver, found)
            except RuntimeError:
                return  # The loop has ended meanwhile.

        try:
            threading.Thread(target=work, name="extauthz-resolve", daemon=True).start()
        except RuntimeError:
            self._lookups.release()
            raise OSError("no thread for a lookup") from None
        return await answer


def _allowed(name: str, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    forbidden = {address.ip: why for address in addresses if (why := why_forbidden(address.ip))}
    allowed = tuple(address for address in addresses if address.ip not in forbidden)
    if forbidden and not allowed:
        ip, why = next(iter(forbidden.items()))
        what = why if ip == name else f"{ip}, {why}"
        raise FetchFailure(Cause.REFUSED, f"host {name} is {what}: no key set is fetched from there")
    return allowed


def _split(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or host.endswith(":") or (":" in host and not host.startswith("[")):
        return text.strip("[]"), 0
    number = int(port)
    if not 0 < number < 65536:
        raise ValueError
    return host.strip("[]"), number


def _address(text: str) -> Address:
    host, port = _split(text.strip())
    ip = ip_address(host)
    if ip is None:
        raise ValueError
    return Address(str(ip), port)
