"""Both senders of Check calls: every call becomes one record, and each way to end has its own outcome."""

from __future__ import annotations

import threading
from pathlib import Path
from time import monotonic_ns

import numpy as np
import pytest

from extauthz.checkapi.write import write_decision
from extauthz.decision import Decision
from extauthz.loadtest import sender_native
from extauthz.loadtest.outcomes import GRPC_BASE, Outcome
from extauthz.loadtest.sender import CAPACITY, Tls
from extauthz.server.transport import CallFailed, Status, TlsOptions

ALLOW = write_decision(Decision(True))
PATIENCE = 60.0


@pytest.fixture(params=["native", "grpcio"])
def name(request: pytest.FixtureRequest) -> str:
    """Each sender in turn."""
    if request.param == "native" and not sender_native.available()[0]:
        pytest.skip("the native sender is not available")
    return str(request.param)


def test_each_call_becomes_one_record_with_its_times_in_order(lab, name):
    server = lab.serve_check(lambda message: ALLOW)
    records = lab.drive(name, lab.check_wire(server.address), [lab.check_message], count=200, rate=2000)
    assert len(records) == 200
    assert set(records["outcome"]) == {Outcome.ALLOWED}
    assert np.all(np.diff(records["due"]) > 0)
    for earlier, later in (("due", "taken"), ("taken", "sent"), ("sent", "done")):
        assert np.all(records[earlier] <= records[later])


def test_the_server_gets_the_payloads_in_the_order_asked_for(lab, name):
    seen = []

    def keep(message: bytes) -> bytes:
        seen.append(message)
        return ALLOW

    server = lab.serve_check(keep)
    payloads = [b"", b"\x0a\x00", lab.check_message, b"\x0a" + b"\xff\xff\x03" + bytes(65535)]
    records = lab.drive(name, lab.check_wire(server.address, connections=1), payloads, count=8)
    assert sorted(seen) == sorted(payloads * 2)
    assert list(records["payload"]) == [0, 1, 2, 3, 0, 1, 2, 3]


def test_denials_have_the_status_that_the_client_would_get(lab, name):
    answers = [
        write_decision(Decision(False, 401, "no")),
        write_decision(Decision(False, 403, "no")),
        b"\x0a\x02\x08\x07",  # status 7 alone
        b"\x12\x04\x0a\x02\x08\x00",  # denied_response with status 0: Envoy lets it pass
        b"",
    ]
    server = lab.serve_check(lambda message: answers[message[0]])
    payloads = [bytes([number]) for number in range(5)]
    records = lab.drive(name, lab.check_wire(server.address, connections=1), payloads, count=5)
    assert list(records["outcome"]) == [401, 403, 403, Outcome.ALLOWED, Outcome.ALLOWED]


def test_an_answer_that_is_no_check_response_is_a_protocol_error(lab, name):
    server = lab.serve_check(lambda message: b"\xff\xff\xff")
    records = lab.drive(name, lab.check_wire(server.address), [b""], count=3)
    assert set(records["outcome"]) == {Outcome.PROTOCOL}


def test_grpc_errors_keep_their_status(lab, name):
    def fail(message: bytes) -> bytes:
        raise CallFailed(Status(message[0]), "no")

    statuses = [Status.UNAVAILABLE, Status.INTERNAL, Status.RESOURCE_EXHAUSTED, Status.INVALID_ARGUMENT]
    server = lab.serve_check(fail)
    payloads = [bytes([status]) for status in statuses]
    records = lab.drive(name, lab.check_wire(server.address), payloads, count=4)
    assert list(records["outcome"]) == [GRPC_BASE - status for status in statuses]


def test_calls_to_nobody_are_refused(lab, name, closed_port):
    records = lab.drive(name, lab.check_wire(("127.0.0.1", closed_port)), [b""], count=50)
    assert set(records["outcome"]) == {Outcome.REFUSED}


def test_a_missing_unix_socket_refuses(lab, name, tmp_path):
    records = lab.drive(name, lab.check_wire(str(tmp_path / "nobody")), [b""], count=5)
    assert set(records["outcome"]) == {Outcome.REFUSED}


def test_unix_sockets_work(lab, name, tmp_path):
    server = lab.serve_check(lambda message: ALLOW, listen=f"unix:{tmp_path / 's'}")
    records = lab.drive(name, lab.check_wire(server.address), [lab.check_message])
    assert set(records["outcome"]) == {Outcome.ALLOWED}


def test_a_server_that_comes_up_later_is_found(lab, name, closed_port):
    working = lab.open(name, lab.check_wire(("127.0.0.1", closed_port)), [b""])

    def ended_with(outcome: Outcome) -> bool:
        """Whether one more call ends so."""
        assert working.offer(np.array([monotonic_ns()], np.int64), np.zeros(1, np.uint32)) == 1
        records: list[np.ndarray] = []

        def ended() -> bool:
            records.append(working.collect())
            return len(records[-1]) > 0

        lab.eventually(ended)
        return bool(records[-1]["outcome"][0] == outcome)

    try:
        assert ended_with(Outcome.REFUSED)
        lab.serve_check(lambda message: ALLOW, listen=f"127.0.0.1:{closed_port}")
        lab.eventually(lambda: ended_with(Outcome.ALLOWED))
    finally:
        working.close()


def test_calls_without_an_answer_time_out_counted_from_when_they_were_due(lab, name):
    released = threading.Event()
    server = lab.serve_check(lambda message: released.wait(PATIENCE) and ALLOW)
    try:
        records = lab.drive(name, lab.check_wire(server.address, timeout=0.3), [b""], count=5)
    finally:
        released.set()
    assert set(records["outcome"]) == {Outcome.TIMEOUT}
    assert np.all(records["done"] - records["due"] >= 290_000_000)


def test_a_connection_that_ends_resets_its_calls(lab, name):
    server = lab.serve_frames(b"")
    records = lab.drive(name, lab.check_wire(server.address), [b""], count=5, rate=20)
    assert set(records["outcome"]) == {Outcome.RESET}


def test_closing_leaves_calls_under_way_unfinished_and_withdrawing_forgets_the_rest(lab, name):
    released = threading.Event()
    server = lab.serve_check(lambda message: released.wait(PATIENCE) and ALLOW)
    working = lab.open(name, lab.check_wire(server.address), [b""])
    try:
        now = monotonic_ns()
        due = np.array([now, now, now + 60_000_000_000, now + 61_000_000_000], np.int64)
        assert working.offer(due, np.zeros(4, np.uint32)) == 4
        lab.eventually(lambda: working.statistics()["peak_in_flight"] == 2)
        working.withdraw()
        lab.eventually(lambda: working.statistics()["withdrawn"] == 2)
    finally:
        working.close()
        released.set()
    assert list(working.collect()["outcome"]) == [Outcome.UNFINISHED] * 2


def test_no_sample_is_dropped_when_far_more_is_asked_than_can_be_held(lab, closed_port):
    count = CAPACITY + 20_000
    records = lab.drive("native", lab.check_wire(("127.0.0.1", closed_port)), [b""], count=count, rate=1e9)
    assert len(records) == count
    assert set(records["outcome"]) == {Outcome.REFUSED}


def test_calls_beyond_the_servers_stream_limit_wait_and_are_answered(lab):
    few_streams = lab.frame(4, 0, 0, b"\x00\x03\x00\x00\x00\x01")  # MAX_CONCURRENT_STREAMS 1
    headers = b"\x88\x0f\x10\x10application/grpc"
    trailers = b"\x00\x0bgrpc-status\x010"

    def answer(stream: int) -> bytes:
        return lab.frame(1, 4, stream, headers) + lab.frame(0, 0, stream, bytes(5)) + lab.frame(1, 5, stream, trailers)

    server = lab.serve_frames(few_streams + answer(1), *(answer(stream) for stream in range(3, 40, 2)))
    records = lab.drive("native", lab.check_wire(server.address, connections=1), [b""], count=20, rate=1e6)
    assert set(records["outcome"]) == {Outcome.ALLOWED}


def test_a_goaway_loses_nothing_that_the_server_answers(lab):
    server = lab.serve_check(lambda message: ALLOW)
    other = threading.Timer(0.3, lambda: server.transport.drain(PATIENCE))
    other.start()
    records = lab.drive("native", lab.check_wire(server.address), [b""], count=600, rate=1000)
    other.join()
    # Until the listener is gone everything is answered, then everything is refused.
    outcomes = list(records["outcome"])
    assert set(outcomes) <= {Outcome.ALLOWED, Outcome.REFUSED}
    assert outcomes == sorted(outcomes, reverse=True)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (lambda lab: lab.frame(3, 0, 1, (7).to_bytes(4, "big")), Outcome.REFUSED_STREAM),
        (lambda lab: lab.frame(3, 0, 1, (8).to_bytes(4, "big")), Outcome.RESET),
        (lambda lab: lab.frame(1, 5, 1, b"\x88"), Outcome.PROTOCOL),  # 200 without grpc-status
        (lambda lab: lab.frame(1, 5, 1, b"\x8d"), GRPC_BASE - 12),  # 404: UNIMPLEMENTED
        (lambda lab: lab.frame(1, 5, 1, b"\x88\x00\x0bgrpc-status\x0216"), GRPC_BASE - 16),
        (lambda lab: b"HTTP/1.1 400 Bad Request\r\n\r\n", Outcome.PROTOCOL),
    ],
)
def test_odd_answers_have_their_own_outcomes(lab, answer, outcome):
    server = lab.serve_frames(answer(lab))
    records = lab.drive("native", lab.check_wire(server.address, connections=1), [b""], count=1)
    assert list(records["outcome"]) == [outcome]


def test_large_messages_pass_in_both_directions(lab, name):
    large = b"\x7a\x80\x80\x40" + bytes(1 << 20)  # an unknown field of 1 MiB
    server = lab.serve_check(lambda message: large if len(message) == 1 << 20 else b"\xff")
    records = lab.drive(name, lab.check_wire(server.address), [bytes(1 << 20)], count=3)
    assert set(records["outcome"]) == {Outcome.ALLOWED}


def test_grpcio_speaks_tls(lab, certificate):
    public, private = certificate
    server = lab.serve_check(lambda message: ALLOW, tls=TlsOptions(public, private))
    trusting = lab.check_wire(server.address, tls=Tls("localhost", authority=public))
    assert set(lab.drive("grpcio", trusting, [b""])["outcome"]) == {Outcome.ALLOWED}
    distrusting = lab.check_wire(server.address, tls=Tls("localhost"))
    assert set(lab.drive("grpcio", distrusting, [b""], count=3)["outcome"]) == {Outcome.UNREACHABLE}


def test_the_engine_refuses_what_it_cannot_be_made_of(tmp_path: Path):
    engine = pytest.importorskip("extauthz.loadtest._sender").Engine
    good = {
        "address": ("127.0.0.1", 1), "protocol": "check", "payloads": (b"",), "headers": bytes(4), "connections": 1,
        "timeout": 1, "spin": 0, "capacity": 1,
    }  # fmt: skip
    engine(**good)
    bad = [
        {"address": ("localhost", 1)}, {"address": "x" * 200}, {"address": ("127.0.0.1", 70000)}, {"protocol": "h3"},
        {"payloads": ()}, {"headers": b"\x01\x00\x00\x00"}, {"headers": b"\xff\xff\xff\xff"}, {"connections": 0},
        {"timeout": 0}, {"spin": -1}, {"protocol": "h2c", "payloads": (b"",)},
    ]  # fmt: skip
    for change in bad:
        with pytest.raises(ValueError, match=r"\w"):
            engine(**good | change)
    with pytest.raises(TypeError):
        engine(**good | {"payloads": ("text",)})
    with pytest.raises(ValueError, match="offer takes"):
        engine(**good).offer(np.zeros(2, np.int64), np.zeros(1, np.uint32))
    with pytest.raises(ValueError, match="offer takes"):
        engine(**good).offer(np.zeros(1, np.int64), np.ones(1, np.uint32))
