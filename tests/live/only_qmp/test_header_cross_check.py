"""
The qcow2 header reader beside `qemu-img info -f qcow2`: on images that QEMU makes they agree.

On headers that lie, ours says what QEMU says or raises; it never names another file or format.
"""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmpsnap.formats.qcow2 import READ_SIZE, BadHeader, Header, parse
from qmpsnap.guests.files import qemu_img
from qmpsnap.guests.files.header import read_header
from qmpsnap.guests.files.qemu_img import QemuImgFailed
from tests.fuzz import headers
from tests.rig.beside import run

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB
NO_NAME: Final = b"\xe2\x79\x2a\xca"
HOSTILE_CASES: Final = max(300, int(os.environ.get("QMPSNAP_FUZZ_CASES", "2000")) // 20)
"""One start of qemu-img each, 10 ms; in the nightly run 5,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What to ask of `qemu-img create`."""

    backing: str | None = None
    backing_format: str | None = "raw"
    """None: written as by a QEMU before 6.1, which let it be left out."""
    options: tuple[str, ...] = ()
    """Of qcow2, `name=value`."""
    size: int = 64 * MIB
    bitmaps: int = 0
    secret: bool = False


def make(folder: Path, image: Image) -> str:
    """Make the image with a real qemu-img."""
    path = str(folder / "image")
    options = [*image.options]
    arguments: list[str] = []
    if image.backing is not None:
        # -u: what it names is never opened; most of these names are of no file.
        arguments += ["-u", "-b", image.backing, "-F", image.backing_format or "raw"]
    if image.secret:
        arguments += ["--object", "secret,id=s,data=abc"]
        options.append("encrypt.key-secret=s")
    if options:
        arguments += ["-o", ",".join(options)]
    run("qemu-img", "create", "-q", "-f", "qcow2", *arguments, path, str(image.size))
    for number in range(image.bitmaps):
        qemu_img.run("bitmap", path, "--add", "-f", "qcow2", path, f"bitmap{number}")
    if image.backing is not None and image.backing_format is None:
        _forget_format(path)
    return path


def _forget_format(path: str) -> None:
    """Make the extension with the format one that nobody knows."""
    with open(path, "r+b") as file:
        data = file.read(READ_SIZE)
        file.seek(data.index(NO_NAME))
        file.write(b"\x01\x02\x03\x04")


def qemu_says(path: str) -> dict[str, Any]:
    """What `qemu-img info` prints; it opens neither backing nor data file."""
    said: dict[str, Any] = json.loads(
        qemu_img.run("info", path, "-f", "qcow2", "-U", "--output=json", path)
    )
    return said


def assert_agree(found: Header, said: dict[str, Any]) -> None:
    specific = said["format-specific"]["data"]
    assert found.version == {"0.10": 2, "1.1": 3}[specific["compat"]]
    assert found.virtual_size == said["virtual-size"]
    assert found.backing_file == said.get("backing-filename")
    assert found.backing_format == said.get("backing-filename-format")
    assert found.data_file == specific.get("data-file")
    assert (found.encryption is not None) == said.get("encrypted", False)
    assert found.encryption == specific.get("encrypt", {}).get("format")
    assert found.bitmaps == len(specific.get("bitmaps", ()))


LONG_PATH: Final = "./" * 2045 + "data"
"""A data file's name may be as long as a path can be (4095 bytes)."""
OTHER_EXTENSIONS: Final = ("lazy_refcounts=on", "extended_l2=on", "compression_type=zstd")

IMAGES: Final = {
    "plain": Image(),
    "v2": Image(options=("compat=0.10",)),
    "v2 backing": Image(backing="base", options=("compat=0.10",)),
    "backing": Image(backing="base"),
    "backing qcow2": Image(backing="/share/volume-1", backing_format="qcow2"),
    "longest format": Image(backing="base", backing_format="parallels"),
    "no format": Image(backing="base", backing_format=None),
    "v2 no format": Image(backing="base", backing_format=None, options=("compat=0.10",)),
    "relative": Image(backing="../a/./b"),
    "json": Image(
        backing='json:{"driver":"raw","offset":512,"file":{"driver":"file","filename":"/x"}}'
    ),
    "network": Image(backing="nbd://127.0.0.1:9/export"),
    "newline": Image(backing="a\nb"),
    "escapes": Image(backing="\x1b]0;x\x07\t\r\x7f"),
    "comma": Image(backing="a,b=c,,d"),
    "quotes": Image(backing="a\"b'c\\d"),
    "spaces": Image(backing=" a  b "),
    "not ascii": Image(backing="ä€\U0001f4be\u202e"),
    "longest name": Image(backing="n" * 1023),
    "longest name v2": Image(backing="n" * 1023, options=("compat=0.10",)),
    "data file": Image(options=("data_file=data",)),
    "data file raw": Image(options=("data_file=data", "data_file_raw=on")),
    "data file with an odd name": Image(options=("data_file=d\n,,\u202e",)),
    "bitmaps": Image(bitmaps=3),
    "features": Image(options=OTHER_EXTENSIONS),
    "all at once": Image(
        backing="n" * 1023,
        backing_format="parallels",
        options=(f"data_file={LONG_PATH}", *OTHER_EXTENSIONS, "cluster_size=2M"),
        bitmaps=2,
    ),
    "aes": Image(options=("encrypt.format=aes",), secret=True),
    "aes v2": Image(options=("encrypt.format=aes", "compat=0.10"), backing="b", secret=True),
    "luks": Image(
        options=("encrypt.format=luks", "encrypt.iter-time=200"), backing="b", secret=True
    ),
    **{
        f"cluster {bits}": Image(
            backing="n" * (100 if bits < 11 else 1023), options=(f"cluster_size={1 << bits}",)
        )
        for bits in range(9, 22)
    },
    **{f"size {size}": Image(size=size) for size in (0, 512, 513, 10 * MIB + 1, 8 * 1024 * GIB)},
}


@pytest.mark.parametrize("name", IMAGES)
def test_as_qemu_img_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a data file is made where qemu-img runs
    path = make(tmp_path, IMAGES[name])
    found = read_header(path)
    assert_agree(found, qemu_says(path))
    assert found == parse(Path(path).read_bytes()[: 2 * MIB], path), "READ_SIZE is too small"


# Neither ',' nor '=' means anything to `-b`, but ',' does in `-o`; NUL ends an argument.
NAMES: Final = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=200
)


@settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    backing=st.none() | NAMES,
    backing_format=st.none() | st.sampled_from(["raw", "qcow2", "vmdk", "parallels"]),
    cluster_bits=st.integers(12, 21),
    version=st.sampled_from(["0.10", "1.1"]),
    features=st.lists(st.sampled_from(OTHER_EXTENSIONS), unique=True),
    data_file=st.booleans(),
    size=st.integers(0, 4 * GIB),
    bitmaps=st.integers(0, 2),
)
def test_any_combination(
    tmp_path: Path,
    backing: str | None,
    backing_format: str | None,
    cluster_bits: int,
    version: str,
    features: list[str],
    data_file: bool,
    size: int,
    bitmaps: int,
) -> None:
    options = [f"compat={version}", f"cluster_size={1 << cluster_bits}"]
    if version == "1.1":
        options += features
        options += [f"data_file={tmp_path}/data"] if data_file else []
    image = Image(
        backing=backing,
        backing_format=backing_format,
        options=tuple(options),
        size=size,
        bitmaps=bitmaps if version == "1.1" else 0,
    )
    path = make(tmp_path, image)
    assert_agree(read_header(path), qemu_says(path))


@pytest.mark.timeout(600 + HOSTILE_CASES)
def test_headers_that_lie(tmp_path: Path) -> None:
    """
    What ours says, QEMU says too; what ours refuses does not matter.

    The tables that the header points to are sound, so that QEMU gets as far as the names.
    """
    path = str(tmp_path / "image")
    qemu_img.run("create", path, "-q", "-f", "qcow2", path, "1M")
    sound = Path(path).read_bytes()
    both = names = 0
    for seed in range(HOSTILE_CASES):
        data = hostile(random.Random(f"cross-check {seed}"), sound)
        Path(path).write_bytes(data)
        try:
            found = parse(data[:READ_SIZE], path)
        except BadHeader:
            continue
        try:
            said = qemu_says(path)
        except QemuImgFailed:
            continue
        both += 1
        names += found.backing_file is not None
        ours = (found.backing_file, found.backing_format, found.data_file)
        theirs = (
            said.get("backing-filename"),
            said.get("backing-filename-format"),
            said["format-specific"]["data"].get("data-file"),
        )
        for mine, its in zip(ours, theirs, strict=True):
            assert shown(mine or "") == (its or ""), f"seed {seed}: {ours} {theirs}"
        assert found.bitmaps == 0 or said["format-specific"]["data"].get("bitmaps") is not None
    print(f"{HOSTILE_CASES} headers: {both} that both read, {names} of them with a name")
    # A comparison that never takes place proves nothing.
    assert both >= HOSTILE_CASES // 10
    assert names >= HOSTILE_CASES // 50


def hostile(rng: random.Random, sound: bytes) -> bytes:
    """An image with the tables of a sound one, and a header that lies about names."""
    data = bytearray(headers.sound(rng))
    head = 72 if data[7] == 2 else 104
    # cluster bits, size, and all that leads to tables: as in the image around it
    data[20:32] = sound[20:32]
    data[36:72] = sound[36:72]
    if head == 104:
        data[96:100] = sound[96:100]
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        match rng.randrange(4):
            case 0:
                at = rng.randrange(head, len(data))
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                offset, length = rng.choice(((8, 8), (16, 4), (100, 4) if head == 104 else (16, 4)))
                value = rng.choice((*headers.EDGES, *range(head, head + 200, 8))) % 2 ** (
                    8 * length
                )
                data[offset : offset + length] = value.to_bytes(length)
            case 2:
                at = rng.randrange(head, len(data))
                data[at:at] = data[at : at + rng.choice((8, 16))]
            case _:
                kind = rng.choice((headers.BACKING_FORMAT, headers.DATA_FILE))
                at = data.find(kind.to_bytes(4))
                if at >= 0 and at + 8 <= len(data):
                    length = rng.choice((*range(20), 255, 1024, 8000, 2**32 - 1))
                    data[at + 4 : at + 8] = length.to_bytes(4)
    return bytes(data) + sound[len(data) :]


def shown(name: str) -> str:
    """A name as QEMU writes it into JSON, where what is no UTF-8 has no place."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
