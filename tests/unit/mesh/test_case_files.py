"""Case files: what people may write in them, and what is said when they write something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from extauthz.errors import UsageError
from extauthz.mesh.verify.casefile import Case, read_case_file, read_requests
from extauthz.mesh.verify.expectation import Expectation, expected_of
from extauthz.mesh.verify.outcome import Outcome, Upstream
from extauthz.mesh.verify.probe import Peer, Probe
from extauthz.mesh.verify.vocabulary import Vocabulary


def write(tmp_path: Path, text: str, name: str = "cases.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_document_is_a_set_of_cases(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
title: one
options: {trust-domain: td1}
policies: |
  kind: X
requests:
- {target: /a, expect: 200}
- {name: b, method: POST, target: /b, headers: {x-a: "1", x-b: [2, 3]}, body: hi, source: 127.0.0.2, port: 80}
""",
    )
    (one,) = read_case_file(path)
    assert (one.title, one.policies, one.options) == ("one", "kind: X\n", {"trust-domain": "td1"})
    assert one.cases[0] == Case(Probe(target="/a", name="/a"), Expectation(status=200))
    assert one.cases[1].probe == Probe(
        method="POST",
        target="/b",
        headers=(("x-a", "1"), ("x-b", "2"), ("x-b", "3")),
        body="hi",
        source="127.0.0.2",
        port=80,
        name="b",
    )
    assert one.cases[1].expectation is None


def test_columns_are_sets_of_their_own(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
title: t
columns: [{v: a}, {v: b}]
policies: "value: ${v}"
requests: [{target: "/${v}", expect: [200, 403]}]
""",
    )
    first, second = read_case_file(path)
    assert (first.title, first.policies) == ("t (a)", "value: a")
    assert (second.cases[0].probe.target, second.cases[0].expectation) == ("/b", Expectation(status=403))


def test_a_document_has_its_policies_from_the_one_before(tmp_path: Path) -> None:
    path = write(tmp_path, "title: a\npolicies: x\nrequests: []\n---\ntitle: b\nrequests: []\n")
    assert [one.policies for one in read_case_file(path)] == ["x", "x"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("- a list", "write a mapping"),
        ("title: x\npolicies: y\nrequsts: []", "unknown member requsts"),
        ("requests: []", "policies: write the resources as one text"),
        ("policies: ${nothing}", "no token or variable of that name"),
        ("policies: ${jwks:nobody}", "no key 'nobody'"),
        ("policies: x\nrequests: [{target: /, expect: maybe}]", "write a status"),
        ("policies: x\nrequests: [{target: /, expect: {stauts: 200}}]", "write a status"),
        ("policies: x\nrequests: [{target: /, headers: {a: é\u0142}}]", "write bytes above 7F"),
        ("policies: x\ncolumns: [{a: 1}, {a: 2}]\nrequests: [{target: /, expect: [200]}]", "one is needed for each"),
        ("policies: x\nrequests: [{target: /, peer: {uri: x}}]", "unknown member uri"),
        ("keys: {k: XX256}\npolicies: x", "unknown algorithm"),
        ("keys: {k: HS256}\ntokens: {t: {borken: x}}\npolicies: ${t}", "unknown member borken"),
        ("keys: {k: HS256}\ntokens: {t: {broken: x}}\npolicies: ${t}", "unknown kind 'x'"),
        ("policies: [", "while parsing"),
    ],
)
def test_mistakes_are_told_with_file_and_place(tmp_path: Path, text: str, reason: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError, match=reason) as raised:
        read_case_file(path)
    assert str(path) in str(raised.value)


def test_json_lines_are_requests_alone(tmp_path: Path) -> None:
    lines = [
        {"target": "/a", "headers": [["x", "${literal}"]], "expect": {"status": 403}},
        {"method": "HEAD", "target": "/", "peer": {"uris": ["spiffe://a"], "dns": ["b"]}, "server-name": "c"},
    ]
    path = write(tmp_path, "\n".join(map(json.dumps, lines)) + "\n\n", "requests.jsonl")
    first, second = read_requests(path)
    assert first.probe.headers == (("x", "${literal}"),)
    assert first.expectation == Expectation(status=403)
    assert second.probe.peer == Peer(uris=("spiffe://a",), dns_names=("b",))
    assert second.probe.tls


@pytest.mark.parametrize("line", ["{", "[]", '{"target": "/", "headrs": []}', '{"target": "/", "expect": "x"}'])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, '{"target": "/"}\n' + line, "requests.jsonl")
    with pytest.raises(UsageError, match=r"requests\.jsonl:2: "):
        read_requests(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    for read in (read_case_file, read_requests):
        with pytest.raises(UsageError, match="No such file"):
            read(tmp_path / "none")


def vocabulary() -> Vocabulary:
    return Vocabulary(
        {
            "keys": {"k": {"alg": "HS256", "kid": "id"}},
            "keysets": {"odd": [{"from": "k", "alg": None, "use": "enc"}, 5], "text": "junk"},
            "claims": {"iss": "a", "sub": "u"},
            "tokens": {
                "good": {"claims": {"exp": "${now+60}"}, "without": ["sub"]},
                "cut": "${good.header}.${good.payload}",
                "raw": {"payload": "{}"},
            },
        },
        now=1000.0,
    )


def test_a_token_is_the_same_each_time() -> None:
    words = vocabulary()
    assert words.fill("Bearer ${good}") == f"Bearer {words.token('good')}"
    assert words.fill("${cut}") == words.token("good").rpartition(".")[0]


def test_times_are_relative_to_now() -> None:
    assert vocabulary().fill("${now} ${now-1000}") == "1000 0"


def test_key_sets_are_quoted_texts() -> None:
    words = vocabulary()
    assert json.loads(json.loads(words.fill("${jwks:k}")))["keys"][0]["kid"] == "id"
    odd = json.loads(json.loads(words.fill("${keyset:odd}")))["keys"]
    assert "alg" not in odd[0]
    assert odd[0]["use"] == "enc"
    assert odd[1] == 5
    assert words.fill("${keyset:text}") == '"junk"'


def test_a_dollar_sign_can_be_written() -> None:
    assert vocabulary().fill("${$}{x}") == "${x}"


def test_an_expectation_tells_each_thing_that_is_not_so() -> None:
    outcome = Outcome(401, "no", "text/plain", ("Bearer",), details="why")
    assert list(Expectation(401, "no", "Bearer", reason="why").failures(outcome)) == []
    assert list(Expectation(200, "yes", path="/").failures(outcome)) == [
        "status: 401, expected 200",
        "body: 'no', expected 'yes'",
        "the request did not reach the upstream",
    ]


def test_headers_at_the_upstream_are_compared_joined_and_null_is_absent() -> None:
    outcome = Outcome(200, upstream=Upstream("GET", "/", {"a": ("1", "2")}))
    assert list(Expectation(headers={"a": "1,2", "b": None}).failures(outcome)) == []
    assert list(Expectation(headers={"a": None, "b": "x"}).failures(outcome)) == [
        "header a at the upstream: '1,2', expected absent",
        "header b at the upstream: absent, expected 'x'",
    ]


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(200, upstream=Upstream("GET", "/a?b", {"x": ("1",), "y": ("",)})),
        Outcome(401, "no", "text/plain", ("Bearer",), details="why"),
        Outcome(200, grpc_status="7", grpc_message="no"),
    ],
)
def test_what_was_seen_can_be_expected(outcome: Outcome) -> None:
    written = expected_of(outcome).write()
    assert list(Expectation.read(written).failures(outcome)) == []
