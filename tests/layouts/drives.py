"""Guests started with `-drive`, and with devices of every bus."""

from __future__ import annotations

from typing import Final

from tests.layouts.layout import SHARE, Do, Image, Layout, base, disk, opened

_RAW: Final = Image(name="disk", format="raw")
_FILES: Final = (
    Image(name="base", format="raw"),
    Image(name="top", format="qcow2", backing="base", backing_format="raw"),
)
_TRUTH: Final = {"vda": (("top", "qcow2"), ("base", "raw"))}


def _on(bus: str, *device: str, **more: object) -> Layout:
    return Layout(
        name=f"device-{bus}",
        about=f"A raw disk on {bus}",
        files=(_RAW,),
        arguments=(opened("raw", "disk"), *device),
        truth={"vda": (("disk", "raw"),)},
        **more,  # type: ignore[arg-type]
    )


LAYOUTS: Final = (
    Layout(
        name="drive-raw",
        about="`-drive` with `format=raw`",
        files=(_RAW,),
        arguments=("-drive", f"if=none,id=old,format=raw,file={SHARE}/disk", *disk("old")),
        truth={"vda": (("disk", "raw"),)},
    ),
    Layout(
        name="drive-qcow2",
        about="`-drive` with `format=qcow2`, over raw",
        files=_FILES,
        arguments=("-drive", f"if=none,id=old,format=qcow2,file={SHARE}/top", *disk("old")),
        truth=_TRUTH,
    ),
    Layout(
        name="drive-if-virtio",
        about="`-drive if=virtio`: QEMU makes the device, without an id",
        files=(_RAW,),
        arguments=("-drive", f"if=virtio,format=raw,file={SHARE}/disk"),
        truth={"virtio0": (("disk", "raw"),)},
    ),
    Layout(
        name="drive-if-ide",
        about="`-drive if=ide`: QEMU makes the device, without an id",
        files=_FILES,
        arguments=("-drive", f"if=ide,format=qcow2,file={SHARE}/top"),
        truth={"ide0-hd0": (("top", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        name="drive-probed-raw",
        about="`-drive` without a format; QEMU took the file for raw",
        files=(_RAW,),
        arguments=("-drive", f"if=none,id=old,file={SHARE}/disk", *disk("old")),
        truth={"vda": (("disk", "raw"),)},
    ),
    Layout(
        name="drive-probed-qcow2",
        about="`-drive` without a format; QEMU took the file for qcow2",
        files=_FILES,
        arguments=("-drive", f"if=none,id=old,file={SHARE}/top", *disk("old")),
        truth=_TRUTH,
    ),
    Layout(
        name="backing-probed-raw",
        about="A header without a backing format; QEMU took the file below for raw",
        files=(
            Image(name="base", format="raw"),
            Image(
                name="top",
                format="qcow2",
                backing="base",
                backing_format="raw",
                forgets_format=True,
            ),
        ),
        arguments=(opened("qcow2", "top"), *disk("top")),
        truth=_TRUTH,
    ),
    Layout(
        name="backing-probed-qcow2",
        about="A header without a backing format; QEMU took the file below for qcow2",
        files=(
            Image(name="base", format="raw"),
            Image(name="mid", format="qcow2", backing="base", backing_format="raw"),
            Image(
                name="top",
                format="qcow2",
                backing="mid",
                backing_format="qcow2",
                forgets_format=True,
            ),
        ),
        arguments=(opened("qcow2", "top"), *disk("top")),
        truth={"vda": (("top", "qcow2"), ("mid", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        name="drive-throttled",
        about="`-drive` with limits and copy-on-read, which make no nodes",
        files=_FILES,
        arguments=(
            "-drive",
            f"if=none,id=old,format=qcow2,copy-on-read=on,throttling.iops-total=100,file={SHARE}/top",
            *disk("old"),
        ),
        truth=_TRUTH,
    ),
    Layout(
        name="drive-snapshot",
        about="`-drive snapshot=on`: a temporary qcow2 over the disk",
        files=(_RAW,),
        arguments=(
            "-drive",
            f"if=none,id=old,format=raw,snapshot=on,file={SHARE}/disk",
            *disk("old"),
        ),
        truth={"vda": (("vl.XXXXXX", "qcow2"), ("disk", "raw"))},
    ),
    Layout(
        name="drive-detect-zeroes",
        about="`-drive` with a serial, direct I/O off and detect-zeroes",
        files=(_RAW,),
        arguments=(
            "-drive",
            f"if=none,id=old,format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap,file={SHARE}/disk",
            *disk("old", serial="volume-1"),
        ),
        truth={"vda": (("disk", "raw"),)},
    ),
    Layout(
        name="pflash",
        about="Firmware in flash memory beside a disk",
        files=(Image(name="code", format="raw"), *_FILES),
        arguments=(
            "-drive",
            f"if=pflash,format=raw,readonly=on,file={SHARE}/code",
            base("raw", "base"),
            opened("qcow2", "top", backing="base"),
            *disk("top"),
        ),
        truth={"vda": (("top", "qcow2"), ("base", "raw")), "pflash0": (("code", "raw"),)},
    ),
    _on("ide", "-device", "ide-hd,id=vda,drive=disk"),
    _on(
        "scsi",
        *("-device", "virtio-scsi-pci"),
        *("-device", "scsi-hd,id=vda,drive=disk,serial=volume-1"),
    ),
    _on("nvme", "-device", "nvme,id=vda,drive=disk,serial=volume-1"),
    _on("usb", "-device", "qemu-xhci", "-device", "usb-storage,id=vda,drive=disk"),
    _on("iothread", "-object", "iothread,id=io", *disk("disk", iothread="io")),
    Layout(
        name="device-without-id",
        about="A virtio disk whose device has no id",
        files=(_RAW,),
        arguments=(opened("raw", "disk"), "-device", "virtio-blk-pci,drive=disk"),
        truth={"/machine/peripheral-anon/device[0]/virtio-backend": (("disk", "raw"),)},
    ),
    Layout(
        name="empty-cdrom",
        about="A disk and an empty CD drive",
        files=_FILES,
        arguments=(
            base("raw", "base"),
            opened("qcow2", "top", backing="base"),
            *disk("top"),
            *("-device", "ide-cd,id=cd0"),
        ),
        truth={**_TRUTH, "cd0": ()},
    ),
    Layout(
        name="only-empty-cdrom",
        about="An empty CD drive and nothing else: QEMU has no node at all",
        arguments=("-device", "ide-cd,id=cd0"),
        truth={"cd0": ()},
    ),
    Layout(
        name="full-cdrom",
        about="A CD drive with a medium",
        files=(_RAW,),
        arguments=(
            opened("raw", "disk", read_only=True),
            *("-device", "ide-cd,id=cd0,drive=disk"),
        ),
        truth={"cd0": (("disk", "raw"),)},
    ),
    Layout(
        name="ejected-cdrom",
        about="A CD drive whose medium was taken out: its node is there, on no device",
        files=(_RAW,),
        arguments=(
            opened("raw", "disk", read_only=True),
            *("-device", "ide-cd,id=cd0,drive=disk"),
        ),
        then=(
            Do(command="blockdev-open-tray", arguments={"id": "cd0", "force": True}),
            Do(command="blockdev-remove-medium", arguments={"id": "cd0"}),
        ),
        truth={"cd0": ()},
    ),
    Layout(
        name="floppy",
        about="A floppy drive with a medium",
        files=(Image(name="disk", format="raw", size=1474560),),
        arguments=(
            opened("raw", "disk"),
            *("-device", "isa-fdc,id=fdc"),
            *("-device", "floppy,id=vda,drive=disk"),
        ),
        truth={"vda": (("disk", "raw"),)},
    ),
    Layout(
        name="no-disks",
        about="A guest without any drive",
        truth={},
    ),
)
