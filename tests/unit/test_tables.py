"""Tables and blocks: no name is torn, however narrow the terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from qmpsnap.cli import guests, views
from qmpsnap.cli.every_guest import Answer, Domain
from qmpsnap.cli.parallel import TooSlow
from qmpsnap.cli.tables import Screen, Table
from qmpsnap.cli.text import cells, encodes, fold, json_text, printable
from qmpsnap.findings.facts import Seen
from qmpsnap.formats.layers import Disk
from qmpsnap.guests.files.measure import Measure
from qmpsnap.operations.job.pace import Pace
from qmpsnap.operations.job.states import JobReport, JobStatus, JobView
from tests.unit import samples

LONG = "volume-5f2c9a3e-8f0a-4a57-9d6b-3c1f0a7b9e11.snapshot-of-monday"
WIDTHS = [None, 200, 80, 60, 40]


def shown(made: object, width: int | None, **more: Any) -> list[str]:
    here = Screen(width=width, **more)
    parts = [made] if isinstance(made, Table) else made
    assert isinstance(parts, list)
    return [line for one in parts for line in ([one] if isinstance(one, str) else one.lines(here))]


def chain(disk: Disk, width: int | None, **more: Any) -> list[str]:
    return shown(list(views.chain([disk], Screen(width=width, **more))), width, **more)


def disk() -> Disk:
    layers = samples.linked([samples.layer(LONG), samples.layer("volume-1", "raw")])
    return samples.disk(layers=layers, serial="1")


class TestEachTable:
    """What people look at: in a pipe a line a row, and on a terminal nothing that it would break."""

    @pytest.mark.parametrize("width", WIDTHS)
    def test_chain(self, width: int | None) -> None:
        self.check(chain(disk(), width), width, {LONG, "volume-1"})

    @pytest.mark.parametrize("width", WIDTHS)
    def test_chain_that_was_measured(self, width: int | None) -> None:
        here = Screen(width=width)
        files = {f"/share/{LONG}": Measure(size=1, allocated=200704, created=1.8e9, modified=2e9)}
        lines = shown(list(views.chain([disk()], here, files)), width)
        self.check(lines, width, {LONG, "volume-1", "196", "2027-01-15"})
        self.check(shown(views.snapshot_list([disk()], files), width), width, {LONG, "2027-01-15"})

    @pytest.mark.parametrize("width", WIDTHS)
    def test_guests(self, width: int | None) -> None:
        domain = Domain(name="web1", uuid="", running=True, handle=None)
        seen = Seen(guest="web1", report=samples.guest(disk()))
        answer = Answer(seen=seen, found=(), uuid=None)
        rows = [
            guests.Row(domain=domain, answer=answer, found=()),
            guests.Row(domain=domain, answer=TooSlow(30.0), found=()),
        ]
        self.check(shown(guests.table(rows), width), width, {f"/share/{LONG}", "read:"})

    @pytest.mark.parametrize("width", WIDTHS)
    def test_disks(self, width: int | None) -> None:
        guest = samples.guest(disk())
        self.check(shown(views.disks(guest), width), width, {f"/share/{LONG}"})

    @pytest.mark.parametrize("width", WIDTHS)
    def test_list(self, width: int | None) -> None:
        self.check(shown(views.snapshot_list([disk()]), width), width, {LONG, "volume-1"})

    @pytest.mark.parametrize("width", WIDTHS)
    def test_jobs(self, width: int | None) -> None:
        view = JobView(
            status=JobStatus.RUNNING,
            current=1,
            total=100,
            error="it could not be read, and nobody knows why that is so",
        )
        job = JobReport(id=LONG, type="commit", disk="vda", view=view, bandwidth=1024, ours=True)
        rates = Pace().seen(view, 1.0).seen(replace(view, current=50), 2.0).rates
        assert rates is not None
        self.check(shown(views.jobs([job], {LONG: rates}), width), width, {LONG})

    def check(self, lines: list[str], width: int | None, names: set[str]) -> None:
        words = {word for line in lines for word in line.split()}
        assert names <= words
        if width is not None:
            for line in lines:
                assert cells(line) <= width or len(line.split()) == 1 or line.startswith("└ ")


def test_a_table_that_fits_is_a_table() -> None:
    table = Table(("FILE", "FLAGS"), [("a", "b c"), (None, "")], title="t", remarks=["r"])
    expected = ["t", "FILE  FLAGS", "a     b c", "-", "r"]
    assert shown(table, None) == shown(table, 11) == expected


def test_one_that_does_not_is_blocks() -> None:
    table = Table(
        ("FILE", "FORMAT", "FLAGS", ""), [("a", None, "b c", "d e"), ("f", "raw", "", "")]
    )
    assert shown(table, 15) == [
        "a",
        "  flags   b c",
        "  d e",
        "f",
        "  format  raw",
    ]  # fmt: skip


def test_prose_is_folded_between_words_and_names_are_not() -> None:
    table = Table(("A", "NAME", "WHAT"), [("a", "n n n n n n n", "w w w w")], prose=("WHAT",))
    assert shown(table, 12) == ["a", "  name", "    n n n n n n n", "  what  w w", "        w w"]


def test_details_on_one_line() -> None:
    assert chain(disk(), 60) == [
        "vda (serial 1)",
        LONG,
        "  qcow2, exact, qmp",
        "└ volume-1",
        "  raw, exact, qmp header",
    ]


def test_what_is_drawn_with_is_ascii_where_it_has_to_be() -> None:
    for width in (None, 60):
        assert "`- volume-1" in "\n".join(chain(disk(), width, plain=True))


@pytest.mark.parametrize("width", [60, 200])
def test_styles_take_no_room(width: int) -> None:
    plain, styled = chain(disk(), width), chain(disk(), width, styled=True)
    assert len(plain) == len(styled)
    assert styled[0] == f"\x1b[1m{plain[0]}\x1b[0m"


def test_wide_characters_are_aligned() -> None:
    lines = shown(Table(("FILE", "FORMAT"), [("档案", "raw"), ("e\u0301tude", "raw")]), None)
    assert [cells(line.partition("raw")[0]) for line in lines[1:]] == [7, 7]


@given(st.lists(st.text("ab", min_size=1), min_size=1), st.integers(1, 30))
def test_folded_text_keeps_its_words(words: list[str], width: int) -> None:
    lines = fold(" ".join(words), width, "> ")
    assert [word for line in lines for word in line[2:].split(" ")] == words
    assert all(len(line) <= width or " " not in line[2:] for line in lines)


@given(st.text())
def test_nothing_is_folded_in_a_pipe(text: str) -> None:
    assert fold(text, None) == [text]


class TestJson:
    """JSON that is to be pasted is the same JSON, and does nothing to a terminal."""

    @given(st.dictionaries(st.text(), st.text()))
    def test_shown_and_pasted(self, value: dict[str, str]) -> None:
        for encoding in ("utf-8", "latin-1", "ascii"):
            text = json_text(value, encoding=encoding)
            assert json.loads(text) == value
            assert text.isprintable()
            assert encodes(text, encoding)
            assert printable(text) == text

    def test_readable_where_it_can_be(self) -> None:
        assert json_text("é", encoding="utf-8") == '"é"'
        assert json_text("é", encoding="ascii") == r'"\u00e9"'
