"""Where key sets are fetched: ServiceEntries, their endpoints and weights, Unix sockets, `--resolve`."""

import json
import random
import socket
import threading

from extauthz.istio.resources import Metadata, Resolution, Resources, ServiceEntry, ServicePort, WorkloadEntry
from extauthz.minting import key_set


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
    assert made.wait(60)
    assert verifies(source, key), source.error
    assert second.requests[0][1]["host"] == "second.example"
    assert "third.example.com:80 is outside the mesh" in outside.error


def test_an_endpoint_that_is_down_is_passed_over(fetcher, serve, source_of, key, verifies, closed_port):
    server = serve()
    server.serve(key)
    given = entry(
        WorkloadEntry(address="127.0.0.1", ports={"p": closed_port}, weight=1000),
        WorkloadEntry(address="no-such-host.invalid"),
        WorkloadEntry(address="127.0.0.1", ports={"p": server.port}),
    )
    made = fetcher(refresh=60)
    source = source_of(made, "http://keys.example/keys", resources=Resources(service_entries=(given,)))
    assert made.wait(60)
    assert verifies(source, key), source.error


def test_failures_of_several_endpoints_are_told_together_and_always_alike(fetcher, source_of, eventually):
    errors = set()
    with socket.socket() as one, socket.socket() as other:
        for holder in (one, other):
            holder.bind(("127.0.0.1", 0))
        closed = [holder.getsockname()[1] for holder in (one, other)]
        given = entry(*(WorkloadEntry(address="127.0.0.1", ports={"p": port}) for port in closed))
        made = fetcher()
        source = source_of(made, "http://keys.example/keys", resources=Resources(service_entries=(given,)))

        def enough():
            errors.add(source.error)
            return made.states()[0].failures > 20

        eventually(enough)
        made.close()
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
        source = source_of(made, "http://keys.example/keys", resources=Resources(service_entries=(given,)), timeout=8)
        assert made.wait(60)
        for one in stuck:
            one.close()
    assert verifies(source, key), source.error


def test_endpoints_are_asked_as_often_as_their_weights_say(fetcher, serve, source_of, key, eventually, monkeypatch):
    monkeypatch.setattr("extauthz.authn.fetch.client.random", random.Random(1))
    heavy, light = serve(), serve()
    heavy.serve(key)
    light.serve(key)
    given = entry(
        WorkloadEntry(address="127.0.0.1", ports={"p": heavy.port}, weight=9),
        WorkloadEntry(address="127.0.0.1", ports={"p": light.port}, weight=1),
    )
    made = fetcher(refresh=0.005, refresh_min=0.005)
    source_of(made, "http://keys.example/keys", resources=Resources(service_entries=(given,)))
    eventually(lambda: len(heavy.requests) + len(light.requests) > 80)
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
                seen.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 200 OK\r\n" + f"content-length: {len(body)}\r\n\r\n".encode() + body)

        threading.Thread(target=serve, daemon=True).start()
        given = entry(WorkloadEntry(address=f"unix://{path}"))
        made = fetcher(refresh=60)
        source = source_of(made, "http://keys.example/keys", resources=Resources(service_entries=(given,)))
        assert made.wait(60)
    assert verifies(source, key), source.error
    assert b"host: keys.example\r\n" in seen[0].lower()


def test_resolve_maps_hosts_ports_and_several_addresses(fetcher, serve, source_of, key, verifies, closed_port):
    server = serve()
    server.serve(key)
    made = fetcher(
        refresh=60,
        resolve=(
            f"a.example.com:81=127.0.0.1:{server.port}",
            f"b.example.com=127.0.0.1:{closed_port},127.0.0.1:{server.port}",
        ),
    )
    a, b = source_of(made, "http://a.example.com:81/keys"), source_of(made, "http://B.example.com/keys")
    c = source_of(made, f"http://localhost:{server.port}/keys")
    assert made.wait(60)
    assert verifies(a, key), a.error
    assert verifies(b, key), b.error
    assert verifies(c, key), c.error


def test_an_override_does_not_lead_to_a_metadata_address(failure):
    cause, text = failure("http://a.example.com/keys", resolve=("a.example.com=169.254.169.254",))
    assert cause == "refused"
    assert "host a.example.com is 169.254.169.254, a link-local address" in text
