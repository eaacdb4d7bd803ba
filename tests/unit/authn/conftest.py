import json

import pytest

from extauthz.authn.authenticator import Authenticator
from extauthz.authn.keys import InlineKeys, KeySet
from extauthz.istio.resources import JwtRule
from extauthz.minting import SigningKey, key_set


class Keys:
    """A key source whose keys can be changed."""

    def __init__(self, *keys):
        self.change(*keys)

    def change(self, *keys):
        self.key_set = KeySet.parse(json.dumps(key_set(*keys)))


@pytest.fixture(scope="session")
def changing_keys():
    return Keys


@pytest.fixture(scope="session")
def key():
    return SigningKey.generate("ES256", "k")


@pytest.fixture
def authenticator(key):
    """Makes an Authenticator: one rule for each dict of members, keys inline unless `source` says otherwise."""

    def make(*rules, **options):
        given = []
        for members in rules or ({},):
            members = {"issuer": "i", **members}
            source = members.pop("source", None)
            given.append((JwtRule(**members), source or InlineKeys(KeySet.parse(json.dumps(key_set(key))))))
        return Authenticator(given, **options)

    return make
