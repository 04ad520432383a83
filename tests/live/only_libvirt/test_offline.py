"""Snapshots of a guest that is off: the same commands, the same results."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import libvirt
import pytest
from msgspec.structs import replace

from qmpsnap.guests.files import qemu_img
from qmpsnap.guests.files.bytes import in_use_by_qemu
from qmpsnap.guests.offline.block_layer import CannotOpen, opened
from qmpsnap.guests.offline.guest import OfflineGuest
from qmpsnap.journal.file import Journal
from qmpsnap.journal.record import Entry
from qmpsnap.journal.resume import Settled, settle
from qmpsnap.operations import merge
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from qmpsnap.operations.step import Does, Step
from tests.live.test_doors import assert_shown_is_sent, by_novas_names
from tests.live.test_signals import CREATE, DELETES
from tests.rig import images
from tests.rig.doors import at, patch
from tests.rig.headers import recorded, with_format
from tests.rig.kills import KILLINGS, Killing, Victim, killed_and_given_again, killed_and_resumed
from tests.rig.off import Off, defined_off, sound
from tests.rig.others import WAYS, another_guest
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, MIB, SERIAL, SIZE, Said
from tests.rig.signals import Signalled, calls, check, handlers, signal_at_calls
from tests.rig.situations import situation
from tests.rig.waiting import until


def test_chain_says_that_the_guest_is_off(off: Off) -> None:
    off.grow(3)
    said = off.rig.cli("chain", "-o", "json")
    assert said.code == 0, said
    assert "the guest is off" in said.err
    layers = said.json["disks"][0]["layers"]
    assert [layer["file"] for layer in layers] == [f"{BASE}.s2", f"{BASE}.s1", BASE]
    assert [[one["witness"] for one in layer["evidence"]] for layer in layers] == [
        ["xml"],
        ["header"],
        ["header"],
    ]


def test_pull_into_subclusters(off: Off) -> None:
    """QEMU 7.2 would end in the middle: `OutcomeUnknown`, and nothing lost (tried)."""
    off.write(0, SIZE, 7)
    overlay, format_ = off.rig.folder / f"{BASE}.s1", off.active()[1]
    images.create_qcow2(overlay, SIZE, BASE, format_, subclusters=True)
    off.rig.create("s1")
    off.write(0, 512, 9)
    content = off.content()
    said = off.rig.cli("delete", DISK, "s1", "--method", "pull", "-o", "json")
    assert (said.code, "--allow subclusters" in said.err) == (4, True), said
    assert off.rig.cli("delete", DISK, "s1", "--method", "commit").code == 0
    assert off.content() == content
    sound(off)


def test_internal_snapshot_that_would_be_lost(off: Off) -> None:
    off.grow(2)
    (layer, *_), copy = off.rig.disk().layers, off.rig.folder / "copy"
    assert layer.path is not None
    content = off.content()
    subprocess.run(["qemu-img", "snapshot", "-c", "before", layer.path], check=True)
    off.write(0, 65536, 99)
    said = off.rig.cli("delete", DISK, "s1", "--remove-file")
    assert (said.code, "(1 by its header" in said.err) == (4, True), said
    names, copies = re.findall(r"`(qemu-img [^`]+)`", said.err)
    assert (
        " before "
        in subprocess.run(names.split(), check=True, capture_output=True, text=True).stdout
    )
    words = {"SNAPSHOT": "before", "COPY": str(copy)}
    subprocess.run([words.get(one, one) for one in copies.split()], check=True)
    assert images.sha256_of(copy, "qcow2") == content
    content = off.content()
    assert off.rig.cli("delete", DISK, "s1", "--allow", "internal-snapshots").code == 0
    assert off.content() == content
    sound(off)


@situation(
    "`create --into DIR` while the guest is off",
    happens="done: the definition names the new file and the one below it, which no header alone "
    "may lead to; a folder that does not keep files is refused",
    code=0,
    then="Nothing; later operations work on the chain as it is.",
    pain=4,
)
@pytest.mark.parametrize("chain", ["one file", "by headers", "named"])
def test_new_file_elsewhere(off: Off, tmp_path: Path, chain: str) -> None:
    into = tmp_path / "into"
    into.mkdir()
    off.grow(1 if chain == "one file" else 3)
    if chain == "named":
        off.name_chain()
    lower, content = off.rig.files(), off.content()
    said = off.rig.cli("create", DISK, "no", "--into", "/proc/self", "-o", "json")
    assert (said.code, '"FolderUnsuitable"' in said.err) == (4, True), said
    assert off.active()[0] == lower[0]
    said = off.rig.cli("create", DISK, "s8", "--into", str(into))
    assert said.code == 0, said
    assert off.rig.files() == [f"{BASE}.s8", *lower]
    assert off.content() == content
    assert (off.named()[:2], len(off.named())) == (
        [f"{BASE}.s8", lower[0]],
        2 if chain == "by headers" else len(lower) + 1,
    )
    sound(off)
    (outside,) = {one["id"] for one in off.rig.cli("verify", "-o", "json").json["findings"]}
    assert outside == "backing-outside-folder", "that the folders differ, and nothing else"
    off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    assert off.rig.cli("chain", "-o", "json").json["disks"][0]["xml_differs"] is None
    off.domain.destroy()
    until(lambda: not off.domain.isActive())
    off.write(0, 65536, 9)
    content = off.content()
    assert off.rig.cli("create", DISK, "s9").code == 0
    assert Path(str(off.rig.disk().layers[0].path)).parent == into, "beside the active file"
    assert off.content() == content
    for name in ("s9", "s8"):
        options = ("--method", "commit", "--allow", "other-folder", "--allow", "foreign-layer")
        said = off.rig.cli("delete", DISK, name, "--remove-file", *options)
        assert said.code == 0, said
        assert off.content() == content
    assert off.rig.files() == lower
    assert off.active()[0] == lower[0]
    sound(off)


def test_create(off: Off) -> None:
    off.write(0, 65536, 1)
    content = off.content()
    said = off.rig.cli("create", DISK, "a", "-o", "json")
    assert said.json["file_format"] == {f"{BASE}.a": "qcow2"}, said
    assert off.active() == (f"{BASE}.a", "qcow2")
    assert off.content() == content
    sound(off)


@pytest.mark.parametrize(("top", "base"), [(1, 2), (1, 3), (2, 3), (0, 1), (0, 2), (0, 3)])
def test_commit(off: Off, top: int, base: int) -> None:
    off.grow(4)
    content, files = off.content(), off.rig.files()
    formats = [layer.format for layer in off.rig.disk().layers]
    said = off.rig.delete(files[top], files[base])
    assert said.code == 0, said
    assert said.status["file_format"] == {files[base]: formats[base]}, said
    assert off.rig.files() == files[:top] + files[base:]
    assert off.active() == (off.rig.files()[0], formats[0 if top else base])
    assert off.content() == content
    sound(off)


@pytest.mark.parametrize("base", [None, 2, 3])
def test_pull(off: Off, base: int | None) -> None:
    off.grow(4)
    content, files = off.content(), off.rig.files()
    said = off.rig.delete(files[base] if base else None, None)
    assert said.code == 0, said
    assert off.rig.files() == files[:1] + (files[base:] if base else [])
    assert off.content() == content
    sound(off)


def test_guest_starts_from_what_was_left(off: Off) -> None:
    off.grow(4)
    for top, base in ((f"{BASE}.s1", BASE), (f"{BASE}.s3", f"{BASE}.s2")):
        assert off.rig.delete(top, base).code == 0
    off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    said = off.rig.cli("chain", "-o", "json")
    layers = said.json["disks"][0]["layers"]
    assert [layer["file"] for layer in layers] == [f"{BASE}.s2", BASE]
    assert {layer["verdict"] for layer in layers} == {"agreed"}


@situation(
    "The guest is off, and its memory was saved (`virsh managedsave`)",
    happens="refused: the next start continues from that memory, with the files that the guest had then",
    code=4,
    then="Start the guest, or `virsh managedsave-remove`; then give the same command again.",
    pain=4,
)
@remedy("MemorySaved")
@pytest.mark.parametrize("way", ["start", "forget"])
def test_guest_that_was_saved(off: Off, way: str) -> None:
    off.grow(3)
    off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    off.domain.managedSave(0)
    content, files = off.content(), sorted(path.name for path in off.folder.iterdir())
    try:
        for said in (
            off.rig.cli("create", DISK, "n"),
            off.rig.cli("create", DISK, "n", "--plan"),
            off.rig.delete(f"{BASE}.s1", BASE),
            off.rig.delete(f"{BASE}.s2", BASE),
            off.rig.delete(None, None),
        ):
            assert said.code == 4, said
            assert "has a saved memory" in said.err
        assert sorted(path.name for path in off.folder.iterdir()) == files
        assert off.content() == content
        assert off.rig.cli("chain").code == 0
        if way == "start":
            off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
            off.domain.resume()  # with libvirt 11.3 QEMU takes the images only then
            assert off.rig.cli("create", DISK, "n").code == 0
            off.domain.destroy()
            until(lambda: not off.domain.isActive())
        else:
            off.domain.managedSaveRemove(0)
        assert off.rig.delete(f"{BASE}.s1", BASE).code == 0
        assert off.content() == content
    finally:
        if off.domain.hasManagedSaveImage():
            off.domain.managedSaveRemove(0)


def test_guest_cannot_be_started_in_the_middle(off: Off, monkeypatch: pytest.MonkeyPatch) -> None:
    off.grow(3)
    content = off.content()
    started: list[str] = []

    def start_guest_too(_step: Step) -> None:
        with pytest.raises(libvirt.libvirtError) as caught:
            off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        started.append(str(caught.value))

    patch(monkeypatch, OfflineGuest, after=at(Does.START, start_guest_too))
    assert off.rig.delete(f"{BASE}.s2", f"{BASE}.s1").code == 0
    assert "lock" in started[0]
    assert off.content() == content


@situation(
    "The guest is off, and somebody else has its chain open",
    happens="refused: QEMU's lock cannot be taken",
    code=4,
    then="End the other process.",
    pain=4,
)
def test_chain_that_is_in_use_is_refused(off: Off) -> None:
    off.grow(2)
    disk = off.rig.disk()
    layers = [(str(layer.path), str(layer.format)) for layer in disk.layers]
    with opened(layers):
        said = off.rig.delete(f"{BASE}.s1", BASE, "--allow", "shared-base")
        assert said.code == 4, said
        assert said.status == {"status": "error_deleting", "progress": "0%"}
    assert off.rig.files() == [f"{BASE}.s1", BASE]


@pytest.mark.parametrize("way", WAYS[-7:])
def test_chain_that_another_guest_rests_on(off: Off, connection: Any, way: str) -> None:
    off.grow(3)
    base = off.rig.disk().layers[2]
    with another_guest(connection, off.folder / BASE, str(base.format), way) as who:
        said = off.rig.delete(f"{BASE}.s1", BASE)
        assert said.code == 4, said
        assert f"{BASE} is also read by {who}" in said.err
        assert off.rig.files() == [f"{BASE}.s2", f"{BASE}.s1", BASE]
    assert off.rig.delete(f"{BASE}.s1", BASE).code == 0


def test_chain_that_another_disk_rests_on(off: Off) -> None:
    """Two overlays away, and under another name of the base."""
    off.grow(3)
    (off.folder / "link").hardlink_to(off.folder / BASE)
    format_ = off.rig.disk().layers[2].format
    images.create_qcow2(off.folder / "below", SIZE, "link", str(format_))
    images.create_qcow2(off.folder / "above", SIZE, "below", "qcow2")
    disk = (
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
        f"<source file='{off.folder / 'above'}'/><target dev='vdb' bus='virtio'/></disk>"
    )
    off.domain.attachDeviceFlags(disk, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    said = off.rig.delete(f"{BASE}.s1", BASE)
    assert said.code == 4, said
    assert f"{BASE} is also read by the guest's own definition, as vdb" in said.err
    assert off.rig.files() == [f"{BASE}.s2", f"{BASE}.s1", BASE]


def test_definition_that_is_edited_meanwhile(off: Off, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the active file of the disk is changed in it."""
    off.grow(2)
    content = off.content()

    def edit(_step: Step) -> None:
        text = off.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        described = "</name><description>edited</description>"
        off.domain.connect().defineXML(text.replace("</name>", described, 1))

    patch(monkeypatch, OfflineGuest, after=at(Does.START, edit))
    assert off.rig.delete(f"{BASE}.s1", BASE).code == 0
    assert "<description>edited</description>" in off.domain.XMLDesc(0)
    assert off.active()[0] == BASE
    assert off.content() == content


def test_file_that_is_not_what_its_header_says(off: Off, tmp_path: Path) -> None:
    path = tmp_path / "not-qcow2"
    path.write_bytes(b"\0" * MIB)
    with (
        pytest.raises(CannotOpen, match="not in qcow2 format"),
        opened([(str(path), "qcow2")]),
    ):
        pass


@situation(
    "The guest is off, and a header names a file in another folder",
    happens="refused; the file is not opened",
    code=4,
    then="Look at the chain; rebase it by hand if it is right.",
    pain=3,
)
@pytest.mark.parametrize("name", ["../victim", "/etc/hostname", "json:{}"])
def test_backing_file_elsewhere_is_not_followed(off: Off, name: str) -> None:
    off.grow(2)
    overlay = off.folder / f"{BASE}.s1"
    subprocess.run(
        ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", name, "-F", "raw", str(overlay)],
        check=True,
    )
    said = off.rig.delete(f"{BASE}.s1", BASE)
    assert said.code == 4, said
    disk = off.rig.disk()
    assert (disk.layers[1].path, disk.layers[1].virtual_size) == (None, None)


def test_killed_in_mid_job(off: Off) -> None:
    """The daemon ends with the tool; the chain is as it was."""
    off.grow(3)
    content, files = off.content(), off.rig.files()
    disk = off.rig.disk()
    script = (
        "import sys, json, os, signal; from qmpsnap.guests.offline.block_layer import opened\n"
        "with opened(json.loads(sys.argv[1])) as monitor:\n"
        "    monitor.execute('block-commit', {'device': 'layer-0', 'job-id': 'j', 'top-node': 'layer-1',"
        " 'base-node': 'layer-2', 'speed': 1})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    layers = json.dumps([(layer.path, layer.format) for layer in disk.layers])
    died = subprocess.run([sys.executable, "-c", script, layers], check=False)
    assert died.returncode == -signal.SIGKILL
    host = OfflineGuest(off.domain)
    # Its signal is on the way; then its locks may outlive its descriptors for a moment.
    until(lambda: not host.neighbours(disk).readers)
    until(lambda: not any(in_use_by_qemu(path) for path in disk.paths if path is not None))
    done = merge.delete(
        OfflineGuest(off.domain),
        DeleteRequest(disk=SERIAL, file_to_merge=files[1], merge_target_file=files[2]),
    )
    assert list(done.file_format) == [files[2]]
    assert off.content() == content


@remedy("CannotRedefine")
def test_definition_that_libvirt_refuses(off: Off, monkeypatch: pytest.MonkeyPatch) -> None:
    off.grow(2)
    content = off.content()
    monkeypatch.setattr("qmpsnap.guests.offline.definition.edited", lambda *_: "<domain/>")
    said = off.rig.delete(f"{BASE}.s1", BASE)
    assert (said.code, said.status["status"]) != (0, "deleting_compute_complete")
    assert off.active() == (f"{BASE}.s1", "qcow2")
    assert off.content() == content
    monkeypatch.undo()
    assert off.rig.delete(f"{BASE}.s1", BASE).code == 0
    assert off.content() == content


def test_every_kind_can_be_verified(off: Off) -> None:
    off.grow(4)
    content = off.content()
    for top, base in ((f"{BASE}.s1", BASE), (f"{BASE}.s3", f"{BASE}.s2"), (None, None)):
        said = off.rig.delete(top, base, "--verify")
        assert said.code == 0, said
        assert "verified: all" in said.err
    assert off.content() == content


def test_pause_on_an_error_is_refused_and_a_time_limit_works(off: Off) -> None:
    """Nobody but the call itself can reach the job of a guest that is off."""
    off.grow(2)
    before, content = off.rig.files(), off.content()
    said = off.rig.delete(f"{BASE}.s1", BASE, "--on-error", "pause")
    assert said.code == 4, said
    assert "the guest is off" in said.err
    said = off.rig.delete(f"{BASE}.s1", BASE, "--timeout", "0.000001")
    assert said.code == 5, said
    assert "was cancelled" in said.err
    assert off.rig.cli("jobs", "-o", "json").json["jobs"] == []
    assert (off.rig.files(), off.content()) == (before, content)
    assert off.rig.delete(f"{BASE}.s1", BASE, "--timeout", "3600").code == 0
    assert off.content() == content


@pytest.mark.parametrize("off", ["raw"], indirect=True)
@pytest.mark.parametrize("operation", ["create", "delete"])
def test_header_that_says_file_is_mended(off: Off, operation: str) -> None:
    """Of a base that says nothing else, this is the one wrong format that is no contradiction."""
    off.grow(3 if operation == "delete" else 2)
    below = off.folder / f"{BASE}.s1"
    with_format("file")(below)
    content = off.content()
    said = (
        off.rig.cli("create", DISK, "new")
        if operation == "create"
        else off.rig.delete(f"{BASE}.s2", f"{BASE}.s1")
    )
    assert said.code == 0, said
    assert f"repaired: the header of {BASE}.s1: it records the format 'file'" in said.err
    assert recorded(below) == (BASE, "raw")
    sound(off)
    assert off.content() == content


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", DISK, "new"),
        ("delete", DISK, "s1"),
        ("delete", DISK, "s2", "--remove-file"),
        by_novas_names(BASE),
    ],
    ids=["create", "commit", "active commit", "pull to a base"],
)
def test_what_is_shown_is_what_is_sent(off: Off, arguments: tuple[str, ...]) -> None:
    off.grow(3)
    assert_shown_is_sent(off.rig, arguments)


@pytest.mark.parametrize(
    "arguments",
    [("create", DISK, "new"), ("delete", DISK, "s1"), ("delete", DISK, "s2"), by_novas_names(BASE)],
    ids=["create", "commit", "active commit", "pull to a base"],
)
def test_plan_is_applied_while_the_guest_is_off(
    off: Off, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    off.grow(3)
    content, plan = off.content(), tmp_path / "plan"
    said = off.rig.cli(*arguments, "--plan", "-o", "json")
    plan.write_text(said.out)
    after = [one["file"] for one in said.json["disks"][0]["after"]]
    off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    said = off.rig.cli_without_guest("apply", str(plan))
    assert said.code == 4, said
    assert "does not hold any more" in said.err
    off.domain.destroy()
    said = off.rig.cli_without_guest("apply", str(plan))
    assert said.code == 0, said
    assert off.rig.files() == after
    assert off.content() == content
    sound(off)


def test_plan_is_not_applied_to_another_file_of_the_same_name(off: Off, tmp_path: Path) -> None:
    """A snapshot that was taken since: a guest that is off has no node to tell it by."""
    off.grow(3)
    plan = tmp_path / "plan"
    plan.write_text(off.rig.cli("delete", DISK, "s2", "--plan", "-o", "json").out)
    assert off.rig.cli("delete", DISK, "s2", "--remove-file").code == 0
    assert off.rig.cli("create", DISK, "s2").code == 0
    content = off.content()
    said = off.rig.cli_without_guest("apply", str(plan))
    assert said.code == 4, said
    assert f"{BASE}.s2 is another file than it was" in said.err
    assert off.content() == content
    sound(off)


ELSEWHERE = "create in another folder"


def killing(operation: str, elsewhere: Path) -> Killing:
    if operation != ELSEWHERE:
        return KILLINGS[operation]
    known = KILLINGS["create"]
    assert isinstance(known.request, CreateRequest)
    return dataclasses.replace(known, request=replace(known.request, into=str(elsewhere)))


@pytest.mark.parametrize(
    "operation", [ELSEWHERE, *(one for one in KILLINGS if "header" not in one)]
)
def test_killed(connection: Any, tmp_path: Path, operation: str) -> None:
    """With the tool the QEMU ends that held the chain; the same command goes on. A header is all that tells a lower format here, so a wrong one is refused."""
    folder, elsewhere = tmp_path / "share", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()

    @contextmanager
    def victims() -> Iterator[Victim]:
        for path in (*folder.glob("*"), *elsewhere.iterdir()):
            path.unlink()
        with defined_off(connection, folder, "raw") as off:
            off.grow(3)
            yield Victim(
                folder=folder,
                connect=lambda: OfflineGuest(off.domain),
                content=off.content,
                sound=lambda: sound(off),
            )

    name = f"{operation} of a guest that is off, again"
    found = killed_and_given_again(name, victims, killing(operation, elsewhere))
    print(f"{name}: {found}")
    assert found.count


@pytest.mark.parametrize(
    "operation", [ELSEWHERE, *(one for one in KILLINGS if "header" not in one)]
)
def test_killed_and_resumed(
    connection: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, operation: str
) -> None:
    """The journal tells what was under way; no marker is needed, for nobody writes."""
    folder, state = tmp_path / "share", tmp_path_factory.mktemp("journal")
    elsewhere = tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    state.chmod(0o700)
    journal = Journal(state)

    @contextmanager
    def victims() -> Iterator[Victim]:
        for path in (*folder.glob("*"), *elsewhere.iterdir()):
            path.unlink()
        with defined_off(connection, folder, "raw") as off:
            off.grow(3)
            yield Victim(
                folder=folder,
                connect=lambda: OfflineGuest(off.domain),
                content=off.content,
                sound=lambda: sound(off),
            )

    def settled(victim: Victim, entry: Entry) -> Settled:
        with victim.connect() as guest:
            return settle(journal, entry, guest)

    name = f"{operation} of a guest that is off, resumed"
    found = killed_and_resumed(name, victims, killing(operation, elsewhere), journal, settled)
    print(f"{name}: {found}")
    assert found.count


def _signalled(off: Off, operation: str, *options: str) -> Signalled:
    def cli() -> Said:
        if operation == "create":
            return off.rig.cli("volume-snapshot-create", SERIAL, json.dumps(CREATE), *options)
        top, base, _ = DELETES[operation]
        return off.rig.delete(top, base, *options)

    done = [f"{BASE}.new", f"{BASE}.s2", f"{BASE}.s1", BASE]
    return Signalled(
        kind=OfflineGuest,
        cli=cli,
        files=off.rig.files,
        done=done if operation == "create" else DELETES[operation][2],
        jobs=lambda: 0,
        content=off.content,
    )


@pytest.mark.parametrize("operation", ["create", *DELETES])
def test_signal_after_acts(
    connection: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    folder = tmp_path / "share"
    folder.mkdir()

    @contextmanager
    def guests() -> Iterator[Signalled]:
        for path in folder.glob("*"):
            path.unlink()
        with defined_off(connection, folder, "raw") as off:
            off.grow(3)
            yield _signalled(off, operation)

    found = signal_at_calls(
        f"{operation} of a guest that is off, after acts",
        monkeypatch,
        guests,
        lambda patched, kind, act: patch(patched, kind, after=lambda _step: act()),
    )
    print(f"{operation}: {found}")
    assert "done" in found


@remedy("GivenUp")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_while_it_copies(
    off: Off, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Nobody goes on with it, and that is said."""
    off.grow(3)
    guest = _signalled(off, "commit", "--bandwidth", "1")
    before, content = guest.files(), guest.content()
    with handlers(monkeypatch), monkeypatch.context() as patched:
        calls(patched, guest.kind, lambda: signal.raise_signal(number), ("wait",))
        said = guest.cli()
    assert check(guest, said, before, content) == "failed"
    assert "was given up, and the chain is as it was" in said.err
    said = off.rig.delete(*DELETES["commit"][:2])
    assert (said.code, guest.files(), guest.content()) == (0, guest.done, content)


def _shortened(off: Off) -> None:
    """s1 ends in the middle of what the base holds, and s2 is as long as the base."""
    off.write(0, SIZE, 1)
    off.rig.create("s1")
    _resize(off, SIZE // 2)
    off.write(4096, 8192, 2)
    off.rig.create("s2")
    _resize(off, SIZE)


def _resize(off: Off, size: int) -> None:
    path = str(off.rig.disk().layers[0].path)
    qemu_img.run("resize", path, "-q", "--shrink", "-f", "qcow2", path, str(size))


@remedy("ShorterLayer")
def test_what_a_shorter_layer_hides_stays_hidden(off: Off) -> None:
    _shortened(off)
    content, files = off.content(), off.rig.files()
    for merge_, target in ((f"{BASE}.s1", BASE), (BASE, None)):
        for options in ([], ["--plan"]):
            said = off.rig.delete(merge_, target, *options)
            assert said.code == 4, said
            assert "would read what" in said.err
    assert (off.rig.files(), off.content()) == (files, content)
    said = off.rig.delete(f"{BASE}.s1", BASE)
    (way_out,) = re.findall(r"`(qemu-img resize [^`]+)`", said.err)
    subprocess.run(way_out.split(), check=True)
    assert off.content() == content
    assert off.rig.delete(f"{BASE}.s1", BASE).code == 0
    assert off.rig.files() == [f"{BASE}.s2", BASE]
    assert off.content() == content
    sound(off)


@remedy("ShorterLayer")
@pytest.mark.parametrize("way", ["pull", "grow"])
def test_disk_does_not_grow(off: Off, way: str) -> None:
    off.write(0, SIZE, 1)
    off.rig.create("s1")
    _resize(off, SIZE // 2)
    content = off.content()
    said = off.rig.delete(f"{BASE}.s1", BASE)
    assert said.code == 4, said
    assert "whose disk would grow" in said.err
    if way == "pull":
        assert off.rig.cli("delete", DISK, "s1").code == 0  # which chooses a pull
        assert off.rig.files() == [f"{BASE}.s1"]
    else:
        (way_out,) = re.findall(r"`(qemu-img resize [^`]+)`", said.err)
        subprocess.run(way_out.split(), check=True)
        content = off.content()
        assert off.rig.delete(f"{BASE}.s1", BASE).code == 0
        assert off.rig.files() == [BASE]
    assert off.content() == content


@remedy("NeedsWaiting")
def test_nobody_would_go_on_with_a_merge(off: Off) -> None:
    off.grow(3)
    files, content = off.rig.files(), off.content()
    said = off.rig.cli("delete", DISK, "s1", "--no-wait", "-o", "json")
    assert said.code == 4
    assert '"NeedsWaiting"' in said.err
    assert off.rig.files() == files
    assert off.rig.cli("delete", DISK, "s1").code == 0
    assert off.rig.files() == [f"{BASE}.s2", BASE]
    assert off.content() == content
