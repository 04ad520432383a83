"""What is wrong in a header, and what is left alone."""

from __future__ import annotations

import pytest

from qmpsnap.formats.layers import Layer
from qmpsnap.formats.verdict import Verdict
from qmpsnap.operations.plan_header import fault, fault_before, name_kept, rewrite, wrong_active
from tests.unit import samples

ABOVE, BELOW = samples.disk(2).layers


def above(**written: str | None) -> Layer:
    return samples.changed_layer(samples.disk(2), 0, **written).layers[0]


class TestFault:
    @pytest.mark.parametrize("name", ["volume-1", "./volume-1", ".//volume-1"])
    def test_name_that_leads_to_the_file(self, name: str) -> None:
        assert fault(above(backing_name=name), BELOW, "volume-1") is None

    @pytest.mark.parametrize(
        ("written", "wanted"),
        [
            (None, "volume-1"),
            (None, ""),
            ("volume-2", "volume-1"),
            ("/share/volume-1", "volume-1"),
            ("volume-1", "/share/volume-1"),
            ("/other/volume-1", "/share/volume-1"),
            ("nbd:volume-1", "volume-1"),
            ('json:{"driver": "raw"}', "volume-1"),
        ],
    )
    def test_name_that_does_not(self, written: str | None, wanted: str) -> None:
        said = fault(above(backing_name=written), BELOW, wanted)
        assert said is not None
        assert said.startswith("it names")

    def test_file_with_a_colon_in_its_name(self) -> None:
        """QEMU takes what stands before it for a protocol, unless a path stands there."""
        lower = samples.layer("a:b", "raw")
        assert name_kept(above(backing_name="a:b"), lower, "./a:b") == "./a:b"
        assert name_kept(above(backing_name="./a:b"), lower, "/share/a:b") == "./a:b"

    def test_layer_that_is_no_file_here(self) -> None:
        """Its folder is not known."""
        nowhere = samples.changed_layer(samples.disk(2), 0, path=None).layers[0]
        assert name_kept(nowhere, BELOW, "other") == "other"
        upper = samples.changed_layer(samples.disk(2), 0, backing_name="/share/volume-1", path=None)
        assert name_kept(upper.layers[0], BELOW, "other") == "/share/volume-1"

    def test_name_that_is_no_path_and_the_right_one(self) -> None:
        assert fault(above(backing_name="nbd:x"), BELOW, "nbd:x") is None

    @pytest.mark.parametrize("written", [None, "file", "qcow2"])
    def test_format(self, written: str | None) -> None:
        said = fault(above(backing_format=written), BELOW, "volume-1")
        assert said is not None
        assert said.startswith("it records")

    def test_contradiction_about_the_layer_below(self) -> None:
        doubtful = samples.changed_layer(samples.disk(2), 1, verdict=Verdict.CONFLICT).layers[1]
        assert fault(ABOVE, doubtful, "volume-1") is not None
        assert fault(ABOVE, BELOW, "volume-1") is None


class TestBefore:
    @pytest.mark.parametrize("name", [None, "elsewhere", "/new/volume-1", "nbd:volume-1"])
    def test_names_are_left_alone(self, name: str | None) -> None:
        assert fault_before(above(backing_name=name, backing_format=None), BELOW) is None

    @pytest.mark.parametrize("written", [None, "file"])
    @pytest.mark.parametrize("name", ["volume-1", "/share/volume-1"])
    def test_formats_are_not(self, name: str, written: str | None) -> None:
        wrong = above(backing_name=name, backing_format=written)
        assert fault_before(wrong, BELOW) is not None
        plan = wrong_active((wrong, BELOW), samples.disk(2))
        assert plan is not None
        assert (plan.top, plan.base, plan.name) == (wrong, BELOW, name)

    def test_nothing_below_and_nothing_wrong(self) -> None:
        assert wrong_active((BELOW,), samples.disk(2)) is None
        assert wrong_active((ABOVE, BELOW), samples.disk(2)) is None


def test_name_that_is_kept() -> None:
    assert name_kept(above(backing_name="/share/volume-1"), BELOW, "volume-1") == "/share/volume-1"
    for name in (None, "elsewhere", "nbd:volume-1"):
        assert name_kept(above(backing_name=name), BELOW, "volume-1") == "volume-1"


def test_no_rewrite_over_a_layer_between() -> None:
    disk = samples.disk(3)
    assert rewrite(disk, disk.layers[1], disk.layers[2], "volume-1").disk == disk
    with pytest.raises(AssertionError):
        rewrite(disk, disk.layers[0], disk.layers[2], "volume-1")
