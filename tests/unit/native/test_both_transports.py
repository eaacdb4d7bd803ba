"""What both transports make of the same frames. Where grpcio does otherwise the test of the native one is elsewhere:

it unpacks compressed messages, ends connections for padding, takes any content type, ends the stream (not the call) of
what has no `te` or is no POST, lets header lists pass beyond what it announces, and calls a message of another length
than announced UNIMPLEMENTED.
"""

import contextlib
import time

import h2.events
import h2.settings
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from extauthz.errors import MalformedCheckRequest
from extauthz.server import native, transports
from extauthz.server.listeners import Address
from extauthz.server.transport import CHECK_METHOD, HEALTH_WATCH_METHOD, Limits

MIB = 1 << 20
CODES = h2.settings.SettingCodes


def turn_round(message):
    if message == b"bad":
        raise MalformedCheckRequest("50 % of é\n")
    return message[::-1]


@pytest.fixture(params=["native", "grpcio"])
def client(request, connect):
    """Connects to one transport after the other."""
    if request.param == "native" and not native.available()[0]:
        pytest.skip(f"the native transport is not available: {native.available()[1]}")
    with contextlib.ExitStack() as stack:

        def start(*, settings=None, **limits):
            handlers = {CHECK_METHOD: turn_round}
            transport, _ = transports.make(request.param, [Address(host="127.0.0.1")], handlers, Limits(**limits))
            stack.callback(transport.stop)
            (address,) = transport.bind()
            transport.set_serving(True)
            transport.start()
            return connect((address.host, address.port), settings=settings)

        yield start


def is_alive(client):
    return client.answer(client.call(b"ab"))[1] == b"ba"


def test_a_call_that_comes_byte_by_byte_is_answered(client):
    connected = client()
    fields, message = connected.answer(connected.call(b"abc", step=1))
    assert message == b"cba"
    assert (fields[":status"], fields["grpc-status"]) == ("200", "0")


def test_many_calls_in_one_segment_are_answered_each(client):
    connected = client()
    messages = {connected.begin(): str(number).encode() for number in range(50)}
    for stream, message in messages.items():
        connected.send(stream, b"\0" + len(message).to_bytes(4, "big") + message, end=True)
    connected.flush()
    for stream, message in messages.items():
        assert connected.answer(stream)[1] == message[::-1]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({":path": "/other.Service/Do"}, "12"),
        ({":path": "/"}, "12"),
        ({"grpc_timeout": "0n"}, "4"),
        ({"grpc_timeout": "nonsense"}, "13"),
        ({"message": b"m" * 2000}, "8"),
        ({"message": b"bad"}, "3"),
    ],
)
def test_what_cannot_be_answered_ends_with_the_status_that_says_why(client, changed, status):
    connected = client(message_bytes=1000)
    fields, _ = connected.answer(connected.call(**changed))
    assert (fields[":status"], fields["grpc-status"]) == ("200", status)
    assert fields["grpc-message"]
    assert is_alive(connected)


def test_error_texts_are_percent_encoded(client):
    connected = client()
    assert connected.answer(connected.call(b"bad"))[0]["grpc-message"] == "50 %25 of %C3%A9%0A"


def test_a_deadline_counts_although_the_message_has_not_come(client):
    connected = client()
    began = time.monotonic()
    stream = connected.call(b"half", prefix=b"\0\0\0\1\0", end=False, grpc_timeout="300m")
    assert connected.answer(stream)[0]["grpc-status"] == "4"
    assert time.monotonic() - began >= 0.29  # grpcio counts whole milliseconds
    assert is_alive(connected)


def test_a_caller_that_leaves_in_the_middle_disturbs_nobody(client):
    connected = client()
    stream = connected.call(b"half", prefix=b"\0\0\0\1\0", end=False)
    connected.h2.reset_stream(stream, 8)
    assert is_alive(connected)


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto"])
def test_variants_of_the_content_type_are_calls(client, content_type):
    connected = client()
    assert connected.answer(connected.call(b"ab", content_type=content_type))[1] == b"ba"


def test_pings_are_answered(client):
    connected = client()
    for number in range(20):
        connected.h2.ping(number.to_bytes(8, "big"))
    connected.flush()
    connected.read_until(lambda: len(connected.received(h2.events.PingAckReceived)) == 20)
    assert is_alive(connected)


def test_messages_of_16_mib_pass_in_both_directions(client):
    connected = client(settings={CODES.INITIAL_WINDOW_SIZE: 4 * MIB})
    message = bytes(range(256)) * (16 * MIB // 256)
    stream = connected.begin()
    data = memoryview(b"\0" + len(message).to_bytes(4, "big") + message)
    while data:
        connected.read_until(lambda: connected.h2.local_flow_control_window(stream) > 0)
        part = min(connected.h2.local_flow_control_window(stream), 16384, len(data))
        connected.h2.send_data(stream, bytes(data[:part]), end_stream=part == len(data))
        connected.flush()
        data = data[part:]
    assert connected.answer(stream, 60)[1] == message[::-1]


@pytest.mark.parametrize("window", [1, 6])
def test_answers_pass_through_windows_of_any_size(client, window):
    connected = client(settings={CODES.INITIAL_WINDOW_SIZE: window})
    assert connected.answer(connected.call(b"message"))[1] == b"egassem"


def test_a_watch_of_an_unknown_service_says_so(client):
    connected = client()
    request = HealthCheckRequest(service="other.Service").SerializeToString()
    stream = connected.call(request, **{":path": HEALTH_WATCH_METHOD})
    connected.read_until(lambda: len(connected.answers.get(stream, {}).get("data", b"")) > 5)
    answer = HealthCheckResponse.FromString(bytes(connected.answers[stream]["data"][5:]))
    assert answer.status == HealthCheckResponse.SERVICE_UNKNOWN


def test_what_is_no_http2_is_closed(client):
    connected = client()
    with contextlib.suppress(ConnectionError):
        connected.socket.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 10)
        while connected.socket.recv(65536):
            pass
