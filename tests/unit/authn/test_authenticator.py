import pytest

from extauthz.authn.answers import refuse
from extauthz.authn.explain import explain
from extauthz.authn.limits import CacheLimits
from extauthz.authn.statuses import Refusal, Status
from extauthz.istio.resources import ClaimToHeader, JwtHeader
from extauthz.minting import SigningKey
from extauthz.request import Request

NOW = 1_000_000.0


def request(token="", path="/p", method="GET", **headers):
    lines = {name.replace("_", "-"): [value] for name, value in headers.items()}
    if token:
        lines["authorization"] = [f"Bearer {token}"]
    return Request(method=method, path=path, host="h", headers=lines)


def status(authentication):
    return authentication.refusal.status_text if authentication.refusal is not None else None


def changes(authentication):
    return {name: list(lines) for name, lines in authentication.changes.headers.items()}


def test_a_remembered_result_is_the_same_object(authenticator, key):
    subject = authenticator()
    token = key.token({"iss": "i", "sub": "s"})
    first = subject.authenticate(request(token), NOW)
    assert subject.authenticate(request(token), NOW) is first
    assert (subject.statistics.hits, subject.statistics.misses, subject.statistics.entries) == (1, 1, 1)
    assert first.identity.claims == {"iss": "i", "sub": "s"}
    assert changes(first) == {"authorization": []}


def test_without_a_token_there_is_nobody_and_nothing_changes(authenticator):
    nobody = authenticator().authenticate(request(), NOW)
    assert status(nobody) is None
    assert nobody.identity.claims == {}
    assert not nobody.changes


EDGES = (-120, -61, -60, -59, -1, 0, 1, 59, 60, 61, 62, 120)


@pytest.mark.parametrize(
    "rules", [({},), ({}, {"issuer": "j"}), ({"from_cookies": ("c",), "from_headers": (JwtHeader(name="x"),)},)]
)
def test_a_remembered_answer_is_the_answer_at_every_instant(authenticator, key, rules):
    token = key.token({"iss": "i", "nbf": NOW, "exp": NOW + 1000})
    asked = request(token, x=token)
    remembering = authenticator(*rules)
    times = sorted({NOW + edge for edge in EDGES} | {NOW + 1000 + edge for edge in EDGES})
    for now in (*times, *reversed(times)):
        for _ in range(2):
            fresh = authenticator(*rules).authenticate(asked, now)
            known = remembering.authenticate(asked, now)
            assert status(known) == status(fresh), now
            assert known.identity.claims == fresh.identity.claims
    assert remembering.statistics.hits > 0


def test_a_change_of_keys_is_seen_at_once_and_back_again(authenticator, key, changing_keys):
    other = SigningKey.generate("ES256", "k")
    source = changing_keys(key)
    subject = authenticator({"source": source})
    old, new = (signer.token({"iss": "i"}) for signer in (key, other))
    for signer, good, bad in ((key, old, new), (other, new, old), (key, old, new)):
        source.change(signer)
        for _ in range(3):
            assert status(subject.authenticate(request(good), NOW)) is None
            assert status(subject.authenticate(request(bad), NOW)) == Status.VERIFICATION_FAILS


def test_a_change_of_any_rules_keys_drops_what_rests_on_them(authenticator, key, changing_keys):
    first, second = changing_keys(key), changing_keys(SigningKey.generate("ES256", "k"))
    subject = authenticator({"source": first}, {"source": second})
    token = key.token({"iss": "i"})
    second_only = SigningKey.generate("ES256", "k")
    assert status(subject.authenticate(request(token), NOW)) is None
    first.change(second_only)
    assert status(subject.authenticate(request(token), NOW)) == Status.VERIFICATION_FAILS
    second.change(key)
    assert status(subject.authenticate(request(token), NOW)) is None


def test_a_token_in_the_query_is_found_however_its_name_is_written(authenticator, key):
    token = key.token({"iss": "i"})
    subject = authenticator()
    for path in (f"/p?access_token={token}", f"/p?access%5Ftoken={token}", f"/p?a=1&access_token={token}"):
        found = subject.authenticate(request(path=path), NOW)
        assert found.identity.claims == {"iss": "i"}
        assert found.changes.path == ("/p?a=1" if "a=1" in path else "/p")
    assert status(subject.authenticate(request(token, path="/p?access_token=bad"), NOW)) == Status.FORM


def test_the_caches_are_bounded_in_entries_and_bytes(authenticator, key):
    limits = CacheLimits(verified_entries=10, verified_bytes=10_000, refused_entries=5, refused_bytes=100_000)
    subject = authenticator(limits=limits)
    for number in range(100):
        subject.authenticate(request(key.token({"iss": "i", "n": number})), NOW)
        subject.authenticate(request(f"bad{number}"), NOW)
    assert subject.statistics.entries <= 15
    assert subject.statistics.bytes <= 110_000
    assert subject.statistics.evictions >= 180
    token = key.token({"iss": "i", "n": 99})
    subject.authenticate(request(token), NOW)
    misses = subject.statistics.misses
    assert subject.authenticate(request(token), NOW).refusal is None
    assert subject.statistics.misses == misses


def test_outputs_replace_what_a_client_sent(authenticator, key):
    outputs = (ClaimToHeader(header="X-Sub", claim="sub"), ClaimToHeader(header="x-none", claim="none"))
    subject = authenticator({"output_claim_to_headers": outputs, "output_payload_to_header": "x-pay"})
    token = key.token({"iss": "i", "sub": "s"})
    for _ in range(2):
        found = subject.authenticate(request(token, x_sub="spoof", x_none="spoof"), NOW)
        assert changes(found) == {"x-sub": ["s"], "x-none": [], "x-pay": [token.split(".")[1]], "authorization": []}
    assert changes(subject.authenticate(request(x_sub="spoof"), NOW)) == {"x-sub": [], "x-none": [], "x-pay": []}
    preflight = request(token, method="OPTIONS", origin="o", access_control_request_method="PUT", x_sub="spoof")
    found = subject.authenticate(preflight, NOW)
    assert found.identity.claims == {}
    assert changes(found) == {"x-sub": [], "x-none": [], "x-pay": []}


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (("form", "expired"), Status.FORM),
        (("expired", "form"), Status.EXPIRED),
        (("unknown", "form"), Status.FORM),
        (("form", "unknown"), Status.FORM),
        (("unknown", "unknown"), Status.ISSUER_UNKNOWN),
        ((None, "form"), Status.FORM),
        (("good", "form"), None),
        (("form", "good"), None),
        ((None, None), None),
    ],
)
def test_which_failure_answers(authenticator, key, tokens, expected):
    made = {
        "form": "a.b",
        "expired": key.token({"iss": "i", "exp": 1}),
        "unknown": key.token({"iss": "nobody"}),
        "good": key.token({"iss": "i"}),
    }
    headers = {name: made[kind] for name, kind in zip(("x_a", "x_b"), tokens, strict=True) if kind}
    subject = authenticator({"from_headers": (JwtHeader(name="x-a"),)}, {"from_headers": (JwtHeader(name="x-b"),)})
    for _ in range(2):
        assert status(subject.authenticate(request(**headers), NOW)) == expected


def test_the_earlier_algorithms_are_rsa_only(authenticator, key, changing_keys):
    rsa = SigningKey.generate("RS256", "r")
    subject = authenticator({"source": changing_keys(key, rsa)}, algorithms="rsa")
    assert status(subject.authenticate(request(rsa.token({"iss": "i"})), NOW)) is None
    assert (
        status(subject.authenticate(request(rsa.token({"iss": "i"}, algorithm="PS256")), NOW))
        == Status.ALGORITHM_UNSUPPORTED
    )
    assert status(subject.authenticate(request(key.token({"iss": "i"})), NOW)) == Status.ALGORITHM_UNSUPPORTED


def test_a_token_with_an_unknown_key_id_asks_for_newer_keys_each_time(authenticator, key, changing_keys):
    class Refreshable(changing_keys):
        noted = 0

        def note_missing_key(self):
            self.noted += 1

    source = Refreshable(key)
    subject = authenticator({"source": source})
    token = key.token({"iss": "i"}, header={"kid": "new"})
    for _ in range(2):
        assert status(subject.authenticate(request(token), NOW)) == Status.NO_MATCHING_KEY
    assert source.noted == 2


def test_a_refusal_names_the_realm(authenticator):
    refusal = Refusal.of(Status.EXPIRED)
    decision = refuse(Request(method="GET", path="/" + "p" * 300, host="h:8", scheme="https", headers={}), refusal)
    assert decision.response_headers[0][1].startswith('Bearer realm="http')
    assert decision.reason == "jwt_authn_access_denied{Jwt_is_expired}"
    assert refuse(request(), Refusal.of(Status.AUDIENCE_NOT_ALLOWED)).status == 403


def test_an_explanation_walks_the_checks_to_the_first_failure(authenticator, key):
    subject = authenticator({"audiences": ("a",)})
    found = explain(subject, request(key.token({"iss": "i", "aud": "b"})), NOW)
    (token,) = found.tokens
    assert [(check.name, check.passed) for check in token.checks] == [
        ("form", True),
        ("header", True),
        ("payload", True),
        ("signature encoding", True),
        ("issuer", True),
        ("times", True),
        ("audience", False),
    ]
    assert "['a']" in token.checks[-1].detail
    assert status(found.authentication) == status(
        subject.authenticate(request(key.token({"iss": "i", "aud": "b"})), NOW)
    )
    assert found.rules[0].places == ("header authorization after 'Bearer '", "parameter access_token")


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"forward_original_token": True},
        {"from_headers": (JwtHeader(name="X-Token"),)},
        {"from_headers": (JwtHeader(name="Authorization", prefix="Token "),)},
        {"audiences": ("a",)},
        {"space_delimited_claims": ("roles",)},
        {"output_claim_to_headers": (ClaimToHeader(header="x-sub", claim="sub"),)},
    ],
)
def test_the_usual_case_is_what_the_walk_makes_of_it(authenticator, key, rule):
    good = key.token({"iss": "i", "sub": "s", "aud": "a", "roles": "x y", "scope": "r w"})
    lines = [
        *(f"{prefix} {good}" for prefix in ("Bearer", "bearer", "Token", "Basic", "x Bearer", "")),
        *("Bearer", "Bearer ", "Bearer bad", f"Bearer {good[:-6]}AAAAAA", f"Bearer .{good}", f"Bearer {good} x"),
        *(f"Bearer {key.token(claims)}" for claims in ({"iss": "j"}, {"iss": "i", "exp": 1}, {"iss": "i", "nbf": 1e9})),
    ]
    subject = authenticator(rule)
    for line in (*lines, *lines):
        asked = request(authorization=line, x_token=line.removeprefix("Bearer "))
        seen, expected = subject.authenticate(asked, NOW), authenticator(rule).work_out(asked, NOW)
        assert (status(seen), changes(seen)) == (status(expected), changes(expected)), line
        assert seen.identity.claims == expected.identity.claims
        assert seen.changes == expected.changes


def test_only_header_sections_of_verified_tokens_are_remembered_and_few_of_them(authenticator, key):
    subject = authenticator()
    (provider,) = subject.providers
    bad = key.token({"iss": "i"})[:-6] + "AAAAAA"
    assert status(subject.authenticate(request(bad), NOW)) == Status.VERIFICATION_FAILS
    assert not provider.known_headers
    for number in range(200):
        token = key.token({"iss": "i"}, header={"n": number})
        assert status(subject.authenticate(request(token), NOW)) is None
        assert 0 < len(provider.known_headers) <= 64
    long = key.token({"iss": "i"}, header={"n": "n" * 2000})
    known = dict(provider.known_headers)
    assert status(subject.authenticate(request(long), NOW)) is None
    assert provider.known_headers == known


def test_a_remembered_header_section_is_still_held_against_key_id_and_algorithm(authenticator, key, changing_keys):
    source = changing_keys(key)
    subject = authenticator({"source": source})
    assert status(subject.authenticate(request(key.token({"iss": "i", "sub": "1"})), NOW)) is None
    source.change(SigningKey.generate("ES256", "other"))
    assert status(subject.authenticate(request(key.token({"iss": "i", "sub": "2"})), NOW)) == Status.NO_MATCHING_KEY
