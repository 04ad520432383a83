"""
Keep the definition of a guest that is off in step with the files of its disks. Pure.

libvirt believes a definition that names the chain (`<backingStore>`, which snapshots of the running
guest leave there) rather than the headers. So whoever changes a chain changes it there as well:

    create          nest what the definition named below the new overlay; what was active too where
                    the overlay lies in another folder, out of which no header is followed
    revert          nest what it named from the layer on that is gone back to
    active commit   lift what it named for the base
    commit, pull    first let it end above the layers that the job takes out: from there on the
                    headers count, before the job and after it; when it has ended, name what is left
    resume          nest again what a pull has taken out, where its old backing file is named again

Source: qemuDomainDetermineDiskChain(), qemu_domain.c; qemuSnapshotDomainDefUpdateDisk(),
qemu_snapshot.c, which nests in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy

import msgspec
from lxml import etree

from qmpsnap.errors import Failed
from qmpsnap.graph.xml_sources import host_file, is_empty
from qmpsnap.guests.libvirt.encryption import luks
from qmpsnap.operations.names import tidy
from qmpsnap.operations.step import Does, Step

Same = Callable[[str, str], bool]
"""Whether two names are of one file."""


class PointsElsewhere(Failed):
    """Somebody has pointed the definition to another file in the meantime."""

    msg = "disk {self.target} is defined with {self.named} by now, and was with {self.old}"
    remedy = "Look at `qmpsnap chain`, and remove no file before it is as you want it."
    changed = "no"

    target: str
    old: str
    named: str


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of the chain that a disk is to have."""

    path: str
    format: str
    is_block: bool = False
    secret: str | None = None
    """UUID of libvirt's secret that it is encrypted with, where the definition has not named it yet."""
    was: int | None
    """Its position in the chain before, the active layer being 0; None for a new file."""


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a disk in a definition."""

    old: tuple[str, ...]
    """The chain before, as paths, active layer first."""
    new: tuple[Place, ...]
    names: int | None = None
    """How many layers the definition may name at most; None: as many as it names now."""
    least: int = 1
    """How many it names in any case: 2 where the header of a new overlay leads to another folder, or
    to an encrypted file, since no header tells a secret."""


class Redefine(Step, frozen=True, kw_only=True):
    """A definition with other chains, made from the one of the moment of the plan."""

    edits: Mapping[str, Edit]
    """By target: what is changed in whatever definition there is when it is taken."""

    @classmethod
    def of(cls, does: Does, definition: str, edits: Mapping[str, Edit]) -> Redefine:
        """Put the act together."""
        arguments = {"xml": edited(definition, edits)}
        return cls(
            does=does, by="libvirt", what="virDomainDefineXML", arguments=arguments, edits=edits
        )

    def again_from(self, definition: str, same: Same, with_files: str | None = None) -> Redefine:
        """
        The same change to the definition that there is by now; it may have been made already.

        Args:
            definition: As it is now. An earlier act of the same operation may have shortened it.
            same: Tells whether it still names the same files.
            with_files: As it is now, with the files of volumes of storage pools (`volumes.py`).

        Raises:
            PointsElsewhere: A disk names another file.
        """
        now, planned = _parsed(definition), _parsed(str(self.arguments["xml"]))
        known = now if with_files is None else _parsed(with_files)
        for target, edit in self.edits.items():
            disk, made = _disk(now, target), _disk(planned, target)
            named = [host_file(source) for source in _sources(_disk(known, target))]
            chains = (edit.old, tuple(place.path for place in edit.new))
            if made is None or disk is None or not any(_fits(named, one, same) for one in chains):
                raise PointsElsewhere(target, edit.old[0], " over ".join(map(str, named)) or "None")
            _take_over(disk, made)
        return Redefine(
            does=self.does,
            by=self.by,
            what=self.what,
            arguments={"xml": etree.tostring(now, encoding="unicode")},
            edits=self.edits,
        )


def edited(definition: str, edits: Mapping[str, Edit]) -> str:
    """
    Change the chains of disks in a definition, and nothing else.

    Args:
        definition: The domain's inactive XML.
        edits: By target.
    """
    root = _parsed(definition)
    for target, edit in edits.items():
        disk = _disk(root, target)
        if disk is not None:
            _edit(disk, edit)
    return etree.tostring(root, encoding="unicode")


def names_below(definition: str, target: str, position: int) -> bool:
    """Whether a definition says what lies below a layer, if only that nothing does."""
    disk = _disk(_parsed(definition), target)
    elements = [] if disk is None else list(_elements(disk))
    return position < len(elements) and elements[position].find("backingStore") is not None


def _edit(disk: etree._Element, edit: Edit) -> None:
    stores = [_as_store(one) for one in _elements(disk)]
    is_ended = _is_ended(disk)
    limit = len(edit.new) if edit.names is None else edit.names
    if disk.find("backingStore") is None:
        limit = edit.least
    chain: list[etree._Element] = []
    for place in edit.new[:limit]:
        known = stores[place.was] if place.was is not None and place.was < len(stores) else None
        if known is None and chain and place.was is not None:
            break  # from here on the headers said it, and do now
        chain.append(_new_store(place, stores[0]) if known is None else _stated(known, place))
    is_ended = is_ended and len(chain) == len(edit.new) and edit.names is None
    _put(disk, chain, is_ended=is_ended)


def _elements(disk: etree._Element | None) -> Iterator[etree._Element]:
    """The elements that each name one layer: the disk, and each `<backingStore>` that has a source."""
    element = disk
    while element is not None:
        source = element.find("source")
        if source is None or is_empty(source):
            return
        yield element
        element = element.find("backingStore")


def _sources(disk: etree._Element | None) -> Iterator[etree._Element]:
    for element in _elements(disk):
        source = element.find("source")
        if source is not None:
            yield source


def _is_ended(disk: etree._Element) -> bool:
    """Whether the definition says that nothing lies below the last layer that it names."""
    *_, last = _elements(disk)
    return last.find("backingStore") is not None


def _as_store(element: etree._Element) -> etree._Element:
    """A layer as a `<backingStore>` without what lies below; the disk's own has a driver."""
    if element.tag == "backingStore":
        store = deepcopy(element)
        for below in store.findall("backingStore"):
            store.remove(below)
        return store
    driver, source = element.find("driver"), element.find("source")
    store = etree.Element("backingStore", type=element.get("type", "file"))
    if driver is not None and (format_ := driver.get("type")):
        etree.SubElement(store, "format", type=format_)
    if source is not None:
        below = deepcopy(source)
        # Written at the disk, it is libvirt's old way to say it of the active file.
        below.extend(deepcopy(one) for one in element.findall("encryption"))
        store.append(below)
    return store


def _stated(store: etree._Element, place: Place) -> etree._Element:
    """A layer with its format: what was said by nobody but the header above must not get lost."""
    if store.find("format") is None:
        store.insert(0, etree.Element("format", type=place.format))
    return store


def _new_store(place: Place, active: etree._Element) -> etree._Element:
    """A layer that the definition has not named; labelled as the one that was active."""
    store = etree.Element("backingStore", type="block" if place.is_block else "file")
    etree.SubElement(store, "format", type=place.format)
    source = etree.SubElement(store, "source")
    source.set("dev" if place.is_block else "file", place.path)
    source.extend(deepcopy(label) for label in active.findall("source/seclabel"))
    if place.secret is not None:
        source.append(luks(place.secret))
    return store


def _put(disk: etree._Element, chain: Sequence[etree._Element], *, is_ended: bool) -> None:
    active, *lower = chain
    policy = _startup_policy(disk)
    _clear(disk)
    disk.set("type", active.get("type", "file"))
    source, format_ = active.find("source"), active.find("format")
    if source is not None:
        if policy is not None:
            source.set("startupPolicy", policy)
        disk.append(source)
    driver = disk.find("driver")
    if driver is None:
        driver = etree.SubElement(disk, "driver", name="qemu")
    if format_ is not None:
        driver.set("type", format_.get("type", ""))
    at = disk
    for store in lower:
        for below in store.findall("source"):
            below.attrib.pop("startupPolicy", "")
        at.append(store)
        at = store
    if is_ended:
        etree.SubElement(at, "backingStore")


def _startup_policy(disk: etree._Element) -> str | None:
    """It is of the disk, not of the file; a `<backingStore>` has none."""
    source = disk.find("source")
    return source.get("startupPolicy") if source is not None else None


def _clear(disk: etree._Element) -> None:
    for name in ("source", "encryption", "backingStore"):
        for element in disk.findall(name):
            disk.remove(element)


def _take_over(disk: etree._Element, made: etree._Element) -> None:
    """Give a disk the chain that was made for it."""
    _clear(disk)
    disk.set("type", made.get("type", "file"))
    disk.extend(deepcopy(one) for one in made if one.tag in ("source", "backingStore"))
    format_ = made.find("driver")
    driver = disk.find("driver")
    if driver is None:
        driver = etree.SubElement(disk, "driver", name="qemu")
    if format_ is not None and (word := format_.get("type")):
        driver.set("type", word)


def _fits(named: Sequence[str | None], old: Sequence[str], same: Same) -> bool:
    """Whether a definition names the chain that it did, or its upper part."""
    return (
        0 < len(named) <= len(old)
        and all(one is not None and (tidy(one) == tidy(was) or same(one, was)) for one, was in zip(named, old, strict=False))
    )  # fmt: skip


def _parsed(definition: str) -> etree._Element:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    return etree.fromstring(definition.encode(), parser)


def _disk(root: etree._Element, target: str) -> etree._Element | None:
    """A disk that has a medium."""
    for disk in root.iterfind("./devices/disk"):
        found = disk.find("target")
        if (
            found is not None
            and found.get("dev") == target
            and next(_elements(disk), None) is not None
        ):
            return disk
    return None
