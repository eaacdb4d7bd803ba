"""Writes docs/cli.md from the program itself: `python docs/generate_cli.py`, or `make docs-cli`.

Everything about a command comes from the options that it really has. What holds for all of them is the text here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import click
import typer
from typer.core import TyperArgument, TyperOption
from typer.main import get_command

from extauthz.cli import COMMANDS

PAGE = Path(__file__).parent / "cli.md"

_OPENING = """\
# Command line

This page is written by `make docs-cli` from the program; `extauthz COMMAND --help` says the same.

```console
$ extauthz version
extauthz ...
```

`python -m extauthz` is the same program. `extauthz --install-completion` makes the shell complete commands and options.

## For all commands

**Environment.** An option with a variable in the tables below can be given by it instead; the command line wins. What
can be repeated is separated by blanks in a variable. Flags are set by `1`, `true`, `yes` or `on`.

```console
$ export EXTAUTHZ_TRUSTED_HOPS=one
$ extauthz check --policy policies/ /
Usage: extauthz check [OPTIONS] URL-or-path
...
Error: Invalid value for '--trusted-hops' (env var: 'EXTAUTHZ_TRUSTED_HOPS'): 'one' is not a valid ...
$ echo $?
2
```

`ENVOY` names the Envoy binary for the commands that run one. Output has colour on a terminal only, and never with
`NO_COLOR`.

**Exit status.**

| status | meaning |
|---:|---|
| 0 | yes: allowed, no errors, both sides agree, a server that was told to end |
| 1 | no: denied, errors in policies (`validate`), a difference, an unhealthy server, a missed objective |
| 2 | wrong usage, or policies that do not load: every problem is listed on stderr as `file:line: field: reason` |
| 130 | interrupted by Ctrl-C |

**Output.** Results go to stdout, what is said about them to stderr. `--json` prints results for programs.
"""


def page() -> str:
    """The whole page."""
    summary = "\n".join(f"| [`{name}`](#{_anchor(name)}) | {_summary(_command(name))} |" for name in COMMANDS)
    sections = [_OPENING, f"## Commands\n\n| command | |\n|---|---|\n{summary}\n"]
    sections += ["\n".join(_section(name, _command(name))) for name in COMMANDS]
    return "\n".join(sections)


def _anchor(name: str) -> str:
    return f"extauthz-{name}"


def _command(name: str) -> click.Command:
    app = typer.Typer(rich_markup_mode=None)
    app.command(name)(import_module(f"extauthz.cli.{name.replace('-', '_')}").command)
    return get_command(app)


def _summary(command: click.Command) -> str:
    return _cell((command.help or "").split("\n\n")[0])


def _section(name: str, command: click.Command) -> Iterator[str]:
    arguments = [one for one in command.params if isinstance(one, TyperArgument)]
    options = [one for one in command.params if isinstance(one, TyperOption) and one.name not in _COMPLETION]
    yield f"## extauthz {name}\n"
    usage = " ".join(["extauthz", name, "[OPTIONS]", *(one.metavar or "" for one in arguments)])
    yield f"`{usage}`\n"
    for paragraph in (command.help or "").split("\n\n"):
        yield "\n".join(textwrap.wrap(" ".join(paragraph.split()), 120)) + "\n"
    if arguments:
        yield "| argument | meaning |\n|---|---|"
        yield from (f"| {_code(one.metavar or '')} | {_cell(_argument_help(command, one))} |" for one in arguments)
        yield ""
    if options:
        yield "| option | meaning | default | variable |\n|---|---|---|---|"
        yield from map(_option, options)
        yield ""


_COMPLETION = ("install_completion", "show_completion")


def _option(option: TyperOption) -> str:
    names = [*sorted(option.opts, key=len, reverse=True), *option.secondary_opts]
    written = ", ".join(_code(name) for name in names)
    if not option.is_flag:
        written += f" {_code(_metavar(option))}"
    variable = option.envvar if isinstance(option.envvar, str) else " ".join(option.envvar or ())
    return f"| {written} | {_cell(option.help or '')} | {_default(option)} | {_code(variable)} |"


def _metavar(option: TyperOption) -> str:
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "|".join(str(getattr(choice, "value", choice)) for choice in option.type.choices)
    return option.type.name.removesuffix(" range").upper()


def _default(option: TyperOption) -> str:
    value = option.default() if callable(option.default) else option.default
    value = getattr(value, "value", value)
    if option.is_flag and option.secondary_opts:
        return "on" if value else "off"
    if value is None or value is False or value in ("", [], ()):
        return ""
    if isinstance(value, (list, tuple)):
        return ", ".join(_code(str(one)) for one in value)
    return _code(f"{value:.15g}" if isinstance(value, float) else str(value))


def _argument_help(command: click.Command, argument: TyperArgument) -> str:
    hints = get_type_hints(command.callback, include_extras=True)
    found = (getattr(info, "help", "") for info in hints[argument.name or ""].__metadata__)
    return next((text for text in found if text), "")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


def _cell(text: str) -> str:
    """A text in a table: in one line, and `<`, `*` and `|` as they are."""
    text = " ".join(text.split())
    for character in "\\*<|_":
        text = text.replace(character, f"\\{character}")
    return text


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
