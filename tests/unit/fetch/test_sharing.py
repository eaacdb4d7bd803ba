"""One source for what is fetched the same way, over reloads and changes of the way; what is logged and shown of it."""

import json
import logging
import os
import time

import pytest

from extauthz.authn.fetch.state import by_uri
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
from extauthz.minting import SigningKey, key_set


def entry(server, host="keys.example", namespace="ns", export_to=()):
    return ServiceEntry(
        metadata=Metadata(name="keys", namespace=namespace),
        hosts=(host,),
        ports=(ServicePort(number=80, name="p"),),
        resolution=Resolution.STATIC,
        endpoints=(WorkloadEntry(address="127.0.0.1", ports={"p": server.port}),),
        export_to=export_to,
    )


def given(*entries):
    return Resources(service_entries=entries)


def test_one_url_is_fetched_once_however_many_rules_use_it(fetcher, serve, source_of, key):
    server = serve()
    server.serve(key)
    made = fetcher(refresh=60)
    rules = [("a", "ns", None), ("b", "ns", 1.0), ("c", "other", 9.0), ("", "other", 2.0)]
    sources = {source_of(made, server.url(), issuer=i, namespace=n, timeout=t) for i, n, t in rules}
    assert made.wait(60)
    assert len(sources) == len(server.requests) == 1
    (state,) = made.states()
    assert state.issuers == ("a", "b", "c")
    assert sources.pop().timeout == 9.0


def test_rules_that_are_gone_after_a_reload_do_not_count_any_more(fetcher, serve, source_of, key):
    server = serve()
    server.serve(key)
    made = fetcher(refresh=60)
    source_of(made, server.url(), issuer="a", timeout=9.0)
    source_of(made, server.url(), issuer="b", timeout=1.0)
    made.retain()
    source = source_of(made, server.url(), issuer="b", timeout=1.0)
    made.retain()
    assert (source.timeout, source.issuers) == (1.0, ("b",))


def test_a_short_name_is_another_server_in_each_namespace(fetcher, serve, source_of, verifies, tmp_path):
    servers, keys = [serve(), serve()], [SigningKey.generate("ES256", kid) for kid in ("a", "b")]
    for server, key in zip(servers, keys, strict=True):
        server.serve(key)
    resolve = tuple(f"keys.{n}.svc.cluster.local=127.0.0.1:{s.port}" for n, s in zip("ab", servers, strict=True))
    for _ in range(2):  # the second time from the disk
        made = fetcher(refresh=60, cache_dir=str(tmp_path / "sets"), resolve=resolve)
        a, b = (source_of(made, "http://keys/keys", namespace=namespace) for namespace in "ab")
        assert made.wait(60)
        assert [verifies(a, keys[0]), verifies(a, keys[1])] == [True, False]
        assert [verifies(b, keys[0]), verifies(b, keys[1])] == [False, True]
        made.close()
        for server in servers:
            server.status = 500


def test_a_private_service_entry_does_not_lead_the_rules_of_other_namespaces(fetcher, serve, source_of, verifies):
    good, evil = SigningKey.generate("ES256", "k"), SigningKey.generate("ES256", "k")
    theirs, ours = serve(), serve()
    theirs.serve(evil)
    ours.serve(good)
    resources = given(entry(theirs, "keys.example.com", "evil", export_to=(".",)))
    made = fetcher(refresh=60, resolve=(f"keys.example.com=127.0.0.1:{ours.port}",))
    attackers = source_of(made, "http://keys.example.com/keys", namespace="evil", resources=resources)
    victims = source_of(made, "http://keys.example.com/keys", namespace="shop", resources=resources)
    assert made.wait(60)
    assert verifies(attackers, evil)
    assert verifies(victims, good)
    assert not verifies(victims, evil)
    # Both have the same URL, which is one series of metrics.
    (figures,) = by_uri(made.states())
    assert (figures.keys, dict(figures.results)) == (2, {"success": 2})


def test_keys_stay_in_use_while_they_are_fetched_another_way(fetcher, serve, source_of, key, verifies, eventually):
    first, second, new = serve(), serve(), SigningKey.generate("ES256", "new")
    first.serve(key)
    second.status = 503
    made = fetcher()
    source_of(made, "http://keys.example/keys", resources=given(entry(first)))
    assert made.wait(60)
    made.retain()
    moved = source_of(made, "http://keys.example/keys", resources=given(entry(second)))
    assert verifies(moved, key)
    made.retain()
    assert len(made.states()) == 1
    second.serve(new)
    eventually(lambda: verifies(moved, new))


def test_an_abandoned_load_leaves_nothing_behind(fetcher, serve, source_of, key):
    server = serve()
    server.serve(key)
    made = fetcher(refresh=60)
    kept = source_of(made, server.url())
    made.retain()
    source_of(made, server.url())
    source_of(made, server.url("/typo"))
    made.discard()
    assert [state.uri for state in made.states()] == [server.url()]
    assert source_of(made, server.url()) is kept


def test_a_source_that_comes_back_is_fetched_anew(fetcher, serve, source_of, key, verifies, eventually):
    server = serve()
    server.serve(key)
    made = fetcher(refresh=60)
    source_of(made, server.url())
    made.retain()
    made.retain()
    assert made.states() == []
    again = source_of(made, server.url())
    eventually(lambda: verifies(again, key))


def test_tls_that_only_a_sidecar_has_is_never_tried(fetcher, serve, source_of):
    rule = DestinationRule(
        metadata=Metadata(name="default", namespace="istio-system"),
        host="*.local",
        tls=ClientTls(mode=TlsMode.ISTIO_MUTUAL),
    )
    made = fetcher()
    source = source_of(made, "http://keys/keys", resources=Resources(destination_rules=(rule,)))
    assert made.wait(60)
    (state,) = made.states()
    assert source.key_set is UNAVAILABLE
    assert "DestinationRule istio-system/default wants mode ISTIO_MUTUAL" in state.error
    assert (state.next_fetch, state.results) == (None, {"refused": 1})
    source.note_missing_key()
    time.sleep(0.1)
    assert made.states()[0].results == {"refused": 1}


# --- what is told ---


def test_changes_of_state_are_logged_once_and_attempts_are_not(fetcher, serve, source_of, key, eventually, caplog):
    caplog.set_level(logging.DEBUG, "extauthz")
    server = serve()
    server.serve(key)
    made = fetcher(refresh=0.05, refresh_min=0.05)
    source_of(made, server.url("/keys?token=secret", "me:pw@127.0.0.1"))

    def settle(condition):
        eventually(condition)
        before = len(server.requests)
        eventually(lambda: len(server.requests) > before + 3)

    settle(lambda: made.states()[0].available)
    server.status = 503
    settle(lambda: made.states()[0].failures)
    server.status = 404
    settle(lambda: "404" in made.states()[0].error)
    server.serve(key)
    settle(lambda: not made.states()[0].failures)
    new = SigningKey.generate("ES256", "evil\x1b[2J")
    server.serve(key, new, {"kty": "what"})
    settle(lambda: len(made.states()[0].key_ids) == 2)
    lines = [record.getMessage() for record in caplog.records]
    shown = f"key set http://127.0.0.1:{server.port}/keys?token=***: "
    assert [line.removeprefix(shown) for line in lines] == [
        "1 keys: k",
        "127.0.0.1 answered 503 Service Unavailable; the last good set stays in use",
        "127.0.0.1 answered 404 Not Found (nothing is at that path); the last good set stays in use",
        "1 keys: k",
        "2 keys: k, evil\\x1b[2J; 1 passed over",
    ]


def test_libraries_log_no_requests(fetcher, serve, source_of, key, caplog):
    caplog.set_level(logging.INFO)
    server = serve()
    server.serve(key)
    made = fetcher(refresh=60)
    source_of(made, server.url("/keys?token=secret", "me:pw@127.0.0.1"))
    assert made.wait(60)
    assert "secret" not in caplog.text
    assert "pw" not in caplog.text
    assert {record.name.partition(".")[0] for record in caplog.records} == {"extauthz"}


def test_a_bug_is_logged_with_its_stack_and_fetching_goes_on(
    fetcher, serve, source_of, key, verifies, eventually, caplog, monkeypatch
):
    server = serve()
    server.serve(key)
    made = fetcher()

    def broken(*arguments):
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("extauthz.authn.fetch.source.read_key_set", broken)
        source = source_of(made, server.url())
        eventually(lambda: made.states()[0].results.get("internal", 0) > 1)
        assert source.error == "internal error: ZeroDivisionError"
    eventually(lambda: verifies(source, key))
    assert "Traceback" in caplog.text


# --- on disk ---


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.chmod(0o666),
        lambda file: file.write_text("[]"),
        lambda file: file.write_text(json.dumps({"url": "x", "etag": "", "body": "{}"})),
        lambda file: (file.unlink(), file.symlink_to("/etc/passwd")),
        lambda file: (file.unlink(), file.mkdir()),
    ],
)
def test_files_that_others_could_have_made_are_not_used(
    fetcher, serve, source_of, key, tmp_path, spoil, caplog, kept_file
):
    server = serve()
    server.serve(key)
    first = fetcher(cache_dir=str(tmp_path / "sets"))
    source_of(first, server.url())
    assert first.wait(60)
    file = kept_file(tmp_path / "sets")
    first.close()
    assert (tmp_path / "sets").stat().st_mode & 0o777 == 0o700
    spoil(file)
    server.status = 503
    again = fetcher(cache_dir=str(tmp_path / "sets"))
    assert source_of(again, server.url()).key_set is UNAVAILABLE
    assert "what was kept on disk is of no use" in caplog.text


def test_a_set_on_disk_is_as_old_as_its_last_confirmation(
    fetcher, serve, source_of, key, verifies, tmp_path, kept_file
):
    server = serve()
    server.serve(key)
    first = fetcher(cache_dir=str(tmp_path / "sets"))
    source_of(first, server.url())
    assert first.wait(60)
    file = kept_file(tmp_path / "sets")
    first.close()
    server.status = 503
    confirmed = time.time() - 100
    os.utime(file, (confirmed, confirmed))
    young = fetcher(cache_dir=str(tmp_path / "sets"))
    assert verifies(source_of(young, server.url()), key)
    assert 100 <= young.states()[0].age <= time.time() - confirmed + 1
    old = fetcher(cache_dir=str(tmp_path / "sets"), max_stale=99)
    assert source_of(old, server.url()).key_set is UNAVAILABLE


def test_a_disk_that_is_full_or_gone_keeps_nobody_from_serving(
    fetcher, serve, source_of, key, verifies, tmp_path, caplog, eventually
):
    server = serve()
    server.serve(key)
    made = fetcher(cache_dir=str(tmp_path / "sets"))
    (tmp_path / "sets").rmdir()
    source = source_of(made, server.url())
    assert made.wait(60)
    assert verifies(source, key)
    eventually(lambda: "cannot be kept on disk" in caplog.text)


def test_a_directory_where_everybody_writes_is_refused(fetcher, tmp_path):
    from extauthz.errors import UsageError

    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(UsageError, match="everybody can write there"):
        fetcher(cache_dir=str(tmp_path / "open"))


def test_what_states_show_holds_no_keys(fetcher, serve, source_of, key):
    server = serve()
    server.body = json.dumps(key_set(key)).encode()
    made = fetcher(refresh=60)
    source_of(made, server.url())
    assert made.wait(60)
    assert key.jwk()["x"] not in repr(made.states())
