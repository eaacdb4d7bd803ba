"""Help as plain text: what typer's own formatting of options and arguments gets wrong without its rich markup."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_type_hints

from typer.core import TyperArgument, TyperCommand

if TYPE_CHECKING:
    import click


_EXIT_STATUS = (
    ("0", "Yes, done: allowed, no errors, no difference."),
    ("1", "No: denied, errors in policies (validate), a difference, something unhealthy, an objective missed."),
    ("2", "Wrong usage, or policies that do not load."),
)


class PlainCommand(TyperCommand):
    """A command whose help has no trace of markup and tells what each argument is."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write arguments, and options by the panel that they name, in the order in which the command has them."""
        self._restore_argument_help()
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                name, text = record
                # typer escapes brackets for rich, which prints nothing here.
                panel = getattr(parameter, "rich_help_panel", None) or "Options"
                section = "Arguments" if parameter.param_type_name == "argument" else panel
                sections.setdefault(section, []).append((name, text.replace("\\[", "[")))
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, and what the exit status means, for all commands alike."""
        from extauthz.cli.examples import EXAMPLES

        with formatter.section("Examples"):
            formatter.write("".join(f"{'':>{formatter.current_indent}}{line}\n" for line in EXAMPLES[self.name or ""]))
        with formatter.section("Exit status"):
            formatter.write_dl(_EXIT_STATUS)

    def _restore_argument_help(self) -> None:
        """Give arguments their help text again: since click has one of its own, typer's is overwritten by nothing."""
        hints = get_type_hints(self.callback, include_extras=True)
        for parameter in self.params:
            if isinstance(parameter, TyperArgument) and not parameter.help:
                parameter.help = next(
                    (text for info in hints[parameter.name or ""].__metadata__ if (text := getattr(info, "help", ""))),
                    None,
                )
