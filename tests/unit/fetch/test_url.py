import pytest

from extauthz.authn.fetch.url import Url


@pytest.mark.parametrize(
    ("text", "host", "port", "target"),
    [
        ("http://nginx-proxy/get_jwks", "nginx-proxy", 80, "/get_jwks"),
        ("HTTPS://Login.Example.COM", "login.example.com", 443, "/"),
        ("https://login.example.com./a?b=c#d", "login.example.com", 443, "/a?b=c"),
        ("http://[::1]:8080/keys", "::1", 8080, "/keys"),
        ("http://[0:0:0:0:0:0:0:1]/", "::1", 80, "/"),
        ("http://user:secret@host:81/k", "host", 81, "/k"),
        ("https://bücher.example/k", "xn--bcher-kva.example", 443, "/k"),
        ("http://under_score.ns/k", "under_score.ns", 80, "/k"),
        ("http://host/é/%20?ö=\u202e", "host", 80, "/%C3%A9/%20?%C3%B6=%E2%80%AE"),
    ],
)
def test_a_url_is_taken_apart(text, host, port, target):
    url = Url.parse(text)
    assert (url.host, url.port, url.target) == (host, port, target)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ftp://host/keys", "'ftp' is not http or https"),
        ("host/keys", "not an http or https URL"),
        ("http:///keys", "no host"),
        ("http://host:99999/", "port"),
        ("http://host:0/", "port 0"),
        ("http://host:x/", "port"),
        ("http://ho st/", "blanks"),
        ("http://host/\n", "blanks"),
        ("http://a\\b/", "backslashes"),
        ("http://a/\ud800", "control characters"),
        ("http://a/" + "b" * 9000, "not longer than 8192"),
        ("http://[::1/", "ipv6"),
        ("http://a..b/", "not a name"),
        ("http://-a/", "not a name"),
        ("", "not an http or https URL"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        Url.parse(text)


def test_credentials_and_secret_parameters_are_never_shown():
    url = Url.parse("https://me:hunter2@host/keys?p=B2C_1&api_key=abc&sig=&client%5Fsecret=def")
    assert url.shown == "https://host/keys?p=B2C_1&api_key=***&sig=&client%5Fsecret=***"
    assert url.credentials == "me:hunter2"


def test_redirects_are_relative_to_where_they_were_found_and_keep_credentials_inside_the_origin():
    url = Url.parse("https://me:pw@host/a/b?c")
    assert url.follow("d") == Url("https", "host", 443, "/a/d", "me:pw")
    assert url.follow("/d?e") == Url("https", "host", 443, "/d?e", "me:pw")
    assert url.follow("//other/d") == Url("https", "other", 443, "/d")
    assert url.follow("https://host:444/d") == Url("https", "host", 444, "/d")
    assert url.follow("http://host/d").scheme == "http"
    with pytest.raises(ValueError, match="file"):
        url.follow("file:///etc/passwd")


def test_the_host_header_leaves_the_schemes_own_port_out():
    assert Url.parse("http://host:80/").authority == "host"
    assert Url.parse("http://host:443/").authority == "host:443"
    assert Url.parse("https://[::1]:8443/").authority == "[::1]:8443"
