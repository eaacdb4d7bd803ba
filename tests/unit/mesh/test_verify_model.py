"""The model of Envoy's ext_authz filter, outcomes and their comparison, known limits, shrinking."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from extauthz.authorizer import AuthorizerOptions
from extauthz.istio.resources import Resources
from extauthz.mesh.verify import limits
from extauthz.mesh.verify.engine import Comparison, PolicySet
from extauthz.mesh.verify.ext_authz import effect
from extauthz.mesh.verify.harness import Observation
from extauthz.mesh.verify.http1 import Head, Response
from extauthz.mesh.verify.limits import settle
from extauthz.mesh.verify.outcome import CLOSED, Difference, Outcome, Upstream, differences, observed
from extauthz.mesh.verify.probe import Probe
from extauthz.mesh.verify.shrink import shrink
from extauthz.protos.external_auth_pb2 import CheckRequest, CheckResponse

NOTHING = PolicySet("", Resources(), AuthorizerOptions())


def check(*lines: tuple[str, str], method: str = "GET", path: str = "/p?q") -> CheckRequest:
    message = CheckRequest()
    headers = message.attributes.request.http.header_map.headers
    for name, value in ((":authority", "h"), (":path", path), (":method", method), (":scheme", "http"), *lines):
        headers.add(key=name, raw_value=value.encode("latin-1"))
    return message


def ok(*headers: tuple[str, str], remove: tuple[str, ...] = (), append: bool = False) -> CheckResponse:
    response = CheckResponse()
    response.ok_response.headers_to_remove.extend(remove)
    for name, value in headers:
        option = response.ok_response.headers.add()
        option.header.key, option.header.value = name, value
        option.append.value = append
    return response


def denied(status: int, body: str, *headers: tuple[str, str]) -> CheckResponse:
    response = CheckResponse()
    response.status.code = 7
    response.denied_response.status.code = status
    response.denied_response.body = body
    for name, value in headers:
        option = response.denied_response.headers.add()
        option.header.key, option.header.value = name, value
    return response


def upstream(outcome: Outcome) -> Upstream:
    assert outcome.upstream is not None
    return outcome.upstream


def test_an_empty_answer_changes_nothing() -> None:
    seen = upstream(effect(check(("x-a", "1"), ("x-a", "2")), ok()))
    assert (seen.method, seen.path) == ("GET", "/p?q")
    assert seen.headers == {"x-a": ("1", "2"), "host": ("h",)}


def test_setting_a_header_replaces_all_its_lines() -> None:
    assert upstream(effect(check(("x-a", "1"), ("x-a", "2")), ok(("x-a", "3")))).header("x-a") == "3"


def test_removals_come_after_additions() -> None:
    assert upstream(effect(check(), ok(("x-a", "3"), remove=("x-a",)))).header("x-a") is None


def test_path_and_host_can_be_replaced_and_not_removed() -> None:
    seen = upstream(effect(check(), ok((":path", "/other"), ("host", "x"), remove=("host", ":path"))))
    assert (seen.path, seen.header("host")) == ("/other", "x")


def test_appending_joins_the_first_line_and_adds_none() -> None:
    assert upstream(effect(check(("x-a", "1"), ("x-a", "2")), ok(("x-a", "3"), append=True))).headers["x-a"] == (
        "1,3",
        "2",
    )
    assert upstream(effect(check(), ok(("x-a", "3"), append=True))).header("x-a") is None


def test_a_header_with_a_line_feed_is_refused_by_the_codec() -> None:
    outcome = effect(check(), ok(("x-a", "a\nb")))
    assert (outcome.status, outcome.body) == (503, "invalid header value for: x-a")


def test_too_many_header_bytes_at_any_moment_are_refused() -> None:
    long = check(("x-a", "a" * 50_000))
    assert effect(long, ok(("x-b", "b" * 20_000), remove=("x-a",))).status == 500
    assert effect(long, ok(("x-a", ""), ("x-b", "b" * 20_000), remove=("x-a",))).status == 200
    assert effect(check(), ok(*((f"x-{index}", "") for index in range(100)))).status == 500


def test_a_denial_is_given_as_it_is() -> None:
    outcome = effect(check(), denied(401, "no", ("www-authenticate", "a"), ("www-authenticate", "b")))
    assert outcome == Outcome(401, "no", "text/plain", ("a", "b"))


def test_a_denial_without_status_is_a_403() -> None:
    assert effect(check(), denied(0, "no")).status == 403


def test_a_grpc_request_is_denied_in_its_own_way() -> None:
    outcome = effect(
        check(("content-type", "application/grpc")), denied(401, "n\u00f6 100%", ("www-authenticate", "a"))
    )
    assert outcome == Outcome(
        200,
        content_type="application/grpc",
        www_authenticate=("a",),
        grpc_status="16",
        grpc_message="n%C3%B6 100%25",
    )


def test_head_has_no_body() -> None:
    assert effect(check(method="HEAD"), denied(403, "no")).body == ""


def head(*headers: tuple[str, str], start: tuple[str, str, str] = ("HTTP/1.1", "200", "OK")) -> Head:
    return Head(start, headers)


def test_an_observation_is_read_from_the_answers_headers() -> None:
    response = Response(
        403,
        head(
            ("content-type", "text/plain"),
            ("x-extauthz-details", "why"),
            ("x-extauthz-shadow", '{"enforced_engine_result":"denied","istio_dry_run_x":"y"}'),
            ("x-extauthz-audit", "true"),
        ),
        "no",
    )
    assert observed(Observation(response, None, b"")) == Outcome(
        403, "no", "text/plain", details="why", shadow={"istio_dry_run_x": "y"}, audit="true"
    )
    assert observed(Observation(None, None, None)) == CLOSED


def test_ids_and_framing_are_not_compared() -> None:
    received = head(("x-request-id", "1"), ("content-length", "5"), ("x-a", "1"), start=("POST", "/", "HTTP/1.1"))
    outcome = observed(Observation(Response(200, head(), ""), received, b""))
    assert upstream(outcome).headers == {"x-a": ("1",)}


def test_every_difference_is_found() -> None:
    mesh = Outcome(200, upstream=Upstream("GET", "/", {"a": ("1",), "b": ("2",)}))
    ours = Outcome(200, upstream=Upstream("GET", "/x", {"a": ("1",), "c": ("3",)}))
    assert differences(mesh, ours) == (
        Difference("path", "/", "/x"),
        Difference("header b", "2", "(none)"),
        Difference("header c", "(none)", "3"),
    )
    assert differences(mesh, mesh) == ()
    refused = Outcome(403, "no", details="r")
    assert [found.what for found in differences(mesh, refused)] == ["status", "body", "reaches the upstream"]


def test_reasons_are_compared_where_both_are_known() -> None:
    assert differences(Outcome(403, details="a"), Outcome(403, details="")) == ()
    assert differences(Outcome(403, details="a"), Outcome(403, details="b")) == (Difference("reason", "a", "b"),)


def test_shadow_results_after_a_refusal_are_compared_as_far_as_they_are_told() -> None:
    passed = Upstream("GET", "/", {})
    assert differences(Outcome(403, shadow={}), Outcome(403, shadow={"k": "v"})) == ()
    found = differences(Outcome(200, upstream=passed), Outcome(200, upstream=passed, shadow={"k": "v"}))
    assert found == (Difference("metadata k", "(none)", "v"),)


@pytest.mark.parametrize(
    ("mesh", "ours", "limit"),
    [
        (("a b", "c"), ("a b ,c",), limits.REPEATED_HEADER),
        (("eyJhIjoxLCJiIjoyfQ==",), ("eyJiIjoyLCJhIjoxfQ==",), limits.MEMBER_ORDER),
    ],
)
def test_known_limits_are_recognised(mesh: tuple[str, ...], ours: tuple[str, ...], limit: str) -> None:
    settled, other, found = settle(
        Outcome(200, upstream=Upstream("GET", "/", {"x": mesh})),
        Outcome(200, upstream=Upstream("GET", "/", {"x": ours})),
    )
    assert differences(settled, other) == ()
    assert found == (limit,)


@pytest.mark.parametrize(
    ("mesh", "ours"),
    [(("a ,c",), ("a,c",)), (("a", "c"), ("a,d",)), (("WzEsMl0=",), ("WzIsMV0=",)), (("x",), ("y",))],
)
def test_other_differences_of_headers_have_no_excuse(mesh: tuple[str, ...], ours: tuple[str, ...]) -> None:
    settled, other, found = settle(
        Outcome(200, upstream=Upstream("GET", "/", {"x": mesh})),
        Outcome(200, upstream=Upstream("GET", "/", {"x": ours})),
    )
    assert differences(settled, other)
    assert found == ()


def test_a_path_that_is_no_utf8_is_expected_percent_encoded() -> None:
    mesh = Outcome(200, upstream=Upstream("GET", "/?a=\xff", {}))
    ours = Outcome(200, upstream=Upstream("GET", "/?a=%FF", {}))
    settled, other, found = settle(mesh, ours)
    assert differences(settled, other) == ()
    assert found == (limits.NOT_UTF8,)
    assert settle(mesh, Outcome(403)) == (mesh, Outcome(403), ())


def test_shrinking_leaves_what_the_difference_needs() -> None:
    async def again(comparison: Comparison) -> Comparison:
        probe = comparison.probe
        differs = "bad" in probe.target and ("x-a", "1") in probe.headers
        found = (Difference("status", "200", "403"),) if differs else ()
        return replace(comparison, differences=found)

    probe = Probe(
        method="POST",
        target="/a/bad/c?q=1&r=2",
        headers=(("x-b", "2"), ("x-a", "1"), ("cookie", "c")),
        port=80,
        source="127.0.0.2",
        body="x",
    )
    start = Comparison(NOTHING, probe, Outcome(200), Outcome(403), (Difference("status", "200", "403"),))
    shrunk = asyncio.run(shrink(start, again))
    assert shrunk.probe == Probe(target="/bad", headers=(("x-a", "1"),))
