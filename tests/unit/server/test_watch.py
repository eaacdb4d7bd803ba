"""Changes of policy files, however they come about."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from extauthz.server import watch
from extauthz.server.watch import Watcher, directories, look


class Clock:
    """The clock of the watcher. It stands still while a test is in the middle of a change, however late the test is."""

    def __init__(self) -> None:
        self._lost = 0.0
        self._stands_at: float | None = None

    def monotonic(self) -> float:
        stands_at = self._stands_at
        return time.monotonic() - self._lost if stands_at is None else stands_at

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no time go by, so that nothing is taken for settled."""
        self._stands_at = stands_at = self.monotonic()
        try:
            yield
        finally:
            self._lost = time.monotonic() - stands_at
            self._stands_at = None


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Of all watchers, which look when there is an event (or there can be none) and not just now and then."""
    made = Clock()
    monkeypatch.setattr(watch, "time", made)
    monkeypatch.setattr(watch, "EVENT_POLLS", 1_000_000)
    return made


class Seen:
    """Counts changes, and keeps the content of the watched file at each."""

    def __init__(self, path: Path) -> None:
        self.contents: list[str] = []
        self._path = path

    def __call__(self) -> None:
        files = sorted(self._path.rglob("*.yaml")) if self._path.is_dir() else [self._path]
        self.contents.append("".join(map(self._content, files)))

    @staticmethod
    def _content(file: Path) -> str:
        try:
            return file.read_text()
        except FileNotFoundError:
            return ""

    def wait_for(self, content: str, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not self.contents or self.contents[-1] != content:
            assert time.monotonic() < deadline, f"{content!r} was not seen, but {self.contents}"
            time.sleep(0.01)


@contextmanager
def watching(path: Path, *, settle: float = 0.15) -> Iterator[Seen]:
    seen = Seen(path)
    watcher = Watcher([str(path)], seen, settle=settle)
    watcher.start()
    time.sleep(0.1)
    try:
        yield seen
    finally:
        watcher.stop()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A policy file."""
    path = tmp_path / "policies" / "policy.yaml"
    path.parent.mkdir()
    path.write_text("one")
    return path


@pytest.fixture(params=["file", "directory"])
def watched(file: Path, request: pytest.FixtureRequest) -> Path:
    """The file itself, or the directory it is in."""
    return file if request.param == "file" else file.parent


def test_an_edit_is_seen(file: Path, watched: Path, clock: Clock) -> None:
    with watching(watched) as seen:
        with clock.held():
            file.write_text("two")
        seen.wait_for("two")
        assert seen.contents == ["two"]


def test_a_file_written_in_steps_is_read_once_it_is_complete(file: Path, watched: Path, clock: Clock) -> None:
    with watching(watched) as seen:
        with clock.held(), file.open("w") as stream:
            for part in ("t", "w", "o"):
                stream.write(part)
                stream.flush()
                time.sleep(0.2)  # longer than what is left alone has to stay so
        seen.wait_for("two")
        assert seen.contents == ["two"]


def test_a_file_replaced_by_renaming_is_seen(file: Path, watched: Path) -> None:
    with watching(watched) as seen:
        for content in ("two", "three"):
            (file.parent / ".swp").write_text(content)
            os.replace(file.parent / ".swp", file)
            seen.wait_for(content)


def test_a_file_removed_and_made_again_is_seen(file: Path, watched: Path) -> None:
    with watching(watched) as seen:
        file.unlink()
        seen.wait_for("")
        file.write_text("two")
        seen.wait_for("two")


def test_a_swap_of_a_config_map_is_seen(tmp_path: Path) -> None:
    def version(name: str, content: str) -> None:
        (mount / name).mkdir()
        (mount / name / "policy.yaml").write_text(content)
        (mount / "..data_tmp").symlink_to(name)
        os.replace(mount / "..data_tmp", mount / "..data")

    mount = tmp_path / "mount"
    mount.mkdir()
    version("..2026_1", "one")
    (mount / "policy.yaml").symlink_to("..data/policy.yaml")
    with watching(mount / "policy.yaml") as seen:
        version("..2026_2", "two")
        shutil.rmtree(mount / "..2026_1")
        seen.wait_for("two")
        version("..2026_3", "three")
        shutil.rmtree(mount / "..2026_2")
        seen.wait_for("three")


def test_a_directory_that_is_itself_a_link_is_followed(tmp_path: Path) -> None:
    for release in ("1", "2"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "p.yaml").write_text(release)
    current = tmp_path / "current"
    current.symlink_to("1")
    with watching(current) as seen:
        (tmp_path / "new").symlink_to("2")
        os.replace(tmp_path / "new", current)
        seen.wait_for("2")
        (tmp_path / "2" / "p.yaml").write_text("edited")
        seen.wait_for("edited")


def test_new_files_and_directories_are_seen(file: Path) -> None:
    with watching(file.parent) as seen:
        (file.parent / "more").mkdir()
        (file.parent / "more" / "zwei.yaml").write_text("two")
        seen.wait_for("twoone")
        (file.parent / "more" / "zwei.yaml").write_text("2")
        seen.wait_for("2one")


def test_a_removed_directory_that_comes_back_is_seen(file: Path) -> None:
    with watching(file.parent) as seen:
        shutil.rmtree(file.parent)
        seen.wait_for("")
        file.parent.mkdir()
        file.write_text("two")
        seen.wait_for("two")


def test_other_files_nearby_are_not_changes(file: Path, watched: Path) -> None:
    with watching(watched) as seen:
        (file.parent / "notes.txt").write_text("x")
        (file.parent / "policy.yaml~").write_text("x")
        file.read_text()
        time.sleep(0.6)
        assert seen.contents == []


def test_a_change_while_a_change_is_handled_is_not_missed(file: Path, clock: Clock) -> None:
    contents: list[str] = []

    def slow() -> None:
        contents.append(file.read_text())
        if len(contents) == 1:
            file.write_text("three")
            time.sleep(0.2)

    watcher = Watcher([str(file)], slow, settle=0.05)
    watcher.start()
    time.sleep(0.1)
    with clock.held():
        file.write_text("two")
    deadline = time.monotonic() + 30
    while contents[-1:] != ["three"]:
        assert time.monotonic() < deadline, contents
        time.sleep(0.01)
    watcher.stop()


def test_without_file_events_looking_is_enough(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_events(*arguments: object) -> Iterator[object]:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr(watch, "_events", no_events)
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.1)
    with watching(file) as seen:
        file.write_text("two")
        seen.wait_for("two")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("x")
    (tmp_path / "self").symlink_to(".")
    assert list(look([str(tmp_path)])) == [str(tmp_path / "p.yaml")]
    assert str(tmp_path) in directories([str(tmp_path)])
