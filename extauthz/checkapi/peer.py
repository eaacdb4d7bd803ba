"""The identities in a peer certificate that Envoy's RBAC compares a principal with."""

from __future__ import annotations

from threading import Lock
from urllib.parse import unquote_to_bytes

from cachetools import LRUCache
from cryptography import x509
from cryptography.x509.oid import NameOID

from extauthz.request import wire_text

CERTIFICATE_CACHE_BYTES = 16 * 1024 * 1024
"""Certificates that are remembered with their names: parsing one costs more than a decision."""

MAX_CERTIFICATE_BYTES = 64 * 1024

_ENTRY_BYTES = 512


class PeerCertificates:
    """Reads client certificates, and remembers those it has read. For use by several threads."""

    def __init__(self, cache_bytes: int = CERTIFICATE_CACHE_BYTES) -> None:
        self._read: LRUCache[str, tuple[str, tuple[str, ...]]] = LRUCache(
            cache_bytes, getsizeof=lambda entry: len(entry[0]) + _ENTRY_BYTES
        )
        self._lock = Lock()

    def principals(self, certificate: str, principal: str) -> tuple[str, ...]:
        """URI SANs, DNS SANs and subject of a client certificate, as Envoy's RBAC `authenticated` looks at them.

        `certificate` is `attributes.source.certificate` (URL-encoded PEM, sent with `include_peer_certificate`) and
        `principal` is `attributes.source.principal` (the first of them that Envoy found). Without a readable
        certificate the principal is all that is known; without either there is no client certificate.
        """
        known = (wire_text(principal),) if principal else ()
        if not certificate or len(certificate) > MAX_CERTIFICATE_BYTES:
            return known
        with self._lock:
            entry = self._read.get(certificate)
        if entry is None:
            entry = (certificate, _names(certificate))
            with self._lock:
                self._read[certificate] = entry
        names = entry[1]
        return names if not known or known[0] in names else (*names, *known)


def _names(certificate: str) -> tuple[str, ...]:
    try:
        parsed = x509.load_pem_x509_certificate(unquote_to_bytes(certificate))
        found = (*_alternative_names(parsed), wire_text(_rfc2253(parsed.subject)))
    except ValueError:
        return ()
    return tuple(dict.fromkeys(name for name in found if name))


def _alternative_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [
        *names.get_values_for_type(x509.UniformResourceIdentifier),
        *names.get_values_for_type(x509.DNSName),
    ]


_SHORT_NAMES = {NameOID.EMAIL_ADDRESS: "emailAddress", NameOID.SERIAL_NUMBER: "serialNumber"}


def _rfc2253(name: x509.Name) -> str:
    """The subject as Envoy prints it: RFC 2253, last part first."""
    return name.rfc4514_string(_SHORT_NAMES)
