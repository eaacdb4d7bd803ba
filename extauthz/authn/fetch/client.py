"""One document from where its URL leads: endpoints tried, redirects followed, what is wrong with an answer named."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus

from extauthz.authn.fetch.exchange import Peer, Progress, Reply, exchange
from extauthz.authn.fetch.failure import Cause, FetchFailure
from extauthz.authn.fetch.names import ip_address, why_forbidden
from extauthz.authn.fetch.options import MAX_REDIRECTS
from extauthz.authn.fetch.resolver import Resolver
from extauthz.authn.fetch.routes import Endpoint, Route
from extauthz.authn.fetch.schedule import cache_lifetime, retry_after
from extauthz.authn.fetch.tls import TlsContexts
from extauthz.authn.fetch.url import Url

FindRoute = Callable[[Url], Route]
"""How a URL is reached; asked again for each redirect."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRY_NEXT = frozenset({Cause.CONNECT, Cause.TLS, Cause.NAME, Cause.REFUSED})
_HINTS = {
    401: "the URL wants credentials",
    403: "the server forbids it",
    404: "nothing is at that path",
    429: "asked too often",
}


@dataclass(frozen=True, slots=True)
class Document:
    """An answer. `body` is None when it is `304 Not Modified`; `lifetime` is how long it may be kept, None: unsaid."""

    url: Url
    body: bytes | None
    etag: str
    lifetime: float | None
    content_type: str = ""


class Client:
    """Fetches documents in one event loop."""

    def __init__(self, resolver: Resolver, contexts: TlsContexts, proxy: str = "") -> None:
        self._resolver = resolver
        self._contexts = contexts
        self._proxy = proxy
        # Stands in where no TLS is spoken: httpx would make one for each request, which takes milliseconds.
        self._no_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    async def get(self, url: Url, find_route: FindRoute, progress: Progress, etag: str = "") -> Document:
        """The document at `url`, redirects followed; `etag` asks for it only if it has changed.

        The caller limits the time. Raises FetchFailure.
        """
        for _ in range(MAX_REDIRECTS + 1):
            reply = await self._request(url, find_route(url), progress, etag)
            if reply.status in _REDIRECTS:
                url = _redirected(url, reply.headers.get("location", ""))
                progress.steps.append(f"redirected to {url.shown}")
                continue
            lifetime = cache_lifetime(reply.headers, time.time())
            if reply.status == HTTPStatus.NOT_MODIFIED and etag:
                return Document(url, None, reply.headers.get("etag", etag), lifetime)
            if not 200 <= reply.status < 300:
                raise _bad_status(url, reply)
            content_type = reply.headers.get("content-type", "")
            return Document(url, reply.body, reply.headers.get("etag", ""), lifetime, content_type)
        raise FetchFailure(Cause.REDIRECT, f"more than {MAX_REDIRECTS} redirects")

    async def _request(self, url: Url, route: Route, progress: Progress, etag: str) -> Reply:
        """Ask the endpoints of a route, one after the other until one can be connected to."""
        if route.refusal:
            raise FetchFailure(Cause.REFUSED, route.refusal)
        context = self._no_tls if route.tls is None else self._contexts.get(route.tls)
        if self._proxy and route.proxied:
            # Names are resolved by the proxy; an address is one for it as for us.
            if ip_address(url.host) is not None and (why := why_forbidden(url.host)):
                raise FetchFailure(Cause.REFUSED, f"host {url.host} is {why}: no key set is fetched from there")
            peer = Peer(url.authority, proxy=self._proxy)
            return await exchange(url, peer, route.tls, context, progress, etag=etag)
        failures: list[FetchFailure] = []
        endpoints = _shuffled(route.endpoints)
        for index, endpoint in enumerate(endpoints):
            try:
                peers = await self._peers(url, endpoint, progress)
            except FetchFailure as failure:
                failures.append(_with_hint(failure, route.hint))
                continue
            for number, peer in enumerate(peers):
                # An address that does not answer must leave time for those after it.
                after = len(endpoints) - index - 1 + len(peers) - number - 1
                left = max(progress.deadline - asyncio.get_running_loop().time(), 0.0)
                limit = left / (after + 1) if after else None
                try:
                    return await exchange(url, peer, route.tls, context, progress, etag=etag, connect_timeout=limit)
                except FetchFailure as failure:
                    if failure.cause not in _TRY_NEXT:
                        raise
                    failures.append(failure)
        raise _merged(failures)

    async def _peers(self, url: Url, endpoint: Endpoint, progress: Progress) -> list[Peer]:
        if endpoint.socket:
            return [Peer(url.authority, endpoint.socket)]
        progress.doing = f"resolving {endpoint.names[-1]}"
        return [Peer(str(address)) for address in await self._resolver.resolve(endpoint.names, endpoint.port)]


def _shuffled(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """In random order, those of more weight earlier: the first is one as often as its weight says."""
    return sorted(endpoints, key=lambda endpoint: random.random() ** (1.0 / endpoint.weight), reverse=True)


def _with_hint(failure: FetchFailure, hint: str) -> FetchFailure:
    return FetchFailure(failure.cause, str(failure), hint=hint) if failure.cause is Cause.NAME else failure


def _merged(failures: list[FetchFailure]) -> FetchFailure:
    """What to say of several failures: the same text in whatever order they came."""
    if len(failures) == 1:
        return failures[0]
    first = min(failures, key=str)
    return FetchFailure(first.cause, "; ".join(sorted({str(failure) for failure in failures})))


def _redirected(url: Url, location: str) -> Url:
    try:
        there = url.follow(location) if location else None
    except ValueError as error:
        raise FetchFailure(Cause.REDIRECT, f"a redirect to an unusable URL: {error}") from None
    if there is None:
        raise FetchFailure(Cause.REDIRECT, "a redirect without a location")
    if url.scheme == "https" and there.scheme != "https":
        raise FetchFailure(Cause.REDIRECT, f"a redirect from https to {there.shown}, which is not followed")
    return there


def _bad_status(url: Url, reply: Reply) -> FetchFailure:
    try:
        phrase = f" {HTTPStatus(reply.status).phrase}"
    except ValueError:
        phrase = ""
    hint = _HINTS.get(reply.status, "")
    wait = retry_after(reply.headers, time.time())
    return FetchFailure(Cause.STATUS, f"{url.host} answered {reply.status}{phrase}", hint=hint, retry_after=wait)
