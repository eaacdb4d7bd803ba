"""The thread that fetches: one event loop for all remote key sets of the process, started when the first is asked for.

A source is made for a rule when policies load, shared by all rules that want the same thing, and kept over reloads for
as long as the policies in force use it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from extauthz.authn.fetch.client import Client, Document
from extauthz.authn.fetch.discovery import document_url, key_set_url
from extauthz.authn.fetch.disk import DiskCache
from extauthz.authn.fetch.exchange import Progress
from extauthz.authn.fetch.failure import Cause, FetchFailure
from extauthz.authn.fetch.names import is_local
from extauthz.authn.fetch.options import DEFAULT_TIMEOUT, FetchOptions
from extauthz.authn.fetch.resolver import Overrides, Resolver
from extauthz.authn.fetch.routes import Routes
from extauthz.authn.fetch.schedule import Intervals
from extauthz.authn.fetch.source import Plan, RemoteKeySet
from extauthz.authn.fetch.state import KeySetState
from extauthz.authn.fetch.tls import TlsContexts
from extauthz.authn.fetch.url import Url
from extauthz.errors import UsageError
from extauthz.istio.resources import JwtRule, RequestAuthentication, Resources

_log = logging.getLogger(__name__)

STOP_SECONDS = 2.0


class KeySetFetcher:
    """Fetches key sets in the background. Every method may be called from any thread, and none waits for a fetch."""

    def __init__(self, options: FetchOptions | None = None) -> None:
        """Raises UsageError for options that cannot be used."""
        self._options = options or FetchOptions()
        self._intervals = Intervals.of(self._options)
        self._overrides = Overrides.parse(self._options.resolve)
        self._disk = DiskCache(self._options.cache_dir) if self._options.cache_dir else None
        if self._options.proxy:
            try:
                Url.parse(self._options.proxy)
            except ValueError as error:
                raise UsageError(f"--jwks-proxy: {error}") from None
        self._sources: dict[Plan, RemoteKeySet] = {}
        self._asked: set[Plan] = set()
        self._retained: set[Plan] = set()
        self._loading: tuple[Resources, Routes] | None = None
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: dict[Plan, asyncio.Task[None]] = {}

    def source(self, rule: JwtRule, policy: RequestAuthentication, resources: Resources) -> RemoteKeySet:
        """The source of a rule's keys: its jwksUri, or without one what OpenID discovery at its issuer leads to.

        The same object for the same plan. `resources` are everything that was loaded. Raises UsageError for a URL that
        cannot be read.
        """
        with self._lock:
            source = self._source(rule, policy, resources, fetched=True)
            self._in_loop(self._watch, source)
            return source

    def plan_only(self, rule: JwtRule, policy: RequestAuthentication, resources: Resources) -> RemoteKeySet:
        """A source that is not fetched in the background, for whoever fetches it once; the same for the same plan."""
        with self._lock:
            return self._source(rule, policy, resources, fetched=False)

    def wait(self, seconds: float) -> bool:
        """Until every first fetch has ended, well or not, at most so long. Gives whether all have."""
        deadline = time.monotonic() + seconds
        with self._lock:
            sources = list(self._sources.values())
        return all(source.first_fetch_ended.wait(max(deadline - time.monotonic(), 0.0)) for source in sources)

    def retain(self) -> None:
        """What was asked for since the last `retain` or `discard` is in force: forget all other sources."""
        with self._lock:
            self._retained, self._asked = self._asked, set()
            self._keep_retained()

    def discard(self) -> None:
        """What was asked for since the last `retain` or `discard` is not used after all: forget it."""
        with self._lock:
            self._asked = set()
            self._keep_retained()

    def close(self) -> None:
        """Fetch no more. The sources keep the keys they have."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(STOP_SECONDS)

    def states(self) -> Sequence[KeySetState]:
        """How every source is."""
        now = time.monotonic()
        with self._lock:
            return [source.state(now) for source in self._sources.values()]

    def _source(
        self, rule: JwtRule, policy: RequestAuthentication, resources: Resources, *, fetched: bool
    ) -> RemoteKeySet:
        if self._loading is None or self._loading[0] is not resources:
            self._loading = (resources, Routes(resources, self._options))
        routes = self._loading[1]
        namespace = policy.metadata.namespace or "default"
        plan = _plan(rule, namespace, routes)
        source = self._sources.get(plan)
        find_route = partial(routes.route, namespace=namespace)
        if source is None:
            source = RemoteKeySet(plan, self._intervals, find_route)
            if fetched:
                self._start_with_what_is_known(source)
            self._sources[plan] = source
        source.find_route = find_route
        timeout = rule.timeout if rule.timeout is not None else DEFAULT_TIMEOUT
        source.used_by(rule.issuer, timeout, anew=plan not in self._asked)
        self._asked.add(plan)
        return source

    def _keep_retained(self) -> None:
        for plan in self._sources.keys() - self._retained:
            del self._sources[plan]
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._forget, plan)
        self._loading = None

    def _start_with_what_is_known(self, source: RemoteKeySet) -> None:
        """A set that is fetched the first time, or another way than before, may have been seen before."""
        source.on_missing_key(self._key_missing)
        fingerprint = source.plan.fingerprint
        before = next((one for one in self._sources.values() if one.plan.fingerprint == fingerprint), None)
        if before is not None:
            source.inherit(before, time.monotonic())
        elif self._disk is not None:
            self._restore(self._disk, source)

    def _restore(self, disk: DiskCache, source: RemoteKeySet) -> None:
        try:
            saved = disk.load(source.plan.fingerprint)
            if saved is not None and saved.age < self._intervals.max_stale:
                source.restore(saved.body.encode(), saved.url, saved.etag, saved.age, time.monotonic())
        except (OSError, ValueError, FetchFailure) as error:
            _log.warning("key set %s: what was kept on disk is of no use: %s", source.plan.url.shown, error)

    # --- in the thread ---

    def _in_loop(self, work: Callable[..., None], *arguments: Any) -> None:
        """Have `work` done in the loop, starting its thread when there is none yet."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._run, args=(self._loop,), name="key-sets", daemon=True)
            self._thread.start()
        self._loop.call_soon_threadsafe(work, *arguments)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        concurrency = self._options.concurrency
        resolver = Resolver(self._overrides, 2 * concurrency)
        self._client = Client(resolver, TlsContexts(self._options.ca_file), self._options.proxy)
        # Sets that have been failing have places of their own, so that a hundred dead issuers delay no living one.
        self._places = asyncio.Semaphore(concurrency), asyncio.Semaphore(concurrency)
        try:
            loop.run_forever()
        finally:
            # Only our own: what a library has begun for one of them it ends by itself.
            tasks, self._tasks = list(self._tasks.values()), {}
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.close()

    def _watch(self, source: RemoteKeySet) -> None:
        if source.plan not in self._tasks:
            self._tasks[source.plan] = asyncio.get_running_loop().create_task(self._keep(source))

    def _forget(self, plan: Plan) -> None:
        task = self._tasks.pop(plan, None)
        if task is not None:
            task.cancel()

    def _key_missing(self, source: RemoteKeySet) -> None:
        loop = self._loop
        if loop is not None:
            # A request may come while the loop ends: it is not to suffer from that.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._fetch_early, source)

    @staticmethod
    def _fetch_early(source: RemoteKeySet) -> None:
        source.early = True
        source.schedule.key_missing(time.monotonic())
        source.wake.set()

    async def _keep(self, source: RemoteKeySet) -> None:
        """Fetch a key set whenever it is due, for as long as it is wanted."""
        schedule = source.schedule
        while True:
            now = time.monotonic()
            source.drop_if_stale(now)
            if schedule.due <= now:
                if source.early:
                    source.early = False
                    schedule.early_fetch_begins(now)
                async with self._places[schedule.failures > 0]:
                    await self._fetch(source)
                continue
            source.wake.clear()
            wait = min(schedule.due, schedule.stale_at) - now
            try:
                await asyncio.wait_for(source.wake.wait(), wait if wait < threading.TIMEOUT_MAX else None)
            except TimeoutError:
                continue

    async def _fetch(self, source: RemoteKeySet) -> None:
        plan = source.plan
        if plan.route.refusal:
            source.fail(FetchFailure(Cause.REFUSED, plan.route.refusal), time.monotonic(), for_good=True)
            return
        progress = Progress(asyncio.get_running_loop().time() + source.timeout)
        try:
            document = await limited(fetch_document(self._client, source, progress), progress, source.timeout)
            self._take(source, document)
        except FetchFailure as failure:
            source.fail(failure, time.monotonic())
        except Exception as error:
            _log.exception("key set %s: a fetch failed in a way that it should not", plan.url.shown)
            source.fail(FetchFailure(Cause.INTERNAL, f"internal error: {type(error).__name__}"), time.monotonic())

    def _take(self, source: RemoteKeySet, document: Document) -> None:
        now = time.monotonic()
        fingerprint = source.plan.fingerprint
        if document.body is None:
            source.confirm(document.lifetime, now)
            self._on_disk(source, lambda disk: disk.confirm(fingerprint))
            return
        body, url, etag = document.body, document.url.shown, document.etag
        source.take(body, url, etag, document.lifetime, now)
        self._on_disk(source, lambda disk: disk.save(fingerprint, url, body.decode(), etag))

    def _on_disk(self, source: RemoteKeySet, work: Callable[[DiskCache], None]) -> None:
        if self._disk is None:
            return
        problem = ""
        try:
            work(self._disk)
        except OSError as error:
            problem = error.strerror or str(error)
            # Without an ETag the next fetch brings the set again, which may be kept then.
            source.etag = ""
        if problem and problem != source.disk_problem:
            _log.warning("key set %s: cannot be kept on disk: %s", source.plan.url.shown, problem)
        source.disk_problem = problem


def _plan(rule: JwtRule, namespace: str, routes: Routes) -> Plan:
    try:
        url = Url.parse(rule.jwks_uri) if rule.jwks_uri else document_url(rule.issuer)
    except ValueError as error:
        whose = f"jwksUri of issuer {rule.issuer!r}" if rule.issuer else "the URL of a key set"
        raise UsageError(f"{whose}: {error}") from None
    # A name of one label is another service in each namespace.
    short = "." not in url.host and ":" not in url.host and not is_local(url.host)
    scope = namespace if short else routes.scope(namespace)
    return Plan(url, "" if rule.jwks_uri else rule.issuer, scope, routes.route(url, namespace))


async def fetch_document(client: Client, source: RemoteKeySet, progress: Progress) -> Document:
    """The key set's document, by way of OpenID discovery where the plan says so. Raises FetchFailure."""
    plan, url = source.plan, source.plan.url
    if plan.issuer:
        progress.steps.append(f"discovery at {url.shown}")
        found = await client.get(url, source.find_route, progress)
        url = key_set_url(found.body or b"", plan.issuer, found.url)
        progress.steps.append(f"jwks_uri is {url.shown}")
    # What was fetched elsewhere is no answer to "has this changed?".
    etag = source.etag if source.key_set_url in ("", url.shown) else ""
    return await client.get(url, source.find_route, progress, etag)


async def limited(work: Coroutine[Any, Any, Document], progress: Progress, seconds: float) -> Document:
    """`work` within a fetch's time. Raises FetchFailure when it is over."""
    try:
        async with asyncio.timeout_at(progress.deadline):
            return await work
    except TimeoutError:
        raise FetchFailure(Cause.TIMEOUT, f"not done within {seconds:g} s: {progress.doing}") from None
