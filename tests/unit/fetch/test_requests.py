"""What is sent, what is followed, and the limits of what is taken."""

import base64
import gzip
import json
import os
import socket
import threading
import time
from contextlib import suppress

import pytest

from extauthz.authn.keys import UNAVAILABLE
from extauthz.istio.resources import Metadata, Resolution, Resources, ServiceEntry, ServicePort, WorkloadEntry
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


@pytest.fixture
def failure(fetcher, source_of):
    """Why the fetch of a URL fails."""

    def of(url, timeout=5.0, **options):
        made = fetcher(refresh=60, retry_first=60, retry_max=60, **options)
        source = source_of(made, url, timeout=timeout)
        assert made.wait(timeout + 5)
        assert source.key_set is UNAVAILABLE
        (state,) = made.states()
        (cause,) = state.results
        return cause, source.error

    return of


def test_a_request_says_who_asks_and_nothing_more(fetcher, serve, source_of, key):
    server = serve()
    server.serve(key, set_cookie="a=b")
    made = fetcher()
    source_of(made, server.url("/keys?x=y"))
    made.wait(5)
    time.sleep(0.5)
    assert len(server.requests) > 1
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
    made.wait(5)
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
    made.wait(5)
    assert verifies(source, key), source.error


def test_a_proxy_that_was_asked_for_is_used_for_hosts_outside(fetcher, serve, source_of, key, verifies):
    proxy, inside = serve(), serve()
    proxy.serve(key)
    inside.serve(key)
    made = fetcher(refresh=60, proxy=proxy.url(""), resolve=(f"svc.ns=127.0.0.1:{inside.port}",))
    outside = source_of(made, "http://keys.example.com/keys")
    near = source_of(made, "http://svc.ns/keys")
    local = source_of(made, inside.url("/local"))
    made.wait(5)
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
    made.wait(5)
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
    made.wait(5)
    assert verifies(source, key), source.error


@pytest.mark.parametrize("kind", ["declared", "chunked", "until closed"])
def test_a_huge_body_is_cut_off(failure, raw, kind):
    sent = 0

    def act(connection):
        nonlocal sent
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
    made.wait(10)
    assert "more than 1000 keys" in source.error


@pytest.mark.parametrize("where", ["head", "body", "before anything"])
def test_a_slow_server_costs_the_rules_timeout_and_no_more(failure, raw, where):
    def act(connection):
        request_of(connection)
        text = {"head": OK, "body": OK + b"content-length: 100000\r\n\r\n", "before anything": b""}[where]
        connection.sendall(text)
        for _ in range(200):
            time.sleep(0.02)
            if where != "before anything":
                connection.sendall(b"x" if where == "body" else b"a: b\r\n")

    began = time.monotonic()
    cause, text = failure(f"http://127.0.0.1:{raw(act)}/keys", timeout=0.3)
    assert time.monotonic() - began < 2
    assert cause == "timeout"
    assert ("reading the body" if where == "body" else "waiting for the answer") in text


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
    server.status, server.headers = status, headers
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
    made.wait(5)
    assert made.states()[0].results == {cause: 1}
    assert said in source.error
    assert source.error.isprintable()


def test_discovery_over_https_does_not_lead_to_plain_http(fetcher, serve, source_of, authority):
    secure = serve(authority.context("s", "127.0.0.1"))
    secure.body = b'{"jwks_uri": "http://127.0.0.1/jwks"}'
    made = fetcher(refresh=60, ca_file=str(authority.file))
    source = source_of(made, issuer=secure.url(""))
    made.wait(5)
    assert "came over https" in source.error


# --- where to ---


def entry(*endpoints, host="keys.example", port=80):
    return ServiceEntry(
        metadata=Metadata(name=host, namespace="ns"),
        hosts=(host,),
        ports=(ServicePort(number=port, name="p", protocol="HTTP"),),
        resolution=Resolution.STATIC,
        endpoints=endpoints,
    )


def test_with_the_meshs_egress_a_host_of_two_labels_is_looked_for_inside_only(failure):
    cause, text = failure("http://third.invalid/keys", egress="mesh")
    assert cause == "name"
    assert "third.invalid.svc.cluster.local" in text
    assert "a host outside needs a ServiceEntry" in text


def test_redirects_follow_service_entries_too(fetcher, serve, source_of, key, verifies):
    first, second = serve(), serve()
    second.serve(key)
    first.paths["/keys"] = (307, {"location": "http://second.example/there"}, b"")
    given = Resources(
        service_entries=tuple(
            entry(WorkloadEntry(address="127.0.0.1", ports={"p": server.port}), host=host)
            for host, server in (("first.example", first), ("second.example", second))
        )
    )
    made = fetcher(refresh=60, egress="mesh")
    source = source_of(made, "http://first.example/keys", resources=given)
    first.paths["/out"] = (307, {"location": "http://third.example.com/there"}, b"")
    outside = source_of(made, "http://first.example/out", resources=given)
    made.wait(5)
    assert verifies(source, key), source.error
    assert second.requests[0][1]["host"] == "second.example"
    assert "third.example.com:80 is outside the mesh" in outside.error


def test_an_endpoint_that_is_down_is_passed_over(fetcher, serve, source_of, key, verifies):
    server = serve()
    server.serve(key)
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    given = entry(
        WorkloadEntry(address="127.0.0.1", ports={"p": closed}, weight=1000),
        WorkloadEntry(address="no-such-host.invalid"),
        WorkloadEntry(address="127.0.0.1", ports={"p": server.port}),
    )
    made = fetcher(refresh=60)
    source = source_of(made, "http://keys.example/keys", resources=Resources(service_entries=(given,)))
    made.wait(10)
    assert verifies(source, key), source.error


def test_failures_of_several_endpoints_are_told_together_and_always_alike(fetcher, source_of, eventually):
    closed = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            closed.append(free.getsockname()[1])
    given = entry(*(WorkloadEntry(address="127.0.0.1", ports={"p": port}) for port in closed))
    made = fetcher()
    source = source_of(made, "http://keys.example/keys", resources=Resources(service_entries=(given,)))
    errors = set()

    def enough():
        errors.add(source.error)
        return made.states()[0].failures > 20

    eventually(enough, 10)
    errors.discard("")
    assert len(errors) == 1
    assert all(str(port) in next(iter(errors)) for port in closed)


def test_an_endpoint_that_does_not_answer_leaves_time_for_the_next(fetcher, serve, source_of, key, verifies):
    # A listener whose queue is full: connection attempts to it are neither accepted nor refused.
    server = serve()
    server.serve(key)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        stuck = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            stuck.append(one)
        given = entry(
            WorkloadEntry(address="127.0.0.1", ports={"p": port}, weight=100_000),
            WorkloadEntry(address="127.0.0.1", ports={"p": server.port}),
        )
        made = fetcher(refresh=60)
        source = source_of(made, "http://keys.example/keys", resources=Resources(service_entries=(given,)), timeout=1)
        made.wait(5)
        for one in stuck:
            one.close()
    assert verifies(source, key), source.error


def test_endpoints_are_asked_as_often_as_their_weights_say(fetcher, serve, source_of, key, eventually):
    heavy, light = serve(), serve()
    heavy.serve(key)
    light.serve(key)
    given = entry(
        WorkloadEntry(address="127.0.0.1", ports={"p": heavy.port}, weight=9),
        WorkloadEntry(address="127.0.0.1", ports={"p": light.port}, weight=1),
    )
    made = fetcher(refresh=0.005, refresh_min=0.005)
    source_of(made, "http://keys.example/keys", resources=Resources(service_entries=(given,)))
    eventually(lambda: len(heavy.requests) + len(light.requests) > 80, 30)
    share = len(heavy.requests) / (len(heavy.requests) + len(light.requests))
    assert 0.7 < share < 1


def test_an_endpoint_may_be_a_unix_socket(fetcher, source_of, key, tmp_path, verifies):
    path = str(tmp_path / "keys.sock")
    body = json.dumps(key_set(key)).encode()
    seen = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve():
            connection, _ = listener.accept()
            with connection:
                seen.append(request_of(connection))
                connection.sendall(OK + f"content-length: {len(body)}\r\n\r\n".encode() + body)

        threading.Thread(target=serve, daemon=True).start()
        given = entry(WorkloadEntry(address=f"unix://{path}"))
        made = fetcher(refresh=60)
        source = source_of(made, "http://keys.example/keys", resources=Resources(service_entries=(given,)))
        made.wait(5)
    assert verifies(source, key), source.error
    assert b"host: keys.example\r\n" in seen[0].lower()


def test_resolve_maps_hosts_ports_and_several_addresses(fetcher, serve, source_of, key, verifies):
    server = serve()
    server.serve(key)
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    made = fetcher(
        refresh=60,
        resolve=(
            f"a.example.com:81=127.0.0.1:{server.port}",
            f"b.example.com=127.0.0.1:{closed},127.0.0.1:{server.port}",
        ),
    )
    a, b = source_of(made, "http://a.example.com:81/keys"), source_of(made, "http://B.example.com/keys")
    c = source_of(made, f"http://localhost:{server.port}/keys")
    made.wait(5)
    assert verifies(a, key), a.error
    assert verifies(b, key), b.error
    assert verifies(c, key), c.error


def test_an_override_does_not_lead_to_a_metadata_address(failure):
    cause, text = failure("http://a.example.com/keys", resolve=("a.example.com=169.254.169.254",))
    assert cause == "refused"
    assert "host a.example.com is 169.254.169.254, a link-local address" in text


def test_a_certificate_map_is_a_key_set(fetcher, serve, source_of, authority):
    with open(authority.files("c", "a.example", rsa=True)[0]) as file:
        pem = file.read()
    server = serve()
    server.body = json.dumps({"kid-1": pem}).encode()
    made = fetcher(refresh=60)
    source = source_of(made, server.url())
    made.wait(5)
    assert [one.kid for one in source.key_set.keys] == ["kid-1"], source.error


def test_many_dead_issuers_do_not_delay_a_living_one(fetcher, serve, source_of, raw, eventually):
    port = raw(lambda connection: time.sleep(30))
    made = fetcher(concurrency=2, refresh=0.1, refresh_min=0.05)
    for number in range(8):
        source_of(made, f"http://127.0.0.1:{port}/{number}", timeout=0.4)
    server, key = serve(), SigningKey.generate("ES256", "k")
    server.serve(key)
    source_of(made, server.url())
    made.wait(30)
    before = len(server.requests)
    time.sleep(1)
    assert len(server.requests) - before >= 4


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
    eventually(lambda: len(plain.requests) > 30 and len(secure.requests) > 30, 20)
    assert sockets() <= early + 6
