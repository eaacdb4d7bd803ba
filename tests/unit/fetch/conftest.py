"""A key server that tests control, certificates for it, and a fetcher with short intervals."""

import datetime
import http.server
import ipaddress
import json
import socket
import ssl
import threading
import time
from contextlib import ExitStack, suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric import rsa as rsa_key
from cryptography.x509.oid import NameOID

from extauthz.authn.fetch.exchange import Progress
from extauthz.authn.fetch.fetcher import KeySetFetcher
from extauthz.authn.fetch.options import FetchOptions
from extauthz.authn.keys import UNAVAILABLE
from extauthz.istio.resources import JwtRule, Metadata, RequestAuthentication, Resources
from extauthz.minting import SigningKey, key_set

PATIENCE = 30.0
"""Seconds for what is only late on a busy machine."""

QUICK = {"refresh": 0.3, "refresh_min": 0.05, "retry_first": 0.05, "retry_max": 0.1}


class KeyServer:
    """Answers every path with `answer`, a status, headers and a body; `paths` overrides that for single ones.

    `before_answer` is called when a request has come.
    """

    def __init__(self, context=None, address="127.0.0.1"):
        self.answer = 200, {}, b"{}"
        self.paths = {}
        self.before_answer = lambda: None
        self.requests = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                server.requests.append((self.path, dict(self.headers)))
                server.before_answer()
                status, headers, body = server.paths.get(self.path, server.answer)
                etag = headers.get("etag")
                if etag and self.headers.get("if-none-match") == etag:
                    status, body = 304, b""
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "content-length" not in headers:
                    self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        family = http.server.ThreadingHTTPServer
        if ":" in address:

            class family(http.server.ThreadingHTTPServer):
                address_family = socket.AF_INET6

        self.http = family((address, 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *arguments: None
        if context is not None:
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.port = self.http.server_address[1]
        self.scheme = "https" if context is not None else "http"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, path="/keys", host="127.0.0.1"):
        return f"{self.scheme}://{host}:{self.port}{path}"

    def serve(self, *keys, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer = 200, named, json.dumps(key_set(*keys)).encode()

    # An answer is replaced as a whole, since requests come at any time.

    @property
    def body(self):
        return self.answer[2]

    @body.setter
    def body(self, body):
        self.answer = (*self.answer[:2], body)

    @property
    def status(self):
        return self.answer[0]

    @status.setter
    def status(self, status):
        self.answer = (status, *self.answer[1:])

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def serve():
    with ExitStack() as stack:

        def start(*arguments, **options):
            server = KeyServer(*arguments, **options)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture(scope="session")
def key():
    return SigningKey.generate("ES256", "k")


@pytest.fixture
def fetcher():
    """Makes fetchers with short intervals, and ends them."""
    with ExitStack() as stack:

        def make(**options):
            made = KeySetFetcher(FetchOptions(**{**QUICK, **options}))
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def source_of():
    """The source of a URL (or with `issuer` alone of its discovery document) at a fetcher."""

    def source(fetcher, uri="", *, issuer="i", namespace="ns", timeout=PATIENCE, resources=None):
        policy = RequestAuthentication(metadata=Metadata(name="r", namespace=namespace))
        rule = JwtRule(issuer=issuer, jwks_uri=uri, timeout=timeout)
        return fetcher.source(rule, policy, resources or Resources())

    return source


@pytest.fixture
def raw():
    """Starts servers that do with each connection what a function does with its socket; gives their port."""
    with ExitStack() as stack:

        def start(act):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def serve():
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    threading.Thread(target=handle, args=(connection,), daemon=True).start()

            def handle(connection):
                with connection, suppress(OSError):
                    act(connection)

            threading.Thread(target=serve, daemon=True).start()
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            return listener.getsockname()[1]

        yield start


@pytest.fixture
def closed_port():
    """A local port on which nobody listens, and nobody else can."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def time_passes():
    """Moves the clock of a fetcher's event loop forward."""

    def move(fetcher, seconds):
        loop = fetcher._loop
        before = loop.time
        loop.time = lambda: before() + seconds
        loop.call_soon_threadsafe(lambda: None)

    return move


@pytest.fixture
def comes_to(monkeypatch, eventually):
    """Waits until the last fetch that has begun does what the text says."""
    begun = []

    def keep(deadline):
        begun.append(Progress(deadline))
        return begun[-1]

    monkeypatch.setattr("extauthz.authn.fetch.fetcher.Progress", keep)
    return lambda doing: eventually(lambda: begun and doing in begun[-1].doing)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Names are looked up on this machine only: what a network's resolver says, and when, is no part of a test."""
    look_up = socket.getaddrinfo

    def here(host, *arguments, **options):
        if host in ("localhost", "127.0.0.1", "::1"):
            return look_up(host, *arguments, **options)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", here)


@pytest.fixture
def kept_file(eventually):
    """The only file of a directory of kept sets, once it is there: it is written after the set is in use."""

    def wait(directory):
        eventually(lambda: list(directory.glob("*.json")))
        (file,) = directory.iterdir()
        return file

    return wait


@pytest.fixture
def verifies():
    """Whether a source's keys verify what `key` signs."""

    def check(source, key):
        return source.key_set.verify(key.algorithm, key.kid, b"data", key.sign(b"data")) is None

    return check


@pytest.fixture
def eventually():
    """Waits until a condition holds."""

    def wait(condition, seconds=2 * PATIENCE):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not come to hold"
            time.sleep(0.01)

    return wait


def general_name(text):
    if "://" in text:
        return x509.UniformResourceIdentifier(text)
    return x509.IPAddress(ipaddress.ip_address(text)) if text[0].isdigit() else x509.DNSName(text)


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, directory):
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        self.file = directory / "ca.pem"
        self.file.write_bytes(self._sign(self.name, self.key.public_key(), [], ca=True))

    def context(self, name, *hosts, days=10, client_ca=False):
        """A server's TLS for these hosts."""
        context = self.loaded(*self.files(name, *hosts, days=days))
        if client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.file)
        return context

    def loaded(self, certificate, key):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context

    def files(self, name, *hosts, days=10, rsa=False):
        key = rsa_key.generate_private_key(65537, 2048) if rsa else ec.generate_private_key(ec.SECP256R1())
        names = [general_name(host) for host in hosts]
        certificate, private = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate.write_bytes(self._sign(subject, key.public_key(), names, days=days))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return str(certificate), str(private)

    def revoke(self, *certificates):
        """A list that revokes these certificates' files."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(now).next_update(now + datetime.timedelta(days=1))
        for file in certificates:
            with open(file, "rb") as content:
                serial = x509.load_pem_x509_certificate(content.read()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        file = self.directory / f"{len(certificates)}.crl"
        file.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return str(file)

    def _sign(self, subject, public, names, *, ca=False, days=10):
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(public)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=20))
        builder = builder.not_valid_after(now + datetime.timedelta(days=days))
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if ca:
            none = "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
            usage = dict.fromkeys(f"{none} encipher_only decipher_only".split(), False)
            builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def failure(fetcher, source_of):
    """Why the fetch of a URL fails."""

    def of(url, **options):
        made = fetcher(refresh=600, retry_first=600, retry_max=600, **options)
        source = source_of(made, url)
        assert made.wait(2 * PATIENCE)
        assert source.key_set is UNAVAILABLE
        (state,) = made.states()
        (cause,) = state.results
        return cause, source.error

    return of
