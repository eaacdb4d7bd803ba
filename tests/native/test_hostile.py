"""A steady client beside hostile ones: a short form of what `make native-check` does for a minute."""

import os

import hostile
import pytest

from extauthz.server import native

SECONDS = float(os.environ.get("EXTAUTHZ_HOSTILE_SECONDS", "4"))
GROWTH = 64 << 20  # what is held varies with the attacks under way, by some 50 MiB; it does not add up
SANITIZED = "asan" in os.environ.get("LD_PRELOAD", "")


pytestmark = pytest.mark.skipif(not native.available()[0], reason="the native transport is not available")


def test_hostile_peers_harm_nobody_else():
    report = hostile.campaign(SECONDS)
    assert report.failures == []
    assert report.calls > SECONDS * hostile.CALLS_A_SECOND
    assert report.slowest < 15
    assert all(report.attacks.values()) or SECONDS < 10
    assert report.statistics["connections"] == report.statistics["in_flight"] == report.statistics["held_bytes"] == 0
    assert report.statistics["wrongly_allowed"] == report.statistics["crashed"] == 0
    # The sanitizers keep what was freed for a while.
    assert SANITIZED or report.memory_end - report.memory_early < GROWTH
