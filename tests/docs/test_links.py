"""Links between pages lead somewhere, every page can be reached, and what pages name in passing exists."""

from __future__ import annotations

import os
import re
from functools import cache
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import typer.main
from doc_pages import DOCS, ROOT, paths, read

from extauthz.cli import COMMANDS

PAGES = paths()
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
OTHERS_OPTIONS = {
    "--mode validate": "envoy",
    "--http1.1": "curl",
    "--request-target": "curl",
}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def _options() -> set[str]:
    found = {"--help", "--install-completion", "--show-completion"}
    for name in COMMANDS:
        app = typer.Typer()
        app.command(name)(import_module(f"extauthz.cli.{name.replace('-', '_')}").command)
        for parameter in typer.main.get_command(app).params:
            found.update((*parameter.opts, *parameter.secondary_opts))
    return found


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_links_lead_to_pages_and_headings_that_exist(path):
    for line, target in read(path).links:
        url = urlsplit(target)
        if url.scheme or url.netloc:
            continue
        led_to = path if not url.path else Path(os.path.normpath(path.parent / url.path))
        assert led_to.exists(), f"{path}:{line}: {target} leads nowhere"
        if url.fragment:
            assert url.fragment in read(led_to).anchors, f"{path}:{line}: {target}: no such heading"


def test_every_page_can_be_reached_from_the_first():
    reached: set[Path] = set()
    to_do = [DOCS / "index.md"]
    while to_do:
        path = to_do.pop()
        if path in reached or path.suffix != ".md" or not path.is_relative_to(DOCS):
            continue
        reached.add(path)
        to_do += [Path(os.path.normpath(path.parent / urlsplit(target).path)) for _, target in read(path).links]
    assert not set(DOCS.rglob("*.md")) - reached, "link these pages from docs/index.md"


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_options_that_are_named_in_passing_exist(path):
    known = _options()
    for code in read(path).codes:
        if not code.startswith("-") and not code.startswith("extauthz "):
            continue
        if any(code.startswith(other) for other in OTHERS_OPTIONS):
            continue
        for option in OPTION.findall(code):
            assert option in known, f"{path}: {code}: no command has {option}"
        if code.startswith("extauthz ") and code.split()[1:2]:
            word = code.split()[1]
            assert word in COMMANDS or word.startswith("-") or not word.isascii() or word.isupper(), f"{path}: {code}"


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_files_that_are_named_in_passing_exist(path):
    for code in read(path).codes:
        if re.fullmatch(r"(docs|examples|extauthz|tests|deploy|benchmarks|protos)/[\w./-]+", code):
            assert (ROOT / code).exists(), f"{path}: {code} does not exist"
