"""The tool's own floor: the same load on a server that does nothing, so that a reader can tell the two apart.

The null server is started here, on this machine, and spoken to in the same way as the target, but without TLS.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from extauthz.loadtest.outcomes import Protocol
from extauthz.loadtest.target import Target, TlsFiles, check_target
from extauthz.mesh.service import run_service

_NULL_HTTP = (sys.executable, "-m", "extauthz.loadtest.null_http")
_PLAIN = TlsFiles()


@contextmanager
def null_target(target: Target) -> Iterator[Target]:
    """A target that answers at once, of the same kind as `target`. Raises ServiceError when it cannot be started."""
    if target.protocol is Protocol.HTTP1:
        with run_service([], program=_NULL_HTTP) as service:
            address = check_target(service.addresses[0], _PLAIN).address
            yield replace(target, address=address, tls=None)
        return
    with TemporaryDirectory(prefix="extauthz-null-") as directory:
        unix = isinstance(target.address, str)
        listen = f"unix:{Path(directory, 'null.sock')}" if unix else "127.0.0.1:0"
        # An h2c request gets 415 from a gRPC server: as quick an answer as any.
        with run_service(["null", "--listen", listen]) as service:
            yield replace(target, address=check_target(service.addresses[0], _PLAIN).address, tls=None)
