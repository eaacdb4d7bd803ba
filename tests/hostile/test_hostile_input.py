"""Hostile input of every kind, in a short form of `make hostile`; and that the campaign notices what is broken."""

import itertools
import json
import os
import random
import signal
import time
from dataclasses import replace

import hostile_campaign
import hostile_runner
import pytest
from hostile_families import DENIED, REFUSED
from hostile_frames import attack
from hostile_keys import KeySets
from hostile_policies import MUST_AGREE, MUST_REFUSE, Policies
from hostile_requests import Requests
from hostile_runner import Store, run_apart, run_inputs
from hostile_subject import DENIED_PATH, Judge, allows, authorizer, make_subject
from hostile_tokens import Tokens

from extauthz.authn.keys import KeySet
from extauthz.checkapi.build import check_request
from extauthz.checkapi.write import write_decision
from extauthz.decision import Decision
from extauthz.minting import SigningKey, key_set

SEED = 12
ALLOW = write_decision(Decision(True, reason="allowed"))


@pytest.fixture(scope="module")
def subject():
    return make_subject()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "stored")


# ---- the short form --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (lambda subject: Requests(subject, SEED), 5000),
        (lambda subject: Tokens(subject, SEED), 4000),
        (lambda subject: KeySets(seed=SEED), 500),
        (lambda subject: Policies(subject, SEED), 300),
    ],
    ids=["check-requests", "tokens", "key-sets", "policies"],
)
def test_hostile_input_is_never_allowed_and_breaks_nothing(subject, store, make, inputs):
    tally = run_inputs(make(subject), SEED, range(inputs), store)
    assert tally.inputs == inputs
    assert tally.violations == 0, tally.notes
    # Nothing was proved if every input was refused for the same reason.
    assert tally.outcomes[REFUSED if tally.family != "tokens" else DENIED] > inputs // 20
    assert tally.outcomes[DENIED] > inputs // 20


def test_hostile_peers_break_nothing_on_the_reference_transport():
    tally = attack("grpcio", 1.5, SEED)
    assert (tally.wrongly_allowed, tally.crashes) == (0, 0), tally.notes
    assert tally.inputs > 100


# ---- the judge -------------------------------------------------------------------------------------------------------


def _message(token, method="GET", path="/allowed", headers=()):
    return check_request(method, path, [("authorization", f"Bearer {token}"), *headers], host="h")


def test_the_judge_agrees_with_good_requests(subject):
    judge = Judge(subject.keys)
    for key in subject.keys:
        message = _message(key.token(subject.claims()))
        assert allows(subject.check(message))
        assert judge.fault(message) == ""


def test_the_judge_finds_fault_with_each_thing_that_the_policies_forbid(subject):
    judge, key = Judge(subject.keys), subject.keys[1]
    good = key.token(subject.claims())
    stranger = SigningKey.generate("ES256", "e").token(subject.claims())
    assert judge.fault(_message(stranger)) == "no token that a test key signed"
    assert judge.fault(_message(good[:-8] + "AAAAAAAA")) == "no token that a test key signed"
    for changed in ({"exp": 1}, {"nbf": 2**40}, {"iss": "x"}, {"aud": "x"}, {"exp": "1"}, {"exp": None}):
        assert judge.fault(_message(key.token(subject.claims(**changed)))) == "no token that a test key signed"
    assert judge.fault(_message(good, method="POST")) == "method 'POST'"
    assert judge.fault(_message(good, path=f"{DENIED_PATH}?x")) == f"path '{DENIED_PATH}'"
    assert judge.fault(_message(good, headers=[("x-blocked", "yes")])) == "the blocked header"
    assert judge.fault(b"\xff") == "not a CheckRequest"


def test_the_judge_reads_past_what_is_broken_in_parts_that_do_not_matter(subject):
    message = _message(subject.keys[1].token(subject.claims()))
    broken = message.replace(b"127.0.0.1", b"127.0\xff0.1")
    assert broken != message
    assert Judge(subject.keys).fault(broken) == ""


# ---- the campaign notices --------------------------------------------------------------------------------------------


def test_what_allows_everything_is_noticed_and_kept(subject, store, tmp_path):
    broken = replace(subject, check=lambda message: ALLOW)
    for family in (Requests(broken, SEED), Tokens(broken, SEED)):
        tally = run_inputs(family, SEED, range(50), store)
        assert tally.wrongly_allowed > 25
        assert tally.violations == tally.wrongly_allowed
    kept = sorted((tmp_path / "stored").iterdir())
    assert kept
    reason, data = kept[0].read_text().splitlines()
    assert reason.startswith("# ")
    assert bytes.fromhex(data)


def test_a_verifier_that_takes_any_signature_is_noticed(store):
    class Gullible:
        def verify(self, algorithm, kid, signed, signature):
            return None

    family = KeySets(parse=lambda text: Gullible(), seed=SEED)
    assert run_inputs(family, SEED, range(20), store).wrongly_allowed == 20


def test_a_key_set_that_gives_a_forger_his_key_is_noticed(store):
    # A shared secret of nothing, as if the secret had been passed over.
    family = KeySets(
        parse=lambda text: KeySet.parse(json.dumps(key_set(SigningKey("HS256", "", bytes(32))))), seed=SEED
    )
    assert run_inputs(family, SEED, range(20), store).wrongly_allowed == 20


def test_a_loader_that_passes_over_bad_fields_is_noticed(subject, store):
    check = authorizer(subject.policies).check
    family = Policies(subject, SEED, load=lambda text: check)
    asked = [family.make(random.Random(SEED << 32 ^ number)).asked for number in range(60)]
    assert run_inputs(family, SEED, range(60), store).wrongly_allowed >= asked.count(MUST_REFUSE) > 5
    assert asked.count(MUST_AGREE) > 2


def test_exceptions_are_crashes(subject, store):
    def check(message):
        raise ValueError("broken")

    tally = run_inputs(Requests(replace(subject, check=check), SEED), SEED, range(20), store)
    assert (tally.crashes, tally.violations) == (20, 20)
    assert "ValueError: broken" in tally.notes[0]


def test_what_takes_too_long_is_a_hang(subject, store, monkeypatch):
    monkeypatch.setattr(hostile_runner, "HANG_SECONDS", 0.005)

    def check(message):
        time.sleep(0.006)
        return subject.check(message)

    assert run_inputs(Requests(replace(subject, check=check), SEED), SEED, range(10), store).hangs == 10


def test_what_is_slow_once_is_not_a_hang(subject, store, monkeypatch):
    monkeypatch.setattr(hostile_runner, "HANG_SECONDS", 2.0)
    slow = iter([True])

    def check(message):
        time.sleep(2.01 if next(slow, False) else 0)
        return subject.check(message)

    assert run_inputs(Requests(replace(subject, check=check), SEED), SEED, range(10), store).hangs == 0


def test_a_leak_is_growth(subject, store):
    kept = []

    def check(message):
        kept.append(bytearray(os.urandom(1)) * 100_000)
        return subject.check(message)

    tally = run_inputs(Requests(replace(subject, check=check), SEED), SEED, range(800), store)
    assert tally.growth > hostile_runner.GROWTH_LIMIT
    assert tally.violations == 1


def test_the_end_of_a_process_is_a_crash_and_the_rest_is_tried(subject, store, tmp_path):
    count = itertools.count()

    def check(message):
        if next(count) == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return subject.check(message)

    tally = run_apart(Requests(replace(subject, check=check), SEED), SEED, 20, store)
    # Each process counts for itself: what is left after the first end has an eighth input, too.
    assert (tally.crashes, tally.inputs) == (2, 20)
    assert {file.name for file in (tmp_path / "stored").iterdir()} == {
        "checkrequests-crash-7.hex",
        "checkrequests-crash-15.hex",
    }


def test_silence_is_a_hang_and_the_rest_is_tried(subject, store, monkeypatch):
    monkeypatch.setattr(hostile_runner, "SILENCE_SECONDS", 4.0)
    count = itertools.count()

    def check(message):
        while next(count) >= 3:
            time.sleep(0.01)
        return subject.check(message)

    tally = run_apart(Requests(replace(subject, check=check), SEED), SEED, 6, store)
    assert (tally.hangs, tally.inputs) == (1, 6)


def test_the_exit_status_says_whether_all_was_well(tmp_path, monkeypatch, capsys, subject):
    monkeypatch.setattr(hostile_campaign, "attack", lambda *_: hostile_runner.Tally("frames", 1))
    monkeypatch.setattr(hostile_campaign, "idle", lambda *_: hostile_runner.Tally("idle", 1))
    monkeypatch.setattr(hostile_campaign, "make_subject", lambda: subject)
    arguments = ["--inputs", "200", "--seed", "3", "--jobs", "1", "--directory", str(tmp_path / "found")]
    assert hostile_campaign.main(arguments) == 0
    assert json.loads((tmp_path / "found" / "summary.json").read_text())["violations"] == 0
    assert "seed 3" in capsys.readouterr().out
    monkeypatch.setattr(hostile_campaign, "make_subject", lambda: replace(subject, check=lambda message: ALLOW))
    assert hostile_campaign.main(arguments) == 1
    summary = json.loads((tmp_path / "found" / "summary.json").read_text())
    assert summary["violations"] > 50
    assert summary["families"][0]["wrongly_allowed"] > 50
