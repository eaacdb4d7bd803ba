"""Fetching key sets once, and telling all about it: what `extauthz jwks` shows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from extauthz.authn.fetch.client import Client
from extauthz.authn.fetch.content import read_key_set
from extauthz.authn.fetch.exchange import Progress
from extauthz.authn.fetch.failure import FetchFailure
from extauthz.authn.fetch.fetcher import fetch_document, limited
from extauthz.authn.fetch.options import FetchOptions
from extauthz.authn.fetch.resolver import Overrides, Resolver
from extauthz.authn.fetch.source import RemoteKeySet
from extauthz.authn.fetch.tls import TlsContexts
from extauthz.authn.keys import KeySet


@dataclass(frozen=True, slots=True)
class Report:
    """One key set: the steps of its fetch, and what came of it. `key_set` is None when it failed; `error` says why."""

    uri: str
    issuers: tuple[str, ...]
    steps: tuple[str, ...]
    key_set: KeySet | None = None
    lifetime: float | None = None
    content_type: str = ""
    error: str = ""
    cause: str = ""


def fetch_once(sources: Iterable[RemoteKeySet], options: FetchOptions) -> Sequence[Report]:
    """Fetch each source's key set, as the service would. Raises UsageError for options that cannot be used."""
    return asyncio.run(_fetch_all(list(sources), options))


async def _fetch_all(sources: list[RemoteKeySet], options: FetchOptions) -> Sequence[Report]:
    resolver = Resolver(Overrides.parse(options.resolve), 2 * options.concurrency)
    client = Client(resolver, TlsContexts(options.ca_file), options.proxy)
    places = asyncio.Semaphore(options.concurrency)

    async def fetch(source: RemoteKeySet) -> Report:
        async with places:
            return await _fetch(client, source)

    return await asyncio.gather(*map(fetch, sources))


async def _fetch(client: Client, source: RemoteKeySet) -> Report:
    plan = source.plan
    progress = Progress(asyncio.get_running_loop().time() + source.timeout)
    uri, issuers = plan.url.shown, source.issuers
    progress.steps.extend(f"by {name}" for name in plan.route.via)
    try:
        document = await limited(fetch_document(client, source, progress), progress, source.timeout)
        key_set = read_key_set(document.body or b"")
    except FetchFailure as failure:
        return Report(uri, issuers, tuple(progress.steps), error=str(failure), cause=failure.cause)
    return Report(uri, issuers, tuple(progress.steps), key_set, document.lifetime, document.content_type)
