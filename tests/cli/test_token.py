"""`extauthz token`: minted tokens verify with the printed key set, broken ones fail as named."""

import json
import subprocess
import sys

import jwt
import pytest

from extauthz.broken_tokens import BROKEN_TOKENS
from extauthz.minting import ALGORITHMS, SigningKey


def extauthz(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "extauthz", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_independent_library_verifies_a_minted_token(algorithm):
    key = SigningKey.generate(algorithm, "k")
    public = jwt.PyJWK(key.jwk()).key
    claims = jwt.decode(key.token({"iss": "i", "n": 1}), public, [algorithm])
    assert claims == {"iss": "i", "n": 1}


@pytest.mark.parametrize("algorithm", ["RS256", "ES384", "HS256", "EdDSA"])
def test_a_saved_key_signs_again(tmp_path, algorithm):
    key_file, jwks = tmp_path / "key", tmp_path / "jwks.json"
    assert extauthz("token", "--alg", algorithm, "--key-out", str(key_file), "--jwks-out", str(jwks)).returncode == 0
    assert key_file.stat().st_mode & 0o777 == 0o600
    done = extauthz(
        "token", "--alg", algorithm, "--key", str(key_file), "--claim", "roles=[1]", "--jwks-out", str(jwks)
    )
    public = jwt.PyJWKSet.from_dict(json.loads(jwks.read_text())).keys[0].key
    claims = jwt.decode(done.stdout.strip(), public, [algorithm])
    assert claims["roles"] == [1]
    assert claims["iss"] == "testing@secure.istio.io"


def test_the_key_set_is_printed_when_it_is_not_saved():
    token, key_set = extauthz("token").stdout.split("\n", 1)
    assert token.count(".") == 2
    assert json.loads(key_set)["keys"][0]["alg"] == "RS256"


def test_every_broken_kind_is_minted_and_listed():
    listing = extauthz("token", "--broken", "list").stdout
    key = SigningKey.generate("RS256")
    for kind, (_, breaker) in BROKEN_TOKENS.items():
        assert kind in listing
        assert breaker(key, {"iss": "i", "sub": "s"})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--alg", "none"], "unknown algorithm"),
        (["--claim", "x"], "NAME=VALUE"),
        (["--broken", "nonsense"], "use one of"),
        (["--key", "/nowhere"], "No such file"),
    ],
)
def test_wrong_usage_is_one_clear_line(arguments, said):
    done = extauthz("token", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
