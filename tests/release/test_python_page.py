"""docs/python.md: its blocks run, one after the other, and it names the whole public API."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import extauthz

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    assert len(blocks) >= 4
    names: dict[str, object] = {}
    for block in blocks:
        line = text[: block.start()].count("\n") + 1
        exec(compile("\n" * line + block[1], str(PAGE), "exec"), names)


def test_it_names_everything_that_is_public() -> None:
    assert [name for name in extauthz.__all__ if name not in PAGE.read_text() and name != "__version__"] == []


def test_what_is_public_is_documented() -> None:
    for name in extauthz.__all__:
        if name != "__version__":
            assert getattr(extauthz, name).__doc__, name
