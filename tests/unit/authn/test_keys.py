import datetime
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from hypothesis import given
from hypothesis import strategies as st

from extauthz.authn.keys import UNAVAILABLE, KeySet, KeySetError
from extauthz.authn.statuses import Status
from extauthz.minting import ALGORITHMS, SigningKey, key_set

KEYS = {algorithm: SigningKey.generate(algorithm, algorithm) for algorithm in ALGORITHMS}
DATA = b"header.payload"


def parse(*members, **extra):
    return KeySet.parse(json.dumps({**key_set(*members), **extra}))


def verify(keys, algorithm, signature, kid=""):
    return keys.verify(algorithm, kid, DATA, signature)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_verifies_its_own_signatures_only(algorithm):
    keys = parse(KEYS[algorithm])
    signature = KEYS[algorithm].sign(DATA)
    assert verify(keys, algorithm, signature) is None
    assert verify(keys, algorithm, SigningKey.generate(algorithm).sign(DATA)) is Status.VERIFICATION_FAILS
    assert keys.verify(algorithm, "", b"other", signature) is Status.VERIFICATION_FAILS


@pytest.mark.parametrize(
    ("key", "algorithm", "accepted"),
    [
        ("ES256", "RS256", True),
        ("ES256", "HS256", True),
        ("ES256", "EdDSA", True),
        ("HS256", "RS256", True),
        ("EdDSA", "RS256", True),
        ("EdDSA", "ES512", True),
        ("RS256", "PS256", True),
        ("RS256", "ES256", False),
        ("RS256", "HS256", False),
        ("RS256", "EdDSA", False),
    ],
)
def test_the_type_of_a_key_picks_the_scheme_and_alg_only_the_hash(key, algorithm, accepted):
    keys = parse(KEYS[key].jwk(with_alg=False))
    signature = KEYS[key].sign(DATA, algorithm)
    assert (verify(keys, algorithm, signature) is None) is accepted


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("form", ["pem", "der", "n", "jwk"])
def test_an_hmac_made_with_a_public_key_never_verifies(algorithm, form):
    import hmac

    public = KEYS["RS256"].private.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    jwk = KEYS["RS256"].jwk(with_alg=False)
    secret = {"pem": pem, "der": der, "n": jwk["n"].encode(), "jwk": json.dumps(jwk).encode()}[form]
    signature = hmac.digest(secret, DATA, f"sha{algorithm[2:]}")
    for member in (jwk, KEYS["ES256"].jwk(with_alg=False), KEYS["EdDSA"].jwk(with_alg=False)):
        assert verify(parse(member), algorithm, signature) is not None


def test_ecdsa_halves_may_have_any_length_and_der_is_refused():
    key = KEYS["ES256"]
    keys = parse(key)
    signature = key.sign(DATA)
    padded = b"\0" * 4 + signature[:32] + b"\0" * 4 + signature[32:]
    assert verify(keys, "ES256", padded) is None
    assert verify(keys, "ES256", signature + b"x") is None
    from cryptography.hazmat.primitives.asymmetric import ec

    assert verify(keys, "ES256", key.private.sign(DATA, ec.ECDSA(hashes.SHA256()))) is not None
    for broken in (b"", b"x", signature[:-2], b"\xff" * 64, b"\0" * 64):
        assert verify(keys, "ES256", broken) is Status.VERIFICATION_FAILS


def test_the_length_of_an_ed25519_signature_answers_at_once():
    keys = parse(KEYS["EdDSA"].jwk(with_alg=False, kid=None), KEYS["RS256"].jwk(kid=None))
    assert verify(keys, "RS256", KEYS["RS256"].sign(DATA)) is Status.ED25519_LENGTH


def test_keys_are_picked_by_kid_and_alg():
    keys = parse(KEYS["RS256"], KEYS["ES256"])
    signature = KEYS["RS256"].sign(DATA)
    assert verify(keys, "RS256", signature, "RS256") is None
    assert verify(keys, "RS256", signature, "ES256") is Status.NO_MATCHING_KEY
    assert verify(keys, "RS256", signature, "nobody") is Status.NO_MATCHING_KEY
    assert verify(keys, "RS512", signature) is Status.NO_MATCHING_KEY
    assert verify(parse(KEYS["RS256"].jwk(kid=None)), "RS256", signature, "nobody") is None
    twice = parse(SigningKey.generate("RS256", "k").jwk(), KEYS["RS256"].jwk(kid="k"))
    assert verify(twice, "RS256", signature, "k") is None


def test_with_rsa_only_other_keys_do_not_exist():
    keys = parse(KEYS["ES256"])
    assert keys.verify("RS256", "", DATA, b"", rsa_only=True) is Status.NO_VALID_KEYS


@pytest.mark.parametrize(
    ("change", "usable"),
    [
        ({"use": "enc"}, True),
        ({"key_ops": ["encrypt"]}, True),
        ({"x5c": ["x"], "x5t": "y", "issuer": "z"}, True),
        ({"kid": 7}, True),
        ({"alg": 7}, True),
        ({"alg": "RSA-OAEP"}, True),
        ({"alg": "ES256"}, False),
        ({"e": "AQ"}, False),
        ({"e": "Aw"}, True),
        ({"n": None}, False),
        ({"n": 7}, False),
        ({"kty": "rsa"}, False),
        ({"kty": None}, False),
    ],
)
def test_odd_members_of_a_key(change, usable):
    member = {**KEYS["RS256"].jwk(), **change}
    member = {name: value for name, value in member.items() if value is not None}
    good = KEYS["ES256"].jwk()
    keys = KeySet.parse(json.dumps({"keys": [member, good]}))
    assert len(keys.keys) == 1 + usable
    assert len(keys.skipped) == 1 - usable


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Jwks is an invalid JSON"),
        ("[]", "Jwks is an invalid JSON"),
        ("\ufeff{}", "Jwks is an invalid JSON"),
        ("{}", "Jwks does not have [keys] field"),
        ('{"a":1}', "Jwks does not have [keys] field"),
        ('{"keys":[]}', "Jwks doesn't have any valid public key"),
        ('{"keys":[1,null]}', "Jwks doesn't have any valid public key"),
        ('{"keys":{}}', "[keys] in Jwks is not an array"),
        ('{"keys":[{"kty":"RSA"}]}', "[n] field is missing for a RSA key"),
    ],
)
def test_a_set_without_a_usable_key_is_refused_with_envoys_reason(text, reason):
    with pytest.raises(KeySetError) as raised:
        KeySet.parse(text)
    assert raised.value.reason == reason


def test_a_map_of_certificates_is_a_key_set():
    key = KEYS["RS256"].private
    name = x509.Name([])
    start = datetime.datetime(2024, 1, 1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = builder.not_valid_before(start).not_valid_after(start + datetime.timedelta(days=1))
    certificate = builder.public_key(key.public_key()).sign(key, hashes.SHA256())
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    keys = KeySet.parse(json.dumps({"a": pem}))
    assert verify(keys, "RS256", KEYS["RS256"].sign(DATA), "a") is None
    assert verify(keys, "RS256", KEYS["RS256"].sign(DATA), "b") is Status.NO_MATCHING_KEY
    assert keys.keys[0].not_after is not None


def test_before_a_first_fetch_every_token_fails_to_verify():
    for algorithm in ALGORITHMS:
        assert UNAVAILABLE.verify(algorithm, "any", DATA, b"x") is Status.VERIFICATION_FAILS


@given(
    st.dictionaries(
        st.sampled_from(["kty", "kid", "alg", "n", "e", "x", "y", "k", "crv"]),
        st.sampled_from(
            ["RSA", "EC", "OKP", "oct", "AQAB", "P-256", "Ed25519", "", "!", 7, None, "ES256", "HS256", "A" * 43]
        ),
    )
)
def test_any_key_is_read_or_passed_over(member):
    try:
        keys = KeySet.parse(json.dumps({"keys": [member]}))
    except KeySetError as error:
        assert error.reason  # noqa: PT017
        return
    for algorithm in ALGORITHMS:
        keys.verify(algorithm, "", DATA, b"x" * 64)
