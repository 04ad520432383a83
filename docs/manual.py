"""
The manual page, from the click commands.

Source: man(7), groff_man_style(7).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from qmpsnap.cli.command import Command
from qmpsnap.cli.group import LazyGroup

_ENVIRONMENT: Final = {
    "LIBVIRT_DEFAULT_URI": "The libvirt URI where no \\-\\-connect is given.",
    "QMPSNAP_QMP": "The QMP socket of commands that are about one guest, where none of \\-\\-qmp, "
    "\\-\\-connect and \\-\\-replay is given.",
    "QMPSNAP_STATE": "The folder of the journal, in place of /var/lib/qmpsnap (root) or "
    "$XDG_STATE_HOME/qmpsnap.",
    "NO_COLOR": "No bold type and no colours.",
}


def page(cli: LazyGroup, commands: Sequence[tuple[str, Command]], codes: Mapping[int, str]) -> str:
    """
    Render `qmpsnap.1`.

    Args:
        cli: The program.
        commands: All of its commands by their full names, in order.
        codes: What the exit codes mean.
    """
    lines = [
        r".\" Written by docs/generate.py; change the code and run it again.",
        ".TH QMPSNAP 1",
        ".ad l",
        ".SH NAME",
        r"qmpsnap \- live disk snapshots of QEMU guests, formats known, never guessed",
        ".SH SYNOPSIS",
        r".B qmpsnap",
        r"[\fIOPTIONS\fR] \fICOMMAND\fR [\fIARGUMENTS\fR]",
        ".SH DESCRIPTION",
        *_text(cli.help or ""),
        ".PP",
        r"\fIDISK\fR is a target (vda), a serial (the volume id), a device id or a node name. "
        r"Results go to standard output, everything else to standard error.",
        ".SH GLOBAL OPTIONS",
        *_options(cli),
    ]
    for title, entries in cli.sections.items():
        lines.append(f".SH {title.upper()}")
        for name, command in commands:
            if name.split(" ")[0] in entries:
                lines += _command(name, command)
    lines.append(".SH ENVIRONMENT")
    for name, text in _ENVIRONMENT.items():
        lines += [".TP", f".B {name}", text]
    lines.append(".SH EXIT STATUS")
    for code, meaning in codes.items():
        lines += [".TP", f".B {code}", _plain(meaning)]
    lines += [".SH SEE ALSO", ".BR virsh (1),", ".BR qemu\\-img (1),", ".BR qemu (1)"]
    return "\n".join(lines) + "\n"


def _command(name: str, command: Command) -> Iterator[str]:
    words = [r"\fB" + _plain(f"qmpsnap {name}") + r"\fR", "[OPTIONS]"]
    for one in command.params:
        if isinstance(one, click.Argument):
            word = _plain((one.metavar or one.name or "").upper())
            words.append(rf"\fI{word}\fR" if one.required else rf"[\fI{word}\fR]")
    yield from (f".SS {_plain(name)}", " ".join(words), ".PP")
    yield from _text(command.help or "")
    yield from _options(command)
    yield from (".PP", ".EX", *(_plain(example) for example in command.examples), ".EE")


def _options(command: click.Command) -> Iterator[str]:
    for one in command.params:
        if isinstance(one, click.Option) and not one.hidden:
            yield from (".TP", _names(one), _plain(_help(one)))


def _names(option: click.Option) -> str:
    value = ""
    if isinstance(option.type, click.Choice) and not option.metavar:
        value = "|".join(str(choice) for choice in option.type.choices)
    elif not option.is_flag and not option.count:
        value = option.metavar or (option.name or "").upper()
    names = ", ".join(rf"\fB{_plain(name)}\fR" for name in option.opts)
    return names + (rf" \fI{_plain(value)}\fR" if value else "")


def _help(option: click.Option) -> str:
    text = " ".join((option.help or "").split())
    shown: Any = option.default
    return f"{text} [default: {shown}]" if option.show_default and not option.is_flag else text


def _text(text: str) -> Iterator[str]:
    r"""Paragraphs; those behind a `\b` keep their lines."""
    for number, part in enumerate(inspect.cleandoc(text).split("\n\n")):
        if number:
            yield ".PP"
        lines = part.strip().split("\n")
        if lines[0] == "\b":
            yield from (".nf", *map(_plain, lines[1:]), ".fi")
        else:
            yield _plain(" ".join(line.strip() for line in lines))


def _plain(text: str) -> str:
    """Nothing in a text is a request or an escape."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    escaped = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", escaped)
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped
