from extauthz.checkapi.write import HEADER_BYTES_LIMIT, needs_clearing, write_decision
from extauthz.decision import Decision
from extauthz.protos.external_auth_pb2 import CheckResponse
from extauthz.request import Changes


def answer(decision: Decision, **options) -> CheckResponse:
    return CheckResponse.FromString(write_decision(decision, **options))


def headers(response: CheckResponse) -> list[tuple[str, str]]:
    return [(option.header.key, option.header.value) for option in response.ok_response.headers]


def test_a_denial_has_a_status_and_a_denied_response():
    for status, code in ((401, 16), (403, 7), (503, 7)):
        response = answer(Decision(False, status, "b", (("content-type", "text/plain"),), "why"))
        assert response.status.code == code
        assert response.WhichOneof("http_response") == "denied_response"
        assert response.denied_response.status.code == status
        assert response.denied_response.body == "b"


def test_headers_are_set_or_removed_never_both():
    response = answer(Decision(True, changes=Changes({"x-set": ("a", "b"), "x-gone": ()}, "/new?p")))
    assert response.WhichOneof("http_response") == "ok_response"
    assert headers(response) == [(":path", "/new?p"), ("x-set", "a,b")]
    assert list(response.ok_response.headers_to_remove) == ["x-gone"]
    assert not any(option.append.value for option in response.ok_response.headers)


def test_wire_text_is_written_as_utf8_and_other_bytes_percent_encoded():
    response = answer(Decision(True, changes=Changes({"x": ("Zo\xc3\xab",)}, "/p?a=\xff\xc3\xab")))
    assert headers(response) == [(":path", "/p?a=%FFë"), ("x", "Zoë")]


def test_a_long_header_that_goes_is_emptied_before_new_ones_are_set():
    changes = Changes({"authorization": (), "x-pay": ("p" * 1000,)})
    assert not needs_clearing(changes, 1000)
    assert needs_clearing(changes, HEADER_BYTES_LIMIT - 900)
    response = answer(Decision(True, changes=changes), clear_first=True)
    assert headers(response)[0] == ("authorization", "")
    assert list(response.ok_response.headers_to_remove) == ["authorization"]


def test_nothing_is_cleared_when_nothing_is_set():
    assert not needs_clearing(Changes({"authorization": ()}), HEADER_BYTES_LIMIT * 2)


def test_metadata_that_envoy_could_not_read_is_left_out():
    deep = 5
    for _ in range(99):
        deep = [deep]
    response = answer(Decision(True, metadata={"payload": {"iss": "a", "deep": deep}, "other": {"k": [[1]]}}))
    assert dict(response.dynamic_metadata["payload"]) == {"iss": "a"}
    assert response.dynamic_metadata["other"]["k"][0][0] == 1
