"""Domain XML that is broken or hostile: real XML of libvirt 9.0, mutated."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from functools import cache
from typing import Final

from lxml import etree

from tests.fuzz.replies import lines_of, transcript
from tests.fuzz.values import STRINGS

RECORDED: Final = ("libvirt-running", "libvirt-mirror")
OLD: Final = """<domain type='qemu'>
  <name>old</name>
  <devices>
    <disk type='block' device='lun'>
      <driver name='qemu' type='raw'/>
      <source dev='/dev/sdb'/>
      <target dev='sda'/>
      <encryption format='luks'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='/share/top' index='3'/>
      <backingStore type='file' index='4'>
        <format type='qcow2'/>
        <source file='/share/mid'/>
        <backingStore type='network' index='5'>
          <format type='raw'/>
          <source protocol='rbd' name='pool/base'><host name='ceph'/></source>
          <backingStore/>
        </backingStore>
      </backingStore>
      <target dev='vda'/>
      <serial>volume-1</serial>
      <alias name='virtio-disk0'/>
    </disk>
    <disk type='file' device='cdrom'>
      <driver name='qemu'/>
      <target dev='sdc'/>
      <readonly/>
    </disk>
  </devices>
</domain>"""

SECRET: Final = "qmpsnap-fuzz-secret"
"""What no output may hold: it stands in a file that some of these documents ask for."""

_DECLARATIONS: Final = (
    "<?xml version='1.0'?>",
    "<?xml version='1.1' encoding='UTF-8'?>",
    "<?xml version='1.0' encoding='ISO-8859-1'?>",
    "<?xml version='1.0' encoding='UTF-16'?>",
    "<?xml version='1.0' encoding='nonsense'?>",
    "\ufeff",
    "\n\n<?xml version='1.0'?>",
)


@cache
def _base(name: str) -> str:
    line = next(line for line in lines_of(name, "debug") if "xml" in line)
    return str(line["xml"])


def case(seed: int, secret: str = "/nonexistent") -> str:
    """
    The transcript of one seed, with a mutated XML in it.

    Args:
        seed: Which one.
        secret: A file for external entities to ask for.
    """
    rng = random.Random(f"xmls {seed}")
    name = rng.choice((*RECORDED, "old"))
    text = OLD if name == "old" else _base(name)
    root = etree.fromstring(text.encode())
    for _ in range(rng.choice((0, 1, 1, 2, 3, 5, 10))):
        _mutate(rng, root)
    text = etree.tostring(root, encoding="unicode")
    if rng.randrange(3) == 0:
        text = _spoilt(rng, text, secret)
    exchanges = [] if name == "old" or rng.randrange(2) else lines_of(name, "debug")
    lines = [{"xml": text}, *(line for line in exchanges if "xml" not in line)]
    return transcript(lines)


def _mutate(rng: random.Random, root: etree._Element) -> None:
    elements = [one for one in root.iter() if isinstance(one.tag, str)]
    element = rng.choice(elements)
    parent = element.getparent()
    match rng.randrange(9):
        case 0 if parent is not None:
            parent.remove(element)
        case 1 if parent is not None:
            for _ in range(rng.choice((1, 1, 1, 1, 5, 50))):
                parent.insert(rng.randrange(len(parent) + 1), deepcopy(element))
        case 2:
            place = rng.choice(elements)
            place.append(deepcopy(element))
        case 3 if parent is not None:
            place = rng.choice(elements)
            if place not in element.iter():
                place.append(element)
        case 4:
            element.set(
                rng.choice(("type", "file", "dev", "index", "name", "format", "device", "job")),
                _text(rng),
            )
        case 5 if element.attrib:
            del element.attrib[rng.choice(element.keys())]
        case 6:
            element.text = _text(rng)
        case 7:
            inner: etree._Element = element
            for _ in range(rng.choice((5, 100, 300))):
                inner = etree.SubElement(inner, rng.choice(("backingStore", "source")))
        case _:
            other = rng.choice(elements)
            element.tag, other.tag = other.tag, element.tag


def _text(rng: random.Random) -> str:
    if rng.randrange(3) == 0:
        return rng.choice(
            ("raw", "qcow2", "luks", "1", "3", "-1", "0", "9" * 9, "9" * 5000, "\u0663")
        )
    # lxml writes no control characters; `_spoilt()` puts them into the text.
    return "".join(one for one in rng.choice(STRINGS) if one == "\n" or _in_xml(one))


def _in_xml(character: str) -> bool:
    code = ord(character)
    return 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code > 0xFFFF


def _spoilt(rng: random.Random, text: str, secret: str) -> str:
    match rng.randrange(8):
        case 0:
            return text[: rng.randrange(len(text))]
        case 1:
            return rng.choice(_DECLARATIONS) + text
        case 2 | 3:
            return _with_doctype(rng, text, secret)
        case 4:
            at = rng.randrange(len(text))
            return text[:at] + rng.choice((*STRINGS, "&#0;", "&#27;", "&x;", "]]>")) + text[at:]
        case 5:
            at = text.find(">", rng.randrange(len(text)))
            put = rng.choice(("<!-- c -->", "<?pi x?>", "<![CDATA[<x>]]>", "&lt;", "&#10;"))
            return text[: at + 1] + put + text[at + 1 :]
        case 6:
            return "<a>" * rng.choice((200, 300, 20_000)) + text
        case _:
            return text.replace("'", rng.choice(('"', "", "''")), rng.randrange(1, 20))


def _with_doctype(rng: random.Random, text: str, secret: str) -> str:
    grown = "".join(
        f"<!ENTITY e{n} '{f'&e{n - 1};' * 10 if n else 'lol' * 10}'>" for n in range(10)
    )
    name, inside = rng.choice(
        (
            ("e9", grown),
            ("big", f"<!ENTITY big '{'x' * 50_000}'>"),
            ("out", f"<!ENTITY out SYSTEM 'file://{secret}'>"),
            ("out", f"<!ENTITY % all SYSTEM 'file://{secret}'> %all; <!ENTITY out 'x'>"),
            ("out", "<!ENTITY out SYSTEM 'http://127.0.0.1:9/x'>"),
            ("me", "<!ENTITY me '&me;'>"),
            ("lt", ""),
        )
    )
    outer = rng.choice(("", f" SYSTEM 'file://{secret}'", " PUBLIC 'p' 'http://127.0.0.1:9/'"))
    used = f"&{name};" * rng.choice((0, 1, 1, 1000))
    where = rng.choice(("<name>", "type='", "file='", "<devices>"))
    doctype = f"<!DOCTYPE domain{outer} [{inside}]>"
    return doctype + text.replace(where, where + used, 1).replace(
        where.replace("'", '"'), where.replace("'", '"') + used, 1
    )


def text_of(transcript_text: str) -> str:
    """The XML in a transcript that `case()` made."""
    line: dict[str, str] = json.loads(transcript_text.split("\n")[1])
    return line["xml"]
