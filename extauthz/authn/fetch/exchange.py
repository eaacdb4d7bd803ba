"""One request over one connection of its own, with httpx: sent, answered, read within limits, errors named.

httpx's transport is used without its client: what a client adds (cookies, proxies of the environment, redirects, a log
line for each request) is just what must not be here.
"""

from __future__ import annotations

import base64
import os
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

import httpx

from extauthz._version import __version__
from extauthz.authn.fetch.failure import Cause, FetchFailure
from extauthz.authn.fetch.options import MAX_BODY_BYTES
from extauthz.authn.fetch.tls import Tls, explain_tls
from extauthz.authn.fetch.url import Url

ACCEPTED = "application/json, application/jwk-set+json, */*;q=0.5"
_ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,1024}"')
"""Of RFC 9110 section 8.8.3 only what every server takes back; without one the whole answer is asked for again."""
_PHASES = {
    "connection.start_tls.started": "in the TLS handshake with",
    "http11.send_request_headers.started": "sending the request to",
    "http11.receive_response_headers.started": "waiting for the answer of",
    "http11.receive_response_body.started": "reading the body from",
}


@dataclass(slots=True)
class Progress:
    """What a fetch is doing and has done, for the text of a timeout and for `extauthz jwks`.

    `deadline` is the time of the event loop when the fetch has to be over.
    """

    deadline: float
    doing: str = "starting"
    steps: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a connection goes: `authority` (address and port) or a Unix socket, or the URL's own host over a proxy."""

    authority: str
    socket: str = ""
    proxy: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came; header names are in lower case, the body is empty for anything but 2xx."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def exchange(
    url: Url,
    peer: Peer,
    tls: Tls | None,
    context: ssl.SSLContext,
    progress: Progress,
    *,
    etag: str = "",
    connect_timeout: float | None = None,
) -> Reply:
    """GET `url` from `peer`. Raises FetchFailure.

    `context` is used where `tls` is not None; httpx wants one anyway. The caller limits the whole time.
    """
    there = peer.socket or peer.authority
    shown = f"{url.host} at {there}" if there != url.authority else there
    if peer.proxy:
        shown = f"{there} over the proxy {Url.parse(peer.proxy).authority}"
    progress.doing = f"connecting to {shown}"
    request = httpx.Request(
        "GET",
        f"{'http' if tls is None else 'https'}://{peer.authority}{url.target}",
        headers=_headers(url, etag),
        extensions=_extensions(tls, peer, progress, shown, connect_timeout),
    )
    transport = httpx.AsyncHTTPTransport(
        verify=context, trust_env=False, uds=peer.socket or None, proxy=peer.proxy or None
    )
    try:
        with _foreign_errors_named(shown, url, tls):
            response = await transport.handle_async_request(request)
            headers = {name.lower(): value for name, value in response.headers.items()}
            try:
                body = await _body(response, headers) if 200 <= response.status_code < 300 else b""
            finally:
                await response.aclose()
        progress.steps.append(f"{response.status_code} from {shown}{' over TLS' if tls is not None else ''}")
        return Reply(response.status_code, headers, body)
    finally:
        await transport.aclose()


def _headers(url: Url, etag: str) -> dict[str, str]:
    headers = {
        "host": url.authority,
        "user-agent": f"extauthz/{__version__}",
        "accept": ACCEPTED,
        "accept-encoding": "gzip",
        "connection": "close",
    }
    if _ENTITY_TAG.fullmatch(etag):
        headers["if-none-match"] = etag
    if url.credentials:
        plain = unquote_to_bytes(url.credentials)
        headers["authorization"] = f"Basic {base64.b64encode(plain).decode('ascii')}"
    return headers


def _extensions(
    tls: Tls | None, peer: Peer, progress: Progress, shown: str, connect_timeout: float | None
) -> dict[str, Any]:
    async def trace(event: str, _: Any) -> None:
        phase = _PHASES.get(event)
        if phase is not None:
            progress.doing = f"{phase} {shown}"

    extensions: dict[str, Any] = {"trace": trace}
    if connect_timeout is not None:
        extensions["timeout"] = {"connect": connect_timeout}
    if tls is not None and not peer.proxy:
        extensions["sni_hostname"] = tls.server_name
    return extensions


async def _body(response: httpx.Response, headers: Mapping[str, str]) -> bytes:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip"):
        raise FetchFailure(Cause.CONTENT, f"content-encoding {encoding[:40]!r}, which was not asked for")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 16) if "gzip" in encoding else None
    body, received = bytearray(), 0
    async for chunk in _chunks(response):
        # What follows the end of a gzip stream is kept by zlib, and counts as well.
        received += len(chunk)
        # Unpacked piece by piece: a megabyte of zeros takes a kilobyte, and must not take more than the limit here.
        try:
            body += chunk if unpack is None else unpack.decompress(chunk, MAX_BODY_BYTES + 1 - len(body))
        except zlib.error:
            raise FetchFailure(Cause.CONTENT, "the body is not the gzip that its header says") from None
        if max(len(body), received) > MAX_BODY_BYTES:
            raise FetchFailure(Cause.TOO_LARGE, f"the body is larger than {MAX_BODY_BYTES} bytes")
    if unpack is not None and not unpack.eof:
        raise FetchFailure(Cause.CONTENT, "the gzip body ends early")
    return bytes(body)


async def _chunks(response: httpx.Response) -> AsyncIterator[bytes]:
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise FetchFailure(Cause.TOO_LARGE, f"the body is larger than {MAX_BODY_BYTES} bytes")
    async for chunk in response.aiter_raw():
        yield chunk


@contextmanager
def _foreign_errors_named(shown: str, url: Url, tls: Tls | None) -> Iterator[None]:
    """Turn what httpx, ssl and the socket raise into FetchFailures."""
    try:
        yield
    except httpx.ConnectTimeout:
        raise FetchFailure(Cause.CONNECT, f"connect to {shown}: no answer") from None
    except httpx.ProxyError as error:
        # The proxy's own words, of which nothing is to act on a terminal.
        raise FetchFailure(Cause.CONNECT, f"{shown}: the proxy refuses: {ascii(str(error))[1:-1][:200]}") from None
    except (httpx.TransportError, ssl.SSLError, OSError) as error:
        raise _named(error, shown, url, tls) from None


def _named(error: Exception, shown: str, url: Url, tls: Tls | None) -> FetchFailure:
    causes = list(_causes(error))
    # Those of a handshake that waits for its peer stand in the context of whatever ended it.
    waiting = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
    tls_error = next((one for one in causes if isinstance(one, ssl.SSLError) and not isinstance(one, waiting)), None)
    if tls_error is not None:
        return explain_tls(tls_error, shown)
    os_error = next((one for one in causes if isinstance(one, OSError) and one.errno), None)
    connecting = isinstance(error, httpx.ConnectError)
    if connecting and os_error is not None:
        return FetchFailure(Cause.CONNECT, f"connect to {shown}: {_reason(os_error)}")
    if connecting and tls is not None:
        return FetchFailure(Cause.TLS, f"TLS with {shown}: the peer ended the handshake")
    reason = _reason(os_error) if os_error is not None else str(error).partition("\n")[0][:200] or type(error).__name__
    hint = ""
    if tls is None and url.port == 443:
        hint = "that port usually speaks TLS: write https://, or add a DestinationRule with mode SIMPLE"
    elif tls is not None and not tls.certificate_file:
        # In TLS 1.3 a server refuses a missing certificate after the handshake, and not all say so.
        hint = "it may want a client certificate: mode MUTUAL in a DestinationRule"
    return FetchFailure(Cause.CONNECT, f"{shown}: the connection broke: {reason}", hint=hint)


def _reason(error: OSError) -> str:
    text = error.strerror or str(error)
    if error.errno is not None and "Connect call failed" in text:
        # asyncio's own text, which names the address once more.
        text = os.strerror(error.errno)
    return text.lower()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what caused it, and what any of these was raised from; groups are looked into."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup):
            waiting.extend(current.exceptions)
        waiting.extend((current.__cause__, current.__context__))
