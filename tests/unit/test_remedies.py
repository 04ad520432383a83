"""Commands that a finding suggests."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qmpsnap.findings.remedies import UNCERTAIN, certain_format, rebase
from qmpsnap.formats.verdict import Verdict
from tests.unit import samples

TOP, BASE = samples.disk(2).layers


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Verdict.EXACT, "raw"),
        (Verdict.AGREED, "raw"),
        (Verdict.STATED, "raw"),
        (Verdict.INFERRED, UNCERTAIN),
        (Verdict.CONFLICT, UNCERTAIN),
        (Verdict.UNKNOWN, UNCERTAIN),
    ],
)
def test_format_that_nobody_doubts(verdict: Verdict, expected: str) -> None:
    assert certain_format(replace(BASE, verdict=verdict)) == expected


def test_format_that_qemu_guessed_or_nobody_states() -> None:
    assert certain_format(replace(BASE, flags=("probed",))) == UNCERTAIN
    assert certain_format(replace(BASE, format=None)) == UNCERTAIN


def test_command() -> None:
    command = "qemu-img rebase -u -f qcow2 -b /share/volume-1 -F raw /share/volume-1.s1"
    assert rebase(TOP, BASE) == f"With the guest off: `{command}`."


def test_command_with_a_name_of_its_own() -> None:
    assert "-b 'a b' -F raw" in rebase(TOP, BASE, backing="a b")


def test_layers_without_a_path() -> None:
    top, base = replace(TOP, path=None, file="top"), replace(BASE, path=None, file="base")
    assert "-b base -F raw top`" in rebase(top, base)


def test_command_with_a_format_that_somebody_has_to_know() -> None:
    said = rebase(TOP, replace(BASE, verdict=Verdict.CONFLICT))
    assert f"-F {UNCERTAIN} " in said
    assert said.endswith("its bytes do not tell.")
