"""A group of commands that are imported when they are called: `--help` imports none of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import click
from click.shell_completion import CompletionItem

from qmpsnap.cli import global_options
from qmpsnap.cli.command import Common


class Entry(NamedTuple):
    """One command of a group."""

    target: str
    """`module:attribute`."""
    summary: str
    """One line for the group's `--help`; at most 50 characters, which fit a line of 80."""


class LazyGroup(Common, click.Group):
    """
    A group with a table in place of commands.

    Source: click.palletsprojects.com, "Lazily Loading Subcommands".

    Args:
        sections: Entries by name, by section of `--help`.
        hidden_commands: Further entries, which `--help` does not show.
        shows_global_options: Whether `--help` shows those; understood they are in any case.
    """

    def __init__(
        self,
        *args: Any,
        sections: Mapping[str, Mapping[str, Entry]],
        hidden_commands: Mapping[str, Entry] | None = None,
        shows_global_options: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self.sections = sections
        self.hidden_commands = hidden_commands or {}
        self.shows_global_options = shows_global_options
        self.params += global_options.global_options(hidden=not shows_global_options, output=True)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands but hidden ones, section by section."""
        return [name for entries in self.sections.values() for name in entries]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        for entries in (*self.sections.values(), self.hidden_commands):
            if cmd_name in entries:
                module, _, attribute = entries[cmd_name].target.partition(":")
                return cast(click.Command, getattr(importlib.import_module(module), attribute))
        return None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands by the table, and options: click would import every command for its summary."""
        found = [
            CompletionItem(name, help=entry.summary)
            for entries in self.sections.values()
            for name, entry in entries.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or say which one may have been meant: click would import all to do so."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            close = difflib.get_close_matches(args[0], self.list_commands(ctx))
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table."""
        width = max(map(len, self.list_commands(ctx)))
        for title, entries in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(f"{name:{width}}", entry.summary) for name, entry in entries.items()]
                )
