"""TLS as a client of a key server: from what a DestinationRule says to an `ssl.SSLContext`.

Istio: `ClientTLSSettings`. Certificates are verified unless `insecureSkipVerify` says otherwise.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass
from typing import Any

from extauthz.authn.fetch.failure import Cause, FetchFailure

SYSTEM_CERTIFICATES = "system"
"""What `caCertificates` may say instead of a file: the system's trust store, as if it were absent."""

_HINTS = {
    # OpenSSL's X509_V_ERR_* numbers.
    10: "the certificate has expired",
    9: "the certificate is not valid yet: compare the clocks",
    18: "a self-signed certificate: give it as --jwks-ca or as caCertificates of a DestinationRule",
    19: "a private CA: give it as --jwks-ca or as caCertificates of a DestinationRule",
    20: "a private CA: give it as --jwks-ca or as caCertificates of a DestinationRule",
    62: "the certificate is for another name: see sni and subjectAltNames of a DestinationRule",
    64: "the certificate is for another address: see sni and subjectAltNames of a DestinationRule",
}


@dataclass(frozen=True, slots=True)
class Tls:
    """How TLS is spoken to one host. Files are PEM; blank means absent.

    - `server_name`: the SNI, and the name that the certificate must be for (unless `names` is given).
    - `names`: DNS names, URIs, addresses or mail addresses, one of which the certificate must have (`subjectAltNames`).
    - `ca_file`: the only certificates trusted (`caCertificates`); blank: the system's and `--jwks-ca`.
    - `verify`: False trusts any certificate (`insecureSkipVerify`).
    """

    server_name: str
    names: tuple[str, ...] = ()
    ca_file: str = ""
    crl_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    verify: bool = True

    @property
    def files(self) -> tuple[tuple[str, str], ...]:
        """The files that it needs, each with the name of the field that asks for it."""
        named = (
            ("caCertificates", self.ca_file),
            ("caCrl", self.crl_file),
            ("clientCertificate", self.certificate_file),
            ("privateKey", self.key_file),
        )
        return tuple((field, file) for field, file in named if file)


class TlsContexts:
    """Makes contexts, and keeps them as long as their files stay the same: mounted secrets are rotated in place."""

    def __init__(self, extra_ca_file: str = "") -> None:
        self._extra_ca_file = extra_ca_file
        self._contexts: dict[tuple[object, ...], ssl.SSLContext] = {}

    def get(self, tls: Tls) -> ssl.SSLContext:
        """A context for `tls`. Raises FetchFailure when a file cannot be used."""
        files = [*tls.files, ("--jwks-ca", self._extra_ca_file)] if self._extra_ca_file else [*tls.files]
        settings = (tls.names, tls.ca_file, tls.crl_file, tls.certificate_file, tls.key_file, tls.verify)
        key = (*settings, *(_stamp(field, file) for field, file in files))
        context = self._contexts.get(key)
        if context is None:
            # One generation of each: contexts of files that have changed are let go.
            self._contexts = {old: value for old, value in self._contexts.items() if old[: len(settings)] != settings}
            context = self._contexts[key] = self._make(tls)
        return context

    def _make(self, tls: Tls) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            if tls.ca_file:
                _load("caCertificates", tls.ca_file, context.load_verify_locations, tls.ca_file)
            else:
                trust_system_certificates(context)
                if self._extra_ca_file:
                    _load("--jwks-ca", self._extra_ca_file, context.load_verify_locations, self._extra_ca_file)
            if tls.crl_file:
                _load("caCrl", tls.crl_file, context.load_verify_locations, tls.crl_file)
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
            if tls.names:
                context.check_hostname = False
                context.sslobject_class = _named_peer(tls.names)
        if tls.certificate_file:
            _load(
                "clientCertificate", tls.certificate_file, context.load_cert_chain, tls.certificate_file, tls.key_file
            )
        return context


def trust_system_certificates(context: ssl.SSLContext) -> None:
    """Trust what the system trusts (SSL_CERT_FILE and SSL_CERT_DIR count), or certifi's list on a bare system."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and os.path.isdir(paths.capath) and any(os.scandir(paths.capath))):
        context.load_default_certs()
    else:
        import certifi

        context.load_verify_locations(certifi.where())


def explain_tls(error: ssl.SSLError, peer: str) -> FetchFailure:
    """The failure that an error of the handshake with `peer` (host and port) is."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message or str(error)
        hint = _HINTS.get(error.verify_code, "")
        return FetchFailure(Cause.TLS, f"TLS with {peer}: certificate verify failed: {reason}", hint=hint)
    # Errors that are made in Python have no reason.
    name = getattr(error, "reason", None) or ""
    reason = name.replace("_", " ").lower() or str(error).partition(" (_ssl")[0]
    hint = ""
    if name in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_MESSAGE", "RECORD_LAYER_FAILURE"):
        hint = "the server does not speak TLS there"
    elif "CERTIFICATE_REQUIRED" in name:
        hint = "the server wants a client certificate: mode MUTUAL in a DestinationRule"
    return FetchFailure(Cause.TLS, f"TLS with {peer}: {reason}", hint=hint)


def _stamp(field: str, file: str) -> tuple[str, int, int, int]:
    try:
        status = os.stat(file)
    except OSError as error:
        raise FetchFailure(Cause.TLS, f"{field} {file}: {error.strerror}") from None
    return file, status.st_mtime_ns, status.st_ino, status.st_size


def _load(field: str, file: str, load: Any, *arguments: str) -> None:
    try:
        load(*arguments)
    except ssl.SSLError as error:
        reason = (error.reason or "no PEM certificates or keys in it").replace("_", " ").lower()
        raise FetchFailure(Cause.TLS, f"{field} {file}: {reason}") from None
    except OSError as error:
        raise FetchFailure(Cause.TLS, f"{field} {file}: {error.strerror}") from None


def _named_peer(names: tuple[str, ...]) -> type[ssl.SSLObject]:
    class NamedPeer(ssl.SSLObject):
        """Ends a handshake with a certificate that has none of `names`, before anything is sent."""

        def do_handshake(self) -> None:
            super().do_handshake()
            certificate = self.getpeercert() or {}
            found: list[tuple[str, str]] = [
                (str(pair[0]), pair[1]) for pair in certificate.get("subjectAltName", ()) if isinstance(pair[1], str)
            ]
            if not any(_matches(name, kind, value) for name in names for kind, value in found):
                has = ", ".join(value for _, value in found) or "no name"
                error = ssl.SSLCertVerificationError(1, f"it has {has}, not {' or '.join(names)}")
                error.verify_code, error.verify_message = 62, error.args[1]
                raise error

    return NamedPeer


def _matches(name: str, kind: str, value: str) -> bool:
    if kind == "DNS":
        name, value = name.lower(), value.lower()
        return name == value or (value.startswith("*.") and "." in name and name.partition(".")[2] == value[2:])
    if kind == "IP Address":
        try:
            return ipaddress.ip_address(name) == ipaddress.ip_address(value)
        except ValueError:
            return False
    return name == value
