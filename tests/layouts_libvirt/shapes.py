"""Disks as they are started, and as snapshots make them."""

from __future__ import annotations

from typing import Final

from tests.layouts_libvirt.layout import (
    LOOP,
    MIB,
    SECRET,
    BehindLibvirt,
    File,
    Forged,
    Layout,
    Snapshot,
    disk,
)

_RAW: Final = File("base")
_QCOW2: Final = File("base", "qcow2")
_OVER_RAW: Final = File("top", "qcow2", "/share/base")
_OVER_QCOW2: Final = File("top", "qcow2", "/share/base", "qcow2")
_LUKS: Final = f"<encryption format='luks'><secret type='passphrase' uuid='{SECRET}'/></encryption>"

LAYOUTS: Final = (
    Layout(
        name="raw",
        files=(_RAW,),
        disks=disk("vda", "raw", "base"),
        truth={"vda": (("base", "raw"),)},
    ),
    Layout(
        name="qcow2",
        files=(_QCOW2,),
        disks=disk("vda", "qcow2", "base", inner="<serial>1234</serial>"),
        truth={"vda": (("base", "qcow2"),)},
    ),
    Layout(
        name="qcow2-over-raw",
        files=(_RAW, _OVER_RAW),
        disks=disk("vda", "qcow2", "top"),
        truth={"vda": (("top", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        name="qcow2-over-qcow2",
        files=(_QCOW2, _OVER_QCOW2),
        disks=disk("vda", "qcow2", "top"),
        truth={"vda": (("top", "qcow2"), ("base", "qcow2"))},
    ),
    Layout(
        name="chain-of-8",
        files=(_RAW,),
        disks=disk("vda", "raw", "base"),
        steps=tuple(Snapshot("vda", f"s{number}") for number in range(1, 8)),
        truth={
            "vda": (
                ("s7", "qcow2"),
                ("s6", "qcow2"),
                ("s5", "qcow2"),
                ("s4", "qcow2"),
                ("s3", "qcow2"),
                ("s2", "qcow2"),
                ("s1", "qcow2"),
                ("base", "raw"),
            )
        },
    ),
    Layout(
        name="backing-store-against-header",
        # What the guest wrote into its raw disk is not to be believed, and neither is a header
        # that was written by somebody who did.
        files=(Forged("base"), File("top", "qcow2", "/share/base", "qcow2")),
        disks=disk(
            "vda",
            "qcow2",
            "top",
            inner="<backingStore type='file'><format type='raw'/><source file='/share/base'/>"
            "<backingStore/></backingStore>",
        ),
        truth={"vda": (("top", "qcow2"), ("base", "raw"))},
        conflict=frozenset({"base"}),
    ),
    Layout(
        name="backing-store-empty",
        files=(_RAW, _OVER_RAW),
        disks=disk("vda", "qcow2", "top", inner="<backingStore/>"),
        truth={"vda": (("top", "qcow2"),)},
    ),
    Layout(
        name="backing-store-of-another-file",
        files=(_RAW, File("other"), _OVER_RAW),
        disks=disk(
            "vda",
            "qcow2",
            "top",
            inner="<backingStore type='file'><format type='raw'/><source file='/share/other'/>"
            "<backingStore/></backingStore>",
        ),
        truth={"vda": (("top", "qcow2"), ("other", "raw"))},
    ),
    Layout(
        name="luks",
        files=(File("base", "luks"),),
        disks=disk("vda", "raw", "base", source=_LUKS),
        truth={"vda": (("base", "luks"),)},
        encrypted=True,
    ),
    Layout(
        name="qcow2-encrypted",
        files=(File("base", "qcow2", options="encrypt.format=luks"),),
        disks=disk("vda", "qcow2", "base", source=_LUKS),
        truth={"vda": (("base", "qcow2"),)},
        encrypted=True,
    ),
    Layout(
        name="qcow2-over-luks",
        files=(File("base", "luks"), _OVER_RAW),
        disks=disk(
            "vda",
            "qcow2",
            "top",
            inner="<backingStore type='file'><format type='raw'/>"
            f"<source file='/share/base'>{_LUKS}</source><backingStore/></backingStore>",
        ),
        truth={"vda": (("top", "qcow2"), ("base", "luks"))},
        encrypted=True,
    ),
    Layout(
        name="copy-on-read",
        files=(_RAW, _OVER_RAW),
        disks=disk("vda", "qcow2", "top", driver="copy_on_read='on'"),
        truth={"vda": (("top", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        name="throttled",
        files=(_RAW,),
        disks=disk(
            "vda", "raw", "base", inner="<iotune><total_iops_sec>1000</total_iops_sec></iotune>"
        ),
        truth={"vda": (("base", "raw"),)},
    ),
    Layout(
        name="throttle-group",
        since=11_002_000,
        files=(_RAW, _OVER_RAW),
        domain="<throttlegroups><throttlegroup><group_name>slow</group_name>"
        "<total_iops_sec>1000</total_iops_sec></throttlegroup></throttlegroups>",
        disks=disk(
            "vda",
            "qcow2",
            "top",
            inner="<throttlefilters><throttlefilter group='slow'/></throttlefilters>",
        ),
        truth={"vda": (("top", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        name="raw-slice",
        files=(File("base", size=2 * MIB),),
        disks=disk(
            "vda",
            "raw",
            "base",
            source=f"<slices><slice type='storage' offset='65536' size='{MIB}'/></slices>",
        ),
        truth={"vda": (("base", "raw"),)},
    ),
    Layout(
        name="data-file",
        files=(File("base", "qcow2", options="data_file=/share/data"),),
        disks=disk("vda", "qcow2", "base"),
        truth={"vda": (("base", "qcow2"),)},
    ),
    Layout(
        name="block-device",
        files=(_RAW,),
        loop="base",
        disks=f"<disk type='block'><driver name='qemu' type='raw'/><source dev='{LOOP}'/>"
        "<target dev='vda' bus='virtio'/></disk>",
        truth={"vda": (("loop0", "raw"),)},
    ),
    Layout(
        name="block-device-qcow2",
        files=(File("base", "qcow2", size=2 * MIB),),
        loop="base",
        disks=f"<disk type='block'><driver name='qemu' type='qcow2'/><source dev='{LOOP}'/>"
        "<target dev='vda' bus='virtio'/></disk>",
        truth={"vda": (("loop0", "qcow2"),)},
    ),
    Layout(
        name="network",
        files=(_RAW,),
        nbd="base",
        disks="<disk type='network'><driver name='qemu' type='raw'/>"
        "<source protocol='nbd'><host transport='unix' socket='/share/nbd.sock'/></source>"
        "<target dev='vda' bus='virtio'/></disk>",
        truth={"vda": (("nbd:", "raw"),)},
    ),
    Layout(
        name="overlay-over-network",
        files=(_RAW, File("top", "qcow2", "nbd+unix://?socket=/share/nbd.sock")),
        nbd="base",
        disks=disk("vda", "qcow2", "top"),
        truth={"vda": (("top", "qcow2"), ("nbd:", "raw"))},
    ),
    Layout(
        name="cdroms",
        files=(_RAW, File("medium")),
        disks=disk("vda", "raw", "base")
        + "<disk type='file' device='cdrom'><target dev='hdb' bus='ide'/><readonly/></disk>"
        + "<disk type='file' device='cdrom'><driver name='qemu' type='raw'/>"
        "<source file='/share/medium'/><target dev='hdc' bus='ide'/><readonly/></disk>",
        truth={"vda": (("base", "raw"),), "hdb": (), "hdc": (("medium", "raw"),)},
    ),
    Layout(
        name="other-buses",
        files=(File("ide"), File("scsi", "qcow2"), File("sata"), File("floppy", size=1440 * 1024)),
        disks=disk("hda", "raw", "ide", bus="ide")
        + disk("sda", "qcow2", "scsi", bus="scsi")
        + disk("sdb", "raw", "sata", bus="sata")
        + "<disk type='file' device='floppy'><driver name='qemu' type='raw'/>"
        "<source file='/share/floppy'/><target dev='fda' bus='fdc'/></disk>"
        "<controller type='scsi' model='virtio-scsi'/>",
        truth={
            "hda": (("ide", "raw"),),
            "sda": (("scsi", "qcow2"),),
            "sdb": (("sata", "raw"),),
            "fda": (("floppy", "raw"),),
        },
    ),
    Layout(
        name="two-on-one-base",
        files=(_RAW, File("a", "qcow2", "/share/base"), File("b", "qcow2", "/share/base")),
        disks=disk("vda", "qcow2", "a") + disk("vdb", "qcow2", "b"),
        truth={"vda": (("a", "qcow2"), ("base", "raw")), "vdb": (("b", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        name="shared-read-only",
        files=(_RAW,),
        disks=disk("vda", "raw", "base", inner="<readonly/><shareable/>")
        + disk("vdb", "raw", "base", inner="<readonly/><shareable/>"),
        truth={"vda": (("base", "raw"),), "vdb": (("base", "raw"),)},
    ),
    Layout(
        name="transient",
        files=(_RAW,),
        disks=disk("vda", "raw", "base", inner="<transient/>"),
        truth={"vda": (("base.TRANSIENT", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        name="driver-without-type",
        files=(_QCOW2,),
        disks=disk("vda", None, "base"),
        truth={"vda": (("base", "raw"),)},
    ),
    Layout(
        name="header-in-raw",
        files=(Forged("base"),),
        disks=disk("vda", "raw", "base"),
        steps=(Snapshot("vda", "s1"),),
        truth={"vda": (("s1", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        name="json-backing",
        files=(
            _RAW,
            File(
                "top",
                "qcow2",
                'json:{"driver":"raw","file":{"driver":"file","filename":"/share/base"}}',
            ),
        ),
        disks=disk("vda", "qcow2", "top"),
        truth={"vda": (("top", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        name="relative-backing",
        files=(_RAW, File("top", "qcow2", "base")),
        disks=disk("vda", "qcow2", "top"),
        truth={"vda": (("top", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        name="relative-overlay",
        files=(_RAW, File("s1", "qcow2", "base")),
        disks=disk("vda", "raw", "base"),
        steps=(Snapshot("vda", "s1", reuse=True),),
        truth={"vda": (("s1", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        name="no-format-in-header",
        # libvirt refuses to guess, so the XML has to say it.
        files=(_RAW, File("top", "qcow2", "/share/base", "")),
        disks=disk(
            "vda",
            "qcow2",
            "top",
            inner="<backingStore type='file'><format type='raw'/><source file='/share/base'/>"
            "<backingStore/></backingStore>",
        ),
        truth={"vda": (("top", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        name="detect-zeroes",
        files=(_QCOW2,),
        disks=disk("vda", "qcow2", "base", driver="discard='unmap' detect_zeroes='unmap'"),
        truth={"vda": (("base", "qcow2"),)},
    ),
    Layout(
        name="snapshot-of-two",
        files=(_RAW, File("data", "qcow2")),
        disks=disk("vda", "raw", "base") + disk("vdb", "qcow2", "data"),
        steps=(Snapshot("vda", "s1"), Snapshot("vdb", "s2")),
        truth={
            "vda": (("s1", "qcow2"), ("base", "raw")),
            "vdb": (("s2", "qcow2"), ("data", "qcow2")),
        },
    ),
    Layout(
        name="behind-libvirts-back",
        files=(_RAW, File("behind", "qcow2", "/share/base")),
        disks=disk("vda", "raw", "base"),
        steps=(BehindLibvirt("vda", "behind", "base"),),
        truth={"vda": (("behind", "qcow2"), ("base", "raw"))},
        differs="behind",
    ),
)
