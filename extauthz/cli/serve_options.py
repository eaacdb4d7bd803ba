"""The options of `serve`, and those of them that `null` and `healthcheck` have too, each with its variable."""

from __future__ import annotations

from typing import Annotated, Any

import typer

_PANELS = {
    ("--tls-",): "TLS",
    ("--jwks-", "--resolve"): "Remote key sets",
    ("--admin", "--decision-log", "--otel", "--log-"): "What it tells",
}
"""Where help shows the options whose names begin so; the others are about answering calls."""


def _option(name: str, help: str, **more: Any) -> Any:
    variable = "EXTAUTHZ_" + name.removeprefix("--").upper().replace("-", "_")
    panel = next((title for beginnings, title in _PANELS.items() if name.startswith(beginnings)), "Answering calls")
    return typer.Option(name, envvar=variable, help=help, rich_help_panel=panel, **more)


Listen = Annotated[
    list[str],
    _option(
        "--listen",
        "Where to answer: HOST:PORT, [IPV6]:PORT or unix:PATH; port 0 picks a free one. With several workers a port "
        "range (HOST:9191-9194) or {worker} in a path gives each its own. Repeatable.",
        metavar="ADDR",
    ),
]
TransportName = Annotated[
    str,
    _option(
        "--transport",
        "What carries the calls: native where it is built and TLS is not asked for, or grpcio.",
        metavar="auto|grpcio|native",
    ),
]
ListenMode = Annotated[str, _option("--listen-mode", "Permissions of Unix sockets, as for chmod.", metavar="OCTAL")]
Workers = Annotated[int, _option("--workers", "Processes that answer calls.", min=1)]
MaxMessageBytes = Annotated[
    int, _option("--max-message-bytes", "The largest Check request; request bodies may be sent along.", min=1024)
]
MaxInFlight = Annotated[
    int,
    _option(
        "--max-in-flight",
        "Calls begun and not yet answered, beyond which further ones end with RESOURCE_EXHAUSTED, an error to Envoy "
        "and never an allow; 0 for the transport's own limit (grpcio 512, native 8192).",
        min=0,
    ),
]
MaxConnectionAge = Annotated[
    float,
    _option(
        "--max-connection-age",
        "Close connections gracefully after so many seconds, so that load moves to new replicas; 0 for never.",
        min=0,
    ),
]
MaxConcurrentStreams = Annotated[int, _option("--max-concurrent-streams", "Calls at once over one connection.", min=1)]
TlsCert = Annotated[str, _option("--tls-cert", "Certificate chain (PEM); read again when it changes.", metavar="FILE")]
TlsKey = Annotated[str, _option("--tls-key", "Its private key (PEM).", metavar="FILE")]
TlsClientCa = Annotated[
    str, _option("--tls-client-ca", "Only clients with a certificate of this CA may call (mutual TLS).", metavar="FILE")
]
TlsClientName = Annotated[
    list[str],
    _option(
        "--tls-client-name",
        "Only clients with this name in their certificate (a SAN) may call. Repeatable.",
        metavar="NAME",
    ),
]
Admin = Annotated[
    str,
    _option("--admin", "Where /metrics, /healthz, /readyz and /policies are served, or off.", metavar="ADDR|off"),
]
AdminReload = Annotated[bool, _option("--admin-reload", "Let POST /reload on the admin port reload the policies.")]
DecisionLog = Annotated[
    str,
    _option("--decision-log", "Write each decision as a line of JSON to a file, or - for stdout.", metavar="PATH|-"),
]
DecisionLogSample = Annotated[
    float,
    _option(
        "--decision-log-sample", "The share of allowed decisions that is written; denials always are.", min=0, max=1
    ),
]
DecisionLogMaxBytes = Annotated[
    int, _option("--decision-log-max-bytes", "Rotate the file when it is larger; 0 for never.", min=0)
]
DecisionLogKeep = Annotated[int, _option("--decision-log-keep", "How many rotated files to keep.", min=0)]
DecisionLogClaim = Annotated[
    list[str],
    _option(
        "--decision-log-claim",
        "A claim of the verified token to write along; by default none are. Repeatable.",
        metavar="NAME",
    ),
]
Otel = Annotated[
    bool,
    _option("--otel", "Make an OpenTelemetry span of each decision (extra otel; the OTEL_* variables say where to)."),
]
LogFormat = Annotated[str, _option("--log-format", "The form of log lines on stderr.", metavar="text|json")]
LogLevel = Annotated[str, _option("--log-level", "What to log.", metavar="debug|info|warning|error")]
Drain = Annotated[
    float,
    _option(
        "--drain",
        "Seconds from SIGTERM to the end at most: the first part goes on answering while health says NOT_SERVING.",
        min=0,
    ),
]
JwksRefresh = Annotated[
    float,
    _option("--jwks-refresh", "Seconds between fetches of a remote key set, unless it asks for earlier.", min=0.1),
]
JwksRefreshMin = Annotated[
    float, _option("--jwks-refresh-min", "Seconds between fetches at least, whoever asks for more.", min=0.1)
]
JwksMaxStale = Annotated[
    float, _option("--jwks-max-stale", "Seconds that the last good set is used while fetching fails.", min=0)
]
JwksWait = Annotated[float, _option("--jwks-wait", "Seconds to wait at the start for key sets to arrive.", min=0)]
JwksCa = Annotated[
    str, _option("--jwks-ca", "Trust these certificates (PEM), too, when fetching key sets.", metavar="FILE")
]
JwksEgress = Annotated[
    str,
    _option(
        "--jwks-egress",
        "Whether key sets outside the cluster are reached at all times, or only through a ServiceEntry.",
        metavar="open|mesh",
    ),
]
JwksCacheDir = Annotated[
    str, _option("--jwks-cache-dir", "Keep the last good key sets here over restarts.", metavar="DIR")
]
JwksProxy = Annotated[
    str, _option("--jwks-proxy", "Fetch key sets outside the cluster through this HTTP proxy.", metavar="URL")
]
Resolve = Annotated[
    list[str],
    _option("--resolve", "Reach a host of a key set at this address, as curl's. Repeatable.", metavar="HOST=ADDRESS"),
]
