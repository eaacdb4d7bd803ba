"""A steady client beside hostile ones: a short form of what `make native-check` does for a minute."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from extauthz.server import native

HERE = Path(__file__).parent
SECONDS = float(os.environ.get("EXTAUTHZ_HOSTILE_SECONDS", "4"))
GROWTH = 64 << 20  # what is held varies with the attacks under way, by some 50 MiB; it does not add up
SANITIZED = "asan" in os.environ.get("LD_PRELOAD", "")


@pytest.fixture
def hostile(monkeypatch):
    if not native.available()[0]:
        pytest.skip(f"the native transport is not available: {native.available()[1]}")
    spec = importlib.util.spec_from_file_location("native_hostile", HERE / "hostile.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_hostile_peers_harm_nobody_else(hostile):
    report = hostile.campaign(SECONDS)
    assert report.failures == []
    assert report.calls > SECONDS * 20
    assert report.slowest < 5
    assert all(report.attacks.values()) or SECONDS < 10
    assert report.statistics["connections"] == report.statistics["in_flight"] == report.statistics["held_bytes"] == 0
    # The sanitizers keep what was freed for a while.
    assert SANITIZED or report.memory_end - report.memory_early < GROWTH
