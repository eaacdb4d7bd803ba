"""`extauthz loadtest` through its entry point: what it prints, writes and exits with."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from extauthz.cli import main
from extauthz.mesh.service import run_service

QUICK = ("--duration", "0.5", "--warmup", "0.1", "--calibration", "0.2", "--rate", "200", "--timeout", "60")


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    status: int
    stdout: str
    stderr: str


@pytest.fixture
def loadtest(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run the command to its end, in this process."""

    def run(*arguments: str) -> Done:
        with pytest.raises(SystemExit) as ended:
            main(["loadtest", *arguments])
        written = capsys.readouterr()
        return Done(int(ended.value.code or 0), written.out, written.err)

    return run


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server that allows everything."""
    with run_service(["null", "--listen", "127.0.0.1:0"]) as service:
        yield service.addresses[0]


def test_it_prints_a_table_and_writes_every_file(loadtest, server, tmp_path: Path):
    done = loadtest(
        "--target", server, *QUICK, "--report", str(tmp_path / "out"), "--slo", "errors<1%", "--slo", "p50<5s"
    )
    assert "200/s" in done.stdout
    assert "floor at 200/s" in done.stderr
    assert "wrote" in done.stderr
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "report.json", "report.html", "rates.csv", "slices.csv", "latency.hlog", "percentiles.png", "over-time.png",
        "throughput.png",
    }  # fmt: skip
    # Busy machines hold the generator up; it then says so, and the status with it.
    assert done.status == (1 if "NOT VALID" in done.stderr else 0)


def test_json_is_the_whole_report_and_can_be_compared_with(loadtest, server, tmp_path: Path):
    first = loadtest("--target", server, *QUICK, "--json")
    document = json.loads(first.stdout)
    assert document["steps"][0]["calls"]["allowed"] == 100
    assert document["floors"][0]["calls"]["allowed"] == 40
    before = tmp_path / "before.json"
    before.write_text(first.stdout)
    second = loadtest("--target", server, *QUICK, "--compare", str(before))
    assert "95 % confidence" in second.stdout


def test_nobody_there_is_a_report_of_refused_calls_and_status_1(loadtest):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        done = loadtest(
            "--target", f"127.0.0.1:{probe.getsockname()[1]}", *QUICK, "--calibration", "0", "--slo", "errors<1%"
        )
    assert done.status == 1
    assert "refused 100" in done.stdout
    assert "MISSED" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_gives_the_report_of_what_was_done(server, tmp_path: Path, number):
    command = [
        sys.executable,
        "-m",
        "extauthz",
        "loadtest",
        "--target",
        server,
        "--rate",
        "100,200",
        "--duration",
        "100",
    ]
    command += ["--calibration", "0", "--warmup", "0", "--report", str(tmp_path), "--json"]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "answered" not in (line := process.stderr.readline()):
        assert line, "it ended by itself"
    os.kill(process.pid, number)
    stdout, _ = process.communicate(timeout=60)
    elapsed = time.monotonic() - began
    assert process.returncode == 130
    document = json.loads(stdout)
    assert document["interrupted"]
    (step,) = document["steps"]
    assert 1 < step["seconds"] < 60
    # Until the interrupt was seen, and none that were not due before the end.
    assert 100 * step["seconds"] - 20 < step["calls"]["asked"] < 100 * elapsed
    assert json.loads((tmp_path / "report.json").read_text())["interrupted"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "one of --target"),
        (("--target", "nowhere"), "--target 'nowhere'"),
        (("--target", "127.0.0.1:1", "--rate", "x"), "--rate 'x'"),
        (("--target", "127.0.0.1:1", "--slo", "fast"), "--slo 'fast'"),
        (("--target", "127.0.0.1:1", "--compare", "/nowhere.json"), "--compare /nowhere.json"),
        (("--target", "127.0.0.1:1", "--report", "/dev/null/x"), "--report"),
        (("--target", "127.0.0.1:1", "--requests", "/nowhere.jsonl"), "/nowhere.jsonl"),
    ],
)
def test_wrong_usage_is_one_clear_line_and_status_2(loadtest, arguments, message):
    done = loadtest(*arguments)
    assert done.status == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_without_its_packages_it_says_what_to_install(loadtest, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    monkeypatch.delitem(sys.modules, "extauthz.cli.loadtest", raising=False)
    done = loadtest("--target", "127.0.0.1:1")
    assert done.status == 2
    assert "pip install 'extauthz[loadtest]'" in done.stderr


def alive(pid: str) -> bool:
    """Whether the process runs; where nobody reaps orphans, one that has ended stays listed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_process_that_is_killed_leaves_no_workers_behind(server):
    command = [
        sys.executable,
        "-m",
        "extauthz",
        "loadtest",
        "--target",
        server,
        "--duration",
        "100",
        "--calibration",
        "0",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "answered" not in (line := process.stderr.readline()):
        assert line, "it ended by itself"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while any(map(alive, children)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert children
