"""Guests that are off: overlays over block devices and templates, bitmaps, and what is no disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.rig import images
from tests.rig.beside import device_or_skip
from tests.rig.defined import Defined, defined
from tests.rig.off import Off
from tests.rig.remedies import remedy
from tests.rig.rig import DISK, MIB, SIZE
from tests.rig.situations import situation

Linked = Callable[[str], Any]


@pytest.fixture
def linked(connection: Any, tmp_path: Path) -> Linked:
    """A guest that is off, whose disk is an overlay over a block device or a template elsewhere."""

    @contextmanager
    def make(kind: str) -> Iterator[tuple[Defined, str, Path]]:
        folder, below = tmp_path / "share", tmp_path / "elsewhere"
        folder.mkdir()
        below.mkdir()
        overlay, base = folder / "web1", str(below / "template")
        images.create_raw(Path(base), SIZE)
        _io(base, "raw", f"write -P 1 0 {MIB}")
        with device_or_skip(Path(base)) if kind == "device" else nullcontext(base) as name:
            images.create_qcow2(overlay, SIZE, name, "raw")
            _io(str(overlay), "qcow2", f"write -P 2 {MIB} {MIB}")
            with defined(connection, overlay, "qcow2") as guest:
                yield guest, name, overlay

    return make


def _io(path: str, format_: str, line: str) -> None:
    subprocess.run(["qemu-io", "-f", format_, "-c", line, path], check=True, capture_output=True)


def name_base(guest: Defined, base: str) -> None:
    """Do what the refusal advises."""
    kind, attribute = ("block", "dev") if base.startswith("/dev/") else ("file", "file")
    store = (
        f"<backingStore type='{kind}'><format type='raw'/><source {attribute}='{base}'/>"
        "</backingStore><target dev="
    )
    text = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    guest.domain.connect().defineXML(text.replace("<target dev=", store))


@remedy("DiskUnsuitable")
def test_base_elsewhere_by_a_relative_name(linked: Linked) -> None:
    """While the merge runs the header alone names it: by its whole name it is known again."""
    with linked("template") as (guest, base, overlay):
        content = images.sha256_of(str(overlay), "qcow2")
        name = os.path.relpath(base, overlay.parent)
        words = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", name, "-F", "raw", str(overlay)]
        subprocess.run(words, check=True)
        name_base(guest, base)
        before = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        assert guest.cli("delete", DISK, "web1", "--method", "pull", "--plan").code == 4
        said = guest.cli("delete", DISK, "web1", "--method", "pull")
        assert said.code == 4, said
        assert "in another folder than web1, whose header alone would name it" in said.err
        assert guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) == before
        advised = said.err.split("`")[1]
        assert advised.endswith(f"-b {base} -F raw {overlay}")
        subprocess.run(advised.split(), check=True)
        assert guest.cli("delete", DISK, "web1", "--method", "pull").code == 0
        assert images.sha256_of(str(overlay), "qcow2") == content


@remedy("DiskUnsuitable")
def test_overlay_that_was_put_elsewhere_while_the_guest_ran(
    connection: Any, tmp_path: Path
) -> None:
    """Its header names what lies beside nobody: so the definition has to, at every moment."""
    for folder in ("share", "beside"):
        (tmp_path / folder).mkdir()
    base = tmp_path / "share" / "base"
    images.create_raw(base, SIZE)
    with defined(connection, base, "raw") as guest:
        guest.start()
        for name, more in (("a", ()), ("b", ()), ("c", ("--into", str(tmp_path / "beside")))):
            assert guest.cli("create", DISK, name, *more).code == 0
        guest.stop()
        before = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        merge = ("delete", DISK, "b", "--method", "commit", "--allow", "foreign-layer")
        for plan in ((), ("--plan",)):
            said = guest.cli(*merge, *plan)
            assert said.code == 4, said
            assert "whose header alone would name it while the merge runs" in said.err
            assert "Start the guest" in said.err
        assert guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) == before
        guest.start()
        said = guest.cli(*merge)
        assert said.code == 0, said
        assert guest.cli("chain", "-o", "json").json["disks"][0]["layers"][1]["file"] == "base.a"


def named(guest: Defined) -> str:
    said = guest.cli("chain", "-o", "json")
    return str(said.json["disks"][0]["layers"][0]["path"])


@situation(
    "The guest is off, and its disk is an overlay over a template or a block device elsewhere, which "
    "only the overlay's header names",
    happens="refused: of a guest that is off no header is followed out of its folder, for it may have "
    "come with an image that somebody uploaded",
    code=4,
    then="Have the definition name the file, as the message says; then give the same command again.",
    kind=14,
)
@remedy("DiskUnsuitable")
@pytest.mark.parametrize("kind", ["template", "device"])
@pytest.mark.parametrize("method", ["pull", "commit"])
def test_merge_of_an_overlay_over_what_lies_elsewhere(
    linked: Linked, kind: str, method: str
) -> None:
    with linked(kind) as (guest, base, overlay):
        content = images.sha256_of(str(overlay), "qcow2")
        template = images.sha256_of(base, "raw")
        said = guest.cli("delete", DISK, "web1", "--method", method)
        assert said.code == 4, said
        assert "is followed out of its folder" in said.err
        assert "<backingStore type='file'>" in said.err
        name_base(guest, base)
        if method == "pull":
            said = guest.cli("delete", DISK, "web1", "--method", "pull", "--remove-file")
            assert said.code == 0, said
            assert named(guest) == str(overlay)
            assert images.sha256_of(base, "raw") == template
        else:
            said = guest.cli("delete", DISK, "web1", "--method", "commit")
            assert said.code == 4, said
            assert "--allow foreign-layer" in said.err
            said = guest.cli(
                "delete",
                DISK,
                "web1",
                "--method",
                "commit",
                "--allow",
                "other-folder",
                "--remove-file",
            )
            assert said.code == 0, said
            assert named(guest) == base
            assert not overlay.exists()
        assert os.path.exists(base)
        format_ = "raw" if method == "commit" else "qcow2"
        assert images.sha256_of(named(guest), format_) == content
        guest.start()
        assert guest.active_file() == named(guest)


@pytest.fixture
def with_checkpoint(off: Off) -> str:
    """The guest has made a checkpoint while it ran; a snapshot lies above its bitmap."""
    if off.active()[1] != "qcow2":
        pytest.skip("raw files hold no bitmaps")
    off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    text = "<domaincheckpoint><name>monday</name></domaincheckpoint>"
    off.domain.checkpointCreateXML(text, 0)
    assert off.rig.cli("create", DISK, "s1").code == 0
    off.domain.destroy()
    return "monday"


def test_bitmaps_of_checkpoints_are_lost_while_off(off: Off, with_checkpoint: str) -> None:
    """libvirt merges them along while the guest runs; nobody does otherwise, and it is said."""
    content = off.content()
    try:
        said = off.rig.cli("delete", DISK, "s1", "--method", "pull")
        assert said.code == 4, said
        assert "has dirty bitmaps" in said.err
        assert "merge while it runs" in said.err
        assert with_checkpoint in said.err
        off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        said = off.rig.cli("delete", DISK, "s1", "--method", "pull")
        assert said.code == 0, said
        off.domain.destroy()
        assert off.content() == content
    finally:
        if off.domain.isActive():
            off.domain.destroy()
        definition = off.definition()
        off.domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
        off.domain.connect().defineXML(definition)


def test_nvram_and_tpm_are_no_part_of_a_snapshot(off: Off) -> None:
    firmware = off.folder / "firmware"
    firmware.write_bytes(bytes(MIB))
    plain = off.definition()
    text = plain.replace(
        "</os>",
        f"<loader readonly='yes' type='pflash'>{firmware}</loader>"
        f"<nvram>{off.folder / 'nvram'}</nvram></os><features><acpi/></features>",
    )
    off.domain.connect().defineXML(text)
    for arguments in (("create", DISK, "s1"), ("revert", DISK, "s1")):
        said = off.rig.cli(*arguments, "-o", "json")
        assert said.code == 0, said
        assert "not part of a snapshot: the firmware's settings (nvram)" in said.json["notes"]
    off.domain.connect().defineXML(plain)
