"""TLS and mutual TLS of the grpcio transport: who gets in, which versions, files that change or cannot be used."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from extauthz.errors import UsageError
from extauthz.server.grpcio import GrpcioTransport
from extauthz.server.listeners import Address
from extauthz.server.transport import CHECK_METHOD, TlsOptions

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in files."""

    certificate: str
    key: str

    def pem(self) -> tuple[bytes, bytes]:
        return Path(self.key).read_bytes(), Path(self.certificate).read_bytes()


class Authority:
    """A CA that signs what tests need."""

    def __init__(self, directory: Path, name: str = "test CA") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = str(directory / f"{name}.pem".replace(" ", "-"))
        certificate = self._sign(self._name, self._key, None, DAY, ca=True)
        Path(self.file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, *, uri: str = "", expires: datetime.timedelta = DAY, common_name: str = "x", san: bool = True
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName("localhost")]
        if uri:
            names.append(x509.UniformResourceIdentifier(uri))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        certificate = self._sign(subject, key, names if san else None, expires)
        pair = Pair(str(self._directory / f"{name}.crt"), str(self._directory / f"{name}.key"))
        Path(pair.certificate).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        Path(pair.key).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pair

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: list[x509.GeneralName] | None,
        expires: datetime.timedelta,
        *,
        ca: bool = False,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 10 * DAY)
            .not_valid_after(now + expires)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A CA of this test."""
    return Authority(tmp_path)


@contextmanager
def serving(options: TlsOptions) -> Iterator[str]:
    transport = GrpcioTransport([Address(host="127.0.0.1")], {CHECK_METHOD: lambda message: message}, tls=options)
    try:
        address = transport.bind()[0]
        transport.start()
        transport.set_serving(True)
        yield f"localhost:{address.port}"
    finally:
        transport.stop()


def call(target: str, ca: str, client: Pair | None = None) -> bytes:
    key, certificate = client.pem() if client else (None, None)
    credentials = grpc.ssl_channel_credentials(Path(ca).read_bytes(), key, certificate)
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
    with grpc.secure_channel(target, credentials, options) as channel:
        return bytes(channel.unary_unary(CHECK_METHOD)(b"x", timeout=30))


def refused(act: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as failure:
        act()
    return failure.value.code()


def test_calls_over_tls_are_answered_and_plain_ones_are_not(authority: Authority) -> None:
    server = authority.issue("server")
    with serving(TlsOptions(server.certificate, server.key)) as target:
        assert call(target, authority.file) == b"x"
        with grpc.insecure_channel(target) as plain:
            assert refused(lambda: plain.unary_unary(CHECK_METHOD)(b"x", timeout=30)) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_nothing_older_than_tls_1_2_is_spoken(authority: Authority) -> None:
    server = authority.issue("server")
    with serving(TlsOptions(server.certificate, server.key)) as target:
        port = int(target.rpartition(":")[2])
        for version, works in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(authority.file)
            context.set_alpn_protocols(["h2"])
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
            with socket.create_connection(("127.0.0.1", port)) as connection:
                if works:
                    assert context.wrap_socket(connection, server_hostname="localhost").version() == "TLSv1.2"
                else:
                    with pytest.raises(ssl.SSLError, match=r"EOF occurred|alert protocol version"):
                        context.wrap_socket(connection, server_hostname="localhost")


def test_with_a_client_ca_only_its_clients_get_in(authority: Authority, tmp_path: Path) -> None:
    server, client = authority.issue("server"), authority.issue("client")
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "other CA").issue("stranger")
    with serving(TlsOptions(server.certificate, server.key, authority.file)) as target:
        assert call(target, authority.file, client) == b"x"
        assert refused(lambda: call(target, authority.file)) is grpc.StatusCode.UNAVAILABLE
        assert refused(lambda: call(target, authority.file, stranger)) is grpc.StatusCode.UNAVAILABLE


def test_only_clients_with_an_allowed_name_may_call(authority: Authority) -> None:
    server = authority.issue("server")
    envoy = authority.issue("envoy", uri="spiffe://cluster.local/ns/a/sa/envoy")
    other = authority.issue("other", uri="spiffe://cluster.local/ns/a/sa/other", common_name="named")
    plain = authority.issue("plain", common_name="named", san=False)
    names = ("spiffe://cluster.local/ns/a/sa/envoy", "named")
    with serving(TlsOptions(server.certificate, server.key, authority.file, names)) as target:
        assert call(target, authority.file, envoy) == b"x"
        assert call(target, authority.file, plain) == b"x"
        # A common name counts only where there are no SANs.
        assert refused(lambda: call(target, authority.file, other)) is grpc.StatusCode.PERMISSION_DENIED


def test_changed_certificates_are_used_for_new_connections(authority: Authority, tmp_path: Path) -> None:
    server = authority.issue("server")
    (tmp_path / "new").mkdir()
    renewed = Authority(tmp_path / "new", "new CA")
    with serving(TlsOptions(server.certificate, server.key)) as target:
        assert call(target, authority.file) == b"x"
        successor = renewed.issue("server")
        Path(server.certificate).write_bytes(Path(successor.certificate).read_bytes())
        # The key does not fit yet: the old pair goes on serving.
        assert call(target, authority.file) == b"x"
        Path(server.key).write_bytes(Path(successor.key).read_bytes())
        assert call(target, renewed.file) == b"x"
        assert refused(lambda: call(target, authority.file)) is grpc.StatusCode.UNAVAILABLE
        Path(server.key).unlink()
        assert call(target, renewed.file) == b"x"


def test_an_expired_certificate_is_warned_of(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    server = authority.issue("server", expires=-DAY)
    with serving(TlsOptions(server.certificate, server.key)) as target:
        assert refused(lambda: call(target, authority.file)) is grpc.StatusCode.UNAVAILABLE
    assert "expired on" in caplog.text


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (lambda pair, ca: TlsOptions("/missing.crt", pair.key), r"--tls-cert /missing.crt: No such file"),
        (lambda pair, ca: TlsOptions(pair.certificate, "/missing.key"), r"--tls-key /missing.key: No such file"),
        (lambda pair, ca: TlsOptions(pair.key, pair.key), "not a PEM certificate chain"),
        (lambda pair, ca: TlsOptions(pair.certificate, pair.certificate), "not a PEM certificate chain"),
        (lambda pair, ca: TlsOptions(ca, pair.key), "not the key of --tls-cert"),
        (lambda pair, ca: TlsOptions(pair.certificate, pair.key, pair.key), "holds no PEM certificate"),
        (lambda pair, ca: TlsOptions(pair.certificate, pair.key, "/missing"), "--tls-client-ca /missing: No such file"),
    ],
)
def test_files_that_cannot_be_used_are_refused_with_the_option(
    authority: Authority, break_it: Callable[[Pair, str], TlsOptions], complaint: str
) -> None:
    options = break_it(authority.issue("server"), authority.file)
    with pytest.raises(UsageError, match=complaint):
        GrpcioTransport([Address(host="127.0.0.1")], {}, tls=options)
