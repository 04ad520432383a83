"""Which backing file a header names: before, or after what was to be done. Reads headers."""

from __future__ import annotations

import os

from qmpsnap.formats.qcow2 import BadHeader
from qmpsnap.guests.files import census
from qmpsnap.guests.files.header import read_header
from qmpsnap.operations.names import tidy
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.volume import VolumeLayer


def named_by(path: str, name: str | None) -> str | None:
    """The path that a name in the header of a file leads to; a `json:` name, where it is about one file."""
    if name is None:
        return None
    found = [tidy(one) for one in census.named_by(path, name)]
    return found[0] if len(found) == 1 else tidy(os.path.join(os.path.dirname(path), name))


def above(plan: MergePlan) -> VolumeLayer:
    """The layer whose header a pull or a commit changes."""
    return plan.above or plan.top


def names_its_new(plan: MergePlan) -> bool:
    """Whether the header that a merge changes names the backing file that it has afterwards."""
    assert plan.above is not None  # an active commit changes no header
    try:
        header = read_header(plan.above.path, follow=False)
    except (OSError, BadHeader):
        return False
    new = named_by(plan.above.path, plan.base.path if plan.base else None)
    return named_by(plan.above.path, header.backing_file) == new


def has_let_go(plan: MergePlan) -> bool:
    """Whether the file above what leaves the chain certainly names it no more."""
    upper = above(plan)
    try:
        header = read_header(upper.path, follow=False)
    except (OSError, BadHeader):
        return False
    return named_by(upper.path, header.backing_file) != tidy(plan.dropped[0].path)


def names_its_active(plan: CreatePlan) -> bool:
    """Whether an overlay is there, and its header is as the plan has it."""
    try:
        header = read_header(plan.overlay, follow=False)
    except (OSError, BadHeader):
        return False
    return (
        named_by(plan.overlay, header.backing_file) == tidy(plan.active.path)
        and header.virtual_size == plan.virtual_size
        and header.data_file is None
    )
