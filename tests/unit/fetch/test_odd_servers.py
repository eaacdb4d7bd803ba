"""Servers and proxies that answer in ways that HTTP allows, or that nobody should: none of it is a bug of ours."""

import base64
import gzip
import json
import os
import socket
import threading
from contextlib import suppress

import pytest

from extauthz.authn.keys import UNAVAILABLE
from extauthz.minting import key_set

OK = b"HTTP/1.1 200 OK\r\n"


def read_head(connection):
    head = b""
    while b"\r\n\r\n" not in head and (more := connection.recv(65536)):
        head += more
    return head


@pytest.fixture
def body(key):
    return json.dumps(key_set(key)).encode()


@pytest.mark.parametrize(
    ("etag", "sent_back"),
    [
        (b'"v1"', True),
        (b'W/"v1"', True),
        (b'""', True),
        (b"v1", False),
        (b'"\xe9"', False),
        ('"é"'.encode(), False),
        (b'"a b"', False),
        (b'"' + b"a" * 50_000 + b'"', False),
    ],
)
def test_an_etag_is_sent_back_only_if_every_server_would_take_it(
    fetcher, raw, source_of, key, body, verifies, eventually, etag, sent_back
):
    heads = []

    def act(connection):
        heads.append(read_head(connection))
        connection.sendall(OK + b"etag: " + etag + b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    made = fetcher()
    source = source_of(made, f"http://127.0.0.1:{raw(act)}/keys")
    eventually(lambda: len(heads) > 2)
    assert verifies(source, key)
    assert (b"if-none-match" in heads[1].lower()) == sent_back
    assert set(made.states()[0].results) == {"success"}


def test_what_follows_the_end_of_a_gzip_body_counts_as_body(failure, raw, body):
    sent = 0

    def act(connection):
        nonlocal sent
        # Without this it is the system's settings that say how much a socket holds.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        read_head(connection)
        connection.sendall(OK + b"content-encoding: gzip\r\n\r\n" + gzip.compress(body))
        for _ in range(2000):
            connection.sendall(bytes(65536))
            sent += 65536

    cause, _ = failure(f"http://127.0.0.1:{raw(act)}/keys")
    assert cause == "too_large"
    assert sent < 32 * 1024 * 1024


def test_a_server_of_http_1_0_and_interim_answers_are_understood(fetcher, raw, source_of, key, body, verifies):
    answers = [b"HTTP/1.0 200 OK\r\n\r\n" + body]
    answers.append(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 3 + OK + b"\r\n" + body)
    for answer in answers:

        def act(connection, answer=answer):
            read_head(connection)
            connection.sendall(answer)

        made = fetcher(refresh=60)
        source = source_of(made, f"http://127.0.0.1:{raw(act)}/keys")
        assert made.wait(60)
        assert verifies(source, key), source.error


@pytest.mark.parametrize(
    ("location", "said"),
    [
        (b"/" + b"a" * 70_000, "not longer than 8192 characters"),
        (b"http://a\x01b/", "control characters"),
        (b"http://user@:80/", "no host"),
    ],
)
def test_a_redirect_that_leads_to_no_url_is_told_as_such(failure, raw, location, said):
    def act(connection):
        read_head(connection)
        connection.sendall(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: " + location + b"\r\n\r\n")

    cause, text = failure(f"http://127.0.0.1:{raw(act)}/keys")
    assert cause == "redirect"
    assert said in text


def test_letters_beyond_ascii_in_a_path_are_sent_as_percent_escapes(fetcher, raw, source_of, body, key, verifies):
    heads = []

    def act(connection):
        heads.append(read_head(connection))
        if len(heads) == 1:
            connection.sendall(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: /there/\xe9?\xe9\r\n\r\n")
        else:
            connection.sendall(OK + b"content-length: %d\r\n\r\n" % len(body) + body)

    made = fetcher(refresh=60)
    source = source_of(made, f"http://127.0.0.1:{raw(act)}/schlüssel?größe=1|2")
    assert made.wait(60)
    assert verifies(source, key), source.error
    assert heads[0].startswith(b"GET /schl%C3%BCssel?gr%C3%B6%C3%9Fe=1|2 ")
    assert heads[1].startswith(b"GET /there/%C3%A9?%C3%A9 ")


def test_half_a_character_in_a_discovery_document_is_no_url(fetcher, serve, source_of):
    server = serve()
    server.body = b'{"jwks_uri": "http://127.0.0.1/\\ud800"}'
    made = fetcher(refresh=60)
    source = source_of(made, issuer=server.url(""))
    assert made.wait(60)
    assert made.states()[0].results == {"content": 1}
    assert source.error.isprintable()


def test_credentials_are_any_bytes(fetcher, serve, source_of, key):
    server = serve()
    server.serve(key)
    made = fetcher(refresh=60)
    source_of(made, server.url(host="u%ff:p%20%C3%A9@127.0.0.1"))
    assert made.wait(60)
    assert server.requests[0][1]["authorization"] == "Basic " + base64.b64encode(b"u\xff:p \xc3\xa9").decode()


# --- proxies ---


@pytest.fixture
def tunnel(raw):
    """Starts a proxy that opens tunnels to one port, whatever they are for; gives its port and what it was asked."""

    def start(port):
        asked = []

        def act(connection):
            asked.append(read_head(connection))
            with socket.create_connection(("127.0.0.1", port)) as there:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=pump, args=(there, connection), daemon=True)
                back.start()
                pump(connection, there)
                back.join(5)

        def pump(source, sink):
            with suppress(OSError):
                while data := source.recv(65536):
                    sink.sendall(data)
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

        return raw(act), asked

    return start


@pytest.mark.parametrize(("name", "good"), [("keys.example.com", True), ("other.example.com", False)])
def test_https_over_a_proxy_is_a_tunnel_and_verified(
    fetcher, serve, source_of, key, verifies, authority, tunnel, name, good
):
    server = serve(authority.context("s", name))
    server.serve(key)
    proxy, asked = tunnel(server.port)
    made = fetcher(refresh=60, proxy=f"http://me:pw@127.0.0.1:{proxy}", ca_file=str(authority.file))
    source = source_of(made, "https://keys.example.com/keys")
    assert made.wait(60)
    assert verifies(source, key) == good, source.error
    assert asked[0].startswith(b"CONNECT keys.example.com:443 ")
    if not good:
        assert "certificate verify failed" in source.error
        assert "over the proxy 127.0.0.1" in source.error
        assert "pw" not in source.error


def test_a_proxy_that_refuses_is_told_from_the_server(failure, raw):
    def act(connection):
        read_head(connection)
        connection.sendall(b"HTTP/1.1 407 Who are you\r\n\r\n")

    proxy = f"http://me:pw@127.0.0.1:{raw(act)}"
    cause, text = failure("https://keys.example.com/keys", proxy=proxy)
    assert cause == "connect"
    assert "the proxy refuses: 407 Who are you" in text
    assert "pw" not in text


@pytest.mark.parametrize("address", ["169.254.169.254", "[fd00:ec2::254]", "[::ffff:169.254.169.254]"])
def test_a_proxy_is_not_asked_for_metadata_addresses(failure, serve, key, address):
    proxy = serve()
    proxy.serve(key)
    cause, text = failure(f"http://{address}/keys", proxy=proxy.url(""))
    assert cause == "refused"
    assert "no key set is fetched from there" in text
    assert proxy.requests == []


# --- what is on disk ---


@pytest.fixture
def kept(fetcher, serve, source_of, key, tmp_path, kept_file):
    """The file of a key set, and what a fetcher makes of it while the issuer is down."""
    server = serve()
    server.serve(key)
    options = {"cache_dir": str(tmp_path / "sets"), "refresh": 60, "retry_first": 60, "retry_max": 60}
    first = fetcher(**options)
    source_of(first, server.url())
    assert first.wait(60)
    file = kept_file(tmp_path / "sets")
    first.close()
    server.status = 503
    return file, lambda: source_of(fetcher(**options), server.url())


def test_a_file_nested_beyond_reason_keeps_nobody_from_starting(kept, caplog):
    file, again = kept
    file.write_text("[" * 200_000)
    assert again().key_set is UNAVAILABLE
    assert "of no use: nested too deeply" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_a_file_of_another_user_is_not_used(kept, caplog):
    file, again = kept
    os.chown(file, 12345, 12345)
    assert again().key_set is UNAVAILABLE
    assert "others can write it" in caplog.text


@pytest.mark.parametrize("etag", ["\r\nx: y", "é", "\ud800"])
def test_an_etag_on_disk_that_cannot_be_sent_is_left_out(kept, key, verifies, etag):
    file, again = kept
    file.write_text(json.dumps({**json.loads(file.read_text()), "etag": etag}))
    source = again()
    assert verifies(source, key)
    assert source.first_fetch_ended.wait(60)
    assert "answered 503" in source.error


def test_a_set_that_could_not_be_kept_is_kept_once_it_can_be(
    fetcher, serve, source_of, key, tmp_path, eventually, caplog
):
    server = serve()
    server.serve(key, etag='"1"')
    directory = tmp_path / "sets"
    made = fetcher(cache_dir=str(directory), refresh=0.05, refresh_min=0.05)
    directory.rmdir()
    source_of(made, server.url())
    eventually(lambda: len(server.requests) > 5)
    complaints = [record for record in caplog.records if "cannot be kept on disk" in record.getMessage()]
    assert len(complaints) == 1
    directory.mkdir(0o700)
    eventually(lambda: list(directory.glob("*.json")))
    before = len(server.requests)
    eventually(lambda: len(server.requests) > before + 2)
    # Kept, it is asked for by its ETag again.
    assert server.requests[-1][1]["if-none-match"] == '"1"'


def test_nobody_ever_sees_half_a_file(fetcher, serve, source_of, key, tmp_path, eventually):
    server = serve()
    server.serve(key)
    made = fetcher(cache_dir=str(tmp_path / "sets"), refresh=0.01, refresh_min=0.01)
    source_of(made, server.url())
    assert made.wait(60)
    files = set()

    def seen_often():
        for file in (tmp_path / "sets").glob("*.json"):
            with open(file) as content:
                assert json.load(content)["body"] == server.body.decode()
                status = os.fstat(content.fileno())
                files.add((status.st_ino, status.st_mtime_ns))  # the number alone is used again
                assert status.st_mode & 0o777 == 0o600
        return len(files) >= 5

    eventually(seen_often)
    made.close()
    eventually(lambda: [file.suffix for file in (tmp_path / "sets").iterdir()] == [".json"])
