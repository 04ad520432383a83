"""A definition that names the chain (`<backingStore>`): a witness, and never left stale."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import libvirt
import pytest

from qmpsnap.guests.offline.guest import OfflineGuest
from tests.live.test_doors import assert_shown_is_sent
from tests.rig import images
from tests.rig.headers import recorded, with_format, without_format
from tests.rig.kills import KILLINGS, Victim, killed_and_given_again
from tests.rig.off import Off, defined_off, sound
from tests.rig.rig import BASE, DISK, MIB
from tests.rig.situations import situation

S1, S2, NEW = f"{BASE}.s1", f"{BASE}.s2", f"{BASE}.new"
OPERATIONS = {
    "create": (("create", DISK, "new"), [NEW, S2, S1, BASE]),
    "commit": (("delete", DISK, "s1", "--remove-file"), [S2, BASE]),
    "active commit": (("delete", DISK, "s2", "--method", "commit", "--remove-file"), [S1, BASE]),
    "pull": (("delete", DISK, "s1", "--method", "pull", "--remove-file"), [S2, S1]),
}
by_operation = pytest.mark.parametrize("operation", ["create", "commit", "active commit"])


def running(off: Off, findings: tuple[str, ...] = ()) -> list[str]:
    """The chain that the guest has when it is started, with these findings."""
    off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    try:
        found = off.rig.cli("verify", "-o", "json").json["findings"]
        assert tuple(one["id"] for one in found) == findings
        layers = off.rig.cli("chain", "-o", "json").json["disks"][0]["layers"]
        return [layer["file"] for layer in layers]
    finally:
        off.domain.destroy()


@situation(
    "The guest is off, and its definition names the chain (`<backingStore>`), as snapshots of the "
    "running guest leave it",
    happens="every operation works; the definition is kept in step with the files",
    code=0,
    then="Nothing.",
    kind=6,
)
@by_operation
@pytest.mark.parametrize("ended", [True, False], ids=["ended", "open"])
def test_definition_headers_and_report_agree(off: Off, operation: str, ended: bool) -> None:
    off.grow(3)
    off.name_chain(ended=ended)
    content = off.content()
    arguments, files = OPERATIONS[operation]
    said = off.rig.cli(*arguments)
    assert said.code == 0, said
    assert off.named() == off.rig.files() == files
    assert off.rig.cli("verify").code == 0
    sound(off)
    assert off.content() == content
    assert running(off) == files


def test_pull_of_everything(off: Off) -> None:
    off.grow(3)
    off.name_chain()
    content = off.content()
    assert off.rig.delete(None, None).code == 0
    assert off.named() == off.rig.files() == [S2]
    assert "<backingStore/>" in off.definition()
    for name in (S1, BASE):
        (off.folder / name).unlink()
    assert off.content() == content
    assert running(off) == [S2]


@pytest.mark.parametrize("operation", ["commit", "active commit"])
def test_after_snapshots_of_the_running_guest(off: Off, operation: str) -> None:
    """What libvirt itself leaves in the definition."""
    off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    for name in ("s1", "s2"):
        assert off.rig.cli("create", DISK, name).code == 0
    off.domain.destroy()
    assert "<backingStore" in off.definition()
    arguments, files = OPERATIONS[operation]
    said = off.rig.cli(*arguments)
    assert said.code == 0, said
    assert off.rig.files() == files
    assert running(off) == files


@situation(
    "The guest is off, and its definition names another chain than the headers of its files",
    happens="`chain` and `verify` show it; every operation is refused",
    code=4,
    then="Find out which is right; then take the `<backingStore>` out of the definition, or "
    "correct the header.",
    kind=6,
)
@pytest.mark.parametrize("which", ["other", "fewer", "more"])
def test_chains_that_differ(off: Off, which: str) -> None:
    off.grow(3)
    if which == "more":
        off.name_chain()
        path = off.folder / S2
        command = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "", str(path)]
        subprocess.run(command, check=True)
    else:
        other = off.folder / "other"
        images.create_qcow2(other, 8 * MIB)
        below = f"<format type='qcow2'/><source file='{other}'/>" if which == "other" else ""
        kind = " type='file'" if below else ""
        text = off.definition().replace(
            "<target dev='vda'", f"<backingStore{kind}>{below}</backingStore><target dev='vda'"
        )
        off.domain.connect().defineXML(text)
    definition, files = off.definition(), sorted(off.folder.iterdir())
    shown = off.rig.cli("chain", "-o", "json").json["disks"][0]
    assert f"below {S2} the definition has" in shown["xml_differs"]
    if which == "other":
        assert [layer["file"] for layer in shown["layers"]] == [S2, "other"]
        assert [one["witness"] for one in shown["layers"][1]["evidence"]] == ["xml"]
    said = off.rig.cli("verify", "-o", "json")
    assert said.code == 3
    assert "chain-differs" in {one["id"] for one in said.json["findings"]}
    for arguments in (
        ("create", DISK, "new"),
        ("create", DISK, "new", "--plan"),
        ("delete", DISK, "s1"),
        ("delete", DISK, "s2", "--method", "commit"),
        ("delete", DISK, "s1", "--plan"),
    ):
        said = off.rig.cli(*arguments)
        assert said.code == 4, said
    assert (off.definition(), sorted(off.folder.iterdir())) == (definition, files)


def test_formats_that_differ(off: Off) -> None:
    off.grow(2)
    off.name_chain()
    format_ = off.rig.disk().layers[1].format
    with_format("qcow2" if format_ == "raw" else "raw")(off.folder / S1)
    disk = off.rig.disk()
    assert (disk.layers[1].format, disk.layers[1].verdict) == (format_, "conflict")
    assert off.rig.cli("verify").code == 3
    assert off.rig.cli("create", DISK, "new").code == 4


def test_other_name_of_the_same_file(off: Off) -> None:
    """No difference: files are compared, not names."""
    off.grow(2)
    (off.folder / "link").symlink_to(BASE)
    off.name_chain()
    path = off.folder / BASE
    off.domain.connect().defineXML(
        off.definition().replace(f"'{path}'", f"'{off.folder / 'link'}'")
    )
    assert off.rig.disk().xml_differs is None
    assert off.rig.cli("create", DISK, "new").code == 0
    assert running(off)[1:] == [S1, "link"]


@situation(
    "The guest is off, and only its definition states the format of a layer, not the header above",
    happens="a delete is refused; the message has the command that records it, and after that the "
    "delete works",
    code=4,
    then="Give that command, then the delete again.",
    kind=14,
)
def test_format_that_the_definition_alone_states(off: Off) -> None:
    """A merge would leave a start after a crash without it; the way out that is told works."""
    off.grow(3)
    off.name_chain()
    without_format(off.folder / S1)
    content = off.content()
    assert off.rig.disk().layers[2].verdict == "stated"
    said = off.rig.cli("delete", DISK, "s1")
    assert said.code == 4, said
    command = said.err.partition("`")[2].partition("`")[0]
    subprocess.run(command.split(), check=True)
    assert off.rig.cli("delete", DISK, "s1").code == 0
    assert recorded(off.folder / S2)[0] == BASE
    assert off.content() == content


def test_base_in_another_folder_that_the_definition_names(off: Off, tmp_path: Path) -> None:
    """The definition may lead anywhere; a header alone may not."""
    template = tmp_path / "template"
    images.create_qcow2(template, 8 * MIB)
    active = off.folder / S1
    images.create_qcow2(active, 8 * MIB, str(template), "qcow2")
    text = off.definition().replace(f"'{off.folder / BASE}'", f"'{active}'")
    text = text.replace("type='raw'", "type='qcow2'")
    off.domain.connect().defineXML(text)
    assert off.rig.disk().layers[1].path is None
    assert off.rig.cli("create", DISK, "new").code == 4
    store = f"<format type='qcow2'/><source file='{template}'/>"
    named = f"<backingStore type='file'>{store}</backingStore><target dev='vda'"
    off.domain.connect().defineXML(text.replace("<target dev='vda'", named))
    assert off.rig.disk().paths == (str(active), str(template))
    assert off.rig.cli("create", DISK, "new").code == 0
    assert off.named() == [Path(path or "").name for path in off.rig.disk().paths]
    assert len(running(off, ("backing-outside-folder",))) == 3


@by_operation
def test_what_is_shown_is_what_is_sent(off: Off, operation: str) -> None:
    off.grow(3)
    off.name_chain()
    assert_shown_is_sent(off.rig, OPERATIONS[operation][0])


@pytest.mark.parametrize("operation", [one for one in KILLINGS if "header" not in one])
def test_killed(connection: Any, tmp_path: Path, operation: str) -> None:
    """Whatever the definition names at that moment, it does not contradict the headers."""
    folder = tmp_path / "share"
    folder.mkdir()

    @contextmanager
    def victims() -> Iterator[Victim]:
        for path in folder.glob("*"):
            path.unlink()
        with defined_off(connection, folder, "raw") as off:
            off.grow(3)
            off.name_chain()

            def agrees() -> None:
                sound(off)
                assert off.rig.disk().xml_differs is None

            yield Victim(
                folder=folder,
                connect=lambda: OfflineGuest(off.domain),
                content=off.content,
                sound=agrees,
            )

    name = f"{operation} of a guest that is off, whose definition names its chain, again"
    assert killed_and_given_again(name, victims, KILLINGS[operation]).count
