"""Lines to files and streams: order, drops, full disks, FIFOs, rotation."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from extauthz.server import background
from extauthz.server import writer as writer_module
from extauthz.server.sinks import FileSink, Sink, StreamSink
from extauthz.server.writer import LineWriter


def line(text: str) -> bytes:
    return f"{text}\n".encode()


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def written_by(sink: Sink, texts: list[str], capacity: int = 1000) -> LineWriter[str]:
    writer = LineWriter(sink, line, name="test", capacity=capacity)
    writer.start()
    for text in texts:
        writer.put(text)
    writer.close(60.0)
    return writer


def test_items_are_written_in_order_and_counted(tmp_path: Path) -> None:
    texts = [str(number) for number in range(700)]
    writer = written_by(FileSink(str(tmp_path / "log")), texts)
    assert (tmp_path / "log").read_text().split() == texts
    assert (writer.written, writer.dropped, writer.error) == (700, 0, None)


def test_an_existing_file_is_continued(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    written_by(FileSink(str(tmp_path / "log")), ["after"])
    assert (tmp_path / "log").read_text() == "before\nafter\n"


def test_what_does_not_fit_into_the_queue_is_dropped_and_putting_never_waits() -> None:
    release = threading.Event()

    class Stuck:
        def write(self, data: bytes) -> None:
            release.wait()

        def close(self) -> None: ...

    writer = LineWriter(Stuck(), line, name="test", capacity=10)
    writer.start()
    began = time.monotonic()
    for number in range(1000):
        writer.put(str(number))
    assert time.monotonic() - began < 20  # whoever waits for the sink waits for ever
    assert writer.dropped >= 1000 - 10 - background.BATCH_ITEMS
    release.set()
    writer.close(60.0)
    assert writer.written + writer.dropped == 1000


def test_closing_does_not_wait_for_a_sink_that_is_stuck() -> None:
    release = threading.Event()

    class Stuck:
        def write(self, data: bytes) -> None:
            release.wait()

        def close(self) -> None: ...

    writer = LineWriter(Stuck(), line, name="test")
    writer.start()
    writer.put("x")
    began = time.monotonic()
    writer.close(0.1)
    assert time.monotonic() - began < 50
    release.set()


def test_a_full_disk_drops_lines_and_says_why() -> None:
    writer = written_by(FileSink("/dev/full"), ["a", "b"])
    assert (writer.written, writer.dropped, writer.error) == (0, 2, "No space left on device")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of writers, which stands still."""
    moment = [100.0]
    monkeypatch.setattr(writer_module, "monotonic", lambda: moment[0])
    return moment


def test_a_sink_that_failed_is_left_alone_for_a_moment_and_tried_again(tmp_path: Path, now: list[float]) -> None:
    directory = tmp_path / "missing"
    writer = LineWriter(FileSink(str(directory / "log")), line, name="test")
    writer.start()
    writer.put("lost")
    wait_until(lambda: writer.dropped == 1)
    directory.mkdir()
    writer.put("lost, too")
    wait_until(lambda: writer.dropped == 2)
    assert writer.error == "No such file or directory"
    now[0] += writer_module.RETRY_SECONDS
    writer.put("kept")
    wait_until(lambda: writer.written == 1)
    writer.close(60.0)
    assert writer.error is None
    assert (directory / "log").read_text() == "kept\n"


def test_a_fifo_that_nobody_reads_blocks_nobody(tmp_path: Path, now: list[float]) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = LineWriter(FileSink(str(path)), line, name="test")
    writer.start()
    writer.put("lost")
    writer.put("lost, too")
    wait_until(lambda: writer.dropped == 2)
    assert writer.error is not None
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    now[0] += writer_module.RETRY_SECONDS
    writer.put("read")
    wait_until(lambda: writer.written == 1)
    assert os.read(reader, 100) == b"read\n"
    os.close(reader)
    writer.close(60.0)


def test_a_line_cut_short_by_an_error_is_ended_before_the_next_one() -> None:
    read_end, write_end = os.pipe()
    sink = StreamSink(write_end)
    os.set_blocking(write_end, False)
    with pytest.raises(BlockingIOError):
        sink.write(b"x" * (1 << 20) + b"\n")
    received = os.read(read_end, 1 << 20)
    sink.write(b"next\n")
    received += os.read(read_end, 1 << 20)
    assert received.endswith(b"x\nnext\n")
    os.close(read_end)
    os.close(write_end)


def test_a_file_is_rotated_by_size_and_only_so_many_are_kept(tmp_path: Path) -> None:
    sink = FileSink(str(tmp_path / "log"), max_bytes=10, keep=2)
    for text in ["first-long-line", "second-long-line", "third-long-line", "fourth"]:
        sink.write(line(text))
    sink.close()
    assert (tmp_path / "log").read_text() == "fourth\n"
    assert (tmp_path / "log.1").read_text() == "third-long-line\n"
    assert (tmp_path / "log.2").read_text() == "second-long-line\n"
    assert not (tmp_path / "log.3").exists()


def test_with_nothing_to_keep_a_file_that_is_full_begins_anew(tmp_path: Path) -> None:
    sink = FileSink(str(tmp_path / "log"), max_bytes=10, keep=0)
    sink.write(line("first-long-line"))
    sink.write(line("second"))
    sink.close()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"log": "second\n"}


def test_a_file_moved_away_by_others_is_opened_anew(tmp_path: Path) -> None:
    sink = FileSink(str(tmp_path / "log"))
    sink.write(b"one\n")
    (tmp_path / "log").rename(tmp_path / "moved")
    sink.write(b"two\n")
    sink.close()
    assert (tmp_path / "moved").read_text() == "one\n"
    assert (tmp_path / "log").read_text() == "two\n"


def test_processes_that_share_a_file_rotate_it_once(tmp_path: Path) -> None:
    sinks = [FileSink(str(tmp_path / "log"), max_bytes=200, keep=100) for _ in range(4)]
    threads = [
        threading.Thread(target=lambda sink=sink, name=name: [sink.write(line(f"{name}-{n}")) for n in range(200)])
        for name, sink in enumerate(sinks)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sink in sinks:
        sink.close()
    lines = [text for path in tmp_path.iterdir() for text in path.read_text().splitlines()]
    assert sorted(lines) == sorted(f"{name}-{n}" for name in range(4) for n in range(200))


def test_device_files_are_not_rotated() -> None:
    sink = FileSink("/dev/null", max_bytes=1, keep=1)
    sink.write(b"x\n")
    sink.write(b"y\n")
    sink.close()
    assert os.path.exists("/dev/null")
    assert not os.path.exists("/dev/null.1")
