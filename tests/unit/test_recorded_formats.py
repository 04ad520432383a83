"""What a ledger states of a disk's layers, as one more witness of a reading."""

from __future__ import annotations

import pytest

from qmpsnap.formats.recorded import with_recorded
from qmpsnap.formats.verdict import Evidence, Verdict, Witness
from tests.unit import samples

SAID = ("qcow2", "since its snapshot, by Nova")


def test_by_serial_and_bare_name() -> None:
    asked = []

    def recorded(volume: str, file: str) -> tuple[str, str] | None:
        asked.append((volume, file))
        return SAID if file == "volume-1.s1" else None

    disk = samples.disk(2)
    (found,) = with_recorded(samples.guest(disk), recorded).disks
    assert asked == [(disk.serial, "volume-1.s1"), (disk.serial, "volume-1")]
    upper, lower = found.layers
    assert lower == disk.layers[1], "of which it knows nothing"
    ledger = Evidence(witness=Witness.LEDGER, format="qcow2", detail="since its snapshot, by Nova")
    assert upper.evidence == (*disk.layers[0].evidence, ledger)
    assert (upper.format, upper.verdict) == ("qcow2", Verdict.EXACT)


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_one_that_contradicts(format_: str) -> None:
    disk = samples.disk(1)
    (found,) = with_recorded(samples.guest(disk), lambda *_: (format_, "by hand")).disks
    agrees = format_ == disk.layers[0].format
    assert (found.layers[0].verdict is Verdict.CONFLICT) is not agrees


@pytest.mark.parametrize("serial", [None, ""])
def test_disk_without_a_serial_is_no_volume(serial: str | None) -> None:
    disk = samples.disk(1, serial=serial)

    def recorded(*words: str) -> tuple[str, str]:
        raise AssertionError(words)

    assert with_recorded(samples.guest(disk), recorded).disks == (disk,)
