"""What every command has: the global options, examples, and errors that become exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from qmpsnap.cli import global_options, signals
from qmpsnap.cli.completing import complete_arguments
from qmpsnap.cli.global_options import agree, given
from qmpsnap.cli.output import complain, write
from qmpsnap.errors import QmpsnapError

if TYPE_CHECKING:
    from qmpsnap.cli.connection import Road


class Common(click.Command):
    """A command or a group: examples in its help, which is printed as any result is."""

    shows_global_options = False

    def __init__(self, *args: Any, examples: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*args, **more)
        self.examples = tuple(f"qmpsnap {one}" for one in examples)

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """`--help`: click's own would end with a traceback when stdout is closed or full."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = _show_help
        return option

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, and what is not among the options."""
        with formatter.section("Examples" if len(self.examples) > 1 else "Example"):
            for example in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")
        if not self.shows_global_options:
            formatter.write_paragraph()
            formatter.write_text("The global options of `qmpsnap --help` may stand here too.")


def _show_help(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        write(ctx.get_help())
        ctx.exit()


class Command(Common):
    """A command. One that takes GUEST takes it first, and not at all where a socket says it."""

    changes = False
    """Whether it changes something: a signal then comes only where the operation expects it."""

    def __init__(self, *args: Any, one_guest: bool = False, **more: Any) -> None:
        super().__init__(*args, **more)
        self.one_guest = one_guest or any(param.name == "guest" for param in self.params)
        """Whether it is about one guest: `$QMPSNAP_QMP` is for these."""
        self.params += global_options.global_options(hidden=True)
        complete_arguments(self)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Leave GUEST out of parsing and usage alike."""
        params = super().get_params(ctx)
        if global_options.names_guest(ctx):
            return params
        return [param for param in params if param.name != "guest"]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Look for `--qmp` and `--replay` first: whether GUEST is there depends on them."""
        values, _, _ = self.make_parser(ctx).parse_args(list(args))
        for name in ("qmp", "replay"):
            if name in values:
                given(ctx).setdefault(name, values[name])
        if self.one_guest:
            global_options.by_environment(ctx, values)
        output = given(ctx).get("output")
        if output is not None and not ctx.resilient_parsing:
            if all(param.name != "output" for param in self.params):
                text = f"-o does not go with `{ctx.command_path}`, which prints no result"
                raise click.UsageError(text, ctx)
            agree(ctx, "--output", output, values.get("output"))
            args = ["--output", output, *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; its errors become a message (JSON with `-o json`) and an exit code."""
        global_options.check(ctx)
        _log(given(ctx).get("verbose", 0), as_json="log_json" in given(ctx))
        ctx.obj = _road(given(ctx))
        if any(param.name == "guest" for param in self.params):
            ctx.params.setdefault("guest", None)  # callbacks take it in any case
        try:
            if self.changes:
                return super().invoke(ctx)
            return signals.let_through(lambda: super(Command, self).invoke(ctx))
        except QmpsnapError as error:
            complain(error, ctx.params.get("output"))
            return ctx.exit(error.code)


class Changing(Command):
    """A command that changes something."""

    changes = True


def _log(verbosity: int, *, as_json: bool) -> None:
    if verbosity:
        import logging

        level = logging.DEBUG if verbosity > 1 else logging.INFO
        handler: logging.Handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        if as_json:
            from qmpsnap.cli.json_log import JsonHandler

            handler = JsonHandler()
        logging.basicConfig(level=level, handlers=[handler])


def _road(options: dict[str, Any]) -> Road:
    from qmpsnap.cli.connection import Road
    from qmpsnap.guests.reader import MAX_STALL_S

    return Road(
        qmp=options.get("qmp"),
        agent=options.get("agent"),
        connect=options.get("connect"),
        replay=options.get("replay"),
        passthrough="no_passthrough" not in options,
        max_stall_s=options.get("max_stall", MAX_STALL_S),
    )
