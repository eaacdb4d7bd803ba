"""The request as policies see it, and the changes to it."""

from extauthz.request import ChangedRequest, Changes, Request, wire_text, without_query


def test_wire_text_is_one_character_per_utf8_byte():
    assert wire_text("plain") == "plain"
    assert wire_text("Zoë") == "Zo\xc3\xab"


def test_the_path_is_cut_at_query_or_fragment():
    assert without_query("/a?b#c") == "/a"
    assert without_query("/a#b?c") == "/a"
    assert without_query("/a") == "/a"


def test_pseudo_headers_and_host_are_answered_from_the_attributes():
    request = Request(method="GET", path="/p?q", host="h", scheme="https", headers={"x": ["1", "2"]})
    assert list(request.lines(":path")) == ["/p?q"]
    assert list(request.lines(":authority")) == list(request.lines("host")) == ["h"]
    assert list(request.lines(":scheme")) == ["https"]
    assert list(request.lines("x")) == ["1", "2"]
    assert list(request.lines("absent")) == []


def test_an_empty_host_is_an_empty_header():
    assert list(Request(host="").lines("host")) == [""]


def test_a_changed_request_shows_what_changed_and_the_original_elsewhere():
    original = Request(method="PUT", path="/p?t=1", headers={"authorization": ["Bearer x"], "a": ["1"]})
    changed = ChangedRequest(original, Changes({"authorization": (), "x-sub": ("u",)}, "/p"))
    assert list(changed.lines("authorization")) == []
    assert list(changed.lines("x-sub")) == ["u"]
    assert list(changed.lines("a")) == ["1"]
    assert changed.path == "/p"
    assert list(changed.lines(":path")) == ["/p"]
    assert changed.method == "PUT"
    assert original.path == "/p?t=1"


def test_no_changes_are_falsy():
    assert not Changes()
    assert Changes({"a": ()})
    assert Changes(path="/")
