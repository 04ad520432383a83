"""
The looks for people on every terminal: what must not happen there.

No name torn, no line that the terminal would break, no escape where there are no styles, nothing but
ASCII to draw with in the C locale, and nothing that an encoding lacks.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterable
from types import MappingProxyType
from typing import Final

import pytest

from qmpsnap.cli import explain, guests, orphans, views, watch
from qmpsnap.cli.every_guest import Answer, Domain
from qmpsnap.cli.output import show_text
from qmpsnap.cli.tables import Screen, Table
from qmpsnap.cli.text import cells
from qmpsnap.findings.facts import Seen
from qmpsnap.guests import census
from qmpsnap.guests.census import Asked, FileUse
from qmpsnap.guests.files.census import Use
from qmpsnap.guests.files.measure import Measure
from tests.unit import samples

NAME: Final = "volume-5f2c9a3e-8f0a-4a57-9d6b-3c1f0a7b9e11.snapshot-of-monday"
LAYERS: Final = samples.linked([samples.layer(NAME), samples.layer("volume-1", "raw")])
DISK: Final = samples.disk(layers=LAYERS)
PATH: Final = f"/share/{NAME}"
FILES: Final = {PATH: Measure(size=1 << 30, allocated=200704, created=1.8e9, modified=1.8e9)}
GAP: Final = f"the chain of guest web2 cannot be followed: {NAME} has no valid qcow2 header"
USED: Final = FileUse(
    path=PATH,
    uses=(Use(by="process", who="qemu-system-x86 (pid 1)"), Use(by="guest", who="guest web1")),
    gaps=(),
)
LEFT: Final = FileUse(path=f"{PATH}.left", uses=(), gaps=(GAP,))
ASKED: Final = Asked(
    folder="/share",
    files=(USED, LEFT),
    asked=MappingProxyType({"files in /share": 2, "processes of this host": 161}),
    gaps=(GAP,),
)

View = Callable[[Screen], Iterable[str | Table]]
_SEEN: Final = Seen(guest="web1", report=samples.guest(DISK))
_DOMAIN: Final = Domain(name="web1", uuid="", running=True, handle=None)
VIEWS: Final[dict[str, View]] = {
    "chain": lambda here: views.chain([DISK], here, FILES),
    "list": lambda _: [views.snapshot_list([DISK], FILES)],
    "guests": lambda _: [
        guests.table(
            [guests.Row(domain=_DOMAIN, answer=Answer(seen=_SEEN, found=(), uuid=None), found=())]
        )
    ],
    "watch": lambda here: watch.view(watch.Now(at=1.8e9, guest="web1", disks=(DISK,)), here),
    "orphans": lambda here: orphans.view(ASKED, [LEFT], {LEFT.path: FILES[PATH]}, here),
    "explain": lambda here: explain.view(
        PATH, USED, ASKED, [explain.Place(guest="web1", disk=DISK, position=0)], FILES[PATH], here
    ),
    "explain-unknown": lambda here: explain.view(LEFT.path, LEFT, ASKED, [], Measure(), here),
}


def lines(view: View, here: Screen) -> list[str]:
    return [
        line for one in view(here) for line in ([one] if isinstance(one, str) else one.lines(here))
    ]


@pytest.mark.parametrize("name", VIEWS)
class TestEach:
    @pytest.mark.parametrize("width", [40, 60, 80, 200])
    def test_nothing_is_torn(self, name: str, width: int) -> None:
        shown = lines(VIEWS[name], Screen(width=width))
        words = {word.rstrip(",:") for line in shown for word in re.split(r"[ ]", line)}
        assert any(NAME in word for word in words)
        for line in shown:
            longest = max((cells(word) for word in line.split()), default=0)
            assert cells(line) <= width or longest + 12 > width, line

    def test_a_pipe_folds_nothing(self, name: str) -> None:
        wide = lines(VIEWS[name], Screen(width=10_000))
        assert lines(VIEWS[name], Screen(width=None)) == wide

    @pytest.mark.parametrize("width", [None, 60, 200])
    def test_no_escapes_without_styles(self, name: str, width: int | None) -> None:
        plain = lines(VIEWS[name], Screen(width=width))
        assert all(line.isprintable() for line in plain)
        styled = lines(VIEWS[name], Screen(width=width, styled=True))
        assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in styled] == plain

    @pytest.mark.parametrize("width", [None, 60])
    def test_ascii_in_the_c_locale(self, name: str, width: int | None) -> None:
        assert all(line.isascii() for line in lines(VIEWS[name], Screen(width=width, plain=True)))

    @pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
    def test_what_an_encoding_lacks(
        self, name: str, encoding: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        buffer = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding=encoding))
        show_text(VIEWS[name])
        assert NAME.encode() in buffer.getvalue()


def test_a_hostile_name_acts_on_nothing() -> None:
    use = FileUse(path="/share/a\x1b[2J\nb", uses=(), gaps=("why \x1b[31m",))
    for view in (
        lambda here: orphans.view(ASKED, [use], {}, here),
        lambda here: explain.view(use.path, use, ASKED, [], Measure(), here),
    ):
        for width in (None, 60):
            assert all(line.isprintable() for line in lines(view, Screen(width=width)))


def test_all_answers_are_told() -> None:
    assert {*explain.MAY_GO} == {*census.Answer}
