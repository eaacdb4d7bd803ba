import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.authn.limits import MAX_JSON_DEPTH
from extauthz.authn.struct_json import InvalidJson, parse


def nested(levels):
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"{'a':'b'}", {"a": "b"}),
        (b"{a:1,_b2:2}", {"a": 1.0, "_b2": 2.0}),
        (b'{"a":1,}', {"a": 1.0}),
        (b"[1,2,]", [1.0, 2.0]),
        (b'"a\nb\tc"', "a\nb\tc"),
        (rb'"\'\/\U0041\u00e9\ud83d\ude00"', "'/A\u00e9\U0001f600"),
        (b'{"":1}', {"": 1.0}),
        (b" \t\r\n1 ", 1.0),
        (b"-0", -0.0),
        (b"1e3", 1000.0),
        (b"null", None),
        (b"true", True),
        (nested(MAX_JSON_DEPTH), None),
        (b'{"n":9007199254740993}', {"n": 9007199254740992.0}),
    ],
)
def test_what_protobuf_accepts_is_read(text, value):
    found = parse(text)
    if value is not None or text == b"null":
        assert found == value


@pytest.mark.parametrize(
    "text",
    [
        nested(MAX_JSON_DEPTH + 1),
        b'{"a":1,"a":2}',
        b'{"b":{"a":1,"\\u0061":2}}',
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e400",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"0x1",
        b'"\\x41"',
        b"1 // c",
        b"/* c */ 1",
        b"\xef\xbb\xbf1",
        b"1\x0b",
        b"1 1",
        b"1\0",
        b'"\xff"',
        b'"\\ud800"',
        b'"\\ude00"',
        b"{null:1}",
        b"{true:1}",
        b"{a-b:1}",
        b"[,]",
        b"{,}",
        b"",
        b"{",
        b'"',
        b"nul",
    ],
)
def test_what_protobuf_refuses_is_refused(text):
    with pytest.raises(InvalidJson):
        parse(text)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(values, st.booleans())
def test_strict_json_is_read_as_what_it_says(value, ascii_only):
    assert parse(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=60) | st.text(alphabet="{}[]\"'\\,:ab1e.-u0d8 \n", max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(data):
    try:
        parse(data)
    except InvalidJson:
        return


@pytest.mark.parametrize(
    "text", [b"[" * 65536, b'"' + b"\\" * 65535, b"{a:" * 20000, b"'" * 65536, b"1" * 65536, b"[1," * 20000]
)
def test_hostile_text_takes_linear_time(text):
    started = time.thread_time()
    with pytest.raises(InvalidJson):
        parse(text)
    # Milliseconds when linear; the bound only tells that from quadratic.
    assert time.thread_time() - started < 2
