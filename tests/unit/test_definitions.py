"""Which definitions of a libvirt name a file of a chain: any, however they come to it."""

from __future__ import annotations

import json
import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from qmpsnap.formats.layers import Disk
from qmpsnap.guests.libvirt.neighbours import named_by
from tests.unit import samples
from tests.unit.fake_libvirt import Domain, Error, install
from tests.unit.qcow2_header import header

FORMAT_OF_BACKING = 0xE2792ACA
DATA_FILE = 0x44415441

Named = tuple[str, Path, str | None]
"""Target, active file and its format in a definition."""


@pytest.fixture(autouse=True)
def _libvirt(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def overlay(path: Path, below: str, format_: str | None = "raw") -> Path:
    """A qcow2 file over another one; without a format its header states none."""
    states = () if format_ is None else ((FORMAT_OF_BACKING, format_.encode()),)
    path.write_bytes(header(backing=below.encode(), extensions=states))
    return path


def guest(name: str, *disks: Named, active: bool = False) -> Domain:
    """Another guest with these disks in its definition."""
    made = "".join(
        f"<disk type='file' device='disk'><driver name='qemu'"
        f"{'' if format_ is None else f' type={format_!r}'}/>"
        f"<source file='{path}'/><target dev='{target}'/></disk>"
        for target, path, format_ in disks
    )
    return of_xml(name, f"<domain><name>{name}</name><devices>{made}</devices></domain>", active)


def of_xml(name: str, xml: object, active: bool = False, **answers: object) -> Domain:
    """Another guest, by its XML; a running one has the same definition."""
    return Domain(
        name=name,
        UUIDString=name,
        XMLDesc=xml,
        isActive=active,
        **{"isPersistent": True, "hasManagedSaveImage": False, "listAllSnapshots": [], **answers},
    )


@dataclass(frozen=True)
class Chain:
    """Disk vda of the guest web1: top over base."""

    top: Path
    base: Path

    @property
    def disk(self) -> Disk:
        upper, lower = samples.disk(2).layers
        layers = (replace(upper, path=str(self.top)), replace(lower, path=str(self.base)))
        return samples.disk(2, layers=layers)

    @property
    def vda(self) -> Named:
        """As its own definition has it."""
        return ("vda", self.top, "qcow2")

    def users(
        self,
        *others: Domain,
        own: Collection[Named] | None = None,
        left: Collection[str] | None = None,
    ) -> dict[str, tuple[str, ...]]:
        """Descriptions by bare name of the layer; by default its own definition is as it should be."""
        return {Path(path).name: users for path, users in self.told(*others, own=own, left=left)[0]}

    def told(
        self,
        *others: Domain,
        own: Collection[Named] | None = None,
        left: Collection[str] | None = None,
        **answers: object,
    ) -> tuple[Iterable[tuple[str, tuple[str, ...]]], tuple[str, ...]]:
        """The same, and what could not be looked at."""
        mine = guest("web1", *([self.vda] if own is None else own), active=True)
        mine.answers |= answers
        found, notes = named_by([mine, *others], mine, self.disk, left)
        return found.items(), notes


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    base = tmp_path / "base"
    base.write_bytes(bytes(512))
    return Chain(top=overlay(tmp_path / "top", "base"), base=base)


def test_nobody(chain: Chain, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(512))
    assert chain.users(guest("db1", ("vda", other, "raw"))) == {}


def test_guest_that_is_off(chain: Chain) -> None:
    off = guest("db1", ("vda", chain.base, "raw"))
    assert chain.users(off) == {"base": ("guest db1, which is off",)}


def test_running_guest_by_what_it_would_start_from(chain: Chain) -> None:
    """It may have other files open now."""
    on = guest("db1", ("vda", chain.base, "raw"), active=True)
    text = on.answers["XMLDesc"]
    on.answers["XMLDesc"] = lambda flags: text if flags else "<domain/>"
    assert chain.users(on) == {"base": ("the definition of guest db1",)}


def test_running_guest_that_has_no_definition(chain: Chain) -> None:
    """Of another user, whose processes are hidden."""
    on = guest("db1", ("vda", chain.base, "raw"), active=True)
    on.answers["isPersistent"] = False
    assert chain.users(on) == {"base": ("guest db1",)}


@pytest.mark.parametrize("link", [Path.hardlink_to, Path.symlink_to])
def test_under_another_name(chain: Chain, tmp_path: Path, link: object) -> None:
    there = tmp_path / "there"
    link(there, chain.base)  # type: ignore[operator]
    off = guest("db1", ("vda", there, "raw"))
    assert chain.users(off) == {"base": ("guest db1, which is off",)}


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_however_far_down(chain: Chain, tmp_path: Path, depth: int) -> None:
    below, format_ = "base", "raw"
    for number in range(depth):
        below, format_ = overlay(tmp_path / f"other{number}", below, format_).name, "qcow2"
    off = guest("db1", ("vda", tmp_path / below, "qcow2"))
    assert chain.users(off) == {"base": ("guest db1, which is off",)}


def test_in_another_folder(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    over = overlay(tmp_path / "theirs" / "over", "../base")
    assert "base" in chain.users(guest("db1", ("vda", over, "qcow2")))


def test_no_format_is_guessed(chain: Chain, tmp_path: Path) -> None:
    """What a guest wrote into a raw file is no header; without a format libvirt takes it for raw."""
    over = overlay(tmp_path / "over", "base")
    for format_ in ("raw", "luks", None):
        assert chain.users(guest("db1", ("vda", over, format_))) == {}


def test_header_that_states_no_format(chain: Chain, tmp_path: Path) -> None:
    """
    QEMU looks for itself what the file is, and may go on from there.

    libvirt lets a guest start so where what it names has no backing file; a person may start it by
    hand in any case.
    """
    overlay(tmp_path / "over", "base")
    unstated = overlay(tmp_path / "unstated", "over", None)
    off = guest("db1", ("vda", unstated, "qcow2"))
    assert chain.users(off) == {"base": ("guest db1, which is off",)}
    _, (note,) = chain.told(off)
    assert note.startswith("not all files of guest db1, which is off are known")


def test_data_file(chain: Chain, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(header(incompatible=4, extensions=((DATA_FILE, b"base"),)))
    off = guest("db1", ("vda", path, "qcow2"))
    assert chain.users(off) == {"base": ("guest db1, which is off",)}


def test_dots_behind_a_link(chain: Chain, tmp_path: Path) -> None:
    """QEMU leaves it to the kernel what `..` means: of what the link leads to."""
    (tmp_path / "folder" / "in").mkdir(parents=True)
    (tmp_path / "folder" / "base").hardlink_to(chain.base)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link").symlink_to(tmp_path / "folder" / "in")
    over = overlay(tmp_path / "elsewhere" / "over", "link/../base")
    assert "base" in chain.users(guest("db1", ("vda", over, "qcow2")))


@pytest.mark.parametrize("link", [True, False])
def test_name_in_an_image_behind_a_link(chain: Chain, tmp_path: Path, link: bool) -> None:
    """It is looked for from the folder of the link that the definition names, as QEMU does."""
    (tmp_path / "folder").mkdir()
    over = overlay(tmp_path / "folder" / "over", "base")
    (tmp_path / "over").symlink_to(over)
    named = tmp_path / "over" if link else over
    assert bool(chain.users(guest("db1", ("vda", named, "qcow2")))) is link


@pytest.mark.parametrize("way", ["found", "pool not started", "pool unknown"])
def test_volume_of_a_pool(chain: Chain, tmp_path: Path, way: str) -> None:
    """As terraform's provider for libvirt defines its guests."""
    overlay(tmp_path / "over", "base")
    no = Error("OPERATION_INVALID", "no")
    pool = Domain(
        storageVolLookupByName=Domain(path=str(tmp_path / "over")) if way == "found" else no,
        XMLDesc=f"<pool type='dir'><target><path>{tmp_path}</path></target></pool>",
    )
    disk = (
        "<disk type='volume'><driver type='qcow2'/><source pool='p' volume='over'/>"
        "<target dev='vda'/></disk>"
    )
    off = of_xml("db1", f"<domain><name>db1</name><devices>{disk}</devices></domain>")
    told, notes = chain.told(off, storagePoolLookupByName=no if way == "pool unknown" else pool)
    if way == "pool unknown":
        assert (list(told), len(notes)) == ([], 1)
    else:
        assert dict(told) == {str(chain.base): ("guest db1, which is off",)}
        assert notes == ()


def test_argument_for_qemu_itself(chain: Chain) -> None:
    argument = f"<arg value='file={chain.base},format=raw,if=virtio'/>"
    off = of_xml("db1", f"<domain><name>db1</name><commandline>{argument}</commandline></domain>")
    assert chain.users(off) == {"base": ("guest db1, which is off",)}


def _tree(base: Path, **options: object) -> str:
    leaf = {"driver": "file", "filename": str(base)}
    return "json:" + json.dumps(options or {"driver": "raw", "file": leaf}).replace(
        '"LEAF"', json.dumps(leaf)
    )


def _address(base: Path, form: str) -> str:
    leaf = {"driver": "raw", "file": "LEAF"}
    match form:
        case "file":
            return f"file:{base}"
        case "tree":
            return _tree(base)
        case "flat tree":
            return _tree(
                base, **{"driver": "raw", "file.driver": "file", "file.filename": str(base)}
            )
        case "part":
            return _tree(base, driver="raw", offset=512, size=512, file="LEAF")
        case "quorum":
            return _tree(base, driver="quorum", children=[{"driver": "null-co"}, leaf])
        case "flat quorum":
            flat = {"children.0.file.filename": str(base), "children.0.driver": "raw"}
            return _tree(base, driver="quorum", **flat)
        case "blkverify":
            return _tree(base, driver="blkverify", raw={"driver": "null-co"}, test=leaf)
        case "blkverify:":
            return f"blkverify:/nowhere:{base}"
        case "blkdebug:":
            return f"blkdebug::{base}"
        case "blkdebug: over a tree":
            return f"blkdebug::{_tree(base)}"
        case "below another file":
            return _tree(base, driver="qcow2", file={"filename": "/nowhere"}, backing=leaf)
        case "data file":
            return _tree(
                base, **{"driver": "qcow2", "file.filename": "/nowhere", "data-file": "LEAF"}
            )
        case _:
            raise AssertionError(form)


FORMS = [
    "file",
    "tree",
    "flat tree",
    "part",
    "quorum",
    "flat quorum",
    "blkverify",
    "blkverify:",
    "blkdebug:",
    "blkdebug: over a tree",
    "below another file",
    "data file",
]
"""Names of QEMU's that are no paths, and lead to one."""


@pytest.mark.parametrize("form", FORMS)
def test_by_a_name_that_is_no_path(chain: Chain, tmp_path: Path, form: str) -> None:
    top = overlay(tmp_path / "other", _address(chain.base, form))
    assert chain.users(guest("db1", ("vda", top, "qcow2"))) == {
        "base": ("guest db1, which is off",)
    }


@pytest.mark.parametrize("form", ["file", "tree", "quorum"])
def test_below_what_such_a_name_leads_to(chain: Chain, tmp_path: Path, form: str) -> None:
    between = overlay(tmp_path / "between", str(chain.base))
    name = _address(between, form).replace('"raw"', '"qcow2"')
    top = overlay(tmp_path / "other", name, "qcow2")
    found = chain.users(guest("db1", ("vda", top, "qcow2")))
    assert found == {"base": ("guest db1, which is off",)}


def test_a_raw_file_in_a_tree_is_not_followed(chain: Chain, tmp_path: Path) -> None:
    """What a guest wrote into it names nothing, and is no gap either."""
    between = overlay(tmp_path / "between", str(chain.base))
    top = overlay(tmp_path / "other", _tree(between))
    assert chain.told(guest("db1", ("vda", top, "qcow2"))) == ({}.items(), ())


ARGUMENTS = {
    "-drive": "file={0},format=raw,if=virtio",
    "file:": "if=none,file=file:{0}",
    "-hda": "{0}",
    "-blockdev": '{{"driver":"raw","file":{{"driver":"file","filename":"{0}"}}}}',
    "with blanks": '{{ "driver": "raw", "file": {{ "driver": "file", "filename": "{0}" }} }}',
    "options": "driver=raw,file.driver=file,file.filename={0}",
    "a tree": 'if=none,file=json:{{"driver":"raw",,"file":{{"filename":"{0}"}}}}',
    "from the root": "file={1},if=none",
}


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("form", ARGUMENTS)
def test_any_argument_for_qemu_itself(chain: Chain, tmp_path: Path, form: str, below: bool) -> None:
    named = overlay(tmp_path / "an overlay", str(chain.base)) if below else chain.base
    value = ARGUMENTS[form].format(named, str(named).lstrip("/")).replace('"', "&quot;")
    text = f"<domain><name>db1</name><x:commandline xmlns:x='u'><x:arg value=\"{value}\"/>"
    off = of_xml("db1", f"{text}</x:commandline></domain>")
    assert chain.users(off) == {"base": ("guest db1, which is off",)}


@pytest.mark.parametrize("format_", ["qed", "qcow", "vmdk"])
def test_in_an_image_of_another_format(chain: Chain, tmp_path: Path, format_: str) -> None:
    top = tmp_path / "other"
    name = str(chain.base).encode()
    top.write_bytes(
        {
            "qed": b"QED\0" + bytes(60) + name + bytes(8),
            "qcow": struct.pack(">8sQI", b"QFI\xfb\0\0\0\1", 48, len(name)).ljust(48, b"P") + name,
            "vmdk": b'# Disk DescriptorFile\nRW 8192 FLAT "' + name + b'" 0\n',
        }[format_]
    )
    found = chain.users(guest("db1", ("vda", top, format_)))
    assert found == {"base": ("guest db1, which is off",)}


@pytest.mark.parametrize("record", ["saved memory", "snapshot"])
def test_only_a_record_names_it(chain: Chain, record: str) -> None:
    kept = str(guest("db1", ("vda", chain.base, "raw")).answers["XMLDesc"])
    if record == "snapshot":
        text = f"<domainsnapshot><name>s1</name>{kept}</domainsnapshot>"
        snapshots = [Domain(getName="s1", getXMLDesc=text)]
        off = of_xml("db1", "<domain/>", listAllSnapshots=snapshots)
        assert chain.users(off) == {"base": ("snapshot s1 of guest db1",)}
    else:
        off = of_xml("db1", "<domain/>", hasManagedSaveImage=True, managedSaveGetXMLDesc=kept)
        assert chain.users(off) == {"base": ("the saved memory of guest db1",)}


def test_images_that_cannot_be_read(chain: Chain, tmp_path: Path) -> None:
    """One note for all, and only the first names; one that is not there starts no guest."""
    (tmp_path / "empty").touch()
    offs = [guest(f"db{number}", ("vda", tmp_path / "empty", "qcow2")) for number in range(5)]
    found, (note,) = chain.told(*offs, guest("gone", ("vda", tmp_path / "gone", "qcow2")))
    assert list(found) == []
    assert "guest db2, which is off and 2 more" in note
    assert "gone" not in note
    _, (note,) = chain.told(*offs[:3])
    assert "more" not in note


def test_circle_and_what_cannot_be_read(chain: Chain, tmp_path: Path) -> None:
    circle = overlay(tmp_path / "circle", "circle", "qcow2")
    empty = tmp_path / "empty"
    empty.touch()
    disks: tuple[Named, ...] = (
        ("vda", circle, "qcow2"),
        ("vdb", empty, "qcow2"),
        ("vdc", tmp_path / "gone", "qcow2"),
        ("vdd", chain.base, "raw"),
    )
    assert chain.users(guest("db1", *disks)) == {"base": ("guest db1, which is off",)}


def test_by_the_definition_alone(chain: Chain, tmp_path: Path) -> None:
    """It names the chain, as snapshots of the running guest leave it; the header says otherwise."""
    image = overlay(tmp_path / "other", "elsewhere")
    store = f"<backingStore type='file'><format type='raw'/><source file='{chain.base}'/>"
    other = guest("web2", ("vda", image, "qcow2"))
    text = str(other.answers["XMLDesc"])
    other.answers["XMLDesc"] = text.replace("<target", f"{store}</backingStore><target")
    assert chain.users(other) == {"base": ("guest web2, which is off",)}


def test_definition_that_cannot_be_read(chain: Chain) -> None:
    """It may name any file."""
    other = of_xml("web2", "<domain>" + "<a/>" * 2_000_000)
    found = chain.users(other)
    assert found.keys() == {"top", "base"}
    assert all(users[0].startswith("guest web2, perhaps: ") for users in found.values())


def test_definition_that_is_kept_from_us(chain: Chain) -> None:
    other = of_xml("web2", Error("INTERNAL_ERROR", "access denied"))
    assert chain.users(other)["base"] == ("guest web2, perhaps: access denied",)


def test_undefined_in_between(chain: Chain) -> None:
    gone = guest("gone")
    gone.answers["XMLDesc"] = Error("NO_DOMAIN")
    off = guest("db1", ("vda", chain.base, "raw"))
    assert chain.users(gone, off) == {"base": ("guest db1, which is off",)}


class TestOwnDefinition:
    def test_of_this_very_disk_is_no_other(self, chain: Chain) -> None:
        assert chain.users() == {}

    def test_of_this_very_disk_under_another_name(self, chain: Chain, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(chain.top)
        assert chain.users(own=[("vda", link, "qcow2")]) == {}

    def test_of_another_disk(self, chain: Chain, tmp_path: Path) -> None:
        over = overlay(tmp_path / "over", "base")
        assert chain.users(own=[chain.vda, ("vdb", over, "qcow2")]) == {
            "base": ("the guest's own definition, as vdb",)
        }

    def test_of_this_disk_with_another_active_file(self, chain: Chain, tmp_path: Path) -> None:
        """It would start from that one, and read what this chain rests on."""
        over = overlay(tmp_path / "over", "base")
        assert chain.users(own=[("vda", over, "qcow2")]) == {
            "base": ("the guest's own definition, as vda",)
        }

    def test_that_still_names_what_has_left(self, chain: Chain) -> None:
        left = [str(chain.top)]
        assert chain.users(left=left) == {"top": ("the guest's own definition, as vda",)}

    def test_that_names_what_stays(self, chain: Chain) -> None:
        assert chain.users(own=[("vda", chain.base, "raw")], left=[str(chain.top)]) == {}
