import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def codec(decision: Decision, *, clear_first: bool = False) -> CheckResponse:
    """The same answer made of the codec's message objects."""
    response = CheckResponse()

    def add(headers, name: str, value: str) -> None:
        option = headers.add()
        option.header.key, option.header.value = name, value
        option.append.value = False

    if decision.allowed:
        response.status.code = 0
        ok, changes = response.ok_response, decision.changes
        ok.SetInParent()
        if changes.path is not None:
            add(ok.headers, ":path", changes.path)
        ok.headers_to_remove.extend(name for name, lines in changes.headers.items() if not lines)
        for name in ok.headers_to_remove if clear_first else ():
            add(ok.headers, name, "")
        for name, lines in changes.headers.items():
            if lines:
                add(ok.headers, name, ",".join(lines))
    else:
        response.status.code = {401: 16}.get(decision.status, 7)
        response.status.message = decision.reason
        response.denied_response.status.code = decision.status
        for name, value in decision.response_headers:
            add(response.denied_response.headers, name, value)
        response.denied_response.body = decision.body
    if decision.metadata:
        response.dynamic_metadata.update(decision.metadata)
    return response


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=200)
ASCII = st.text(st.characters(max_codepoint=0x7E), max_size=200)
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers(-(2**60), 2**60) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)
METADATA = st.dictionaries(TEXT, VALUES, max_size=5)
CHANGES = st.builds(Changes, st.dictionaries(ASCII, st.lists(ASCII, max_size=3), max_size=5), st.none() | ASCII)
DECISIONS = st.builds(Decision, st.just(True), changes=CHANGES, metadata=METADATA) | st.builds(
    Decision,
    st.just(False),
    st.sampled_from((401, 403, 503)),
    TEXT,
    st.lists(st.tuples(ASCII, ASCII), max_size=3),
    TEXT,
    metadata=METADATA,
)


@given(DECISIONS, st.booleans())
def test_the_bytes_are_those_of_the_codec(decision, clear_first):
    written = write_decision(decision, clear_first=clear_first)
    expected = codec(decision, clear_first=clear_first)
    assert CheckResponse.FromString(written) == expected
    assert len(written) == expected.ByteSize()
    if not decision.metadata:
        assert written == expected.SerializeToString()


def test_sizes_of_more_than_two_bytes_are_written():
    for length in (127, 128, 16_383, 16_384, 3_000_000):
        decision = Decision(True, changes=Changes({"x": ("v" * length,)}), metadata={"k": ["v" * length]})
        assert CheckResponse.FromString(write_decision(decision)) == codec(decision)


def test_what_a_struct_cannot_hold_is_an_error():
    with pytest.raises(TypeError, match="object"):
        write_decision(Decision(True, metadata={"k": object()}))
