"""Help that needs no man page, and completion in every shell."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest

from extauthz.cli import COMMANDS, main
from extauthz.cli.examples import EXAMPLES

FUNCTIONS = {"bash": "complete -o default -F", "zsh": "#compdef extauthz", "fish": "complete --command extauthz"}


def run(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "extauthz", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_whose_options_exist_and_exit_statuses(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    options, _, end = text.partition("Examples:")
    assert "Exit status:" in end
    known = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", options))
    for example in EXAMPLES[command]:
        assert example in end
        ours = example[example.index(f"extauthz {command}") :]
        used = {word for word in shlex.split(ours) if re.fullmatch(r"--?[a-zA-Z][\w-]*", word)}
        assert used - known == set(), example


@pytest.mark.parametrize("shell", FUNCTIONS)
def test_the_completion_of_a_shell_that_is_named_is_shown(shell: str) -> None:
    assert FUNCTIONS[shell] in run("--show-completion", shell)


def test_commands_and_options_are_completed() -> None:
    bash = {"_EXTAUTHZ_COMPLETE": "complete_bash"}
    assert run(COMP_WORDS="extauthz ver", COMP_CWORD="1", **bash).split() == ["verify", "version"]
    assert run(COMP_WORDS="extauthz serve --lis", COMP_CWORD="2", **bash).split() == ["--listen", "--listen-mode"]
    line = {"_TYPER_COMPLETE_ARGS": "extauthz healthcheck --ti", "_EXTAUTHZ_COMPLETE": "complete_zsh"}
    assert "--timeout" in run(**line)
