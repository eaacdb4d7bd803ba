"""Addresses: how they are written, what workers make of them, and what binding refuses."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from extauthz.errors import UsageError
from extauthz.server import listeners
from extauthz.server.listeners import Address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9191", Address(host="127.0.0.1", port=9191)),
        ("localhost:0", Address(host="localhost", port=0)),
        ("[::1]:65535", Address(host="::1", port=65535)),
        ("0.0.0.0:9191-9194", Address(host="0.0.0.0", port=9191, last_port=9194)),
        ("unix:/run/a.sock", Address(path="/run/a.sock")),
        ("unix:///run/a.sock", Address(path="/run/a.sock")),
        ("unix:a.sock", Address(path="a.sock")),
        ("unix:/run/{worker}.sock", Address(path="/run/{worker}.sock")),
    ],
)
def test_addresses_are_read(text: str, address: Address) -> None:
    assert listeners.parse(text) == address


@pytest.mark.parametrize("text", ["127.0.0.1:9191", "[::1]:80", "unix:/run/a.sock", "0.0.0.0:1-4"])
def test_an_address_prints_as_it_is_written(text: str) -> None:
    assert str(listeners.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "write HOST:PORT"),
        ("9191", "write HOST:PORT"),
        (":9191", "write HOST:PORT"),
        ("host:", "write HOST:PORT"),
        ("host:http", "write HOST:PORT"),
        ("::1:80", "write HOST:PORT"),
        ("[]:80", "write HOST:PORT"),
        ("[::1]", "write HOST:PORT"),
        ("host:65536", "at most 65535"),
        ("host:9194-9191", "lower port to a higher"),
        ("host:0-3", "lower port to a higher"),
        ("unix:", "a path must follow"),
        ("unix:/a\0b", "a path must follow"),
    ],
)
def test_what_is_no_address_is_refused_with_what_to_write(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        listeners.parse(text)


def test_each_worker_gets_its_address() -> None:
    assert listeners.for_worker(listeners.parse("unix:/run/{worker}.sock"), 3) == Address(path="/run/3.sock")
    assert listeners.for_worker(listeners.parse("h:9191-9194"), 3) == Address(host="h", port=9194)
    assert listeners.for_worker(listeners.parse("h:9191"), 3) == Address(host="h", port=9191)


def test_a_range_must_fit_the_workers_and_a_unix_socket_cannot_be_shared() -> None:
    listeners.check_workers([listeners.parse("h:9191-9194"), listeners.parse("unix:/run/{worker}.sock")], 4)
    with pytest.raises(UsageError, match="needs --workers 4, not 3"):
        listeners.check_workers([listeners.parse("h:9191-9194")], 3)
    with pytest.raises(UsageError, match=r"put \{worker\} into the path"):
        listeners.check_workers([listeners.parse("unix:/run/a.sock")], 2)
    listeners.check_workers([listeners.parse("unix:/run/a.sock")], 1)


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")),
        "localhost",
    ],
)
def test_port_0_becomes_a_free_port(host: str) -> None:
    with listeners.bind(Address(host=host)) as listener:
        assert listeners.bound(listener).port > 0


def test_a_port_in_use_is_explained() -> None:
    with listeners.bind(Address(host="127.0.0.1")) as listener:
        taken = listeners.bound(listener)
        with pytest.raises(UsageError, match=f"--listen 127.0.0.1:{taken.port}: in use by another process"):
            listeners.bind(taken)
        with pytest.raises(UsageError, match="in use by another process"):
            listeners.bind(taken, share=True)


def test_a_shared_port_can_be_listened_on_several_times_and_reserved() -> None:
    with listeners.reserve(Address(host="127.0.0.1")) as holder:
        address = listeners.bound(holder)
        with listeners.bind(address, share=True), listeners.bind(address, share=True):
            pass
        with pytest.raises(UsageError, match="in use"):
            listeners.bind(address)


def test_an_address_of_another_machine_is_explained() -> None:
    with pytest.raises(UsageError, match="this machine does not have that address"):
        listeners.bind(Address(host="192.0.2.1"))


def test_a_name_that_does_not_resolve_is_explained() -> None:
    with pytest.raises(UsageError, match=r"--admin nowhere\.invalid:1: cannot resolve"):
        listeners.bind(Address(host="nowhere.invalid", port=1), option="--admin")


def test_a_unix_socket_has_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with listeners.bind(Address(path=str(tmp_path / "s")), mode=0o666):
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o666
        with listeners.bind(Address(path=str(tmp_path / "t")), mode=0o600):
            assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o600
    finally:
        assert os.umask(before) == 0o077


def test_a_left_over_socket_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listeners.bind(Address(path=path)).close()
    assert os.path.exists(path)
    with listeners.bind(Address(path=path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_the_socket_of_a_live_server_is_never_taken(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with listeners.bind(Address(path=path)) as listener:
        with pytest.raises(UsageError, match="in use by a running server"):
            listeners.bind(Address(path=path))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            listener.accept()[0].close()


def test_a_busy_server_counts_as_live_though_its_backlog_is_full(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        with pytest.raises(UsageError, match="in use by a running server"):
            listeners.bind(Address(path=path))


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_not_a_socket_is_not_touched(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    before = os.lstat(path)
    with pytest.raises(UsageError, match="not a socket"):
        listeners.bind(Address(path=str(path)))
    assert os.lstat(path) == before


def test_a_path_that_is_too_long_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the path is \d+ bytes long, a Unix socket's may have 107"):
        listeners.bind(Address(path=str(tmp_path / ("x" * 100))))


def test_a_missing_directory_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the directory .*/missing does not exist"):
        listeners.bind(Address(path=str(tmp_path / "missing" / "s")))


def test_a_socket_is_removed_only_while_it_is_ours(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listeners.bind(Address(path=path)).close()
    ours = os.lstat(path).st_ino
    listeners.remove_unix_path(path, ours + 1)
    assert os.path.exists(path)
    listeners.remove_unix_path(path, ours)
    assert not os.path.exists(path)
    listeners.remove_unix_path(path, ours)
