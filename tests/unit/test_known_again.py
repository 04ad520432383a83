"""No number of a file system is kept; files are known again by what does not change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from qmpsnap.formats.layers import Identity
from qmpsnap.guests.files.identity import identity
from qmpsnap.journal.identities import seen
from qmpsnap.journal.known_again import known_again, unnumbered
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.removal import removal
from tests.unit import journal_samples

DEVICE = 7_654_321_987
"""As a file system of this boot is numbered."""


@pytest.fixture
def plan(tmp_path: Path) -> MergePlan:
    """A merge of files that are there, of another boot."""
    made = journal_samples.merging().merge
    assert made is not None

    def here(value: Any) -> Any:
        return replace(
            value, path=str(tmp_path / value.file), identity=("file", DEVICE, 1), folder=None
        )

    for layer in made.disk.layers:
        (tmp_path / layer.file).write_text("")
    disk = replace(made.disk, layers=tuple(here(one) for one in made.disk.layers))
    parts: dict[str, Any] = {
        name: None if getattr(made, name) is None else here(getattr(made, name))
        for name in ("top", "base", "above")
    }
    for name in ("dropped", "remaining"):
        parts[name] = tuple(here(one) for one in getattr(made, name))
    return replace(made, disk=disk, **parts)


def paths(plan: MergePlan) -> tuple[str, ...]:
    return tuple(layer.path for layer in plan.disk.layers)


def identities(plan: MergePlan) -> set[Identity | None]:
    layers = [*plan.disk.layers, plan.top, plan.base, plan.above, *plan.dropped, *plan.remaining]
    return {layer.identity for layer in layers if layer is not None}


def test_a_plan_without_them(plan: MergePlan) -> None:
    assert identities(plan) == {("file", DEVICE, 1)}
    assert identities(unnumbered(plan)) == {None}


def test_same_files_have_the_numbers_of_now(plan: MergePlan) -> None:
    files = tuple(one for path in paths(plan) if (one := seen(path)) is not None)
    record = journal_samples.merging(merge=plan, files=files)
    again = known_again(record).merge
    assert again is not None
    assert [layer.identity for layer in again.disk.layers] == [
        identity(path) for path in paths(plan)
    ]
    assert again.top.identity == identity(plan.top.path)


def test_another_file_is_not_removed_in_its_place(plan: MergePlan) -> None:
    files = tuple(one for path in paths(plan) if (one := seen(path)) is not None)
    gone = plan.dropped[0].path
    os.rename(gone, f"{gone}.kept")
    Path(gone).write_text("of somebody else")
    again = known_again(journal_samples.merging(merge=plan, files=files)).merge
    assert again is not None
    (step,) = removal(again, force=False)
    assert step.arguments["identity"] != [*(identity(gone) or ())]
    assert step.arguments["identity"] == ["file", -1, -1]


def test_what_was_not_looked_at_is_told_by_its_name(plan: MergePlan) -> None:
    again = known_again(journal_samples.merging(merge=plan, files=())).merge
    assert again is not None
    assert identities(again) == {None}


def test_what_is_gone_has_none(plan: MergePlan) -> None:
    files = tuple(one for path in paths(plan) if (one := seen(path)) is not None)
    for path in paths(plan):
        os.unlink(path)
    again = known_again(journal_samples.merging(merge=plan, files=files)).merge
    assert again is not None
    assert identities(again) == {None}
