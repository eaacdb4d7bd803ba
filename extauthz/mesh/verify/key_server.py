"""Key sets over HTTP, for rules that can only name a URL: one without an issuer may not have its keys inline."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from extauthz.istio.resources import JwtRule, Resources


class KeyServer:
    """Serves key sets on the loopback address. Made by `key_server`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.texts: dict[str, str] = {}

    def published(self, resources: Resources) -> Resources:
        """The resources, with a jwksUri of this server in every rule whose inline keys istiod would refuse."""
        return replace(
            resources,
            request_authentications=tuple(
                replace(policy, jwt_rules=tuple(map(self._rule, policy.jwt_rules)))
                for policy in resources.request_authentications
            ),
        )

    def _rule(self, rule: JwtRule) -> JwtRule:
        if rule.issuer or not rule.jwks:
            return rule
        path = f"/{len(self.texts)}"
        self.texts[path] = rule.jwks
        return replace(rule, jwks="", jwks_uri=f"http://127.0.0.1:{self._port}{path}")


@contextmanager
def key_server() -> Iterator[KeyServer]:
    """A key server for as long as the block runs."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = keys.texts.get(self.path, "").encode("utf-8", "surrogatepass")
            self.send_response(http.HTTPStatus.OK if body else http.HTTPStatus.NOT_FOUND)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Nobody reads it."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    keys = KeyServer(server.server_address[1])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield keys
    finally:
        server.shutdown()
        server.server_close()
