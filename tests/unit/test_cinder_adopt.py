"""What is stated of a volume that was there before the ledger."""

from __future__ import annotations

import pytest

from qmpsnap.formats.qcow2 import Header
from qmpsnap.ledger.values import Format, Witness
from qmpsnap.openstack.cinder.adopt import ChainBroken, Known, statements

NAME = "volume-1"


def overlay(backing: str | None, stated: str | None = "raw") -> Header:
    return Header(version=3, virtual_size=1 << 30, backing_file=backing, backing_format=stated)


def known(
    metadata: dict[str, str] | None = None,
    header: Header | None = None,
    attached: tuple[str, ...] = (),
    guest: str | None = None,
    *,
    encrypted: bool = False,
) -> Known:
    """A volume of one file, or of two where there is a header above."""
    info = {} if header is None else {"active": f"{NAME}.a", "a": f"{NAME}.a"}
    headers: dict[str, Header | None] = {NAME: None}
    if header is not None:
        headers[f"{NAME}.a"] = header
    return Known(
        name=NAME,
        info=info,
        headers=headers,
        metadata=metadata or {},
        attached=attached,
        guest=guest,
        encrypted=encrypted,
    )


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        pytest.param(known({"format": "raw"}), "raw", id="its row"),
        pytest.param(known({"format": "qcow2"}), "qcow2", id="its row, qcow2"),
        pytest.param(known(attached=("raw",)), "raw", id="what Nova was told"),
        pytest.param(known(attached=("raw", "qcow2")), None, id="two told differently"),
        pytest.param(known(), None, id="nobody"),
        pytest.param(known({"format": "vmdk"}), None, id="a format that is none of ours"),
        pytest.param(
            known({"format": "qcow2", "base_format": "raw"}, overlay(NAME)), "raw", id="both agree"
        ),
        pytest.param(
            known({"format": "qcow2", "base_format": "qcow2"}, overlay(NAME)), None,
            id="base_format was written before a delete that failed (D7)",
        ),
        pytest.param(
            known({"format": "qcow2", "base_format": "raw"}, overlay(NAME, "qcow2")), None,
            id="the header has what was found in the guest's bytes (D3)",
        ),
        pytest.param(known({"format": "qcow2"}, overlay(NAME)), "raw", id="from before 2025.2"),
        pytest.param(
            known({"format": "qcow2"}, overlay(NAME, "qcow2")), None,
            id="from before 2025.2; the header has what was found in the guest's bytes",
        ),
        pytest.param(
            known({"base_format": "qcow2"}, overlay(NAME, None)), None,
            id="base_format alone, which a delete that failed may have changed",
        ),
        pytest.param(known({"base_format": "raw"}, overlay(NAME, None)), "raw", id="raw alone"),
        pytest.param(
            known({}, overlay(NAME, "qcow2"), encrypted=True), "qcow2",
            id="no guest has written the bytes of an encrypted volume",
        ),
        pytest.param(known({"format": "qcow2"}, overlay(NAME, None)), None, id="no one's word"),
        pytest.param(
            known({"base_format": "qcow2"}, overlay(NAME), guest="raw"), "raw", id="a guest knows"
        ),
    ],
)  # fmt: skip
def test_the_first_file(volume: Known, expected: str | None) -> None:
    first = statements(volume)[-1]
    assert (first.file, first.base) == (NAME, True)
    assert first.format == expected
    assert first.detail


def test_every_overlay_is_qcow2_by_its_name() -> None:
    upper, _ = statements(known({"base_format": "raw"}, overlay(NAME)))
    assert (upper.format, upper.witness, upper.backing) == (Format.QCOW2, Witness.NAME, NAME)
    assert upper.size == 1 << 30


def test_a_chain_whose_first_file_was_pulled_up() -> None:
    (only,) = statements(known({"format": "qcow2"}, overlay(None)))
    assert (only.file, only.base, only.backing) == (f"{NAME}.a", False, None)


def test_a_file_that_is_missing_breaks_the_chain() -> None:
    with pytest.raises(ChainBroken, match=r"volume-1\.b is named as part of it, and is not there"):
        statements(known(header=overlay(f"{NAME}.b", "qcow2")))


def test_a_file_on_itself_breaks_it_too() -> None:
    with pytest.raises(ChainBroken, match="its own backing file"):
        statements(known(header=overlay(f"{NAME}.a", "qcow2")))


def test_a_path_in_a_header_is_taken_by_its_last_part() -> None:
    assert [one.file for one in statements(known(header=overlay(f"/mnt/x/{NAME}")))] == [
        f"{NAME}.a",
        NAME,
    ]
