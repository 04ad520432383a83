"""What compute tells Cinder when it starts, in requests that Cinder's schema allows."""

from __future__ import annotations

import ast
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import qmpsnap.openstack
from qmpsnap.openstack.nova.parts import MOST, Part, parts


def names(kind: str, number: int) -> list[str]:
    return [f"{kind}{one}" for one in range(number)]


def test_a_few_go_in_one() -> None:
    known = {"b": ["1", "2"], "elsewhere": ["3"]}
    told = Part(volumes=("a", "b"), operations=("1", "2"))
    assert list(parts(["a", "b", "a"], known)) == [told]
    assert list(parts([], known)) == []


@pytest.mark.parametrize(("number", "expected"), [(MOST, [MOST]), (MOST + 1, [MOST, 1])])
def test_so_many_volumes(number: int, expected: list[int]) -> None:
    assert [len(part.volumes) for part in parts(names("v", number), {})] == expected


@pytest.mark.parametrize(
    ("number", "expected"), [(MOST - 1, [MOST]), (MOST, [1, MOST]), (MOST + 1, [1])]
)
def test_so_many_operations(number: int, expected: list[int]) -> None:
    """Those on one volume are never divided; more than one request holds are not told of."""
    known = {"a": ["o"], "b": names("p", number)}
    assert [len(part.operations) for part in parts(["a", "b"], known)] == expected


@given(st.lists(st.integers(0, MOST), max_size=30))
def test_every_volume_once_with_all_its_operations(numbers: list[int]) -> None:
    known = {f"v{one}": names(f"{one}-", number) for one, number in enumerate(numbers)}
    told = list(parts(known, known))
    assert list(chain.from_iterable(part.volumes for part in told)) == list(known)
    for part in told:
        assert len(part.volumes) <= MOST
        assert len(part.operations) <= MOST
        own = chain.from_iterable(known[volume] for volume in part.volumes)
        assert list(part.operations) == list(own)


def test_the_schema_allows_as_much() -> None:
    """It is Cinder's, which is not here, and cannot be loaded beside Nova."""
    missed = Path(*qmpsnap.openstack.__path__) / "cinder" / "missed.py"
    (names,) = (
        ast.literal_eval(one.value)
        for one in ast.parse(missed.read_text()).body
        if isinstance(one, ast.AnnAssign) and ast.unparse(one.target) == "_NAMES" and one.value
    )
    assert names["maxItems"] == MOST
