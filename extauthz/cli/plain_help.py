"""Help as plain text: what typer's own formatting of options and arguments gets wrong without its rich markup."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_type_hints

from typer.core import TyperArgument, TyperCommand

if TYPE_CHECKING:
    import click


class PlainCommand(TyperCommand):
    """A command whose help has no trace of markup and tells what each argument is."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of arguments and options."""
        self._restore_argument_help()
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                name, text = record
                # typer escapes brackets for rich, which prints nothing here.
                section = "Arguments" if parameter.param_type_name == "argument" else "Options"
                sections[section].append((name, text.replace("\\[", "[")))
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def _restore_argument_help(self) -> None:
        """Give arguments their help text again: since click has one of its own, typer's is overwritten by nothing."""
        hints = get_type_hints(self.callback, include_extras=True)
        for parameter in self.params:
            if isinstance(parameter, TyperArgument) and not parameter.help:
                parameter.help = next(
                    (text for info in hints[parameter.name or ""].__metadata__ if (text := getattr(info, "help", ""))),
                    None,
                )
