"""The reader of plain tokens against the readers in Python, which know everything."""

import json
from base64 import urlsafe_b64encode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extauthz.authn import jws

extension = pytest.importorskip("extauthz.authn._jws")

MAX_SECTION = 16_384


def section(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


HEADER = section(b'{"alg":"ES256","kid":"k"}')
KNOWN = {HEADER: ("ES256", "k")}
NAMES = {"iss": "iss"}


def outcome(token: str):
    try:
        return repr(tuple(jws.parse(token)))  # which tells 0.0 from -0.0, and 1.0 from 1
    except jws.InvalidToken as error:
        return error.status


def assert_same_token(token: str, *, plain: bool | None = None) -> None:
    read = extension.read(token, KNOWN, NAMES)
    assert plain is None or (read is not None) == plain
    if read is not None:
        assert repr(read) == outcome(token)


def assert_same(payload: str, *, plain: bool | None = None) -> None:
    assert_same_token(f"{HEADER}.{payload}.c2ln", plain=plain)


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
NUMBERS = st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
REGISTERED = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("iss", "sub", "jti"), TEXT | VALUES),
        **dict.fromkeys(("iat", "nbf", "exp"), NUMBERS | VALUES),
        "aud": TEXT | st.lists(TEXT, max_size=3) | VALUES,
    },
)
LAYOUTS = st.sampled_from(({}, {"separators": (",", ":")}, {"indent": 2}, {"ensure_ascii": False}))
NUMBER_TEXTS = f"- +1 0 -0 00 1. .5 1.5 1e5 1E+5 1e 1e999 -1e-999 {'9' * 15} {'9' * 16} {'9' * 70} 1.0e1".split()
WORDS = (
    r"""true false null tru nul NaN Infinity "a" "iss" "exp" "aud" "\u0041" "é" {"a":1} 18446744073709551616""".split()
)
FRAGMENTS = st.sampled_from([*"{}[]:,\"'\\/ \t\n\r\v\0\x1f\x7f\ufeffa", *NUMBER_TEXTS, *WORDS])


@given(REGISTERED, st.dictionaries(TEXT, VALUES, max_size=4), LAYOUTS)
def test_claims_are_read_as_in_python(registered, others, layout):
    assert_same(section(json.dumps({**others, **registered}, **layout).encode()))


@given(st.lists(FRAGMENTS, max_size=12).map("".join), st.booleans())
@example('{"a":1,}', False)
@example('{"a":1}x', False)
@example('{"a":1,"a":1}', False)
@example('{"a" : [ 1 , [ ] , { } ] } ', False)
def test_json_of_any_fragments_is_read_as_in_python_or_left_to_it(text, as_member):
    assert_same(section((f'{{"k":{text}}}' if as_member else text).encode()))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_as_in_python_or_left_to_it(data):
    assert_same(section(data))
    assert_same(section(b'{"iss":"' + data + b'"}'))


@given(st.text(max_size=40) | st.text("eyJ-_=.A \n", max_size=40))
def test_any_section_is_read_as_in_python_or_left_to_it(text):
    assert_same(text)


def test_what_issuers_write_is_plain():
    for claims in (
        {},
        {"iss": "i", "sub": "s", "aud": ["a", "b"], "exp": 4_102_444_800, "nbf": 0, "iat": 1.5, "jti": ""},
        {"realm_access": {"roles": ["a", "b"], "none": None, "yes": True, "no": False, "n": -12.25e-3}, "name": "Zoë"},
    ):
        assert_same(section(json.dumps(claims, ensure_ascii=False).encode()), plain=True)


@pytest.mark.parametrize("levels", [1, 2, 19, 20, 21, 100, 101, 3000])
def test_deep_nesting_is_left_to_python(levels):
    for opening, closing in (('{"a":', "}"), ("[", "]")):
        inner = opening * (levels - 1) + "1" + closing * (levels - 1)
        assert_same(section(f'{{"k":{inner}}}'.encode()), plain=levels <= 20)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 12_000, 12_280, 12_281, 12_282, 12_283, 12_288, 100_000])
def test_payloads_of_every_length_are_read_and_long_ones_left_to_python(size):
    text = section(b'{"k":"' + b"x" * size + b'"}')
    assert_same(text, plain=len(text) <= MAX_SECTION)


NOT_PLAIN = rb"""
null [] 1 {"a":"\n"} {"a":1,"a":2} {'a':1} {a:1} {"a":1,} {"exp":"1"} {"exp":-1} {"exp":1e20} {"iss":1} {"sub":null}
{"jti":[]} {"aud":[1]} {"aud":{}} {"a":1e999} {"a":01} {"a":NaN} {"a" {"a":1}x
""".split()


@pytest.mark.parametrize(
    "data", [*NOT_PLAIN, b"", b" ", b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', b'\xef\xbb\xbf{"a":1}', b'{"a":"\t"}']
)
def test_everything_else_is_left_to_python(data):
    assert_same(section(data), plain=False)


def test_lenient_base64url_is_left_to_python():
    text = section(b'{"iss":"i"}')
    for other in (text + "=", text[:4] + " " + text[4:], text + "AAAA"[: 5 - len(text) % 4], text[:-1] + "é", "\u20ac"):
        assert_same(other, plain=False)


@given(
    st.lists(st.sampled_from([HEADER, HEADER[:-1], "e30", "eyJpc3MiOiJpIn0", ".", ".", "A", "é", " ", "="])).map(
        "".join
    )
)
@example(f"{HEADER}.e30.AA")
@example(f"{HEADER}.e30.")
@example(f"{HEADER}..e30.AA")
@example(f"{HEADER}.e30.AA.")
@example(f"{HEADER}.e30.AA.AA")
@example(f".{HEADER}.e30.AA")
@example(f"{HEADER}.e30.A")
@example(f"{HEADER}.e30.AA==")
@example(f"{HEADER}.e30.é")
def test_any_sections_are_read_as_in_python_or_left_to_it(token):
    assert_same_token(token)


@given(st.binary(max_size=300))
def test_signatures_are_read_as_in_python(signature):
    assert_same_token(f"{HEADER}.e30.{section(signature)}", plain=len(signature) > 0)


def test_long_signatures_and_unknown_headers_are_left_to_python():
    for size in (12_288, 12_289):
        assert_same_token(f"{HEADER}.e30.{section(bytes(size))}", plain=size <= 12_288)
    assert_same_token(f"{section(b'{}')}.e30.AA", plain=False)


def test_only_text_and_a_dict_are_taken():
    for arguments in ((b"a.b.c", {}, {}), ("a.b.c", [], {}), ("a.b.c", {}), ("a.b.c", {}, []), ("a.b.c", {}, {}, 1)):
        with pytest.raises(TypeError):
            extension.read(*arguments)
    assert extension.read("a.e30.AA", {"a": None}, {}) is None


def test_names_of_members_are_shared_between_tokens():
    name = "a name that is made here".replace("here", "now")
    payload = section(json.dumps({name: {name: 1}}).encode())
    read = extension.read(f"{HEADER}.{payload}.AA", KNOWN, {name: name})
    claims = read[6]
    assert [*claims][0] is [*claims[name]][0] is name  # noqa: RUF015
