"""Text for a terminal: names are shown as they are, and nothing in them acts."""

from __future__ import annotations

import pytest

from qmpsnap.cli import views
from qmpsnap.cli.output import printable, show_text, table
from tests.unit import samples


@pytest.mark.parametrize("name", [":smile:", "a:fire:b", "[red]x[/red]", "[link=http://x]x[/link]"])
def test_names_are_no_markup(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_text(table(("FILE",), [(name,)], title=name))
    assert capsys.readouterr().out == f"{name}\nFILE\n{name}\n"


def test_an_escape_that_is_a_name_does_not_look_like_the_byte() -> None:
    assert printable("a\x1bb") == r"a\x1bb"
    assert printable(r"a\x1bb") == r"a\\x1bb"


def test_a_name_is_escaped_once(capsys: pytest.CaptureFixture[str]) -> None:
    disk = samples.disk(serial="a\\b")
    show_text(views.chain([disk]))
    assert capsys.readouterr().out.startswith("vda (serial a\\\\b)\n")


def test_control_characters_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    show_text(table(("FILE",), [("a\x1b[2J\n\u202e\udc80\ud800",)]))
    assert capsys.readouterr().out == "FILE\na\\x1b[2J\\n\\u202e\\x80\\ud800\n"
