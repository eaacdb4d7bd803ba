"""Certificates made on the spot: a private authority, the proxy's own certificate, and one for each kind of peer."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from envoy_data_plane.envoy.config.core.v3 import DataSource, TransportSocket
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    DownstreamTlsContext,
    TlsCertificate,
)
from envoy_data_plane.google.protobuf import Any

from extauthz.mesh.verify.probe import Peer

_VALIDITY = datetime.timedelta(days=1)


def _subject(common_name: str, organization: str = "") -> x509.Name:
    attributes = ((NameOID.ORGANIZATION_NAME, organization), (NameOID.COMMON_NAME, common_name))
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes if value])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode("ascii")


class Certificates:
    """An authority (its certificate as PEM) and what it signed, valid for a day. Files for the client's side are kept
    under `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _subject("extauthz verify authority")
        self.authority = _pem(self._sign(self._name, self._key, [], authority=True))
        self._contexts: dict[Peer | None, ssl.SSLContext] = {}

    def issue(self, peer: Peer) -> tuple[str, str]:
        """A certificate for a peer and its key, both PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in peer.uris]
        names.extend(x509.DNSName(name) for name in peer.dns_names)
        certificate = self._sign(_subject(peer.common_name, peer.organization), key, names, authority=False)
        return _pem(certificate), _key_pem(key)

    def client_context(self, peer: Peer | None) -> ssl.SSLContext:
        """The client's side of a TLS connection, with the peer's certificate when there is a peer."""
        context = self._contexts.get(peer)
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.load_verify_locations(cadata=self.authority)
            if peer is not None:
                file = self._directory / f"peer-{len(self._contexts)}.pem"
                file.write_text("".join(reversed(self.issue(peer))))
                context.load_cert_chain(file)
            self._contexts[peer] = context
        return context

    def server_socket(self) -> TransportSocket:
        """Envoy's side: a client certificate is not asked for strictly, but one that is given is verified."""
        chain, key = self.issue(Peer(dns_names=("localhost",)))
        context = DownstreamTlsContext(
            common_tls_context=CommonTlsContext(
                tls_certificates=[
                    TlsCertificate(
                        certificate_chain=DataSource(inline_string=chain), private_key=DataSource(inline_string=key)
                    )
                ],
                validation_context=CertificateValidationContext(trusted_ca=DataSource(inline_string=self.authority)),
            ),
            require_client_certificate=False,
        )
        return TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(context))

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName], *, authority: bool
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + _VALIDITY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())
