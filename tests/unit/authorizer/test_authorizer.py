"""Policies and keys to decisions, through the public `Authorizer`."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.authorizer import PAYLOAD_METADATA_KEY, Authorizer, AuthorizerOptions
from extauthz.broken_tokens import broken_token
from extauthz.checkapi.build import check_request
from extauthz.checkapi.read import read_check_request
from extauthz.checkapi.write import write_decision
from extauthz.errors import MalformedCheckRequest, PolicyError
from extauthz.istio.resources import (
    Action,
    AuthorizationPolicy,
    ClaimToHeader,
    JwtRule,
    Metadata,
    Operation,
    RequestAuthentication,
    Resources,
    Rule,
    Source,
)
from extauthz.istio.workload import Workload
from extauthz.minting import SigningKey, key_set
from extauthz.protos.external_auth_pb2 import CheckRequest, CheckResponse

KEY = SigningKey.generate("ES256", "k")
ISSUER = "https://issuer.example"
CLAIMS = {"iss": ISSUER, "sub": "u", "groups": ["a"], "n": 1}
TOKEN = KEY.token(CLAIMS)
BAD_TOKEN = broken_token("signature", KEY, CLAIMS)


def authentication(**members) -> RequestAuthentication:
    rule = JwtRule(**{"issuer": ISSUER, "jwks": json.dumps(key_set(KEY)), **members})
    return RequestAuthentication(metadata=Metadata(name="jwt", namespace="shop"), jwt_rules=(rule,))


def policy(action: Action, *rules: Rule, name: str = "p") -> AuthorizationPolicy:
    return AuthorizationPolicy(metadata=Metadata(name=name, namespace="shop"), action=action, rules=rules)


EXCLUDE = policy(
    Action.DENY,
    Rule(sources=(Source(not_request_principals=("*",)),), operations=(Operation(not_paths=("/productpage",)),)),
)


def authorizer(*policies: AuthorizationPolicy, options: AuthorizerOptions | None = None, **rule) -> Authorizer:
    return Authorizer(Resources((authentication(**rule),), policies), options)


def answer(subject: Authorizer, path: str = "/x", token: str = "", headers=(), method: str = "GET") -> CheckResponse:
    lines = [*headers, *([("authorization", f"Bearer {token}")] if token else [])]
    message = check_request(method, path, lines, host="h")
    assert message is not None
    written = subject.check(message)
    logged, request, decision = subject.check_logged(message)
    assert CheckResponse.FromString(logged) == CheckResponse.FromString(written)
    assert request is not None
    assert decision.allowed == (CheckResponse.FromString(written).status.code == 0)
    return CheckResponse.FromString(written)


def status(response: CheckResponse) -> int:
    return 200 if response.WhichOneof("http_response") == "ok_response" else response.denied_response.status.code


@pytest.mark.parametrize(
    ("token", "path", "expected"),
    [
        ("", "/productpage", 200),
        ("", "/api/v1/products/0", 403),
        (TOKEN, "/productpage", 200),
        (TOKEN, "/api/v1/products/0", 200),
        (BAD_TOKEN, "/productpage", 401),
        (BAD_TOKEN, "/api/v1/products/0", 401),
    ],
)
def test_the_story_is_decided(token, path, expected):
    subject = authorizer(EXCLUDE)
    for _ in range(2):
        assert status(answer(subject, path, token)) == expected


def test_authentication_alone_lets_a_request_without_token_pass():
    assert status(answer(authorizer())) == 200
    assert status(answer(authorizer(), token="bad")) == 401


def test_a_denial_tells_status_body_and_reason():
    response = answer(authorizer(EXCLUDE))
    assert response.status.code == 7
    assert response.denied_response.body == "RBAC: access denied"
    assert response.status.message == "rbac_access_denied_matched_policy[ns[shop]-policy[p]-rule[0]]"
    response = answer(authorizer(), token="bad")
    assert response.status.code == 16
    assert "www-authenticate" in [option.header.key for option in response.denied_response.headers]


def test_a_verified_token_is_stripped_and_its_payload_is_metadata():
    response = answer(authorizer(), token=TOKEN)
    assert list(response.ok_response.headers_to_remove) == ["authorization"]
    assert dict(response.dynamic_metadata[PAYLOAD_METADATA_KEY])["sub"] == "u"
    response = answer(authorizer(forward_original_token=True), token=TOKEN)
    assert not response.ok_response.headers_to_remove


def test_policies_see_the_request_as_authentication_left_it():
    subject = authorizer(
        policy(Action.ALLOW, Rule(operations=(Operation(paths=("/x",)),))),
        output_claim_to_headers=(ClaimToHeader(header="x-sub", claim="sub"),),
    )
    response = answer(subject, "/x?access_token=" + TOKEN + "&a=1", headers=[("x-sub", "spoofed")])
    assert {option.header.key: option.header.value for option in response.ok_response.headers} == {
        "x-sub": "u",
        ":path": "/x?a=1",
    }


def test_only_policies_of_the_workload_apply():
    options = AuthorizerOptions(workload=Workload.parse("elsewhere/app=web"))
    assert status(answer(authorizer(EXCLUDE, options=options))) == 200


def test_bad_inline_keys_are_a_load_error_with_field():
    with pytest.raises(PolicyError) as raised:
        authorizer(jwks='{"keys":[]}')
    assert "spec.jwtRules[0].jwks" in str(raised.value)


def test_a_rule_with_remote_keys_and_no_fetcher_refuses_its_tokens():
    subject = authorizer(jwks="", jwks_uri="https://issuer.example/keys")
    assert status(answer(subject)) == 200
    response = answer(subject, token=TOKEN)
    assert response.denied_response.body == "Jwt verification fails"


def test_a_call_about_no_http_request_is_denied():
    for message in (b"", CheckRequest().SerializeToString()):
        assert status(CheckResponse.FromString(authorizer().check(message))) == 403


@given(st.binary(max_size=300))
def test_garbage_is_refused_and_never_allowed(message):
    try:
        response = CheckResponse.FromString(SUBJECT.check(message))
    except MalformedCheckRequest:
        return
    assert status(response) != 200 or read_check_request(message).method


SUBJECT = authorizer(EXCLUDE)


def test_a_megabyte_of_headers_is_decided():
    headers = [(f"x-{i}", "v" * 1000) for i in range(1000)]
    assert status(answer(authorizer(EXCLUDE), "/productpage", headers=headers)) == 200
    assert status(answer(authorizer(EXCLUDE), "/x", headers=headers)) == 403


def test_reasons_are_counted():
    subject = authorizer(EXCLUDE)
    message = check_request("GET", "/productpage")
    assert message is not None
    subject.check(message)
    subject.check(message)
    assert subject.reasons == {"allowed": 2}


def test_decide_and_check_give_the_same_answer():
    subject = authorizer(EXCLUDE)
    for token in ("", TOKEN, BAD_TOKEN):
        for path in ("/productpage", "/x?access_token=" + TOKEN):
            message = check_request("GET", path, [("authorization", f"Bearer {token}")] if token else [])
            assert message is not None
            decision = subject.decide(read_check_request(message), time.time())
            assert CheckResponse.FromString(write_decision(decision)) == CheckResponse.FromString(
                subject.check(message)
            )


@pytest.mark.parametrize("path", ["/productpage", "/api/v1/products/0"])
@pytest.mark.parametrize("token", ["", TOKEN, BAD_TOKEN])
@pytest.mark.parametrize("checked_before", [False, True])
def test_a_logged_answer_is_the_plain_one_with_its_decision(path, token, checked_before):
    subject = authorizer(EXCLUDE, output_claim_to_headers=(ClaimToHeader(header="x-sub", claim="sub"),))
    message = check_request("GET", path, [("authorization", f"Bearer {token}")] if token else [], host="h")
    assert message is not None
    if checked_before:
        subject.check(message)
    expected = subject.decide(read_check_request(message), time.time())
    for _ in range(2):
        written, request, decision = subject.check_logged(message)
        assert decision == expected
        assert request is not None
        assert request.path == path
        assert written == write_decision(expected) == subject.check(message)
    assert sum(subject.reasons.values()) == subject.reasons[expected.reason] == 4 + checked_before


@pytest.mark.parametrize("raw_headers", [False, True])
def test_a_refusal_names_the_path_before_it_was_rewritten(raw_headers):
    headers = [("authorization", "Bearer bad"), ("x-envoy-original-path", "/before?q")]
    message = check_request("GET", "/after", headers, host="h", raw_headers=raw_headers)
    assert message is not None
    challenge = CheckResponse.FromString(authorizer().check(message)).denied_response.headers[0].header
    assert challenge.value == 'Bearer realm="http://h/before?q", error="invalid_token"'


def test_a_logged_call_about_something_else_than_http_is_denied():
    written, request, decision = authorizer().check_logged(b"")
    assert request is None
    assert decision.reason == "not_an_http_request"
    assert CheckResponse.FromString(written).status.code == 7
