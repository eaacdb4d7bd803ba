"""The wall clock jumps, forwards and back: what follows it, and what must not notice.

Durations, schedules and ages stand on clocks that never go back; tokens' times and time stamps are the wall clock's.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from extauthz.authn.fetch.disk import DiskCache
from extauthz.authn.fetch.options import FetchOptions
from extauthz.authorizer import Authorizer, AuthorizerOptions
from extauthz.checkapi.build import check_request
from extauthz.checkapi.read import read_check_request
from extauthz.decision import Decision
from extauthz.istio.load import load
from extauthz.protos.external_auth_pb2 import CheckResponse
from extauthz.server.decision_log import DecisionLog
from extauthz.server.observation import Observers
from extauthz.server.options import DecisionLogOptions, ServeOptions
from extauthz.server.service import Service

DAY = 86_400
REAL_TIME, REAL_TIME_NS = time.time, time.time_ns

SetClock = Callable[[float], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Puts the wall clock of everything of ours so many seconds from the true time."""
    offset = [0.0]

    def now() -> float:
        return REAL_TIME() + offset[0]

    def now_ns() -> int:
        return REAL_TIME_NS() + int(offset[0] * 1e9)

    for name in ("time.time", "extauthz.authorizer.time"):
        monkeypatch.setattr(name, now)
    for name in ("time.time_ns", "extauthz.server.checks.time_ns", "extauthz.server.observation.time_ns"):
        monkeypatch.setattr(name, now_ns)

    def set_clock(seconds: float) -> None:
        offset[0] = seconds

    return set_clock


@contextmanager
def loaded(policies: Path, tmp_path: Path, **options: Any) -> Iterator[Service]:
    """A service that has loaded its policies and is asked directly."""
    made = ServeOptions(policy=(str(policies),), listen=(f"unix:{tmp_path}/s",), transport="grpcio", **options)
    service = Service(made, made.addresses)
    try:
        service.load()
        service.open()
        yield service
    finally:
        service.stop()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in 30 s"
        time.sleep(0.02)


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_key_sets_are_fetched_on_schedule_and_do_not_age_by_a_jump(
    keys: Any, tmp_path: Path, set_clock: SetClock, jump: float
) -> None:
    policies = tmp_path / "policies.yaml"
    policies.write_text(f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: tokens, namespace: shop}}
spec: {{jwtRules: [{{issuer: issuer, jwksUri: "{keys.url}"}}]}}
""")
    fetch = FetchOptions(refresh=0.1, refresh_min=0.05, max_stale=60)
    with loaded(policies, tmp_path, fetch=fetch) as service:

        def ages() -> list[float]:
            return list(service.snapshot()["jwks_age_seconds"].values())

        until(lambda: keys.asked > 2)
        set_clock(jump)
        asked = keys.asked
        until(lambda: keys.asked >= asked + 3)
        (age,) = ages()
        assert 0 <= age < 30
        keys.status = 503
        asked = keys.asked
        until(lambda: keys.asked > asked)
        assert len(ages()) == 1, "a jump has made the last good set too old"
        set_clock(0)
        keys.status = 200
        asked = keys.asked
        until(lambda: keys.asked >= asked + 3)
        # Neither a storm while the clock stood elsewhere nor silence until it is there again.
        assert 0 <= ages()[0] < 30


def test_a_saved_key_set_is_as_old_as_the_wall_clock_says_but_never_of_the_future(tmp_path: Path) -> None:
    cache = DiskCache(str(tmp_path / "cache"))
    cache.save("set", "http://keys.example/", "{}", "")
    (file,) = (tmp_path / "cache").iterdir()
    ages = []
    for saved in (DAY, -DAY):  # the clock went back by a day, or forwards
        os.utime(file, (time.time() + saved,) * 2)
        kept = cache.load("set")
        assert kept is not None
        ages.append(kept.age)
    assert ages[0] == 0.0
    assert DAY <= ages[1] < DAY + 60


def test_remembered_tokens_are_judged_by_the_time_of_each_call(policy_file: Path, story: Any) -> None:
    now = time.time()
    resources = load([str(policy_file)]).resources
    authorizer = Authorizer(resources, AuthorizerOptions())
    claims = {"iss": "issuer", "sub": "someone", "nbf": int(now) - 600, "exp": int(now) + 600}
    token = story.key.token(claims)

    def status(at: float) -> int:
        message = check_request("GET", "/private", [("authorization", f"Bearer {token}")], host="example.com")
        assert message is not None
        return authorizer.decide(read_check_request(message), at).status

    # Good, expired, good again, not yet valid, good again: neither a good nor a bad answer outlives its time.
    jumps = (0, 0, DAY, DAY, 0, -DAY, -DAY, 0)
    assert [status(now + jump) for jump in jumps] == [200, 200, 401, 401, 200, 401, 401, 200]


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_durations_are_measured_and_denials_counted_as_before(
    policy_file: Path, tmp_path: Path, set_clock: SetClock, jump: float
) -> None:
    message = check_request("GET", "/private", [], host="example.com")
    assert message is not None
    with loaded(policy_file, tmp_path) as service:
        for offset in (0, jump, 0):
            set_clock(offset)
            assert CheckResponse.FromString(service._checks.handle(message)).denied_response.status.code == 403
        counted = service.snapshot()
        assert sum(counted["decisions"].values()) == 3
        assert 0 < counted["check_duration_seconds"]["sum",] < DAY / 24


def test_a_decision_is_stamped_by_the_wall_clock_and_never_takes_less_than_no_time(
    tmp_path: Path, set_clock: SetClock
) -> None:
    log = DecisionLog(DecisionLogOptions(str(tmp_path / "log")))
    log.start()
    observers = Observers([log])
    for jump in (0, DAY, -DAY):
        set_clock(jump)
        observers.record(None, Decision(True), time.time_ns())
    began = time.time_ns()
    set_clock(-2 * DAY)  # back while a call is being decided
    observers.record(None, Decision(True), began)
    log.close(60.0)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    stamps = [datetime.fromisoformat(line["timestamp"]).timestamp() - REAL_TIME() for line in lines]
    assert stamps == pytest.approx([0, DAY, -DAY, -DAY], abs=DAY / 24)
    assert all(0 <= line["extauthz.duration_us"] < DAY / 24 * 1e6 for line in lines)
