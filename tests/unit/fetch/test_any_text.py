"""What an operator, a key server or an attacker may write anywhere: it is read or refused, and nothing else happens."""

from contextlib import suppress

from hypothesis import example, given
from hypothesis import strategies as st

from extauthz.authn.fetch.content import read_key_set
from extauthz.authn.fetch.discovery import document_url, key_set_url
from extauthz.authn.fetch.failure import FetchFailure
from extauthz.authn.fetch.names import how_specific, ip_address, ip_network
from extauthz.authn.fetch.resolver import Overrides
from extauthz.authn.fetch.schedule import cache_lifetime, retry_after
from extauthz.authn.fetch.url import Url
from extauthz.errors import UsageError

pieces = st.lists(
    st.sampled_from(
        ["http", "https", "://", "/", "//", ":", "@", "[", "]", "::1", "%", "?", "#", "&", "=", "a", "80", "."]
    )
    | st.text(max_size=3),
    max_size=12,
).map("".join)
HERE = Url.parse("https://me:pw@host/a?b")


@given(pieces)
@example("http://[fe80::1%25eth0]/")
@example("http://[v1.x]/")
@example("http://\u2100.example/")
def test_any_text_is_a_url_or_a_value_error(text):
    with suppress(ValueError):
        url = Url.parse(text)
        assert Url.parse(url.shown).origin == url.origin
        assert 0 < url.port < 65536
    with suppress(ValueError):
        assert not HERE.follow(text).credentials or HERE.follow(text).origin == HERE.origin or "@" in text
    with suppress(ValueError):
        document_url(text)


@given(pieces)
def test_any_text_is_an_override_or_a_usage_error(text):
    with suppress(UsageError):
        Overrides.parse([f"host={text}", text])


@given(
    st.dictionaries(st.sampled_from(["cache-control", "expires", "date", "age", "retry-after"]), st.text(max_size=40))
)
@example({"expires": "Thu, 01 Jan 99999 00:00:00 GMT"})
@example({"expires": "Mon, 01 Jan 0001 00:00:00 +2359"})
@example({"retry-after": "9" * 5000})
def test_headers_about_time_give_a_time(headers):
    lifetime = cache_lifetime(headers, 1e9)
    assert lifetime is None or 0 <= lifetime < 1e10
    assert 0 <= retry_after(headers, 1e9) < 1e12


@given(st.binary(max_size=200) | pieces.map(str.encode))
@example(b'{"jwks_uri": "http://[", "issuer": "i"}')
@example(b'{"keys": {"a": 1}}')
@example(b"[" * 50_000)
@example(b'{"a":' * 50_000)
def test_any_body_is_read_or_a_failure(body):
    with suppress(FetchFailure):
        read_key_set(body)
    with suppress(FetchFailure):
        key_set_url(body, "i", HERE)


@given(pieces, pieces)
def test_any_host_pattern_can_be_compared(pattern, host):
    assert how_specific(pattern, (host,)) >= 0
    ip_address(pattern)
    ip_network(pattern)
