"""`-o html`: one page that stands alone, says everything, and that nothing in a name can change."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree, html
from msgspec.structs import replace

from qmpsnap.cli.findings import Audited, NotAudited
from qmpsnap.cli.main import run
from qmpsnap.cli.page import COLORS, INK, page
from qmpsnap.findings import finding as rules
from qmpsnap.findings.facts import Seen
from qmpsnap.findings.finding import Finding
from qmpsnap.formats.layers import Disk
from qmpsnap.formats.verdict import Verdict
from tests.unit import samples

RECORDED: Final = Path(__file__).parents[2] / "fixtures" / "qemu-7.2" / "chain-3.jsonl"
SPACE: Final = "{http://www.w3.org/1999/xhtml}"
FOUND: Final = Finding(
    rule=rules.FILE_ACTIVE_TWICE,
    guest="web1",
    disk="vda",
    file="/share/volume-1",
    message="it is also active in vdb",
    remedy="Do not.",
)


def made(*disks: Disk, found: tuple[Finding, ...] = (), **more: Any) -> str:
    seen = Seen(guest="web1", report=replace(samples.guest(*disks), **more))
    audited = [
        Audited(guest="web1", source="qemu:///system", seen=seen),
        Audited(guest="web2", source="qemu:///system", seen=None),
    ]
    left = [NotAudited(guest="off1", source="qemu:///system", reason="not running")]
    return page(audited, found, left, when="2026-11-22 23:15Z", version="0.1.0")


def parsed(text: str) -> Any:
    """As strictly as XML."""
    return etree.fromstring(text.encode(), etree.XMLParser(no_network=True))


def text_of(root: Any) -> str:
    return " ".join("".join(root.itertext()).split())


def test_it_says_everything() -> None:
    shown = text_of(parsed(made(samples.disk(3), found=(FOUND,))))
    for one in ("web1", "web2", "could not be read", "off1: not running", "serial 1"):
        assert one in shown
    for one in (FOUND.id, FOUND.message, FOUND.remedy, str(FOUND.file), "error"):
        assert one in shown
    for layer in samples.disk(3).layers:
        assert layer.file in shown


def test_it_stands_alone() -> None:
    root = parsed(made(samples.disk(3), found=(FOUND,)))
    tags = {element.tag.removeprefix(SPACE) for element in root.iter()}
    assert tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "base", "a"})
    for element in root.iter():
        assert not {name for name in element.attrib if name.startswith("on")}
        assert not {*element.attrib} & {"src", "href", "style", "srcset"}
    (style,) = root.iter(f"{SPACE}style")
    assert not re.search(r"url\(|@import|expression", style.text)
    policy = root.find(f".//{SPACE}meta[@http-equiv='Content-Security-Policy']").get("content")
    assert policy.startswith("default-src 'none'")


def test_it_is_html_too() -> None:
    text = made(samples.disk(2))
    assert text.startswith("<!DOCTYPE html>\n")
    document = html.document_fromstring(text.encode())
    assert document.get("lang") == "en"
    assert document.findtext(".//title")
    assert document.find(".//meta[@name='viewport']") is not None
    levels = [
        int(tag[1])
        for element in document.iter()
        if re.fullmatch("h[1-6]", tag := str(element.tag))
    ]
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_class_has_a_look() -> None:
    root = parsed(made(samples.disk(9), found=(FOUND,)))
    (style,) = root.iter(f"{SPACE}style")
    styled = set(re.findall(r"\.([a-z]+)", style.text))
    used = {one for element in root.iter() for one in element.get("class", "").split()}
    assert used <= styled


@pytest.mark.parametrize("name", COLORS)
def test_contrast(name: str) -> None:
    """WCAG 2.1, 1.4.3: at least 4.5 to 1."""
    background, text = COLORS[name]
    assert _contrast(background, text) >= 4.5
    assert _contrast(background, INK) >= 4.5, "file names"


def _contrast(one: str, other: str) -> float:
    dark, light = sorted(map(_luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def boxes(text: str) -> list[str]:
    return [
        text_of(one)
        for one in parsed(text).iter(f"{SPACE}li")
        if one.get("class", "").startswith("layer")
    ]


def test_quiet_layers_are_folded_and_named() -> None:
    shown = boxes(made(samples.disk(40)))
    assert len(shown) == 3
    assert shown[1].startswith("38 layers, qcow2")
    assert "volume-1.s20," in shown[1]


def test_a_layer_that_has_something_to_tell_is_not() -> None:
    disk = samples.disk(40)
    disk = samples.changed_layer(disk, 20, verdict=Verdict.CONFLICT)
    shown = boxes(made(disk))
    assert [one.split(",")[0] for one in shown if "layers" in one] == ["19 layers", "18 layers"]
    assert any("conflict" in one for one in shown)


def test_twelve_disks() -> None:
    disks = [replace(samples.disk(3), disk=f"vd{letter}") for letter in "abcdefghijkl"]
    root = parsed(made(*disks))
    assert sum(one.get("class") == "disk" for one in root.iter(f"{SPACE}div")) == 12


@given(st.text())
def test_nothing_in_a_name_does_anything(name: str) -> None:
    hostile = f"</code><script>alert(1)</script>{name}\x1b&amp;\"'"
    layers = samples.linked([samples.layer(hostile), samples.layer("volume-1", "raw")])
    disk = samples.disk(layers=layers, serial=hostile, xml_differs=hostile)
    found = replace(FOUND, guest=hostile, file=hostile, message=hostile, remedy=hostile)
    root = parsed(made(disk, found=(found,), notes=(hostile,)))
    assert not list(root.iter(f"{SPACE}script"))
    assert "<script>alert(1)</script>" in text_of(root)


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--replay", str(RECORDED), "verify", "-o", "html"]) == 0
    assert "layer-001" in text_of(parsed(capsys.readouterr().out))
