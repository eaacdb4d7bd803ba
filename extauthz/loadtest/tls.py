"""The client's side of TLS for the portable senders."""

from __future__ import annotations

import ssl

from extauthz.errors import UsageError
from extauthz.loadtest.sender import Tls


def client_context(tls: Tls) -> ssl.SSLContext:
    """A context that trusts what `tls` says. Raises UsageError for files that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=tls.authority or None)
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key or None)
    except OSError as error:
        raise UsageError(f"--ca, --cert, --cert-key: {error.strerror or error}") from None
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
