"""
Whether the file above what a merge drops may name it as its backing file again.

What was to leave the chain has all data, if it is there and nobody has written below since.
"""

from __future__ import annotations

import os

from qmpsnap.formats.qcow2 import BadHeader
from qmpsnap.guests.files.header import read_header
from qmpsnap.journal.identities import is_same, seen
from qmpsnap.journal.named import above, named_by
from qmpsnap.journal.record import Record
from qmpsnap.journal.since import written_since
from qmpsnap.operations.names import tidy
from qmpsnap.operations.plan_merge import MergePlan


def old_name(plan: MergePlan) -> str:
    """How the file above what leaves the chain named it before, or should have."""
    return above(plan).backing_name or plan.dropped[0].path


def not_to_be_named(record: Record, plan: MergePlan) -> str:
    """
    Why the old name must not be written again.

    It has to lead to the layer of the plan, and nobody but the merge may have written there: what was
    pulled hides it, but for what read as zeros before.
    """
    upper, below, name = above(plan), plan.dropped[0], old_name(plan)
    folder = os.path.dirname(upper.path)
    now = seen(below.path)
    if now is None:
        return f"{below.file}, which has it, is gone"
    leads_to = named_by(upper.path, name)
    try:
        leads_there = os.path.samefile(leads_to or "", below.path)
    except OSError:
        leads_there = False
    if not leads_there:
        return f"{name!r}, as its header named its backing file, does not lead to {below.path}"
    known = any(one.path == below.path and is_same(one, now) for one in record.files)
    if not known and tidy(os.path.dirname(below.path)) != tidy(folder):
        return f"{below.path} is in another folder, and was not looked at before"
    paths = [layer.path for layer in plan.disk.layers]
    lower = paths[paths.index(upper.path) + 1 :] if upper.path in paths else paths
    written = written_since(record, [path for path in lower if path != plan.written.path])
    if written:
        return f"{written} was written since: it would show through"
    if plan.kind == "pull" and _is_v2(plan):
        return f"{below.file} would show where the guest has discarded since"
    return ""


def _is_v2(plan: MergePlan) -> bool:
    """
    Whether QEMU only lets go of a cluster that the guest discards or zeroes in a file without backing.

    This version of qcow2 has no zero clusters. Source: block/qcow2-cluster.c, zero_in_l2_slice.
    """
    try:
        return read_header(plan.top.path, follow=False).version == 2
    except (OSError, BadHeader):
        return False
