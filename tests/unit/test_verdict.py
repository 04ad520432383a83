"""The table of verdicts, row by row."""

from __future__ import annotations

import itertools

import pytest

from qmpsnap.formats.verdict import Evidence, Verdict, Witness, judge


def said(**formats: str) -> list[Evidence]:
    """Evidence as keywords: `qmp="raw", xml="raw"`."""
    return [
        Evidence(witness=Witness(witness), format=format_, detail="")
        for witness, format_ in formats.items()
    ]


TABLE = [
    # exact: qmp stated it and no other witness contradicts
    ({"qmp": "raw"}, "raw", "exact"),
    ({"qmp": "raw", "header": "raw"}, "raw", "exact"),
    ({"qmp": "raw", "ledger": "raw"}, "raw", "exact"),
    ({"qmp": "raw", "header": "raw", "ledger": "raw"}, "raw", "exact"),
    ({"qmp": "raw", "rule": "raw"}, "raw", "exact"),
    # agreed: qmp and xml both stated it, and nobody contradicts
    ({"qmp": "qcow2", "xml": "qcow2"}, "qcow2", "agreed"),
    ({"qmp": "qcow2", "xml": "qcow2", "header": "qcow2"}, "qcow2", "agreed"),
    ({"qmp": "qcow2", "xml": "qcow2", "header": "qcow2", "ledger": "qcow2"}, "qcow2", "agreed"),
    # stated: no qmp; xml (or ledger) stated it, nobody contradicts
    ({"xml": "raw"}, "raw", "stated"),
    ({"ledger": "raw"}, "raw", "stated"),
    ({"header": "raw"}, "raw", "stated"),
    ({"xml": "raw", "header": "raw"}, "raw", "stated"),
    ({"xml": "raw", "ledger": "raw"}, "raw", "stated"),
    ({"xml": "raw", "rule": "raw"}, "raw", "stated"),
    # inferred: only the rule
    ({"rule": "raw"}, "raw", "inferred"),
    # conflict: two witnesses contradict; qmp, else the most trusted one, is the format reported
    ({"qmp": "qcow2", "xml": "raw"}, "qcow2", "conflict"),
    ({"qmp": "qcow2", "header": "raw"}, "qcow2", "conflict"),
    ({"qmp": "qcow2", "ledger": "raw"}, "qcow2", "conflict"),
    ({"qmp": "raw", "xml": "raw", "header": "qcow2"}, "raw", "conflict"),
    ({"qmp": "raw", "xml": "qcow2", "header": "qcow2", "ledger": "qcow2"}, "raw", "conflict"),
    ({"xml": "raw", "header": "qcow2"}, "raw", "conflict"),
    ({"xml": "raw", "ledger": "qcow2"}, "raw", "conflict"),
    ({"ledger": "raw", "header": "qcow2"}, "raw", "conflict"),
    # unknown: nobody states it
    ({}, None, "unknown"),
]


@pytest.mark.parametrize(("witnesses", "format_", "verdict"), TABLE)
def test_table(witnesses: dict[str, str], format_: str | None, verdict: str) -> None:
    assert judge(said(**witnesses)) == (format_, Verdict(verdict))


@pytest.mark.parametrize(("witnesses", "format_", "verdict"), TABLE)
def test_order_of_the_evidence_does_not_matter(
    witnesses: dict[str, str], format_: str | None, verdict: str
) -> None:
    for order in itertools.permutations(said(**witnesses)):
        assert judge(order) == (format_, verdict)


@pytest.mark.parametrize("witness", [one for one in Witness if one is not Witness.RULE])
def test_rule_gives_way_to_everybody(witness: Witness) -> None:
    format_, verdict = judge(said(**{witness: "qcow2", "rule": "raw"}))
    assert format_ == "qcow2"
    assert verdict in (Verdict.EXACT, Verdict.STATED)


def test_format_is_unknown_exactly_when_the_verdict_is() -> None:
    for count in range(len(Witness) + 1):
        for witnesses in itertools.combinations(Witness, count):
            for formats in itertools.product(("raw", "qcow2"), repeat=count):
                format_, verdict = judge(said(**dict(zip(witnesses, formats, strict=True))))
                assert (format_ is None) == (verdict is Verdict.UNKNOWN)
