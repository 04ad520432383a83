"""Witnesses of one layer's format, and what is concluded from them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec


class Witness(StrEnum):
    """Who states a format, most trusted first."""

    QMP = "qmp"
    """The running node: how the file *is* opened."""
    XML = "xml"
    """The live domain XML: what libvirt believes."""
    LEDGER = "ledger"
    """What was recorded when the file was last changed: what the volume service believes."""
    HEADER = "header"
    """The backing format in the qcow2 layer above: what the next start will believe."""
    RULE = "rule"
    """The specification's rule, where nobody speaks: a commit leaves the format of the file
    committed into, a pull that of the file pulled into, a create the format created."""


class Verdict(StrEnum):
    """What is concluded about one layer."""

    EXACT = "exact"
    AGREED = "agreed"
    STATED = "stated"
    INFERRED = "inferred"
    CONFLICT = "conflict"
    UNKNOWN = "unknown"


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One witness's statement about one layer."""

    witness: Witness
    format: str
    detail: str
    """Where it was read, in words: for people, not for programs."""


_TRUST: Final = {witness: rank for rank, witness in enumerate(Witness)}


def judge(evidence: Iterable[Evidence]) -> tuple[str | None, Verdict]:
    """
    Conclude a layer's format.

    Returns:
        The format and the verdict. On a conflict the format is that of the most trusted witness;
        it is None exactly when the verdict is `unknown`.
    """
    by_trust = sorted(evidence, key=lambda one: _TRUST[one.witness])
    speakers = [one for one in by_trust if one.witness is not Witness.RULE]
    if not speakers:
        return (by_trust[0].format, Verdict.INFERRED) if by_trust else (None, Verdict.UNKNOWN)
    format_ = speakers[0].format
    witnesses = {one.witness for one in speakers}
    if any(one.format != format_ for one in speakers):
        return format_, Verdict.CONFLICT
    if Witness.QMP not in witnesses:
        return format_, Verdict.STATED
    return format_, Verdict.AGREED if Witness.XML in witnesses else Verdict.EXACT
