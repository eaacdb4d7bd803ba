"""Large bodies that are no key sets: told without reading them as JSON."""

import json

import pytest

from extauthz.authn.fetch.content import read_key_set
from extauthz.authn.fetch.failure import Cause, FetchFailure
from extauthz.minting import SigningKey, key_set

FILLING = ["nothing"] * 20_000


def test_a_large_body_without_keys_is_refused_unread(monkeypatch):
    monkeypatch.setattr("extauthz.authn.fetch.content.KeySet", None)
    with pytest.raises(FetchFailure, match="neither keys nor certificates are in it") as failure:
        read_key_set(json.dumps({"issuer": "https://issuer.example", "filling": FILLING}).encode())
    assert failure.value.cause is Cause.CONTENT


@pytest.mark.parametrize("name", ["keys", r"\u006beys", r"ke\u0079s"])
def test_a_large_key_set_is_read_however_its_member_is_spelled(name):
    document = json.dumps({"filling": FILLING, "@": key_set(SigningKey.generate("ES256", "k"))["keys"]})
    (key,) = read_key_set(document.replace('"@"', f'"{name}"').encode()).keys
    assert key.kid == "k"
