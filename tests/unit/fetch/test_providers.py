"""Documents with the members and headers that identity providers send, each with keys of the test's own."""

import base64
import datetime
import hashlib
import json
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from extauthz.minting import SigningKey


@pytest.fixture(scope="module")
def keys():
    """Two RSA keys and one on a curve, by name."""
    made = {name: SigningKey.generate("RS256", name) for name in ("now", "next")}
    return {**made, "ec": SigningKey.generate("ES256", "ec")}


def certificate(key, name="issuer.example"):
    """A self-signed certificate of a key."""
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.private.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now)
    return builder.not_valid_after(now + datetime.timedelta(days=9)).sign(key.private, hashes.SHA256())


def certified(key, **members):
    """A key with its certificate, as `x5c`, `x5t` and `x5t#S256` have it (RFC 7517 sections 4.7 to 4.9)."""
    der = certificate(key).public_bytes(serialization.Encoding.DER)
    thumbprints = {
        name: base64.urlsafe_b64encode(digest(der).digest()).rstrip(b"=").decode()
        for name, digest in (("x5t", hashlib.sha1), ("x5t#S256", hashlib.sha256))
    }
    return key.jwk(use="sig", x5c=[base64.b64encode(der).decode()], **thumbprints, **members)


def pem(key):
    return certificate(key).public_bytes(serialization.Encoding.PEM).decode()


def google(keys):
    listed = [keys["next"].jwk(use="sig"), keys["now"].jwk(use="sig")]
    headers = {"cache-control": "public, max-age=22158, must-revalidate, no-transform", "age": "158"}
    return {"keys": listed}, headers, ["next", "now"], [], 22000


def auth0(keys):
    listed = [certified(keys["now"]), certified(keys["next"])]
    for one in listed:
        del one["x5t#S256"]
    headers = {"cache-control": "public, max-age=15, stale-while-revalidate=15, stale-if-error=86400"}
    return {"keys": listed}, headers, ["now", "next"], [], 15


def okta(keys):
    headers = {"cache-control": "max-age=2714405, must-revalidate", "expires": "0", "vary": "Origin"}
    return {"keys": [keys["now"].jwk(use="sig")]}, headers, ["now"], [], 2714405


def entra(keys):
    listed = []
    for name in ("now", "next"):
        one = certified(keys[name], cloud_instance_name="microsoftonline.com")
        del one["alg"], one["x5t#S256"]
        issuer = "https://login.microsoftonline.com/{tenantid}/v2.0"
        listed.append({**one, "x5t": one["kid"], "issuer": issuer})
    return {"keys": listed}, {"cache-control": "max-age=86400, private"}, ["now", "next"], [], 86400


def keycloak(keys):
    encrypting = {**certified(keys["next"]), "use": "enc", "alg": "RSA-OAEP"}
    return {"keys": [encrypting, certified(keys["now"])]}, {"cache-control": "no-cache"}, ["next", "now"], [], 0


def cognito(keys):
    listed = [keys[name].jwk(use="sig") for name in ("next", "now")]
    return {"keys": listed}, {"cache-control": "public, max-age=86400"}, ["next", "now"], [], 86400


def apple(keys):
    listed = [{"kty": "RSA", **keys[name].jwk(use="sig")} for name in ("next", "now")]
    return {"keys": listed}, {"cache-control": "no-store", "pragma": "no-cache"}, ["next", "now"], [], 0


def firebase(keys):
    headers = {"cache-control": "public, max-age=20733, must-revalidate, no-transform", "content-type": "text/json"}
    return {name: pem(keys[name]) for name in ("now", "next")}, headers, ["now", "next"], [], 20733


def mixed(keys):
    """An authorization server that lists every kind of key, some of which no token can be verified with."""
    listed = [
        {"kty": "OKP", "crv": "X25519", "kid": "x", "use": "enc", "x": "3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08"},
        {"kty": "EC", "crv": "secp256k1", "kid": "bitcoin", "alg": "ES256K", "x": "AA", "y": "AA"},
        keys["ec"].jwk(use="sig", key_ops=["verify"]),
        {**keys["now"].jwk(), "oth": None, "nbf": 1493763266, "x5u": "https://issuer.example/certificate"},
        {"kty": "AKP", "alg": "ML-DSA-65", "kid": "quantum", "pub": "AAAA"},
    ]
    return {"keys": listed}, {}, ["ec", "now"], ["x", "bitcoin", "quantum"], None


PROVIDERS = (google, auth0, okta, entra, keycloak, cognito, apple, firebase, mixed)


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.__name__)
def test_a_providers_key_set_is_read_in_order_with_its_lifetime(fetcher, serve, source_of, verifies, keys, provider):
    document, headers, key_ids, skipped, lifetime = provider(keys)
    server = serve()
    server.answer = 200, headers, json.dumps(document, indent=2).encode()
    began = time.monotonic()
    made = fetcher(refresh=10_000_000, refresh_min=0.001)
    source = source_of(made, server.url())
    assert made.wait(60)
    assert [key.kid for key in source.key_set.keys] == key_ids, source.error
    assert [one.kid for one in source.key_set.skipped] == skipped
    assert verifies(source, keys["now"])
    due = made.states()[0].next_fetch
    expected = 10_000_000 if lifetime is None else lifetime
    # Refreshes come up to a tenth early.
    assert 0.9 * expected - 1 - (time.monotonic() - began) <= due <= expected + 1


def test_a_key_that_encrypts_verifies_nothing(fetcher, serve, source_of, verifies, keys):
    server = serve()
    server.body = json.dumps(keycloak(keys)[0]).encode()
    made = fetcher(refresh=60)
    source = source_of(made, server.url())
    assert made.wait(60)
    assert not verifies(source, keys["next"])


DISCOVERY = {
    "issuer": "",
    "authorization_endpoint": "https://issuer.example/authorize",
    "jwks_uri": "",
    "response_types_supported": ["code", "id_token"],
    "subject_types_supported": ["public"],
    "id_token_signing_alg_values_supported": ["RS256"],
    "claims_supported": ["sub", "iss"],
    "mtls_endpoint_aliases": {"jwks_uri": "https://elsewhere.example/"},
}


@pytest.mark.parametrize(
    ("issuer", "says", "keys_at"),
    [
        ("", "", "/oauth2/v3/certs"),  # Google
        ("/", "/", "/.well-known/jwks.json"),  # Auth0
        ("/oauth2/default", "/oauth2/default", "/oauth2/default/v1/keys"),  # Okta
        ("/tenant/v2.0", "/tenant/v2.0", "/tenant/discovery/v2.0/keys"),  # Entra
        ("/tenant/", "/tenant/", "/common/discovery/keys"),  # Entra, version 1
        ("/realms/shop", "/realms/shop", "/realms/shop/protocol/openid-connect/certs"),  # Keycloak
        ("/eu-west-1_Pool", "/eu-west-1_Pool", "/eu-west-1_Pool/.well-known/jwks.json"),  # Cognito
        ("/slash", "/slash/", "/jwks"),  # somebody who is not sure
    ],
)
def test_discovery_finds_the_keys_where_providers_have_them(
    fetcher, serve, source_of, verifies, keys, issuer, says, keys_at
):
    server = serve()
    document = {**DISCOVERY, "issuer": server.url(says), "jwks_uri": server.url(keys_at)}
    well_known = issuer.removesuffix("/") + "/.well-known/openid-configuration"
    server.status = 404
    server.paths = {
        well_known: (200, {"content-type": "application/json;charset=UTF-8"}, json.dumps(document).encode()),
        keys_at: (200, {}, json.dumps(google(keys)[0]).encode()),
    }
    made = fetcher(refresh=60)
    source = source_of(made, issuer=server.url(issuer))
    assert made.wait(60)
    assert verifies(source, keys["now"]), source.error
    assert [path for path, _ in server.requests] == [well_known, keys_at]


def test_an_issuer_for_all_tenants_is_not_the_issuer_of_one(fetcher, serve, source_of, keys):
    server = serve()
    document = {**DISCOVERY, "issuer": server.url("/{tenantid}/v2.0"), "jwks_uri": server.url("/keys")}
    server.body = json.dumps(document).encode()
    made = fetcher(refresh=60)
    source = source_of(made, issuer=server.url("/common/v2.0"))
    assert made.wait(60)
    assert "is of issuer" in source.error
    assert "{tenantid}" in source.error
