"""TLS of the grpcio transport: certificates that are read again when their files change, and who may call.

gRPC's TLS speaks 1.2 and 1.3 only. New files are taken when they belong together; until then the old ones stay.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509

from extauthz.errors import UsageError
from extauthz.server.transport import TlsOptions

_log = logging.getLogger(__name__)

_Fingerprint = tuple[tuple[int, int, int] | None, ...]


def server_credentials(options: TlsOptions) -> grpc.ServerCredentials:
    """Credentials that follow the files. Raises UsageError when they cannot be used now."""
    files = _Files(options)
    # The stubs do not know that the fetcher may return None, "no change", as grpcio documents.
    fetcher: Any = files.changed
    return grpc.dynamic_ssl_server_credentials(files.read(), fetcher, bool(options.client_ca))


def admission(options: TlsOptions) -> Callable[[grpc.ServicerContext], None] | None:
    """What ends calls of clients whose certificate has none of the allowed names; None when all names are allowed.

    Compared are the SANs (DNS, URI, IP, e-mail), or the common name of a certificate that has none.
    """
    if not options.client_names:
        return None
    allowed = frozenset(name.encode() for name in options.client_names)

    def admit(context: grpc.ServicerContext) -> None:
        shown = context.auth_context()
        names = shown.get("x509_subject_alternative_name") or shown.get("x509_common_name") or ()
        if allowed.isdisjoint(names):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "the client certificate's name is not allowed")

    return admit


class _Files:
    """The PEM files of a server, read when they have changed."""

    def __init__(self, options: TlsOptions) -> None:
        self._options = options
        self._seen: _Fingerprint = ()

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Read all files and check that they belong together. Raises UsageError that names the option."""
        options = self._options
        self._seen = self._fingerprint()
        key = _contents("--tls-key", options.key)
        certificate = _contents("--tls-cert", options.certificate)
        client_ca = _contents("--tls-client-ca", options.client_ca) if options.client_ca else None
        _check_pair(options)
        _warn_of_expiry(options.certificate, certificate)
        if client_ca is not None:
            _check_ca(options.client_ca)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called at each handshake: the new configuration, or None to keep the one in use."""
        if self._fingerprint() == self._seen:
            return None
        try:
            configuration = self.read()
        except UsageError as error:
            _log.error("the changed certificate files are not used: %s", error)
            return None
        _log.info("certificate files read again")
        return configuration

    def _fingerprint(self) -> _Fingerprint:
        return tuple(
            _stamp(path) for path in (self._options.certificate, self._options.key, self._options.client_ca) if path
        )


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _contents(option: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from None


def _check_pair(options: TlsOptions) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.certificate, options.key, lambda: b"")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UsageError(f"--tls-key {options.key}: not the key of --tls-cert {options.certificate}") from None
        raise UsageError(
            f"--tls-cert {options.certificate}, --tls-key {options.key}: not a PEM certificate chain and its "
            f"unencrypted PEM key ({error.reason or error})"
        ) from None
    except OSError as error:
        raise UsageError(f"--tls-cert {options.certificate}: {error.strerror}") from None


def _check_ca(path: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (ssl.SSLError, OSError):
        raise UsageError(f"--tls-client-ca {path}: holds no PEM certificate") from None


def _warn_of_expiry(path: str, certificate: bytes) -> None:
    leaf = x509.load_pem_x509_certificates(certificate)[0]
    now = datetime.now(UTC)
    if leaf.not_valid_after_utc < now:
        _log.warning("--tls-cert %s: expired on %s", path, leaf.not_valid_after_utc.date())
    elif leaf.not_valid_before_utc > now:
        _log.warning("--tls-cert %s: not valid before %s", path, leaf.not_valid_before_utc.date())
