"""Many calls, many connections, many idle ones: a short form of what `make native-check` does."""

import os

import endurance
import pytest

from extauthz.server import native

CALLS = int(os.environ.get("EXTAUTHZ_ENDURANCE_CALLS", "10000"))
CONNECTIONS = int(os.environ.get("EXTAUTHZ_ENDURANCE_CONNECTIONS", "1000"))
IDLE = int(os.environ.get("EXTAUTHZ_IDLE_CONNECTIONS", "300"))
GROWTH = 4 << 20
"""A million calls may leave 4 bytes each: less than anything that is allocated."""
IDLE_BYTES = 20 << 10
"""For each idle connection; 10,000 stay below 200 MiB. A tenth is allowed for what the first ones set up."""

pytestmark = pytest.mark.skipif(not native.available()[0], reason="the native transport is not available")


def test_calls_and_connections_leave_nothing_behind():
    found = endurance.endure(CALLS, CONNECTIONS)
    assert found.calls >= CALLS
    assert found.connections >= CONNECTIONS
    assert found.left_open == 0
    assert found.growth < GROWTH, found


def test_idle_connections_take_little_memory_and_no_processor_time():
    if not endurance.allow_files(IDLE + 200):
        pytest.skip(f"{IDLE} connections need as many open files: raise `ulimit -n`")
    found = endurance.stay_idle(IDLE)
    assert found.answered
    assert found.bytes_held < IDLE * IDLE_BYTES + (4 << 20), found
    assert found.cpu_of_a_second < 0.05, found
