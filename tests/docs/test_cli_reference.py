"""The page about the command line is what the program says, and its help is fit to read."""

from __future__ import annotations

import importlib.util

import pytest
from doc_pages import DOCS

from extauthz.cli import COMMANDS, main


def _generator():
    spec = importlib.util.spec_from_file_location("generate_cli", DOCS / "generate_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_program_says():
    written = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert written == _generator().page(), "docs/cli.md is stale: make docs-cli"


def _help(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_no_trace_of_markup(name, capsys):
    assert "\\" not in _help(name, capsys)


def test_help_tells_what_an_argument_is_and_which_variable_an_option_has(capsys):
    assert "PATH...  Policy files, directories, or - for stdin.  [required]" in _help("validate", capsys)
    assert "[env var: EXTAUTHZ_LISTEN; default: 127.0.0.1:9191]" in " ".join(_help("serve", capsys).split())
