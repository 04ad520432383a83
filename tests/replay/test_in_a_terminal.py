"""
The whole program in a terminal of each kind: what must not come out of it.

The views alone are tried in tests/unit/test_terminals.py; here is all between them and the terminal.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Final

import pytest

from qmpsnap.cli.text import cells

RECORDED: Final = Path(__file__).parents[2] / "fixtures" / "qemu-7.2" / "chain-3.jsonl"
COMMANDS: Final = (("chain",), ("list",), ("verify",), ("chain", "--help"))
WIDTHS: Final = (60, 80, 200)
_STYLE: Final = re.compile(r"\x1b\[[0-9;]*m")


def shown(*arguments: str, width: int = 80, **environment: str) -> bytes:
    """What the program writes on a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    unset = ("NO_COLOR", "COLUMNS", "LANG", "LC_ALL", "LC_CTYPE", "PYTHONIOENCODING")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    with subprocess.Popen(
        [sys.executable, "-m", "qmpsnap", "--replay", str(RECORDED), *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**kept, "TERM": "xterm-256color", "LANG": "C.UTF-8", **environment},
    ):
        os.close(theirs)
        text = b""
        try:
            while more := os.read(ours, 65536):
                text += more
        except OSError:  # nobody has the other end any more
            pass
    os.close(ours)
    return text.replace(b"\r\n", b"\n")


@pytest.fixture(scope="module")
def words() -> dict[tuple[str, ...], set[str]]:
    """What each command says where nothing has to be folded."""
    return {one: {*shown(*one, width=1000, NO_COLOR="1").decode().split()} for one in COMMANDS}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_line_is_too_long_and_no_word_torn(
    command: tuple[str, ...], width: int, words: dict[tuple[str, ...], set[str]]
) -> None:
    text = _STYLE.sub("", shown(*command, width=width).decode())
    assert "\x1b" not in text, "only styles"
    for line in text.splitlines():
        longest = max((cells(word) for word in line.split()), default=0)
        assert cells(line) <= width or longest + 12 > width, line
    names = {word for word in words[command] if word.startswith("layer-")}
    assert names or command not in (("chain",), ("list",))
    for name in names:
        assert name in text, name


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_escapes(command: tuple[str, ...], name: str, value: str) -> None:
    assert b"\x1b" not in shown(*command, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_ascii_alone_in_the_c_locale(command: tuple[str, ...]) -> None:
    said = shown(*command, LANG="C")
    assert _STYLE.sub("", said.decode()).isascii()
    assert b"Traceback" not in said


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_latin_1(command: tuple[str, ...]) -> None:
    """What it lacks is escaped, and nothing fails; a byte is a character."""
    said = shown(*command, LANG="en_US.ISO-8859-1", PYTHONIOENCODING="latin-1")
    assert b"Traceback" not in said
    assert all(byte < 0x80 or byte >= 0xA0 for byte in said), "half of something else"
    assert "└".encode() not in said
