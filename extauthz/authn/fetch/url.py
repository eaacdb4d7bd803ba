"""The URL of a key set: its parts, what of it may be shown, and what a redirect makes of it (RFC 3986)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, urljoin, urlsplit

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?")
_UNFIT = re.compile(r"[\x00-\x20\x7f-\xa0\\\ud800-\udfff]")
_LONGEST = 8192
_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_SECRET_NAME = re.compile(r"(?i)key|token|secret|passw|pwd|sig|auth|cred|code")
_DEFAULT_PORTS = {"http": 80, "https": 443}
MASK = "***"


@dataclass(frozen=True, slots=True)
class Url:
    """An absolute http or https URL. `host` is in lower case, an IP address without brackets; `port` is always set.

    `target` is path and query as they are sent, in ASCII (RFC 3987 section 3.1). `credentials` is `user:password` as
    written, blank without.
    """

    scheme: str
    host: str
    port: int
    target: str
    credentials: str = ""

    @classmethod
    def parse(cls, text: str) -> Url:
        """Read `text`. Raises ValueError, whose text says in plain words what is wrong with it."""
        if len(text) > _LONGEST:
            raise ValueError(f"a URL is not longer than {_LONGEST} characters")
        if _UNFIT.search(text):
            raise ValueError("a URL has no blanks, control characters or backslashes")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise ValueError(str(error).lower()) from None
        scheme = parts.scheme.lower()
        if scheme not in _DEFAULT_PORTS:
            raise ValueError(f"scheme {scheme!r} is not http or https" if scheme else "not an http or https URL")
        if port == 0:
            raise ValueError("port 0")
        credentials = parts.netloc.rpartition("@")[0]
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host = _host(parts.hostname or "")
        return cls(scheme, host, port or _DEFAULT_PORTS[scheme], quote(target, safe=_ASCII), credentials)

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them: the scheme's own port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port (RFC 6454)."""
        return self.scheme, self.host, self.port

    @property
    def shown(self) -> str:
        """The URL for logs, metrics and people: no credentials, and no values of parameters named like secrets."""
        path, question, query = self.target.partition("?")
        pairs = [pair.partition("=") for pair in query.split("&")]
        masked = "&".join(
            f"{name}={MASK}" if value and _SECRET_NAME.search(unquote(name)) else f"{name}{equals}{value}"
            for name, equals, value in pairs
        )
        return f"{self.scheme}://{self.authority}{path}{question}{masked}"

    def follow(self, location: str) -> Url:
        """Where a `Location` (or another URL reference found here) leads. Raises ValueError.

        Credentials go along within the origin only.
        """
        there = Url.parse(urljoin(f"{self.scheme}://{self.authority}{self.target}", location))
        if there.origin == self.origin and not there.credentials:
            return replace(there, credentials=self.credentials)
        return there


def _host(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        host = text if text.isascii() else text.encode("idna").decode("ascii")
    except UnicodeError:
        host = ""
    if not _HOST.fullmatch(host) or ".." in host:
        raise ValueError(f"host {text!r} is not a name or an address" if text else "no host")
    return host.lower().removesuffix(".")
