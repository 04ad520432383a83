"""The page of layouts: what is reported of each, by version, from the reports in `fixtures/`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.layouts import built, drives, filters, formats, jobs, protocols, shapes
from tests.layouts.layout import Layout
from tests.rig import fixtures

_KINDS: dict[str, Sequence[Layout]] = {
    "Formats": formats.LAYOUTS,
    "Protocols": protocols.LAYOUTS,
    "Filters, and nodes with several children": filters.LAYOUTS,
    "Drives and devices": drives.LAYOUTS,
    "Shapes": shapes.LAYOUTS,
    "Block jobs": jobs.LAYOUTS,
}


def page(notice: str) -> str:
    """Render the page."""
    versions = _folders("qemu-")
    lines = [
        "# Layouts",
        "",
        notice,
        "",
        "What `qmpsnap chain` reports, on each QEMU that was recorded. Formats are listed from the "
        "active layer down; `none` is an empty drive, `?` a layer that has no single true format, "
        "for which the verdict is `unknown`. `✓`: this QEMU's report is as in the column "
        "*reported*; `-`: this QEMU cannot have this layout, or it was not recorded.",
        "",
        "Every row is a test: the report, of a running QEMU and of the recordings, is compared with "
        "a truth that was written by hand. How to make the recordings again: "
        "[fixtures](../../fixtures/README.md).",
    ]
    for title, layouts in _KINDS.items():
        lines += ["", f"## {title}", "", *_table(layouts, versions)]
    lines += _wrong()
    lines += ["", "## Protocols of other machines", "", *_remote()]
    for folder in _folders("libvirt-"):
        lines += ["", f"## {_title(folder)}", "", *_by_libvirt(folder)]
    return "\n".join(lines) + "\n"


def _folders(prefix: str) -> list[Path]:
    found = [path for path in fixtures.FOLDER.glob(f"{prefix}*") if path.is_dir()]
    return sorted(found, key=lambda path: [int(part) for part in _version(path).split(".")])


def _version(folder: Path) -> str:
    return folder.name.partition("-")[2]


def _title(folder: Path) -> str:
    return f"Under libvirt {_version(folder)}"


def _table(layouts: Iterable[Layout], versions: Sequence[Path]) -> Iterator[str]:
    yield f"| layout | what it is | reported | {' | '.join(map(_version, versions))} |"
    yield "|---" * (3 + len(versions)) + "|"
    for layout in layouts:
        said = [_said(folder / f"{layout.name}.jsonl") for folder in versions]
        common = next((one for one in reversed(said) if one is not None), None)
        cells = [f"`{layout.name}`", layout.about, common or _truth(layout)]
        cells += [_mark(one, common, layout) for one in said]
        yield f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _mark(said: str | None, common: str | None, layout: Layout) -> str:
    if said is None:
        return "-" if layout.is_recorded else "not kept"
    return "✓" if said == common else said


def _truth(layout: Layout) -> str:
    return _disks({disk: [one[1] for one in layers] for disk, layers in layout.truth.items()})


def _said(transcript: Path) -> str | None:
    if not transcript.exists():
        return None
    document: dict[str, Any] = json.loads(fixtures.expected(transcript).read_text())
    return _disks(
        {disk["disk"]: [layer["format"] for layer in disk["layers"]] for disk in document["disks"]}
    )


def _disks(formats_of: dict[str, list[str | None]]) -> str:
    chains = {disk: _chain(layers) for disk, layers in sorted(formats_of.items())}
    if len(chains) == 1:
        return next(iter(chains.values()))
    return "; ".join(f"{disk}: {chain}" for disk, chain in chains.items()) or "no disks"


def _chain(layers: list[str | None]) -> str:
    words: list[str] = []
    for name, run in groupby(name or "?" for name in layers):
        count = len(list(run))
        words += [name] * count if count < 4 else [f"{count} times {name}"]
    return " ← ".join(words) or "none"


def _wrong() -> list[str]:
    wrong = [layout for kind in _KINDS.values() for layout in kind if layout.wrong]
    if not wrong:
        return []
    lines = ["", "## Reported wrongly", "", "Known, and marked as such in the tests:", ""]
    return lines + [f"- `{layout.name}`: {_cell(layout.wrong or '')}" for layout in wrong]


def _remote() -> Iterator[str]:
    yield (
        "Built by hand from QEMU's source code, for protocols that no test can reach; none of these "
        "replies is from a real QEMU."
    )
    yield ""
    yield "| recording | reported |"
    yield "|---|---|"
    for one in built.BUILT:
        yield f"| `{one.name}` | {_said(built.FOLDER / f'{one.name}.jsonl')} |"


def _by_libvirt(folder: Path) -> Iterator[str]:
    yield "| recording | reported |"
    yield "|---|---|"
    for transcript in sorted(folder.glob("*.jsonl")):
        yield f"| `{transcript.stem}` | {_said(transcript)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
