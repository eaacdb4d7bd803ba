"""What is sent: requests, tokens in their shares, popularity, and the bytes that come of it."""

from __future__ import annotations

import json
import struct
import time
from collections import Counter
from pathlib import Path

import jwt
import numpy as np
import pytest
from envoy_data_plane.envoy.config.core.v3 import Metadata
from envoy_data_plane.envoy.service.auth import v3 as envoy_service

from extauthz.errors import UsageError
from extauthz.loadtest import corpus
from extauthz.loadtest.corpus import (
    TokenPlace,
    combine,
    parse_headers,
    requests_from_file,
    single_request,
)
from extauthz.loadtest.drawing import Corpus
from extauthz.loadtest.outcomes import Protocol
from extauthz.loadtest.payloads import build_corpus
from extauthz.loadtest.tokens import (
    NO_TOKENS,
    Mint,
    TokenGroup,
    parse_algorithms,
    parse_claim,
    parse_mix,
    read_tokens,
)
from extauthz.mesh.verify.probe import Peer, Probe
from extauthz.minting import SigningKey
from extauthz.protos.external_auth_pb2 import CheckRequest

KEY = SigningKey.generate("ES256", "k")
BEARER = TokenPlace()


def test_a_mix_is_shares_that_add_up_to_one():
    assert parse_mix("good=90,expired=5,none=5") == {"good": 0.9, "expired": 0.05, "none": 0.05}
    assert parse_mix("bad") == {"bad": 1.0}
    assert parse_mix("good=1,none=0") == {"good": 1.0}
    assert parse_algorithms("RS256=3,ES256=1") == {"RS256": 0.75, "ES256": 0.25}


@pytest.mark.parametrize("text", ["", "nice", "good=x", "good=0", "good=-1,none=2", "good,,none"])
def test_other_mixes_are_refused(text):
    with pytest.raises(UsageError, match="--mix"):
        parse_mix(text)


def test_minted_tokens_are_what_the_mix_says():
    groups = Mint(30, [(KEY, 1.0)], {"iss": "me"}).groups(parse_mix("good=8,expired=1,none=1"))
    by_kind = {group.kind: group for group in groups}
    good = [jwt.decode(token, KEY.private.public_key(), ["ES256"]) for token in by_kind["good"].tokens]
    assert len({claims["sub"] for claims in good}) == 30
    assert {claims["iss"] for claims in good} == {"me"}
    assert by_kind["none"].tokens == ("",)
    assert len(by_kind["expired"].tokens) == 3
    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(by_kind["expired"].tokens[0], KEY.private.public_key(), ["ES256"])


def test_several_keys_sign_their_shares_all_along_the_ranks():
    other = SigningKey.generate("ES256", "other")
    group = Mint(40, [(KEY, 0.75), (other, 0.25)], {}).groups({"good": 1.0})[0]
    kids = [jwt.get_unverified_header(token)["kid"] for token in group.tokens]
    assert Counter(kids) == {"k": 30, "other": 10}
    assert Counter(kids[:8]) == {"k": 6, "other": 2}


def test_popularity_follows_zipf():
    weights = TokenGroup("good", 0.5, ("a", "b", "c", "d")).weights(1.0)
    assert weights == pytest.approx(0.5 * np.array([1, 1 / 2, 1 / 3, 1 / 4]) / (25 / 12))
    assert TokenGroup("good", 1.0, ("a", "b")).weights(0.0) == pytest.approx([0.5, 0.5])


def test_drawing_follows_the_weights_and_repeats_with_the_seed():
    found = Corpus((b"a", b"b", b"c"), np.array([0.7, 0.2, 0.1]))
    drawn = found.drawing((1,)).draw(100_000)
    assert np.bincount(drawn) / 100_000 == pytest.approx([0.7, 0.2, 0.1], abs=0.01)
    assert np.array_equal(found.drawing((1,)).draw(50), drawn[:50])
    assert not np.array_equal(found.drawing((2,)).draw(50), drawn[:50])


def test_tokens_come_from_a_file(tmp_path: Path):
    file = tmp_path / "tokens"
    file.write_text("# mine\na.b.c\n\n  d.e.f \n")
    groups = read_tokens(file, parse_mix("good=9,none=1"))
    assert [(group.kind, group.tokens) for group in groups] == [("good", ("a.b.c", "d.e.f")), ("none", ("",))]
    with pytest.raises(UsageError, match="can only be minted"):
        read_tokens(file, parse_mix("good=9,expired=1"))
    file.write_text("# none\n")
    with pytest.raises(UsageError, match="no token in it"):
        read_tokens(file, parse_mix("good"))
    with pytest.raises(UsageError, match="No such file"):
        read_tokens(tmp_path / "missing", parse_mix("good"))


def test_claims_are_json_or_text():
    assert parse_claim('groups=["a"]') == ("groups", ["a"])
    assert parse_claim("name=Ann Other") == ("name", "Ann Other")
    for text in ("x", "=y"):
        with pytest.raises(UsageError, match="--claim"):
            parse_claim(text)


def test_every_request_meets_every_token():
    probes = [Probe(target="/a"), Probe(target="/b", headers=(("Authorization", "old"), ("x", "y")))]
    groups = [TokenGroup("good", 0.8, ("t1", "t2")), TokenGroup("none", 0.2, ("",))]
    found = list(combine(probes, groups, BEARER, 0.0))
    assert sum(one.weight for one in found) == pytest.approx(1)
    assert Counter((one.probe.target, one.token_kind) for one in found) == {
        ("/a", "good"): 2, ("/b", "good"): 2, ("/a", "none"): 1, ("/b", "none"): 1,
    }  # fmt: skip
    with_token = next(one.probe for one in found if one.probe.target == "/b" and one.token_kind == "good")
    assert with_token.headers == (("x", "y"), ("authorization", "Bearer t1"))
    assert next(one.probe for one in found if one.token_kind == "none").headers == ()


def test_too_many_combinations_are_thinned_out_without_losing_a_token(monkeypatch):
    monkeypatch.setattr(corpus, "MOST_PAYLOADS", 20)
    probes = [Probe(target=f"/{number}") for number in range(7)]
    tokens = tuple(f"t{number}" for number in range(9))
    found = list(combine(probes, [TokenGroup("good", 1.0, tokens)], BEARER, 1.0))
    assert len(found) == 18
    assert sum(one.weight for one in found) == pytest.approx(1)
    assert {one.probe.headers[0][1] for one in found} == {f"Bearer {token}" for token in tokens}
    assert {one.probe.target for one in found} == {probe.target for probe in probes}


def test_tokens_can_have_another_place():
    assert TokenPlace.parse("X-Token").put(Probe(), "t").headers == (("x-token", "t"),)
    assert TokenPlace.parse("authorization: Token").put(Probe(), "t").headers == (("authorization", "Token t"),)
    for text in ("", ": x", "name:"):
        with pytest.raises(UsageError, match="--token-header"):
            TokenPlace.parse(text)


def test_one_request_is_described_by_options():
    headers = parse_headers(["Host: shop:80", "x-a:  b ", "x-utf: ä"])
    probe = single_request("POST", "/p?q", "default", headers)
    assert probe == Probe("POST", "/p?q", (("x-a", "b"), ("x-utf", "Ã¤")), "shop:80")
    assert single_request("GET", "/", "default", ()).host == "default"
    with pytest.raises(UsageError, match="--header"):
        parse_headers(["no colon"])


def test_requests_are_read_in_the_format_of_verify(tmp_path: Path):
    file = tmp_path / "requests.jsonl"
    lines = [
        {"target": "/a", "headers": [["x", "1"], ["x", "2"]]},
        {"method": "PUT", "host": "h", "source": "10.0.0.9"},
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    first, second = requests_from_file(file, [("y", "z")])
    assert first.headers == (("x", "1"), ("x", "2"), ("y", "z"))
    assert (second.method, second.host, second.source) == ("PUT", "h", "10.0.0.9")
    file.write_text("")
    with pytest.raises(UsageError, match="no request in it"):
        requests_from_file(file, ())


def payload(probe: Probe, protocol: Protocol) -> bytes:
    return build_corpus(combine([probe], NO_TOKENS, BEARER, 0.0), protocol).payloads[0]


def test_check_requests_are_built_as_envoy_builds_them():
    peer = Peer(uris=("spiffe://td/ns/a/sa/b",))
    probe = Probe("GET", "/a/../b", (("X-A", "1"),), "shop", source="10.1.2.3", peer=peer, server_name="sni.example")
    attributes = CheckRequest.FromString(payload(probe, Protocol.CHECK)).attributes
    http = attributes.request.http
    assert (http.method, http.path, http.host, http.scheme) == ("GET", "/b", "shop", "https")
    lines = {entry.key: entry.raw_value for entry in http.header_map.headers}
    assert lines["x-a"] == b"1"
    assert len(lines["x-request-id"]) == 36
    assert attributes.source.address.socket_address.address == "10.1.2.3"
    assert attributes.source.principal == "spiffe://td/ns/a/sa/b"
    assert "BEGIN%20CERTIFICATE" in attributes.source.certificate
    assert attributes.tls_session.sni == "sni.example"


def test_check_requests_hold_what_envoy_sends_besides():
    full = envoy_service.CheckRequest.parse(payload(Probe(), Protocol.CHECK)).attributes
    assert full.request.http.protocol == "HTTP/1.1"
    assert full.request.http.id.isdigit()
    assert abs(full.request.time.timestamp() - time.time()) < 60
    assert (full.metadata_context, full.route_metadata_context) == (Metadata(), Metadata())


def test_a_request_that_envoy_refuses_itself_is_refused():
    with pytest.raises(UsageError, match="Envoy answers it 400"):
        payload(Probe(target="no-slash"), Protocol.CHECK)


def test_http_requests_are_written_as_they_are_sent():
    probe = Probe("POST", "/p", (("X-A", "1"), ("connection", "keep-alive")), "shop", "body")
    assert payload(probe, Protocol.HTTP1) == (
        b"POST /p HTTP/1.1\r\nhost: shop\r\nX-A: 1\r\nconnection: keep-alive\r\ncontent-length: 4\r\n\r\nbody"
    )
    packed = payload(probe, Protocol.H2C)
    assert struct.unpack_from("=I", packed) == (5,)
    assert packed.endswith(b"\x03\0\0\0\x01\0\0\0x-a1body")
