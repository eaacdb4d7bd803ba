import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from extauthz.checkapi import wire

WRITERS = {wire.struct, wire.struct_in_python}
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=200)
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(2**60), 2**60) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=30,
)
STRUCTS = st.dictionaries(TEXT, VALUES, max_size=5)


@pytest.fixture(params=sorted(WRITERS, key=lambda writer: writer.__name__), ids=lambda writer: writer.__name__)
def write(request):
    return request.param


def nested(levels: int, container) -> object:
    value: object = "x"
    for _ in range(levels):
        value = container(value)
    return value


@given(STRUCTS)
def test_every_writer_writes_what_the_codec_reads_and_writes(values):
    expected = Struct()
    expected.update(values)
    written = {write(values, 90) for write in WRITERS}
    assert len(written) == 1
    (struct,) = written
    # The codec writes the members of an object in an order of its own.
    assert Struct.FromString(struct).SerializeToString(deterministic=True) == expected.SerializeToString(
        deterministic=True
    )
    assert len(struct) == expected.ByteSize()


@given(STRUCTS, st.integers(0, 12))
def test_every_writer_gives_up_at_the_same_depth(values, levels):
    assert len({write(values, levels) for write in WRITERS}) == 1


def test_objects_cost_three_levels_and_lists_two(write):
    objects = {"k": nested(30, lambda inner: {"k": inner})}
    assert write(objects, 90) is not None
    assert write(objects, 89) is None
    lists = {"k": nested(45, lambda inner: [inner])}
    assert write(lists, 90) is not None
    assert write(lists, 89) is None
    assert write({"k": "v"}, 0) == write({"k": "v"}, 90)


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 1023, 1024, 16_383, 16_384, 2_097_152])
def test_sizes_around_a_further_byte_are_right(write, size):
    values = {"k": "v" * size, "l": ["v" * size, {"m": "é" * size}], "n" * size: None}
    expected = Struct()
    expected.update(values)
    assert Struct.FromString(write(values, 90)) == expected


def test_tuples_are_lists_and_nothing_is_an_empty_struct(write):
    assert write({"k": (1, "a")}, 90) == write({"k": [1.0, "a"]}, 90)
    assert write({}, 90) == b""


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}, [[object()]], {"k": {"l": object()}}])
def test_what_a_struct_cannot_hold_is_an_error(write, value):
    with pytest.raises(TypeError, match="a Struct cannot hold a"):
        write({"k": value}, 90)


def test_text_without_utf_8_and_numbers_beyond_a_double_are_errors(write):
    with pytest.raises(UnicodeEncodeError):
        write({"k": "\ud800"}, 90)
    with pytest.raises(UnicodeEncodeError):
        write({"\ud800": 1}, 90)
    with pytest.raises(OverflowError):
        write({"k": [10**400]}, 90)


def test_the_extension_refuses_what_it_was_not_made_for():
    extension = pytest.importorskip("extauthz.checkapi._wire")
    for arguments in ((), ([], 1), ({}, 1, 2), ({}, "1")):
        with pytest.raises(TypeError):
            extension.struct(*arguments)
    for levels in (-1, 101, -2):
        with pytest.raises(ValueError, match="levels"):
            extension.struct({}, levels)
    with pytest.raises(TypeError, match="int"):
        extension.struct({1: 2}, 90)
