"""A request in the making: what conditions ask of it is set here piece by piece, and then it becomes a probe."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from extauthz.istio.resources import JwtHeader, JwtRule
from extauthz.mesh.verify.probe import HOST, Peer, Probe
from extauthz.request import wire_text

DEFAULT_HEADERS = (JwtHeader(name="Authorization", prefix="Bearer "),)
DEFAULT_PARAMS = ("access_token",)

_PEER_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/*")


@dataclass(slots=True)
class Draft:
    """A request that can still be changed. Texts are wire text; `params` and `cookies` are as they are sent."""

    method: str = "GET"
    path: str = "/"
    params: list[str] = field(default_factory=list)
    host: str | None = HOST
    lines: list[tuple[str, str]] = field(default_factory=list)
    cookies: list[str] = field(default_factory=list)
    forwarded_for: str | None = None
    source: str = "127.0.0.1"
    destination: str = "127.0.0.1"
    port: int = 8000
    uris: list[str] = field(default_factory=list)
    dns_names: list[str] = field(default_factory=list)
    server_name: str = ""
    metadata: dict[tuple[str, str], str] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    needs_token: bool = False

    def set_line(self, name: str, value: str) -> None:
        """Give a header one line with this value, characters that no header may hold left out."""
        sent = "".join(character for character in wire_text(value) if character >= " " or character == "\t")
        sent = sent.replace("\x7f", "")
        self.lines = [line for line in self.lines if line[0].lower() != name.lower()]
        self.lines.append((name, sent))

    def set_path(self, path: str) -> None:
        """Set the path; what may not stand in a request line is percent-encoded."""
        self.path = quote(path.encode(), safe="/%;:@&=+$,!*'()~-._[]{}|^\\\"<>`")

    def set_claim(self, path: Sequence[str], value: Any) -> None:
        """Set a claim of the token that the request will carry."""
        self.needs_token = True
        claims = self.claims
        for name in path[:-1]:
            inner = claims.get(name)
            if not isinstance(inner, dict):
                inner = claims[name] = {}
            claims = inner
        claims[path[-1]] = value

    def add_uri(self, uri: str) -> None:
        """Give the peer's certificate another URI; characters that no URI may hold are left out."""
        self.uris.append("".join(character for character in uri if character in _PEER_CHARACTERS))

    def place_token(self, rng: random.Random, rule: JwtRule, token: str) -> None:
        """Put a token where a rule looks for one."""
        explicit = rule.from_headers or rule.from_params or rule.from_cookies
        headers = rule.from_headers if explicit else DEFAULT_HEADERS
        params = rule.from_params if explicit else DEFAULT_PARAMS
        places: list[tuple[str, Any]] = [("header", header) for header in headers]
        places += [("param", name) for name in params]
        places += [("cookie", name) for name in rule.from_cookies]
        kind, place = rng.choice(places)
        if kind == "header":
            self.lines.append((place.name, wire_text(place.prefix) + token))
        elif kind == "param":
            name = quote(place) if rng.random() < 0.8 else "".join(f"%{byte:02x}" for byte in place.encode())
            self.params.insert(rng.randint(0, len(self.params)), f"{name}={quote(token, safe='.-_')}")
        else:
            self.cookies.append(f"{place}={token}")

    def probe(self) -> Probe:
        """The request as it is now."""
        lines = list(self.lines)
        if self.cookies:
            lines.append(("cookie", "; ".join(self.cookies)))
        if self.forwarded_for is not None:
            lines.append(("x-forwarded-for", self.forwarded_for))
        peer = Peer(uris=tuple(self.uris), dns_names=tuple(self.dns_names)) if self.uris or self.dns_names else None
        return Probe(
            method=self.method,
            target=self.path + ("?" + "&".join(self.params) if self.params else ""),
            headers=tuple(lines),
            host=self.host,
            source=self.source,
            destination="::1" if ":" in self.source else self.destination,
            port=self.port,
            peer=peer,
            server_name=self.server_name,
            metadata=tuple((*place, value) for place, value in self.metadata.items()),
        )
