"""Errors by which libvirt keeps QMP back: each leaves the XML, and a note that says why."""

from __future__ import annotations

from typing import Any

import pytest

from qmpsnap.monitor.virt import libvirt_module
from tests.rig.rig import DISK, Rig, Said
from tests.rig.roads import MakeRig


def _without_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, code: int, text: str, *command: str
) -> Said:
    libvirt = libvirt_module()
    error = libvirt.libvirtError(text)
    error.err = (code, libvirt.VIR_FROM_QEMU, text, libvirt.VIR_ERR_ERROR, "", "", "", -1, -1)

    def refuse(*_arguments: Any) -> str:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("libvirt_qemu.qemuMonitorCommand", refuse)
        return rig.cli(*command)


def _chain(rig: Rig, monkeypatch: pytest.MonkeyPatch, code: int, text: str) -> Said:
    return _without_it(rig, monkeypatch, code, text, "chain", "-o", "json")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("VIR_ERR_ACCESS_DENIED", "access denied", "access control"),  # polkit's rules
        ("VIR_ERR_OPERATION_DENIED", "read only access prevents it", "read-only"),
        ("VIR_ERR_NO_SUPPORT", "not supported by the driver", "no passthrough"),
        ("VIR_ERR_OPERATION_TIMEOUT", "cannot acquire state change lock", "another command"),
        ("VIR_ERR_INTERNAL_ERROR", "QEMU monitor reply exceeds buffer size", "for good"),
        ("VIR_ERR_INTERNAL_ERROR", "failed to parse JSON: nesting too deep", "for good"),
    ],
)
def test_the_xml_speaks_alone(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, name: str, text: str, words: str
) -> None:
    with make_rig("raw") as rig:
        said = _chain(rig, monkeypatch, getattr(libvirt_module(), name), text)
        assert said.code == 0, said
        (layer,) = said.json["disks"][0]["layers"]
        assert (layer["format"], layer["verdict"]) == ("raw", "stated")
        (note,) = said.json["notes"]
        assert words in note


def test_an_error_that_says_nothing_about_passthrough_is_one(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_rig("raw") as rig:
        code = libvirt_module().VIR_ERR_INTERNAL_ERROR
        said = _chain(rig, monkeypatch, code, "End of file from qemu monitor")
        assert said.code == 7, said
        assert said.out == ""


def test_internal_snapshot_that_would_be_lost(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_rig("raw") as rig:
        rig.grow(2)
        device = rig.disk().layers[0].node
        rig.guest.qmp("blockdev-snapshot-internal-sync", {"device": device, "name": "before"})
        files, code = rig.files(), libvirt_module().VIR_ERR_OPERATION_DENIED
        words = "read only access prevents it"
        said = _without_it(rig, monkeypatch, code, words, "delete", DISK, "s1")
        assert (said.code, "internal snapshots (1 by its header" in said.err) == (4, True), said
        assert rig.files() == files


def test_what_else_its_qemu_reads_is_not_known(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_rig("raw") as rig:
        rig.grow(2)
        code, words = libvirt_module().VIR_ERR_OPERATION_DENIED, "read only access prevents it"
        said = _without_it(rig, monkeypatch, code, words, "delete", DISK, "s1")
        assert said.code == 0, said
        assert "note: whether the guest's own QEMU reads these files by other nodes" in said.err
        rig.create("s2")
        said = rig.cli("delete", DISK, "s2")
        assert (said.code, "by other nodes" in said.err) == (0, False), said
