import pytest

from extauthz.authn.locations import after_prefix


@pytest.mark.parametrize(
    ("line", "token"),
    [
        ("Bearer eyJ.a.b", "eyJ.a.b"),
        ("Bearer fyJ.a.b", "fyJ.a.b"),
        ("Bearer   eyJ.a.b", "eyJ.a.b"),
        ("Bearer \xe9\xe8eyJ", "eyJ"),
        ("x Bearer e", "e"),
        ("Bearer e f ", "e f "),
        ("Bearer ", "Bearer "),
        ("Bearer \xe9", "Bearer \xe9"),
        ("Bearer Bearer e", "Bearer e"),
        ("Basic e", None),
        ("Bearere", None),
    ],
)
def test_a_token_begins_at_the_first_character_of_one_behind_the_prefix(line, token):
    assert after_prefix(line, "Bearer ") == token
