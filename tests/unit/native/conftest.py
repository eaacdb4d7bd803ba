"""The native transport in this process, and a client that sends it whatever frames it is told to."""

import contextlib
import socket
import time

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from extauthz.server import native
from extauthz.server.listeners import Address
from extauthz.server.transport import CHECK_METHOD, Limits

HEADERS = {
    ":method": "POST",
    ":scheme": "http",
    ":path": CHECK_METHOD,
    ":authority": "h",
    "te": "trailers",
    "content-type": "application/grpc",
}


@pytest.fixture
def serve():
    """Starts transports with one handler for Check, which turns messages round unless told otherwise."""
    if not native.available()[0]:
        pytest.skip(f"the native transport is not available: {native.available()[1]}")
    running = []

    def start(handler=lambda message: message[::-1], **limits):
        transport = native.NativeTransport([Address(host="127.0.0.1")], {CHECK_METHOD: handler}, Limits(**limits))
        (address,) = transport.bind()
        transport.set_serving(True)
        transport.start()
        running.append(transport)
        return transport, (address.host, address.port)

    yield start
    for transport in running:
        transport.stop()


class Client:
    """An HTTP/2 client that sends what it is told to, and reads only when it is asked for something."""

    def __init__(self, address, *, settings=None, receive_buffer=0):
        self.socket = socket.socket()
        self.socket.settimeout(60)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(address)
        config = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        # h2 takes the first GOAWAY of a graceful end for the end.
        machine = self.h2.state_machine
        state, goaway = h2.connection.ConnectionState.CLIENT_OPEN, h2.connection.ConnectionInputs.RECV_GOAWAY
        machine._transitions = {**machine._transitions, (state, goaway): (None, state)}
        self.h2.local_settings = h2.settings.Settings(client=True, initial_values=settings)
        self.h2.initiate_connection()
        self.answers = {}
        self.events = []
        self.flush()

    def flush(self, step=0):
        """Send what h2 has, in segments of `step` bytes if given."""
        data = self.h2.data_to_send()
        for at in range(0, len(data), step or len(data) or 1):
            self.socket.sendall(data[at : at + step] if step else data)

    def begin(self, **changed):
        """Queue the headers of a call, some of them changed or (None) left out. Returns its stream."""
        stream = self.h2.get_next_available_stream_id()
        headers = {**HEADERS, **{name.replace("_", "-"): value for name, value in changed.items()}}
        self.h2.send_headers(stream, [(name, value) for name, value in headers.items() if value is not None])
        return stream

    def header_block(self):
        """The headers of a call, encoded, to be sent in frames made by hand."""
        return self.h2.encoder.encode(HEADERS.items())

    def send(self, stream, data, *, end=False):
        """Queue data of a call in frames of the usual size."""
        for at in range(0, len(data), 16384):
            self.h2.send_data(stream, data[at : at + 16384])
        if end:
            self.h2.end_stream(stream)

    def call(self, message=b"", *, prefix=None, step=0, end=True, **changed):
        """Send a call. Returns its stream."""
        stream = self.begin(**changed)
        data = (b"\0" + len(message).to_bytes(4, "big") if prefix is None else prefix) + message
        self.h2.send_data(stream, data, end_stream=end)
        self.flush(step)
        return stream

    def answer(self, stream, seconds=60.0):
        """Headers and trailers together, and the message, once the stream has ended."""
        self.read_until(lambda: self.answers.get(stream, {}).get("ended"), seconds)
        found = self.answers.get(stream, {})
        return found.get("fields", {}), bytes(found.get("data", b"")[5:])

    def read_until(self, condition, seconds=60.0):
        """Read on until the condition holds or the connection ends."""
        deadline = time.monotonic() + seconds
        while not condition() and self.read():
            assert time.monotonic() < deadline

    def read(self):
        """Take what comes next. Returns its bytes, none at the end of the connection."""
        data = self.socket.recv(65536)
        for event in self.h2.receive_data(data) if data else ():
            self.events.append(event)
            found = self.answers.setdefault(getattr(event, "stream_id", 0), {"fields": {}, "data": bytearray()})
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                found["fields"].update({name.decode(): value.decode() for name, value in event.headers})
            elif isinstance(event, h2.events.DataReceived):
                found["data"] += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                found["ended"] = True
        self.flush()
        return data

    def received(self, kind):
        """The events of one kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    def read_to_end(self, seconds=60.0):
        """Read until the server closes the connection."""
        with contextlib.suppress(ConnectionError):
            self.read_until(lambda: False, seconds)


@pytest.fixture
def connect():
    """Opens clients; they are closed at the end."""
    with contextlib.ExitStack() as stack:

        def connect(address, **options):
            client = Client(address, **options)
            stack.callback(client.socket.close)
            return client

        yield connect


@pytest.fixture
def eventually():
    """Waits until a condition holds."""

    def eventually(condition, seconds=60.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.01)

    return eventually
