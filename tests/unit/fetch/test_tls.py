"""TLS to key servers: what is trusted, what is verified, and what is said when it fails."""

import socket

import pytest

from extauthz.authn.keys import UNAVAILABLE
from extauthz.istio.resources import (
    ClientTls,
    DestinationRule,
    Metadata,
    Resolution,
    Resources,
    ServiceEntry,
    ServicePort,
    TlsMode,
    WorkloadEntry,
)

HOST = "keys.example"


@pytest.fixture
def fetched(fetcher, source_of, key):
    """The source of http://keys.example:443 at a server, by a DestinationRule with these settings."""

    def fetch(server, mode=TlsMode.SIMPLE, *, entry_names=(), made=None, **tls):
        server.serve(key)
        metadata = Metadata(name="keys", namespace="ns")
        entry = ServiceEntry(
            metadata=metadata,
            hosts=(HOST,),
            ports=(ServicePort(number=443, name="https"),),
            resolution=Resolution.STATIC,
            endpoints=(WorkloadEntry(address="127.0.0.1", ports={"https": server.port}),),
            subject_alt_names=entry_names,
        )
        rule = DestinationRule(metadata=metadata, host=HOST, tls=ClientTls(mode=mode, **tls))
        made = made or fetcher(refresh=60, retry_max=60, retry_first=60)
        source = source_of(
            made, f"http://{HOST}:443/keys", resources=Resources(service_entries=(entry,), destination_rules=(rule,))
        )
        assert made.wait(60)
        return source

    return fetch


def test_the_systems_store_follows_ssl_cert_file(fetcher, source_of, serve, key, authority, verifies, monkeypatch):
    server = serve(authority.context("s", "127.0.0.1"))
    server.serve(key)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    made = fetcher(refresh=60)
    source = source_of(made, server.url())
    assert made.wait(60)
    assert verifies(source, key), source.error


def test_a_private_ca_is_explained(fetched, serve, authority):
    source = fetched(serve(authority.context("s", HOST)))
    assert source.key_set is UNAVAILABLE
    assert HOST in source.error
    assert "certificate verify failed" in source.error
    assert "--jwks-ca" in source.error


def test_a_certificate_for_another_name_is_explained(fetched, serve, authority):
    source = fetched(serve(authority.context("s", "other.example")), ca_certificates=str(authority.file))
    assert "certificate verify failed" in source.error
    assert "for another name" in source.error


def test_the_server_name_is_what_the_certificate_has_to_be_for(fetched, serve, authority, key, verifies):
    server = serve(authority.context("s", "sni.example"))
    source = fetched(server, ca_certificates=str(authority.file), sni="sni.example")
    assert verifies(source, key), source.error


@pytest.mark.parametrize(
    ("has", "wanted", "good"),
    [
        (("spiffe://cluster.local/ns/a/sa/b",), ("spiffe://cluster.local/ns/a/sa/b",), True),
        (("spiffe://cluster.local/ns/a/sa/b",), ("spiffe://cluster.local/ns/a/sa/c",), False),
        (("*.example.com",), ("keys.example.com",), True),
        (("*.example.com",), ("a.keys.example.com",), False),
        (("*.example.com",), ("example.com",), False),
        (("Keys.Example.com",), ("keys.example.COM",), True),
        (("192.0.2.7",), ("192.0.2.7",), True),
        (("a.example", "b.example"), ("x.example", "b.example"), True),
        ((HOST,), ("other.example",), False),
        ((), ("keys.example",), False),
    ],
)
def test_names_that_are_asked_for_replace_the_host(fetched, serve, authority, key, verifies, has, wanted, good):
    server = serve(authority.context("s", *has))
    source = fetched(server, ca_certificates=str(authority.file), subject_alt_names=wanted)
    assert verifies(source, key) == good, source.error
    # A peer of the wrong name is sent nothing.
    assert bool(server.requests) == good
    if not good:
        assert f"not {' or '.join(wanted)}" in source.error


def test_the_names_of_a_service_entry_are_verified_too(fetched, serve, authority, key, verifies):
    server = serve(authority.context("s", "real.example"))
    source = fetched(server, ca_certificates=str(authority.file), entry_names=("real.example",))
    assert verifies(source, key), source.error


def test_a_revoked_certificate_is_refused(fetched, serve, authority, key, verifies):
    good, bad = authority.files("good", HOST), authority.files("bad", HOST)
    revoked = authority.revoke(bad[0])
    for files, fine in ((good, True), (bad, False)):
        server = serve(authority.loaded(*files))
        source = fetched(server, ca_certificates=str(authority.file), ca_crl=revoked)
        assert verifies(source, key) == fine, source.error
    assert "revoked" in source.error


def test_a_server_that_wants_a_client_certificate_is_explained(fetched, serve, authority):
    server = serve(authority.context("s", HOST, client_ca=True))
    source = fetched(server, ca_certificates=str(authority.file))
    assert source.key_set is UNAVAILABLE
    assert "MUTUAL" in source.error


@pytest.mark.parametrize("field", ["ca_certificates", "ca_crl", "client_certificate", "private_key"])
@pytest.mark.parametrize("content", [None, "no PEM"])
def test_files_that_cannot_be_used_are_named(fetched, serve, authority, tmp_path, field, content):
    certificate, private = authority.files("client", "client.example")
    files = {"client_certificate": certificate, "private_key": private, "ca_certificates": str(authority.file)}
    file = tmp_path / "bad.pem"
    if content is not None:
        file.write_text(content)
    server = serve(authority.context("s", HOST))
    source = fetched(server, TlsMode.MUTUAL, **{**files, field: str(file)})
    assert source.key_set is UNAVAILABLE
    assert str(file) in source.error or (field == "private_key" and certificate in source.error)
    assert server.requests == []


def test_files_that_are_replaced_count_from_the_next_fetch(
    fetcher, fetched, serve, authority, key, verifies, eventually, tmp_path
):
    file = tmp_path / "mounted.pem"
    file.write_text("not there yet")
    made = fetcher()
    source = fetched(serve(authority.context("s", HOST)), ca_certificates=str(file), made=made)
    assert source.key_set is UNAVAILABLE
    (tmp_path / "new").write_bytes(authority.file.read_bytes())
    (tmp_path / "new").rename(file)
    eventually(lambda: verifies(source, key))


def test_a_server_without_tls_is_told_from_one_with(fetched, fetcher, source_of, serve, authority, key):
    plain = serve()
    assert "does not speak TLS" in fetched(plain).error
    secure = serve(authority.context("s", HOST))
    secure.serve(key)
    made = fetcher(refresh=60, resolve=(f"{HOST}=127.0.0.1:{secure.port}",))
    source = source_of(made, f"http://{HOST}:443/keys")
    assert made.wait(60)
    assert "write https://" in source.error


def test_a_peer_that_hangs_up_in_the_handshake_is_reported(fetcher, source_of, raw):
    def hang_up(connection):
        connection.recv(100)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def close(connection):
        connection.recv(100_000)

    for act in (hang_up, close):
        made = fetcher(refresh=60)
        source = source_of(made, f"https://127.0.0.1:{raw(act)}/keys")
        assert made.wait(60)
        assert "127.0.0.1" in source.error


def test_a_peer_that_is_silent_in_the_handshake_costs_the_timeout(fetcher, source_of, raw, comes_to, time_passes):
    made = fetcher(refresh=60)
    port = raw(lambda connection: connection.recv(1 << 20) and connection.recv(1))
    source = source_of(made, f"https://127.0.0.1:{port}/keys", timeout=100)
    comes_to("in the TLS handshake")
    time_passes(made, 100)
    assert made.wait(60)
    assert "not done within 100 s: in the TLS handshake with 127.0.0.1" in source.error
