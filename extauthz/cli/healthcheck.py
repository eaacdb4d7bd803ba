"""`extauthz healthcheck`: ask a running server how it is."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from extauthz.cli import serve_options
from extauthz.cli.output import EXIT_NEGATIVE
from extauthz.server.listeners import DEFAULT_LISTEN


def command(
    listen: serve_options.Listen = [DEFAULT_LISTEN],  # noqa: B006
    workers: serve_options.Workers = 1,
    timeout: Annotated[float, typer.Option(min=0.01, envvar="EXTAUTHZ_TIMEOUT", help="Seconds to wait.")] = 1.0,
    tls_ca: Annotated[
        str, typer.Option(envvar="EXTAUTHZ_TLS_CA", metavar="FILE", help="The server speaks TLS, with this CA (PEM).")
    ] = "",
    tls_cert: Annotated[
        str, typer.Option(metavar="FILE", help="Certificate to show to a server that asks for one (mutual TLS).")
    ] = "",
    tls_key: Annotated[str, typer.Option(metavar="FILE", help="Its private key.")] = "",
) -> None:
    """Ask the health service of a running server (grpc.health.v1) and exit 0 if every address answers SERVING.

    Takes the addresses as the server does, so in its environment no option is needed.
    """
    # gRPC's own log lines would hide ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from extauthz.server.health_client import HealthQuestion, unhealthy

    complaints = unhealthy(
        HealthQuestion(tuple(listen), workers, timeout, ca=tls_ca, certificate=tls_cert, key=tls_key)
    )
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    sys.exit(EXIT_NEGATIVE if complaints else 0)
