"""The limits that SECURITY.md states are those of the code, and the commands that it names are there."""

import re

import pytest

from audit.project import ROOT
from extauthz.authn.fetch import options as fetching
from extauthz.authn.limits import (
    CLOCK_SKEW,
    MAX_JSON_DEPTH,
    MAX_KEY_SET_BYTES,
    MAX_KEYS,
    MAX_TOKEN_CHARACTERS,
    MAX_TOKENS,
    CacheLimits,
)
from extauthz.istio.files import MAX_FILE_BYTES
from extauthz.istio.yaml_reader import MAX_ALIASED_NODES, MAX_DEPTH
from extauthz.server.native import HELD_MESSAGES
from extauthz.server.transport import DEFAULT_LIMITS
from extauthz.server.transports import IN_FLIGHT

PAGE = (ROOT / "SECURITY.md").read_text()
MIB = 1 << 20
CACHE = CacheLimits()


@pytest.mark.parametrize(
    ("row", "stated"),
    [
        ("a CheckRequest", f"{DEFAULT_LIMITS.message_bytes // MIB} MiB; unfinished .* {HELD_MESSAGES} times"),
        ("headers of a call", f"{DEFAULT_LIMITS.header_bytes // 1024} KiB; .*, {DEFAULT_LIMITS.streams}"),
        ("connections", f"{DEFAULT_LIMITS.connections}; {DEFAULT_LIMITS.preface_seconds:g} s"),
        ("calls in flight", f"{IN_FLIGHT['native']} \\(native\\), {IN_FLIGHT['grpcio']} \\(grpcio\\)"),
        ("a token", f"{MAX_TOKEN_CHARACTERS // MIB} MiB; {MAX_TOKENS}"),
        ("JSON", f"{MAX_JSON_DEPTH} levels"),
        ("a key set", f"{MAX_KEY_SET_BYTES // MIB} MiB; {MAX_KEYS}; {fetching.MAX_REDIRECTS}"),
        (
            "remembered tokens",
            f"{CACHE.verified_entries:,} and {CACHE.verified_bytes // MIB} MiB; "
            f"{CACHE.refused_entries:,} and {CACHE.refused_bytes // MIB} MiB",
        ),
        ("a policy file", f"{MAX_FILE_BYTES // MIB} MiB; {MAX_DEPTH} levels; {MAX_ALIASED_NODES:,}"),
    ],
)
def test_limits_are_those_of_the_code(row, stated):
    assert re.search(rf"^\| {row}[^|]*\| .*{stated}", PAGE, re.MULTILINE)


def test_the_skew_is_that_of_the_code():
    assert f"have {CLOCK_SKEW} s of skew" in PAGE


def test_every_command_is_a_target():
    makefiles = "".join(file.read_text() for file in (ROOT / "Makefile", *ROOT.glob("*.mk")))
    for target in re.findall(r"`make ([a-z-]+)`", PAGE):
        assert re.search(rf"^{target}:", makefiles, re.MULTILINE), target
