"""Every command of README and docs/ is run, page by page, and prints what the page shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from doc_pages import ROOT, Block, Page, paths, read
from doc_shell import MADE, PROGRAMS, RUN, can_isolate, matches, run, steps

from extauthz.istio.load import load

NOT_RUN = {"pip", "docker", "kubectl", "helm", "istioctl", "kustomize", "sudo"}
"""Programs that change a cluster or an installation: the only ones that a page may show without a test running them."""

LANGUAGES = {"", "console", "sh", "yaml", "json", "jsonl", "text", "python", "promql", "toml"}
FLAGS = {"no-run", "background", "outline", "setup"}
COMMAND_LINE = re.compile(r"^\$ |^(extauthz|make|pip|kubectl|helm|docker|curl) ")

PAGES = paths()


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _commands(block: Block) -> list[str]:
    return [step.command for step in steps(block)] if block.language in RUN else []


def _pages_with_commands() -> list[Path]:
    return [path for path in PAGES if any(block.language in RUN for block in read(path).blocks)]


isolated = pytest.mark.skipif(not can_isolate(), reason=f"needs a network namespace, and {', '.join(PROGRAMS)}")


@isolated
@pytest.mark.envoy
@pytest.mark.parametrize("path", _pages_with_commands(), ids=_name)
def test_the_commands_of_a_page_do_what_it_says(path, tmp_path, command_server):
    complaints = [complaint for done in run(read(path), tmp_path, command_server) if (complaint := done.complaint())]
    assert not complaints, "\n\n".join(complaints)


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_every_block_says_what_it_is(path):
    for block in read(path).blocks:
        assert block.language in LANGUAGES, f"{block}: no language for a fence: {sorted(LANGUAGES)}"
        assert block.flags <= FLAGS, f"{block}: unknown: {sorted(block.flags - FLAGS)}"
        if block.language not in RUN and not block.file:
            hidden = [line for line in block.text.splitlines() if COMMAND_LINE.match(line)]
            assert not hidden, f"{block}: commands stand in blocks of sh or console: {hidden}"


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_only_what_changes_a_cluster_or_an_installation_is_not_run(path):
    for block in read(path).blocks:
        if "no-run" in block.flags:
            programs = {shlex.split(command, comments=True)[0] for command in _commands(block)}
            assert programs <= NOT_RUN, f"{block}: these can be run here: {sorted(programs - NOT_RUN)}"


def test_targets_of_make_that_pages_name_exist():
    made = "\n".join(path.read_text() for path in (ROOT / "Makefile", *ROOT.glob("*.mk")))
    targets = set(re.findall(r"^([a-z][a-z-]*):", made, re.MULTILINE))
    for path in PAGES:
        page = read(path)
        named = [command for block in page.blocks for command in _commands(block)] + list(page.codes)
        for command in named:
            if command.startswith(MADE):
                words = shlex.split(command, comments=True)[1:]
                wanted = {word for word in words if "=" not in word}
                assert wanted <= targets, f"{path}: no such target: {sorted(wanted - targets)}"


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_yaml_can_be_read_and_policies_load(path, tmp_path):
    for block in read(path).blocks:
        if block.language != "yaml":
            continue
        documents = [document for document in yaml.safe_load_all(block.text) if isinstance(document, dict)]
        policies = [one for one in documents if str(one.get("apiVersion", "")).startswith("security.istio.io/")]
        if policies and "outline" not in block.flags and not block.file:
            file = tmp_path / "block.yaml"
            file.write_text(yaml.safe_dump_all(policies))
            load([str(file)])


# --- the test's own reading of pages ---


def _page(tmp_path: Path, text: str) -> Page:
    path = ROOT / "docs" / "made-up.md"
    made = tmp_path / "page.md"
    made.write_text(text)
    page = read(made)
    page.blocks = [
        Block(path, block.line, block.language, block.flags, block.file, block.text, block.extra)
        for block in page.blocks
    ]
    return page


def _complaints(tmp_path: Path, text: str) -> list[str]:
    return [complaint for done in run(_page(tmp_path, text), tmp_path, None) if (complaint := done.complaint())]


@isolated
def test_a_page_that_shows_something_else_is_found_out(tmp_path):
    (complaint,) = _complaints(tmp_path, "```console\n$ echo one\none\n$ echo two\ntoo\n```\n")
    assert "docs/made-up.md:1" in complaint
    assert "two" in complaint


@isolated
def test_a_command_that_fails_without_a_word_is_found_out(tmp_path):
    assert len(_complaints(tmp_path, "```sh\nfalse\n```\n\n```console\n$ false\n```\n")) == 2


@isolated
def test_an_unknown_command_is_found_out_whatever_is_shown(tmp_path):
    assert len(_complaints(tmp_path, "```console\n$ no-such-command\n...\n```\n")) == 1


@isolated
def test_variables_and_statuses_live_on_and_files_are_there(tmp_path):
    text = (
        "```text file=a/b.txt\nfirst\n```\n```console\n$ x=$(cat a/b.txt)\n$ echo $x; false\nfirst\n"
        "$ echo $?\n1\n$ cat \\\n    a/b.txt\nfirst\n```\n"
    )
    assert _complaints(tmp_path, text) == []


def test_dots_stand_for_whatever_is_printed():
    assert matches(("a...c",), "abbbc\n")
    assert matches(("first", "..."), "first\n")
    assert matches(("...", "last"), "1\n2\nlast\n")
    assert not matches(("first", "..."), "last\nfirst\n")
    assert not matches(("a.c",), "abc\n")
