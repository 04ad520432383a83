"""The command that a person gives to write a header, where QEMU cannot."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qmpsnap.operations.headers import by_hand
from tests.unit import samples


@pytest.mark.parametrize(
    ("above", "below", "words"),
    [
        ({}, {}, "-f qcow2 -b n -F raw /share/volume-1.s1"),
        ({"format": None}, {}, "-f qcow2 -b n -F raw /share/volume-1.s1"),
        ({"format": "qed"}, {"format": "vmdk"}, "-f qed -b n -F vmdk /share/volume-1.s1"),
        ({}, {"format": None}, "-f qcow2 -b n -F FORMAT /share/volume-1.s1"),
        ({"path": None}, {}, "-f qcow2 -b n -F raw volume-1.s1"),
        ({"path": "/share/a b"}, {}, "-f qcow2 -b n -F raw '/share/a b'"),
    ],
)
def test_command_that_writes_a_header(
    above: dict[str, str | None], below: dict[str, str | None], words: str
) -> None:
    upper, lower = samples.disk(2).layers
    told = by_hand(replace(upper, **above), replace(lower, **below), "n")
    assert told == f"qemu-img rebase -u {words}"


@pytest.mark.parametrize(
    ("secret", "given", "before"),
    [
        ("5e", "secret,id=s0,format=base64,file=/dev/stdin", "virsh secret-get-value 5e | "),
        (None, "secret,id=s0,file=PASSPHRASE_FILE", ""),
    ],
)
def test_command_that_writes_the_header_of_an_encrypted_file(
    secret: str | None, given: str, before: str
) -> None:
    upper, lower = samples.disk(2).layers
    upper = replace(upper, flags=("encrypted",), path="/share/a,b", secret=secret)
    assert by_hand(upper, lower, "n") == (
        f"{before}qemu-img rebase -u --object {given} --image-opts -b n -F raw "
        "driver=qcow2,file.filename=/share/a,,b,encrypt.key-secret=s0"
    )
