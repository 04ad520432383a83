"""Guests started with `-drive`, and with devices of every bus."""

from __future__ import annotations

from typing import Final

from tests.layouts.layout import SHARE, Image, Layout, base, disk, do, opened

_RAW: Final = Image("disk", "raw")
_FILES: Final = (Image("base", "raw"), Image("top", "qcow2", "base", "raw"))
_TRUTH: Final = {"vda": (("top", "qcow2"), ("base", "raw"))}


def _on(bus: str, *device: str, **more: object) -> Layout:
    return Layout(
        f"device-{bus}",
        f"A raw disk on {bus}",
        files=(_RAW,),
        arguments=(opened("raw", "disk"), *device),
        truth={"vda": (("disk", "raw"),)},
        **more,  # type: ignore[arg-type]
    )


LAYOUTS: Final = (
    Layout(
        "drive-raw",
        "`-drive` with `format=raw`",
        files=(_RAW,),
        arguments=("-drive", f"if=none,id=old,format=raw,file={SHARE}/disk", *disk("old")),
        truth={"vda": (("disk", "raw"),)},
    ),
    Layout(
        "drive-qcow2",
        "`-drive` with `format=qcow2`, over raw",
        files=_FILES,
        arguments=("-drive", f"if=none,id=old,format=qcow2,file={SHARE}/top", *disk("old")),
        truth=_TRUTH,
    ),
    Layout(
        "drive-if-virtio",
        "`-drive if=virtio`: QEMU makes the device, without an id",
        files=(_RAW,),
        arguments=("-drive", f"if=virtio,format=raw,file={SHARE}/disk"),
        truth={"virtio0": (("disk", "raw"),)},
    ),
    Layout(
        "drive-if-ide",
        "`-drive if=ide`: QEMU makes the device, without an id",
        files=_FILES,
        arguments=("-drive", f"if=ide,format=qcow2,file={SHARE}/top"),
        truth={"ide0-hd0": (("top", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        "drive-probed-raw",
        "`-drive` without a format; QEMU took the file for raw",
        files=(_RAW,),
        arguments=("-drive", f"if=none,id=old,file={SHARE}/disk", *disk("old")),
        truth={"vda": (("disk", "raw"),)},
    ),
    Layout(
        "drive-probed-qcow2",
        "`-drive` without a format; QEMU took the file for qcow2",
        files=_FILES,
        arguments=("-drive", f"if=none,id=old,file={SHARE}/top", *disk("old")),
        truth=_TRUTH,
    ),
    Layout(
        "backing-probed-raw",
        "A header without a backing format; QEMU took the file below for raw",
        files=(Image("base", "raw"), Image("top", "qcow2", "base", "raw", forgets_format=True)),
        arguments=(opened("qcow2", "top"), *disk("top")),
        truth=_TRUTH,
    ),
    Layout(
        "backing-probed-qcow2",
        "A header without a backing format; QEMU took the file below for qcow2",
        files=(
            Image("base", "raw"),
            Image("mid", "qcow2", "base", "raw"),
            Image("top", "qcow2", "mid", "qcow2", forgets_format=True),
        ),
        arguments=(opened("qcow2", "top"), *disk("top")),
        truth={"vda": (("top", "qcow2"), ("mid", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        "drive-throttled",
        "`-drive` with limits and copy-on-read, which make no nodes",
        files=_FILES,
        arguments=(
            "-drive",
            f"if=none,id=old,format=qcow2,copy-on-read=on,throttling.iops-total=100,file={SHARE}/top",
            *disk("old"),
        ),
        truth=_TRUTH,
    ),
    Layout(
        "drive-snapshot",
        "`-drive snapshot=on`: a temporary qcow2 over the disk",
        files=(_RAW,),
        arguments=(
            "-drive",
            f"if=none,id=old,format=raw,snapshot=on,file={SHARE}/disk",
            *disk("old"),
        ),
        truth={"vda": (("vl.XXXXXX", "qcow2"), ("disk", "raw"))},
    ),
    Layout(
        "drive-detect-zeroes",
        "`-drive` with a serial, direct I/O off and detect-zeroes",
        files=(_RAW,),
        arguments=(
            "-drive",
            f"if=none,id=old,format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap,file={SHARE}/disk",
            *disk("old", serial="volume-1"),
        ),
        truth={"vda": (("disk", "raw"),)},
    ),
    Layout(
        "pflash",
        "Firmware in flash memory beside a disk",
        files=(Image("code", "raw"), *_FILES),
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
        "device-without-id",
        "A virtio disk whose device has no id",
        files=(_RAW,),
        arguments=(opened("raw", "disk"), "-device", "virtio-blk-pci,drive=disk"),
        truth={"/machine/peripheral-anon/device[0]/virtio-backend": (("disk", "raw"),)},
    ),
    Layout(
        "empty-cdrom",
        "A disk and an empty CD drive",
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
        "only-empty-cdrom",
        "An empty CD drive and nothing else: QEMU has no node at all",
        arguments=("-device", "ide-cd,id=cd0"),
        truth={"cd0": ()},
    ),
    Layout(
        "full-cdrom",
        "A CD drive with a medium",
        files=(_RAW,),
        arguments=(opened("raw", "disk", read_only=True), *("-device", "ide-cd,id=cd0,drive=disk")),
        truth={"cd0": (("disk", "raw"),)},
    ),
    Layout(
        "ejected-cdrom",
        "A CD drive whose medium was taken out: its node is there, on no device",
        files=(_RAW,),
        arguments=(opened("raw", "disk", read_only=True), *("-device", "ide-cd,id=cd0,drive=disk")),
        then=(
            do("blockdev-open-tray", id="cd0", force=True),
            do("blockdev-remove-medium", id="cd0"),
        ),
        truth={"cd0": ()},
    ),
    Layout(
        "floppy",
        "A floppy drive with a medium",
        files=(Image("disk", "raw", size=1474560),),
        arguments=(
            opened("raw", "disk"),
            *("-device", "isa-fdc,id=fdc"),
            *("-device", "floppy,id=vda,drive=disk"),
        ),
        truth={"vda": (("disk", "raw"),)},
    ),
    Layout("no-disks", "A guest without any drive", truth={}),
)
