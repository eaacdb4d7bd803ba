"""The extension's `Server` by itself: run in any thread, interrupted, called from handlers, on sockets it is given."""

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import grpc
import pytest

from extauthz.server import native
from extauthz.server.listeners import Address

LIMITS = {
    "message_bytes": 1 << 20,
    "header_bytes": 65536,
    "streams": 100,
    "connections": 100,
    "in_flight": 0,
    "held_bytes": 1 << 26,
    "preface_seconds": 5.0,
    "idle_seconds": 0.0,
    "call_seconds": 5.0,
    "age_seconds": 0.0,
    "age_grace_seconds": 1.0,
}
METHOD = "/test.Service/Do"


def refuse(error):
    return 9, f"{type(error).__name__}: {error}"


@pytest.fixture
def make():
    """Makes servers for one handler, with the socket they listen on."""
    if not native.available()[0]:
        pytest.skip(f"the native transport is not available: {native.available()[1]}")
    from extauthz.server.native import _native

    made = []

    def make(handler, *, explain=refuse, listener=None, **limits):
        server = _native.Server({METHOD: handler}, {}, explain, **{**LIMITS, **limits})
        listener = listener or socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1] if listener.family != socket.AF_UNIX else 0
        server.listen(listener.detach())
        made.append(server)
        return server, f"127.0.0.1:{port}"

    yield make
    for server in made:
        server.close()


@pytest.fixture
def run():
    """Runs servers in threads; gives what serve() raised."""
    threads = []

    def run(server):
        raised = []

        def serve():
            try:
                server.serve()
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        threads.append((server, thread))
        return thread, raised

    yield run
    for server, thread in threads:
        if thread.is_alive():
            server.stop()
        thread.join(60)
        assert not thread.is_alive()


def call(target, message=b"", seconds=60):
    with grpc.insecure_channel(target, (("grpc.use_local_subchannel_pool", 1),)) as channel:
        return channel.unary_unary(METHOD)(message, timeout=seconds, wait_for_ready=True)


def failure(target, message=b""):
    with pytest.raises(grpc.RpcError) as found:
        call(target, message)
    return found.value.code(), found.value.details()


def test_what_a_handler_raises_is_explained_to_the_caller(make, run):
    def handler(message):
        raise KeyError("no")

    server, target = make(handler)
    run(server)
    assert failure(target) == (grpc.StatusCode.FAILED_PRECONDITION, "KeyError: 'no'")
    assert server.statistics()["handler_errors_total"] == 1


@pytest.mark.parametrize("answer", [None, "text", bytearray(b"x"), 7])
def test_an_answer_that_is_not_bytes_is_an_error_of_the_handler(make, run, answer):
    server, target = make(lambda message: answer)
    run(server)
    code, text = failure(target)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert text.startswith("TypeError")


def raising(error):
    raise RuntimeError("broken, too")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("explain", [raising, lambda error: None, lambda error: (1,), lambda error: ("x", 2)])
def test_an_explanation_that_fails_makes_the_error_internal(make, run, explain):
    server, target = make(lambda message: None, explain=explain)
    run(server)
    assert failure(target) == (grpc.StatusCode.INTERNAL, "")
    assert failure(target) == (grpc.StatusCode.INTERNAL, "")


def test_an_exit_in_a_handler_is_raised_by_serve_which_can_be_called_again(make, run):
    def handler(message):
        if message == b"exit":
            raise SystemExit(3)
        return message

    server, target = make(handler)
    thread, raised = run(server)
    assert failure(target, b"exit")[0] is grpc.StatusCode.INTERNAL
    thread.join(60)
    assert [type(error) for error in raised] == [SystemExit]
    run(server)
    assert call(target, b"x") == b"x"


def test_a_handler_may_end_the_server(make, run):
    def handler(message):
        server.drain(0.0, 60.0)
        return b"bye"

    server, target = make(handler)
    thread, raised = run(server)
    assert call(target) == b"bye"
    thread.join(60)
    assert not thread.is_alive()
    assert raised == []


def test_a_handler_can_neither_serve_nor_close(make, run):
    def handler(message):
        for forbidden in (server.serve, server.close):
            with pytest.raises(RuntimeError):
                forbidden()
        return b"fine"

    server, target = make(handler)
    run(server)
    assert call(target) == b"fine"


def test_a_drain_goes_on_accepting_for_as_long_as_it_is_told(make, run):
    server, target = make(lambda message: message)
    thread, _ = run(server)
    server.drain(600.0, 60.0)
    for _ in range(3):
        assert call(target, b"x") == b"x"
    assert thread.is_alive()
    server.drain(0.0, 60.0)
    thread.join(60)
    assert not thread.is_alive()


def test_a_drain_ends_by_itself_when_its_notice_is_over(make, run):
    server, target = make(lambda message: message)
    thread, _ = run(server)
    assert call(target, b"x") == b"x"
    began = time.monotonic()
    server.drain(0.3, 60.0)
    thread.join(60)
    assert not thread.is_alive()
    assert time.monotonic() - began > 0.25


def test_other_threads_run_while_calls_are_answered(make, run):
    """A handler that is no Python function never gives way by itself."""
    server, target = make(bytes)
    run(server)
    turns = []
    ended = threading.Event()

    def other():
        while not ended.is_set():
            turns.append(time.monotonic())
            time.sleep(0.001)

    thread = threading.Thread(target=other)
    thread.start()
    deadline = time.monotonic() + 60
    try:
        with grpc.insecure_channel(target) as channel:
            method = channel.unary_unary(METHOD)
            rounds = 0
            while rounds < 20 or len(turns) <= 20:
                for future in [method.future(b"x" * 100, timeout=60, wait_for_ready=True) for _ in range(20)]:
                    assert future.result() == b"x" * 100
                rounds += 1
                assert time.monotonic() < deadline, f"{len(turns)} turns in {rounds} rounds"
    finally:
        ended.set()
        thread.join()


def test_sockets_of_every_family_are_listened_on(make, run, tmp_path):
    server, target = make(lambda message: message)
    path = str(tmp_path / "s")
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(path)
    unix.listen()
    server.listen(unix.detach())
    targets = [target, f"unix:{path}"]
    with contextlib.suppress(OSError):  # a machine without IPv6
        six = socket.create_server(("::1", 0), family=socket.AF_INET6)
        targets.append(f"[::1]:{six.getsockname()[1]}")
        server.listen(six.detach())
    run(server)
    for each in targets:
        assert call(each, b"x") == b"x"


def test_what_cannot_be_listened_on_stays_the_callers(make):
    server, _ = make(lambda message: message)
    with pytest.raises(OSError, match="Bad file descriptor"):
        server.listen(10**6)
    with open(os.devnull) as file:
        with pytest.raises(OSError, match="not permitted"):
            server.listen(file.fileno())
        file.read()


@pytest.mark.parametrize("changed", [{"streams": 0}, {"header_bytes": 1 << 40}, {"in_flight": -1}, {"held_bytes": 0}])
def test_limits_out_of_range_are_refused(make, changed):
    with pytest.raises(ValueError, match="out of range"):
        make(lambda message: message, **changed)


def test_a_closed_server_says_so(make):
    server, _ = make(lambda message: message)
    server.close()
    server.close()
    for use in (server.serve, server.stop, server.statistics, server.fileno):
        with pytest.raises(RuntimeError, match="closed"):
            use()


def test_a_server_that_its_handler_refers_to_is_collected(make):
    from extauthz.server.native import _native

    class Handler:
        def __call__(self, message):
            return message

    handler = Handler()
    handler.server = _native.Server({METHOD: handler}, {}, refuse, **LIMITS)
    gone = weakref.ref(handler)
    del handler
    gc.collect()
    assert gone() is None


def take_all_descriptors(taken):
    """Duplicates of one until there is none left."""
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))


def seen_to(server, seconds=3.0):
    """Whether the server was refused a descriptor for the latest connection, once it has tried to accept it."""
    before = server.statistics()["connections_total"]
    deadline = time.monotonic() + seconds
    while not (refused := server.statistics()["refused_connection_limit"]) and time.monotonic() < deadline:
        if server.statistics()["connections_total"] > before:
            return False
        time.sleep(0.01)
    return bool(refused)


def test_without_descriptors_the_server_waits_for_some(make, run):
    """Accepting fails again and again; that must not keep it busy, nor lose the connection."""
    import resource

    server, target = make(lambda message: message)
    run(server)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients = [socket.socket() for _ in range(20)]
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    taken = []
    try:
        for client in clients:
            # Channels of earlier tests may give descriptors back at any moment.
            take_all_descriptors(taken)
            client.connect(("127.0.0.1", int(target.rpartition(":")[2])))
            if seen_to(server):
                break
        assert server.statistics()["refused_connection_limit"] >= 1
        used = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - used < 0.15
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in taken:
            os.close(one)
    client.settimeout(60)
    client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
    assert client.recv(100)
    for each in clients:
        each.close()


PROGRAM = """
import signal, socket, sys
from extauthz.server.native import _native

LIMITS = {limits!r}
server = _native.Server({{{method!r}: lambda message: message}}, {{}}, lambda error: (13, ""), **LIMITS)
server.listen(int(sys.argv[1]))
signal.set_wakeup_fd(server.fileno())
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background of a shell begin with it ignored
signal.signal(signal.SIGUSR1, lambda *_: server.drain(0.0, 60.0))
print("ready", flush=True)
try:
    server.serve()
    print("drained", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    server.serve()
    print("drained", flush=True)
"""


@pytest.fixture
def process(make):
    """A process whose main thread serves an inherited listening socket."""
    listener = socket.create_server(("127.0.0.1", 0))
    target = f"127.0.0.1:{listener.getsockname()[1]}"
    # Nothing falls due that would wake the server by itself.
    limits = {**LIMITS, "preface_seconds": 0.0, "call_seconds": 0.0}
    program = textwrap.dedent(PROGRAM.format(limits=limits, method=METHOD))
    with subprocess.Popen(
        [sys.executable, "-c", program, str(listener.fileno())],
        pass_fds=[listener.fileno()],
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        listener.close()
        assert started.stdout.readline() == "ready\n"
        yield started, target
        started.kill()


def test_signals_reach_a_server_in_the_main_thread_at_once(process):
    started, target = process
    assert call(target, b"x") == b"x"
    started.send_signal(signal.SIGINT)
    assert started.stdout.readline() == "interrupted\n"
    assert call(target, b"x") == b"x"
    started.send_signal(signal.SIGUSR1)
    assert started.stdout.readline() == "drained\n"
    assert started.wait(60) == 0


def test_an_exit_in_a_handler_of_the_transport_ends_its_call_only():
    def handler(message):
        if message == b"exit":
            sys.exit(3)
        return message

    if not native.available()[0]:
        pytest.skip(f"the native transport is not available: {native.available()[1]}")
    transport = native.NativeTransport([Address(host="127.0.0.1")], {METHOD: handler})
    (address,) = transport.bind()
    transport.start()
    try:
        assert failure(str(address), b"exit")[0] is grpc.StatusCode.INTERNAL
        assert call(str(address), b"x") == b"x"
    finally:
        transport.stop()
