import gzip
import json
import threading
import time

import pytest

from extauthz.authn.keys import UNAVAILABLE
from extauthz.errors import UsageError
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
from extauthz.minting import SigningKey

DATA = b"data"


def verifies(source, key):
    return source.key_set.verify(key.algorithm, key.kid, DATA, key.sign(DATA)) is None


def state(fetcher):
    (found,) = fetcher.states()
    return found


def test_a_set_is_there_after_the_first_fetch(fetcher, serve, source_of, key):
    server = serve()
    server.serve(key)
    made = fetcher(refresh=60)
    source = source_of(made, server.url())
    assert source_of(made, server.url()) is source
    assert made.wait(60)
    assert verifies(source, key)
    assert len(server.requests) == 1
    found = state(made)
    assert (found.uri, found.key_ids, found.error, found.failures) == (server.url(), ("k",), "", 0)
    assert found.age is not None
    assert found.results == {"success": 1}


def test_keys_rotate_and_equal_content_keeps_the_same_object(fetcher, serve, source_of, key, eventually):
    server = serve()
    server.serve(key)
    made = fetcher()
    source = source_of(made, server.url())
    assert made.wait(60)
    before = source.key_set
    eventually(lambda: len(server.requests) > 2)
    assert source.key_set is before
    new = SigningKey.generate("ES256", "new")
    server.serve(new)
    eventually(lambda: verifies(source, new))
    assert not verifies(source, key)


BAD_ANSWERS = {
    "html": (200, {}, b"<html>"),
    "no keys": (200, {}, b'{"keys":[]}'),
    "no keys member": (200, {}, b"{}"),
    "only unusable keys": (200, {}, b'{"keys":[{"kty":"what"}]}'),
    "truncated": (200, {}, b'{"keys":['),
    "empty": (200, {}, b""),
    "20 MiB": (200, {}, b" " * (20 * 1024 * 1024)),
    "404": (404, {}, b""),
    "503": (503, {}, b""),
    "a redirect to itself": (302, {"location": "/keys"}, b""),
    "a redirect without location": (302, {}, b""),
    "a byte order mark": (200, {}, b"\xef\xbb\xbf" + b'{"keys":[]}'),
    "no gzip": (200, {"content-encoding": "gzip"}, b"x"),
    "a gzip bomb": (200, {"content-encoding": "gzip"}, gzip.compress(b" " * (50 * 1024 * 1024))),
    "an unknown encoding": (200, {"content-encoding": "br"}, b"x"),
    "no UTF-8": (200, {}, b"\xff\xfe"),
}


@pytest.mark.parametrize("answer", BAD_ANSWERS)
def test_a_bad_answer_never_replaces_a_good_set(fetcher, serve, source_of, key, eventually, caplog, answer):
    server = serve()
    server.serve(key)
    made = fetcher()
    source = source_of(made, server.url())
    assert made.wait(60)
    server.answer = BAD_ANSWERS[answer]
    eventually(lambda: state(made).failures >= 2)
    assert verifies(source, key)
    assert state(made).error
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "stays in use" in warnings[0].getMessage()
    server.serve(key)
    eventually(lambda: state(made).failures == 0)


@pytest.mark.parametrize("answer", ["html", "404", "20 MiB", "a redirect to itself"])
def test_starting_with_a_bad_answer_tokens_are_refused_until_a_good_one(
    fetcher, serve, source_of, key, eventually, answer
):
    server = serve()
    server.answer = BAD_ANSWERS[answer]
    made = fetcher()
    source = source_of(made, server.url())
    assert made.wait(60)
    assert source.key_set is UNAVAILABLE
    assert not state(made).available
    server.serve(key)
    eventually(lambda: verifies(source, key))


def test_a_closed_port_is_tried_again(fetcher, source_of, closed_port, eventually):
    made = fetcher(resolve=(f"keys.example:80=127.0.0.1:{closed_port}",))
    source = source_of(made, "http://keys.example/keys")
    assert made.wait(60)
    assert "connection refused" in state(made).error
    assert source.key_set is UNAVAILABLE
    eventually(lambda: state(made).failures > 1)


def test_a_server_that_never_answers_costs_the_rules_timeout(fetcher, serve, source_of, comes_to, time_passes):
    server, ended = serve(), threading.Event()
    server.before_answer = lambda: ended.wait(600)
    made = fetcher(retry_first=600, retry_max=600, refresh=600)
    source = source_of(made, server.url(), timeout=100)
    comes_to("waiting for the answer")
    time_passes(made, 90)
    assert not source.first_fetch_ended.wait(0.2)
    time_passes(made, 10)
    assert made.wait(60)
    ended.set()
    assert "not done within 100 s: waiting for the answer" in state(made).error


def test_a_name_that_does_not_resolve_says_so(fetcher, source_of):
    made = fetcher()
    source_of(made, "http://no-such-host.invalid/keys")
    assert made.wait(60)
    assert "does not resolve" in state(made).error


def test_an_unknown_key_id_fetches_early_and_only_once(fetcher, serve, source_of, key, eventually):
    server = serve()
    server.serve(key)
    made = fetcher(refresh=60, refresh_min=30)
    source = source_of(made, server.url())
    assert made.wait(60)
    new = SigningKey.generate("ES256", "new")
    server.serve(new)
    for _ in range(50):
        source.note_missing_key()
    eventually(lambda: verifies(source, new))
    source.note_missing_key()
    time.sleep(0.2)
    assert len(server.requests) == 2


def test_cache_control_makes_the_next_fetch_earlier_but_not_too_early(fetcher, serve, source_of, key):
    server = serve()
    made = fetcher(refresh=1000, refresh_min=100)
    server.serve(key, cache_control="max-age=500")
    source_of(made, server.url())
    assert made.wait(60)
    assert 440 < state(made).next_fetch <= 500


def test_an_unchanged_set_is_confirmed_by_its_etag(fetcher, serve, source_of, key, eventually):
    server = serve()
    server.serve(key, etag='"1"')
    made = fetcher()
    source = source_of(made, server.url())
    assert made.wait(60)
    before = source.key_set
    eventually(lambda: len(server.requests) >= 3)
    assert server.requests[1][1]["if-none-match"] == '"1"'
    assert source.key_set is before
    assert state(made).failures == 0


def test_a_set_that_is_too_old_is_dropped(fetcher, serve, source_of, key, eventually):
    server = serve()
    server.serve(key)
    made = fetcher(max_stale=0.5)
    source = source_of(made, server.url())
    assert made.wait(60)
    server.status = 500
    eventually(lambda: source.key_set is UNAVAILABLE)
    server.serve(key)
    eventually(lambda: verifies(source, key))


def test_discovery_leads_to_the_key_set_and_compares_the_issuer(fetcher, serve, source_of, key, eventually):
    server = serve()
    server.serve(key)
    issuer = server.url("/tenant/")
    well_known = "/tenant/.well-known/openid-configuration"
    server.paths[well_known] = (404, {}, b"")
    made = fetcher()
    source = source_of(made, issuer=issuer)
    assert made.wait(60)
    assert "404" in state(made).error
    document = {"issuer": "https://other.example", "jwks_uri": server.url("/jwks")}
    server.paths[well_known] = (200, {}, json.dumps(document).encode())
    eventually(lambda: "is of issuer" in state(made).error)
    server.paths[well_known] = (200, {}, json.dumps({**document, "issuer": issuer}).encode())
    eventually(lambda: verifies(source, key))
    assert "/jwks" in [path for path, _ in server.requests]


def test_redirects_are_followed_five_times_and_never_to_plain_http(fetcher, serve, source_of, key, authority):
    server = serve()
    server.serve(key)
    for number in range(7):
        server.paths[f"/{number}"] = (302, {"location": f"/{number - 1}" if number else "/keys"}, b"")
    made = fetcher(refresh=60)
    near, far = source_of(made, server.url("/4")), source_of(made, server.url("/6"))
    assert made.wait(60)
    assert verifies(near, key)
    assert far.error.startswith("more than 5 redirects")
    secure = serve(authority.context("s", "127.0.0.1"))
    secure.paths["/keys"] = (302, {"location": server.url()}, b"")
    downgraded = source_of(made, secure.url())
    assert made.wait(60)
    assert not verifies(downgraded, key)


def test_certificates_are_verified(fetcher, serve, source_of, key, authority):
    made = fetcher(refresh=60)
    trusting = fetcher(refresh=60, ca_file=str(authority.file))
    cases = {
        "good": (authority.context("good", "127.0.0.1"), ""),
        "other name": (authority.context("other", "other.example"), "certificate verify failed"),
        "expired": (authority.context("expired", "127.0.0.1", days=-1), "expired"),
    }
    for name, (context, said) in cases.items():
        server = serve(context)
        server.serve(key)
        untrusted, trusted = source_of(made, server.url()), source_of(trusting, server.url())
        assert made.wait(60)
        assert trusting.wait(60)
        assert "127.0.0.1" in untrusted.error, name
        assert "certificate verify failed" in untrusted.error, name
        assert (said in trusted.error) if said else verifies(trusted, key), (name, trusted.error)


def entry(server, *, resolution=Resolution.STATIC, port=80, protocol="HTTP", host="keys.example", **members):
    return ServiceEntry(
        metadata=Metadata(name="keys", namespace="ns"),
        hosts=(host,),
        ports=(ServicePort(number=port, name="p", protocol=protocol),),
        resolution=resolution,
        endpoints=(WorkloadEntry(address="127.0.0.1", ports={"p": server.port}),),
        **members,
    )


def rule(**tls):
    return DestinationRule(
        metadata=Metadata(name="keys", namespace="ns"), host="keys.example", tls=ClientTls(**tls) if tls else None
    )


def test_a_service_entry_says_where_a_host_is(fetcher, serve, source_of, key):
    server = serve()
    server.serve(key)
    made = fetcher(egress="mesh", refresh=60)
    inside = source_of(made, "http://keys.example/keys", resources=Resources(service_entries=(entry(server),)))
    outside = source_of(made, "http://www.elsewhere.example/keys")
    assert made.wait(60)
    assert verifies(inside, key)
    assert "outside the mesh" in outside.error
    assert server.requests[0][1]["host"] == "keys.example"


@pytest.mark.parametrize("uri", ["http://keys.example:443/keys", "https://keys.example/keys"])
def test_a_destination_rule_originates_tls(fetcher, serve, source_of, key, authority, uri):
    server = serve(authority.context("s", "keys.example", client_ca=True))
    server.serve(key)
    certificate, private = authority.files("client", "client.example")
    tls = rule(
        mode=TlsMode.MUTUAL,
        ca_certificates=str(authority.file),
        client_certificate=certificate,
        private_key=private,
        sni="keys.example",
    )
    given = Resources(service_entries=(entry(server, port=443),), destination_rules=(tls,))
    made = fetcher(refresh=60)
    source = source_of(made, uri, resources=given)
    assert made.wait(60)
    assert verifies(source, key), source.error


def test_other_names_may_be_asked_for_and_verification_left_out(fetcher, serve, source_of, key, authority):
    server = serve(authority.context("s", "real.example"))
    server.serve(key)
    made = fetcher(refresh=60)
    ca = str(authority.file)
    outcomes = {}
    for name, tls in {
        "wrong name": {"ca_certificates": ca},
        "named": {"ca_certificates": ca, "subject_alt_names": ("real.example",)},
        "unverified": {"insecure_skip_verify": True},
    }.items():
        given = Resources(
            service_entries=(entry(server, port=443),), destination_rules=(rule(mode=TlsMode.SIMPLE, **tls),)
        )
        source = source_of(made, "https://keys.example/keys", resources=given)
        assert made.wait(60)
        outcomes[name] = verifies(source, key)
    assert outcomes == {"wrong name": False, "named": True, "unverified": True}


def test_short_names_are_completed_inside_the_cluster(fetcher, serve, source_of, key):
    server = serve()
    server.serve(key)
    made = fetcher(refresh=60, resolve=(f"nginx-proxy.ns.svc.cluster.local=127.0.0.1:{server.port}",))
    source = source_of(made, "http://nginx-proxy/get_jwks")
    assert made.wait(60)
    assert verifies(source, key)
    assert server.requests[0][0] == "/get_jwks"


def test_metadata_addresses_are_never_asked(fetcher, source_of):
    made = fetcher()
    for address in ("169.254.169.254", "[fd00:ec2::254]", "100.100.100.200"):
        source = source_of(made, f"http://{address}/keys")
        assert made.wait(60)
        assert "no key set is fetched from there" in source.error


def test_ipv6_ports_and_queries_are_part_of_a_url(fetcher, serve, source_of, key):
    try:
        server = serve(address="::1")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    server.serve(key)
    made = fetcher(refresh=60)
    source = source_of(made, server.url("/a/b?c=d&key=secret", "[::1]"))
    assert made.wait(60)
    assert verifies(source, key)
    assert server.requests[0][0] == "/a/b?c=d&key=secret"
    assert "secret" not in state(made).uri


def test_last_good_sets_survive_a_restart(fetcher, serve, source_of, key, tmp_path, kept_file):
    server = serve()
    server.serve(key)
    first = fetcher(cache_dir=str(tmp_path / "sets"))
    source_of(first, server.url())
    assert first.wait(60)
    file = kept_file(tmp_path / "sets")
    first.close()
    assert file.stat().st_mode & 0o777 == 0o600
    server.status = 503
    again = fetcher(cache_dir=str(tmp_path / "sets"))
    source = source_of(again, server.url())
    assert verifies(source, key)
    assert again.wait(60)
    assert verifies(source, key)
    file.write_text("{")
    broken = fetcher(cache_dir=str(tmp_path / "sets"))
    assert source_of(broken, server.url()).key_set is UNAVAILABLE


def test_sources_live_as_long_as_policies_ask_for_them(fetcher, serve, source_of, key):
    server = serve()
    server.serve(key)
    made = fetcher(refresh=0.1)
    kept, dropped = source_of(made, server.url("/kept")), source_of(made, server.url("/dropped"))
    assert made.wait(60)
    made.retain()
    assert source_of(made, server.url("/kept")) is kept
    made.retain()
    assert [one.uri for one in made.states()] == [server.url("/kept")]
    assert verifies(dropped, key)


def test_a_thousand_urls_are_fetched_a_few_at_a_time(fetcher, serve, source_of, key):
    server = serve()
    server.serve(key)
    peak, open_now, lock = 0, 0, threading.Lock()

    def count():
        nonlocal peak, open_now
        with lock:
            open_now += 1
            peak = max(peak, open_now)
        time.sleep(0.001)
        with lock:
            open_now -= 1

    server.before_answer = count
    made = fetcher(refresh=600, concurrency=8)
    sources = [source_of(made, server.url(f"/{number}")) for number in range(1000)]
    assert made.wait(120)
    assert all(verifies(source, key) for source in sources[::100])
    assert peak <= 8


def test_unusable_options_and_urls_are_explained(fetcher, source_of, tmp_path):
    with pytest.raises(UsageError, match="write HOST=ADDRESS"):
        fetcher(resolve=("nonsense",))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="jwks-cache-dir"):
        fetcher(cache_dir=str(tmp_path / "file"))
    with pytest.raises(UsageError, match="--jwks-proxy: scheme"):
        fetcher(proxy="proxy:3128")
    with pytest.raises(UsageError, match="not http or https"):
        source_of(fetcher(), "ftp://keys.example/keys")
    with pytest.raises(UsageError, match="jwksUri of issuer"):
        source_of(fetcher(), issuer="testing@secure.istio.io")
