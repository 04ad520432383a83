"""`completion`: what a shell has to be told."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

from qmpsnap.cli.command import Command
from qmpsnap.cli.output import write

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_QMPSNAP_COMPLETE"


@click.command(cls=Command, examples=("completion bash", "completion fish"))
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """
    Print what makes a shell complete commands, options, guests, disks and snapshots.

    The wheel installs the same where the shells look for it. By hand: put
    `source <(qmpsnap completion bash)` into ~/.bashrc, the same with zsh into ~/.zshrc after compinit, or
    write `qmpsnap completion fish` to ~/.config/fish/completions/qmpsnap.fish.
    """
    write(script(shell), nl=False)


def script(shell: str) -> str:
    """The text for a shell."""
    kind = get_completion_class(shell)
    assert kind is not None
    from qmpsnap.cli.main import cli

    made = kind(cli, {}, "qmpsnap", VARIABLE)
    # Not `source()`: of bash, that asks which version is installed here.
    return str(made.source_template % made.source_vars()).strip() + "\n"
