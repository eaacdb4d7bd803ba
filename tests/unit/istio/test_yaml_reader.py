"""YAML with line numbers, and what it may not do."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.istio.yaml_reader import MAX_DEPTH, YamlError, documents
from extauthz.istio.yaml_scalars import Plain


def plain(node):
    """A node without its lines."""
    value = node[0] if node is not None else None
    if isinstance(value, dict):
        return {key: plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.value if isinstance(value, Plain) else value


def read(text: str):
    return [plain(document.read()) for document in documents(text.encode())]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: x\nc: '1'\nd: null\ne:\n", {"a": 1, "b": "x", "c": "1", "d": None, "e": None}),
        ("a: yes\nb: off\nc: 0x1F\nd: 017\ne: 12:30\nf: 1.5\ng: 2024-01-01", None),
        ("a: &x {k: v}\nb: *x\nc: {<<: *x, z: w}", {"a": {"k": "v"}, "b": {"k": "v"}, "c": {"z": "w", "k": "v"}}),
        ("a: !!str 1\n1: x\ntrue: z", {"a": "1", "1": "x", "true": "z"}),
        ("- 1\n- [a, {b: c}]\n", [1, ["a", {"b": "c"}]]),
        ('{"a": "\\ud83d\\ude00", "b": "\\u00e9"}', {"a": "😀", "b": "é"}),
        ("a: |\n  x\n  y\nb: >\n  x\n  y\n", {"a": "x\ny\n", "b": "x y\n"}),
    ],
)
def test_values_are_read_as_kubernetes_reads_them(text, expected):
    if expected is None:
        expected = {"a": True, "b": False, "c": 31, "d": 15, "e": "12:30", "f": 1.5, "g": "2024-01-01"}
    assert read(text) == [expected]


def test_documents_are_split_and_lines_count_through_the_file():
    found = list(documents(b"\xef\xbb\xbfa: 1\n---\n# nothing\n---\nb:\n- x\n- k: z\n"))
    nodes = [document.read() for document in found]
    assert [plain(node) for node in nodes if node is not None] == [{"a": 1}, {"b": ["x", {"k": "z"}]}]
    value, _ = nodes[-1]
    assert [line for _, line in value["b"][0]] == [6, 7]
    assert value["b"][1] == 5


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "given twice (first in line 1)"),
        ("a:\n\t- b\n", 2, "tab"),
        ("a: [b\n", 2, "not readable"),
        ("&a [*a]", 1, "inside what it stands for"),
        ("a: *b", 1, "no anchor"),
        ("a: !foo x", 1, "not known"),
        ("a: .inf", 1, "JSON cannot hold"),
        ("? [a]\n: b", 1, "key must be text"),
        ("a: {<<: x}", 1, "only mappings can be merged"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), 1, "levels deep"),
        ("a: 1\n...\nc: 1", 3, "expected <document start>"),
    ],
)
def test_what_cannot_be_read_names_its_line(text, line, said):
    with pytest.raises(YamlError) as raised:
        read(text)
    assert said in raised.value.reason
    assert raised.value.line == line


def test_bytes_that_are_not_utf8_name_their_line():
    with pytest.raises(YamlError) as raised:
        list(documents(b"a: 1\nb: \xff\n"))
    assert raised.value.line == 2


def test_aliases_of_aliases_are_bounded():
    text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
    text += "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
    with pytest.raises(YamlError) as raised:
        read(text)
    assert "too many" in raised.value.reason


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#?,\n\t 01~<%@`", max_size=60))
def test_any_text_is_read_or_refused_with_a_line(text):
    with contextlib.suppress(YamlError):
        read(text)
