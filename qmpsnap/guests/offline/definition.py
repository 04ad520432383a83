"""Point the definition of a guest that is off to other active files. Pure."""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from dataclasses import dataclass

from lxml import etree

from qmpsnap.errors import Failed
from qmpsnap.operations.step import Does, Step


class PointsElsewhere(Failed):
    """Somebody has pointed the definition to another file in the meantime."""

    msg = "disk {self.target} is defined with {self.named} by now, and was with {self.old}"
    remedy = "Look at `qmpsnap chain`, and remove no file before it is as you want it."
    changed = "no"

    target: str
    old: str
    named: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Where a disk of a definition is to point."""

    old: str
    """The active file that it names before."""
    path: str
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Redefine(Step):
    """A definition with other active files, made from the one of the moment of the plan."""

    points: Mapping[str, Point]
    """By target: what is changed in whatever definition there is when it is taken."""

    @classmethod
    def of(cls, does: Does, definition: str, points: Mapping[str, Point]) -> Redefine:
        """Put the act together."""
        arguments = {"xml": pointed_to(definition, points)}
        what = "virDomainDefineXML"
        return cls(does=does, by="libvirt", what=what, arguments=arguments, points=points)

    def again_from(self, definition: str) -> Redefine:
        """
        The same change to the definition that there is by now; it may have been made already.

        Raises:
            PointsElsewhere: A disk names another file.
        """
        for target, point in self.points.items():
            named = named_by(definition, target)
            expected = {os.path.normpath(one) for one in (point.old, point.path)}
            if named is None or os.path.normpath(named) not in expected:
                raise PointsElsewhere(target, point.old, str(named))
        return Redefine.of(self.does, definition, self.points)


def pointed_to(definition: str, active: Mapping[str, Point]) -> str:
    """
    Change the active files in a definition.

    What it says of the chain below is taken out: it was true of the old file, and libvirt would
    believe it rather than the headers.

    Args:
        definition: The domain's inactive XML.
        active: By target.
    """
    root = _parsed(definition)
    for disk in root.iterfind("./devices/disk"):
        source, driver = disk.find("source"), disk.find("driver")
        point = active.get(_target(disk))
        if point is None or source is None:
            continue
        source.set("file", point.path)
        if driver is None:
            driver = etree.SubElement(disk, "driver", name="qemu")
        driver.set("type", point.format)
        for below in disk.findall("backingStore"):
            disk.remove(below)
    return etree.tostring(root, encoding="unicode")


def named_by(definition: str, target: str) -> str | None:
    """The active file of a disk in a definition; None where there is no such disk, or no file."""
    for disk in _parsed(definition).iterfind("./devices/disk"):
        source = disk.find("source")
        if _target(disk) == target and source is not None:
            return source.get("file")
    return None


def _parsed(definition: str) -> etree._Element:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    return etree.fromstring(definition.encode(), parser)


def _target(disk: etree._Element) -> str:
    target = disk.find("target")
    return str(target.get("dev")) if target is not None else ""
