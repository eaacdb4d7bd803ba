"""`extauthz null`: a server that allows everything, for measurements."""

from __future__ import annotations

import sys
from dataclasses import replace

from extauthz.cli import serve_options
from extauthz.server.listeners import DEFAULT_LISTEN
from extauthz.server.null import NullOptions, serve_null
from extauthz.server.transport import DEFAULT_LIMITS

_DEFAULTS = NullOptions()


def command(
    listen: serve_options.Listen = [DEFAULT_LISTEN],  # noqa: B006
    transport: serve_options.TransportName = _DEFAULTS.transport,
    max_in_flight: serve_options.MaxInFlight = DEFAULT_LIMITS.in_flight,
    max_connection_age: serve_options.MaxConnectionAge = DEFAULT_LIMITS.connection_age_seconds,
    drain: serve_options.Drain = _DEFAULTS.drain,
) -> None:
    """Allow EVERY request without looking at it, to measure what the transport alone costs.

    Never reads a policy. Not for any other use.
    """
    limits = replace(DEFAULT_LIMITS, in_flight=max_in_flight, connection_age_seconds=max_connection_age)
    sys.exit(serve_null(NullOptions(listen=tuple(listen), transport=transport, limits=limits, drain=drain)))
