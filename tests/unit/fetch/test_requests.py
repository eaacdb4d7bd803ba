"""What is sent, and the limits of what is taken."""

import base64
import gzip
import json
import os
import socket
import threading
from contextlib import suppress

import pytest

from extauthz.minting import SigningKey, key_set

OK = b"HTTP/1.1 200 OK\r\n"


def request_of(connection):
    """Reads the head of a request."""
    head = b""
    while b"\r\n\r\n" not in head:
        more = connection.recv(65536)
        if not more:
            break
        head += more
    return head


def test_a_request_says_who_asks_and_nothing_more(fetcher, serve, source_of, key, eventually):
    server = serve()
    server.serve(key, set_cookie="a=b")
    made = fetcher()
    source_of(made, server.url("/keys?x=y"))
    assert made.wait(60)
    eventually(lambda: len(server.requests) > 1)
    for path, headers in server.requests:
        assert path == "/keys?x=y"
        assert {name.lower() for name in headers} == {
            *("host", "user-agent", "accept", "accept-encoding", "connection"),
        }
        assert headers["user-agent"].startswith("extauthz/")


def test_credentials_in_a_url_are_sent_to_its_origin_only(fetcher, serve, source_of, key):
    server, other = serve(), serve()
    other.serve(key)
    server.paths["/keys"] = (302, {"location": "/there"}, b"")
    server.paths["/there"] = (302, {"location": other.url()}, b"")
    made = fetcher(refresh=60)
    source_of(made, server.url(host="me:p%40ss@127.0.0.1"))
    assert made.wait(60)
    expected = "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert [headers.get("authorization") for _, headers in server.requests] == [expected, expected]
    assert "authorization" not in other.requests[0][1]
    assert "me" not in made.states()[0].uri


def test_proxies_of_the_environment_do_not_apply(fetcher, serve, source_of, key, verifies, monkeypatch):
    server = serve()
    server.serve(key)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    made = fetcher(refresh=60, resolve=(f"keys.example=127.0.0.1:{server.port}",))
    source = source_of(made, "http://keys.example/keys")
    assert made.wait(60)
    assert verifies(source, key), source.error


def test_a_proxy_that_was_asked_for_is_used_for_hosts_outside(fetcher, serve, source_of, key, verifies):
    proxy, inside = serve(), serve()
    proxy.serve(key)
    inside.serve(key)
    made = fetcher(refresh=60, proxy=proxy.url(""), resolve=(f"svc.ns=127.0.0.1:{inside.port}",))
    outside = source_of(made, "http://keys.example.com/keys")
    near = source_of(made, "http://svc.ns/keys")
    local = source_of(made, inside.url("/local"))
    assert made.wait(60)
    assert verifies(outside, key), outside.error
    assert verifies(near, key)
    assert verifies(local, key)
    assert [path for path, _ in proxy.requests] == ["http://keys.example.com/keys"]
    assert sorted(path for path, _ in inside.requests) == ["/keys", "/local"]


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/octet-stream", ""])
def test_the_content_type_does_not_matter(fetcher, serve, source_of, key, verifies, content_type):
    server = serve()
    server.serve(key, **({"content-type": content_type} if content_type else {}))
    made = fetcher(refresh=60)
    source = source_of(made, server.url())
    assert made.wait(60)
    assert verifies(source, key)


def test_gzip_is_unpacked_and_chunks_are_joined(fetcher, raw, source_of, key, verifies):
    packed = gzip.compress(json.dumps(key_set(key)).encode())

    def act(connection):
        request_of(connection)
        connection.sendall(OK + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n")
        for at in range(0, len(packed), 10):
            piece = packed[at : at + 10]
            connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        connection.sendall(b"0\r\n\r\n")

    made = fetcher(refresh=60)
    source = source_of(made, f"http://127.0.0.1:{raw(act)}/keys")
    assert made.wait(60)
    assert verifies(source, key), source.error


@pytest.mark.parametrize("kind", ["declared", "chunked", "until closed"])
def test_a_huge_body_is_cut_off(failure, raw, kind):
    sent = 0

    def act(connection):
        nonlocal sent
        # Without this it is the system's settings that say how much a socket holds.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        request_of(connection)
        head = {
            "declared": b"content-length: 1073741824\r\n\r\n",
            "chunked": b"transfer-encoding: chunked\r\n\r\n",
            "until closed": b"\r\n",
        }[kind]
        connection.sendall(OK + head)
        block = b" " * 65536
        for _ in range(16384):
            connection.sendall(b"10000\r\n" + block + b"\r\n" if kind == "chunked" else block)
            sent += len(block)

    cause, text = failure(f"http://127.0.0.1:{raw(act)}/keys")
    assert (cause, text) == ("too_large", "the body is larger than 1048576 bytes")
    # The rest is what sockets hold.
    assert sent < 32 * 1024 * 1024


def test_too_many_keys_are_refused(fetcher, serve, source_of, key):
    server = serve()
    server.body = json.dumps(key_set(*[key.jwk(kid=str(number)) for number in range(1001)])).encode()
    made = fetcher(refresh=60)
    source = source_of(made, server.url())
    assert made.wait(60)
    assert "more than 1000 keys" in source.error


@pytest.mark.parametrize("where", ["head", "body", "before anything"])
def test_a_slow_server_costs_the_rules_timeout_and_no_more(
    fetcher, source_of, raw, eventually, comes_to, time_passes, where
):
    steps, ended = 0, threading.Event()

    def act(connection):
        nonlocal steps
        request_of(connection)
        text = {"head": OK, "body": OK + b"content-length: 100000\r\n\r\n", "before anything": b""}[where]
        connection.sendall(text)
        while not ended.wait(0.05):
            if where != "before anything":
                connection.sendall(b"x" if where == "body" else b"a: b\r\n")
            steps += 1

    made = fetcher(refresh=600, retry_first=600, retry_max=600)
    source = source_of(made, f"http://127.0.0.1:{raw(act)}/keys", timeout=100)
    doing = "reading the body" if where == "body" else "waiting for the answer"
    comes_to(doing)
    time_passes(made, 60)
    before = steps
    eventually(lambda: steps > before + 3)
    assert not source.first_fetch_ended.is_set()
    # What came meanwhile gives it no more time.
    time_passes(made, 40)
    assert made.wait(60)
    ended.set()
    assert made.states()[0].results == {"timeout": 1}
    assert doing in source.error


def test_endless_headers_are_cut_off(failure, raw):
    def act(connection):
        request_of(connection)
        connection.sendall(OK)
        while True:
            connection.sendall(b"x-header: " + b"a" * 8000 + b"\r\n")

    cause, text = failure(f"http://127.0.0.1:{raw(act)}/keys")
    assert cause == "connect"
    assert "the connection broke" in text


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "disconnected"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "broke"),
        (OK + b"content-length: 100\r\n\r\n{}", "broke"),
        (OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\n{}", "broke"),
        (OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n", "broke"),
    ],
)
def test_what_is_no_http_answer_is_a_broken_connection(failure, raw, answer, said):
    def act(connection):
        request_of(connection)
        connection.sendall(answer)

    cause, text = failure(f"http://127.0.0.1:{raw(act)}/keys")
    assert cause == "connect"
    assert said in text


@pytest.mark.parametrize(
    ("status", "headers", "cause", "said"),
    [
        (404, {}, "status", "answered 404 Not Found (nothing is at that path)"),
        (401, {}, "status", "wants credentials"),
        (503, {}, "status", "answered 503 Service Unavailable"),
        (304, {}, "status", "answered 304"),
        (300, {}, "status", "answered 300"),
        (302, {}, "redirect", "without a location"),
        (302, {"location": "ftp://x/"}, "redirect", "unusable URL"),
        (302, {"location": "http://169.254.169.254/latest/meta-data"}, "refused", "a link-local address"),
        (302, {"location": "/keys"}, "redirect", "more than 5 redirects"),
    ],
)
def test_answers_that_bring_nothing_are_named(failure, serve, status, headers, cause, said):
    server = serve()
    server.answer = status, headers, b""
    found, text = failure(server.url())
    assert found == cause
    assert said in text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is empty"),
        (b"<html><body>Sign in</body></html>", "HTML"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"keys":[{"kty":"RSA"', "ends early"),
        (b'{"issuer":"x","jwks_uri":"https://x/keys"}', "this is a discovery document"),
        (b'{"keys":[]}', "Jwks doesn't have any valid public key"),
        (b"[]", "Jwks is an invalid JSON"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_what_is_no_key_set_is_named_for_what_it_is(failure, serve, body, said):
    server = serve()
    server.body = body
    cause, text = failure(server.url())
    assert cause == "content"
    assert said in text


@pytest.mark.parametrize(
    ("document", "cause", "said"),
    [
        (b"no", "content", "not JSON"),
        (b"[" * 100_000, "content", "not JSON"),
        (b"[]", "content", "not a JSON object"),
        (b"{}", "content", "no jwks_uri"),
        (b'{"jwks_uri": 1}', "content", "no jwks_uri"),
        (b'{"jwks_uri": "/jwks"}', "content", "jwks_uri in the discovery document: not an http or https URL"),
        (b'{"jwks_uri": "http://x/", "issuer": 1}', "issuer", "no string"),
        (b'{"jwks_uri": "http://x/", "issuer": "https://evil\\u001b[2J"}', "issuer", "evil"),
    ],
)
def test_discovery_documents_that_do_not_do_are_named(fetcher, serve, source_of, document, cause, said):
    server = serve()
    server.body = document
    made = fetcher(refresh=60)
    source = source_of(made, issuer=server.url(""))
    assert made.wait(60)
    assert made.states()[0].results == {cause: 1}
    assert said in source.error
    assert source.error.isprintable()


def test_discovery_over_https_does_not_lead_to_plain_http(fetcher, serve, source_of, authority):
    secure = serve(authority.context("s", "127.0.0.1"))
    secure.body = b'{"jwks_uri": "http://127.0.0.1/jwks"}'
    made = fetcher(refresh=60, ca_file=str(authority.file))
    source = source_of(made, issuer=secure.url(""))
    assert made.wait(60)
    assert "came over https" in source.error


def test_a_certificate_map_is_a_key_set(fetcher, serve, source_of, authority):
    with open(authority.files("c", "a.example", rsa=True)[0]) as file:
        pem = file.read()
    server = serve()
    server.body = json.dumps({"kid-1": pem}).encode()
    made = fetcher(refresh=60)
    source = source_of(made, server.url())
    assert made.wait(60)
    assert [one.kid for one in source.key_set.keys] == ["kid-1"], source.error


def test_many_dead_issuers_do_not_delay_a_living_one(fetcher, serve, source_of, raw, eventually):
    asked, ended = [], threading.Event()

    def hang(connection):
        asked.append(connection)
        ended.wait(600)

    port = raw(hang)
    made = fetcher(concurrency=2, refresh=0.1, refresh_min=0.05)
    dead = [source_of(made, f"http://127.0.0.1:{port}/{number}", timeout=0.4) for number in range(8)]
    assert made.wait(120)
    # From now on each of them hangs for as long as this test may take.
    for source in dead:
        source.timeout = 600
    before = len(asked)
    eventually(lambda: len(asked) >= before + 2)
    server, key = serve(), SigningKey.generate("ES256", "k")
    server.serve(key)
    source_of(made, server.url())
    eventually(lambda: len(server.requests) > 4)
    ended.set()


def test_fetching_leaves_nothing_open(fetcher, serve, source_of, key, eventually, authority):
    def sockets():
        found = 0
        for descriptor in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):
                found += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
        return found

    plain, secure = serve(), serve(authority.context("s", "127.0.0.1"))
    plain.serve(key)
    secure.serve(key)
    made = fetcher(refresh=0.01, refresh_min=0.01, ca_file=str(authority.file))
    source_of(made, plain.url())
    source_of(made, secure.url())
    eventually(lambda: len(plain.requests) > 5 and len(secure.requests) > 5)
    early = sockets()
    eventually(lambda: len(plain.requests) > 30 and len(secure.requests) > 30)
    # What the server has not closed yet is no leak.
    eventually(lambda: sockets() <= early + 6)
