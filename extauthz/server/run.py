"""The life of `serve`: load, listen, say ready, reload on demand, drain, end. In one process or with workers.

Everything that can be wrong at the start is found before anything listens.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

from extauthz.server import signals
from extauthz.server.admin import AdminServer
from extauthz.server.drain import drain
from extauthz.server.listeners import for_worker
from extauthz.server.logs import Log
from extauthz.server.metrics import NO_LABELS, Snapshot
from extauthz.server.options import ServeOptions, check
from extauthz.server.pages import Pages
from extauthz.server.reload import Reloads
from extauthz.server.service import Service, Site
from extauthz.server.watch import Watcher

_log = logging.getLogger(__name__)

STDIN = "-"


def serve(options: ServeOptions, complaints: Sequence[str] = ()) -> int:
    """Run the service until a signal ends it; returns the exit status.

    Raises UsageError (all unusable options, `complaints` about them included) and PolicyError (all problems in the
    policies) before anything listens.
    """
    check(options, complaints)
    if STDIN in options.policy:
        options = replace(options, stdin=sys.stdin.read())
    log = Log(options.log_format, options.log_level)
    with signals.held():
        log.start()
        try:
            return _run(options, _site(options), log)
        finally:
            log.close()


def _site(options: ServeOptions) -> Site:
    if options.workers == 1:
        return Service(options, [for_worker(address, 0) for address in options.addresses])
    from extauthz.server.workers import Workers

    return Workers(options)


def _run(options: ServeOptions, site: Site, log: Log) -> int:
    reloads = Reloads(site.reload)
    # Looks before the policies are read, so that a change meanwhile is not missed.
    watcher = Watcher([path for path in options.policy if path != STDIN], lambda: reloads.request("files changed"))
    admin: AdminServer | None = None
    try:
        _log.info("loaded %s", site.load())
        if options.authorizer.workload is None:
            _log.info("no --workload was given: every policy in the files applies, whatever its namespace and selector")
        if signals.end_requested():
            site.stop()
            return 0
        admin = AdminServer(options.admin_address, options.mode) if options.admin_address else None
        addresses = site.open()
    except BaseException:
        site.stop()
        if admin is not None:
            admin.stop()
        raise
    reloads.start()
    watcher.start()
    pages = Pages(site, reloads, lambda: _log_snapshot(log))
    if admin is not None:
        admin.start(pages.routes(reload=options.admin_reload))
        _log.info("admin port on %s", admin.address)
    log.announce_ready(addresses)
    try:
        _until_end(reloads)
        watcher.stop()
        reloads.close()
        pages.draining = True
        return drain(site, options.drain)
    finally:
        if admin is not None:
            admin.stop()


def _until_end(reloads: Reloads) -> None:
    while (received := signals.next_signal()) not in signals.END:
        _log.info("%s received", received.name if received else "nothing")
        reloads.request("SIGHUP")


def _log_snapshot(log: Log) -> Snapshot:
    return {"log_lines_dropped": {NO_LABELS: log.writer.dropped}}
