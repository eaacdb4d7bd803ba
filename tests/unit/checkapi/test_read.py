import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.checkapi.build import Connection, check_request
from extauthz.checkapi.read import check_request_reader, read_check_request
from extauthz.errors import MalformedCheckRequest, NotAnHttpRequest
from extauthz.protos.external_auth_pb2 import CheckRequest


def read(*arguments, **options):
    message = check_request(*arguments, **options)
    assert message is not None
    return read_check_request(message)


@pytest.mark.parametrize("raw_headers", [True, False])
def test_both_forms_of_headers_are_read(raw_headers):
    request = read("GET", "/p?q", [("X-A", "1"), ("Authorization", "t")], host="h:80", raw_headers=raw_headers)
    assert (request.method, request.path, request.host, request.scheme) == ("GET", "/p?q", "h:80", "http")
    assert list(request.lines("x-a")) == ["1"]
    assert list(request.lines("authorization")) == ["t"]
    assert list(request.lines("absent")) == []
    assert list(request.lines("host")) == list(request.lines(":authority")) == ["h:80"]
    assert {name: list(lines) for name, lines in request.header_lines.items()} == {
        "x-a": ["1"],
        "authorization": ["t"],
        "x-forwarded-proto": ["http"],
    }


def test_raw_headers_keep_their_lines_and_bytes():
    request = read("GET", "/", [("x-h", "a"), ("x-h", "a"), ("x-h", "\xff")])
    assert list(request.lines("x-h")) == ["a", "a", "\xff"]


def test_joined_headers_are_one_line_of_wire_text():
    request = read("GET", "/", [("x-h", "Zo\xc3\xab"), ("x-h", "\xff")], raw_headers=False)
    assert list(request.lines("x-h")) == ["Zo\xc3\xab,!"]


def test_pseudo_headers_are_known_when_envoy_sends_only_some_headers():
    message = CheckRequest()
    http = message.attributes.request.http
    http.method, http.path, http.host = "GET", "/p", "h"
    http.headers["x-a"] = "1"
    request = read_check_request(message.SerializeToString())
    assert list(request.lines(":path")) == ["/p"]
    assert list(request.lines(":method")) == ["GET"]


def test_texts_beyond_ascii_are_wire_text_like_what_policies_are_compared_with():
    message = CheckRequest()
    http = message.attributes.request.http
    http.method, http.path, http.host, http.scheme = "G\u00e9T", "/\u00e9?\ufeff", "h\u00f6st", "http\ufeff"
    for read in (read_check_request, check_request_reader(("x-h",))):
        request = read(message.SerializeToString())
        assert request.method == "G\xc3\xa9T"
        assert request.path == "/\xc3\xa9?\xef\xbb\xbf"
        assert request.host == "h\xc3\xb6st"
        assert request.scheme == "http\xef\xbb\xbf"


def test_the_connection_is_read():
    request = read(
        "GET",
        "/",
        connection=Connection(
            "192.0.2.7", 4711, "198.51.100.1", 8080, principal="spiffe://a/ns/b/sa/c", server_name="s"
        ),
    )
    assert (request.source_address, request.source_port) == ("192.0.2.7", 4711)
    assert (request.destination_address, request.destination_port) == ("198.51.100.1", 8080)
    assert list(request.peer_principals) == ["spiffe://a/ns/b/sa/c"]
    assert request.server_name == "s"


def test_filter_metadata_becomes_plain_values():
    message = CheckRequest()
    message.attributes.request.http.method = "GET"
    struct = message.attributes.metadata_context.filter_metadata["envoy.filters.x"]
    struct.update({"s": "v", "n": 1.5, "b": True, "l": ["a", {"k": None}]})
    request = read_check_request(message.SerializeToString())
    assert request.metadata == {"envoy.filters.x": {"s": "v", "n": 1.5, "b": True, "l": ["a", {"k": None}]}}


def test_a_request_without_http_part_is_told_apart_from_garbage():
    with pytest.raises(NotAnHttpRequest):
        read_check_request(b"")
    with pytest.raises(MalformedCheckRequest):
        read_check_request(b"\xff\xff")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(message):
    try:
        request = read_check_request(message)
    except MalformedCheckRequest:
        return
    request.lines("authorization")
    assert isinstance(request.path, str)


# --- the extension that reads plain messages ---

NAMES = ("authorization", "x-a", "cookie")


def seen(request, names=(*NAMES, "x-other", "host", ":path")):
    return request.method, request.path, request.host, request.scheme, {n: list(request.lines(n)) for n in names}


headers = st.lists(
    st.tuples(
        st.sampled_from(["authorization", "x-a", "X-A", "cookie", "x-other", "accept", "x-forwarded-proto"]),
        st.text(st.characters(max_codepoint=255), max_size=20),
    ),
    max_size=12,
)


@given(headers, st.booleans(), st.sampled_from(["/", "/p?access_token=x", "http://o/x"]))
def test_the_scanner_reads_what_the_codec_reads(pairs, raw_headers, target):
    message = check_request("GET", target, pairs, host="h", raw_headers=raw_headers)
    assert message is not None
    assert seen(check_request_reader(NAMES)(message)) == seen(read_check_request(message))


@given(headers, st.booleans(), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4), st.data())
def test_a_damaged_message_is_never_read_differently(pairs, raw_headers, damage, data):
    message = bytearray(check_request("GET", "/p", pairs, host="h", raw_headers=raw_headers) or b"")
    for place, byte in damage:
        message[place % len(message)] = byte
    message = bytes(message[: data.draw(st.integers(0, len(message)))])
    try:
        expected = seen(read_check_request(message))
    except MalformedCheckRequest:
        # The scanner does not look at everything; what it does not reach cannot let anybody in.
        return
    assert seen(check_request_reader(NAMES)(message)) == expected


def test_a_text_that_comes_again_is_not_made_again():
    read_scanned = check_request_reader(NAMES)
    message = check_request("GET", "/a-path", [("authorization", "Bearer " + "t" * 500)])
    first, second = read_scanned(message), read_scanned(bytes(bytearray(message)))
    assert first.path is second.path
    assert first.lines("authorization")[0] is second.lines("authorization")[0]


# Texts are kept by their length and their last eight characters: these share few places.
alike = st.builds(
    "".join,
    st.tuples(
        st.text("ab", min_size=1, max_size=3),
        st.sampled_from(["", "same-end", "x" * 2040, "x" * 2041, "x" * 2048, "\xe9"]),
    ),
)


@settings(max_examples=30)
@given(st.lists(st.tuples(alike, alike, alike), min_size=2, max_size=8), st.booleans())
def test_texts_of_one_message_are_never_those_of_another(messages, raw_headers):
    read_scanned = check_request_reader(NAMES)
    for path, cookie, token in messages:
        pairs = [("authorization", token), ("cookie", cookie), ("x-a", path)]
        message = check_request("GET", "/" + path, pairs, host="h", raw_headers=raw_headers)
        if message is None:
            continue
        assert seen(read_scanned(message)) == seen(read_check_request(message))


def test_policies_that_read_very_many_headers_are_served_by_the_codec():
    names = frozenset(f"x-{number}" for number in range(100))
    assert check_request_reader(names) is read_check_request


def test_a_header_with_very_many_lines_is_left_to_the_codec():
    message = check_request("GET", "/", [("x-a", str(i)) for i in range(200)])
    assert message is not None
    assert list(check_request_reader(NAMES)(message).lines("x-a")) == [str(i) for i in range(200)]


def test_other_attributes_of_a_scanned_request_are_there_when_asked_for():
    message = check_request("GET", "/", connection=Connection("192.0.2.7"))
    assert message is not None
    request = check_request_reader(NAMES)(message)
    assert request.source_address == "192.0.2.7"
    assert request.header_lines["x-forwarded-proto"] == ["http"]
