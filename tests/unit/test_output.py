"""Text for a terminal: names are shown as they are, and nothing in them acts."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import struct
import sys
import termios

import pytest

from qmpsnap.cli import views
from qmpsnap.cli.output import draw, show_text
from qmpsnap.cli.tables import Table
from qmpsnap.cli.text import printable
from tests.unit import samples


@pytest.mark.parametrize("name", [":smile:", "a:fire:b", "[red]x[/red]", "[link=http://x]x[/link]"])
def test_names_are_no_markup(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_text(lambda _: [Table(("FILE",), [(name,)], title=name)])
    assert capsys.readouterr().out == f"{name}\nFILE\n{name}\n"


def test_an_escape_that_is_a_name_does_not_look_like_the_byte() -> None:
    assert printable("a\x1bb") == r"a\x1bb"
    assert printable(r"a\x1bb") == r"a\\x1bb"


def test_a_name_is_escaped_once(capsys: pytest.CaptureFixture[str]) -> None:
    disk = samples.disk(serial="a\\b")
    show_text(lambda here: views.chain([disk], here))
    assert capsys.readouterr().out.startswith("vda (serial a\\\\b)\n")


def test_control_characters_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    show_text(lambda _: [Table(("FILE",), [("a\x1b[2J\n\u202e\udc80\ud800",)])])
    assert capsys.readouterr().out == "FILE\na\\x1b[2J\\n\\u202e\\x80\\ud800\n"


class Terminal:
    """Stdout as a terminal."""

    def __init__(self, width: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        self.stdout = os.fdopen(slave, "w", encoding="utf-8")

    def read(self) -> str:
        self.stdout.close()
        shown = b""
        with contextlib.suppress(OSError):  # EIO: there is no more
            while data := os.read(self._master, 65536):
                shown += data
        os.close(self._master)
        return shown.decode().replace("\r\n", "\n")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "LC_ALL", "LC_CTYPE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "en_US.UTF-8")
    monkeypatch.setenv("TERM", "xterm")


def on_terminal(width: int, monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """What `chain` shows of a disk of two layers on a terminal."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal(width)
    monkeypatch.setattr(sys, "stdout", terminal.stdout)
    monkeypatch.setattr(sys, "__stdout__", terminal.stdout)
    show_text(lambda here: views.chain([samples.disk(2)], here))
    return terminal.read()


TABLE = """\
vda (serial 1)
FILE         FORMAT  VERDICT  WITNESSES   FLAGS
volume-1.s1  qcow2   exact    qmp
└ volume-1   raw     exact    qmp header
"""


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_without_colours(
    width: int, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert on_terminal(width, monkeypatch, **variables) == TABLE


def test_with_styles(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *_ = on_terminal(80, monkeypatch).splitlines()
    assert first == "\x1b[1mvda (serial 1)\x1b[0m"
    assert second.startswith("\x1b[2mFILE ")


def test_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_terminal(40, monkeypatch, TERM="dumb").splitlines() == [
        "vda (serial 1)",
        "volume-1.s1",
        "  qcow2, exact, qmp",
        "└ volume-1",
        "  raw, exact, qmp header",
    ]


@pytest.mark.parametrize("locale", [{"LANG": "C"}, {"LC_ALL": "POSIX"}, {"LC_CTYPE": "C"}])
def test_in_the_c_locale(locale: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_terminal(80, monkeypatch, TERM="dumb", **locale).isascii()


def test_what_python_says_of_the_c_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    """With LANG=C it sets LC_CTYPE to C.UTF-8 for itself, and stdout's encoding to UTF-8."""
    assert on_terminal(80, monkeypatch, TERM="dumb", LANG="C", LC_CTYPE="C.UTF-8").isascii()


@pytest.mark.parametrize(
    ("encoding", "shown"), [("latin-1", "`- é \\u6863"), ("ascii", "`- \\xe9 \\u6863")]
)
def test_what_an_encoding_lacks(encoding: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding=encoding))
    disk = samples.disk(layers=samples.linked([samples.layer("a"), samples.layer("é 档")]))
    show_text(lambda here: views.chain([disk], here))
    assert f"\n{shown} " in buffer.getvalue().decode(encoding)


def test_a_pipe_has_a_line_a_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    show_text(lambda here: views.chain([samples.disk(2)], here))
    assert capsys.readouterr().out == TABLE


def test_a_picture_is_utf_8_whatever_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))
    draw("档·")
    assert buffer.getvalue().decode() == "档·"
