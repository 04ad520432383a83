"""
`-o html`: an audit as one page for a colleague, with every chain drawn. Pure.

The page stands alone: no script, no font, no picture and no style from elsewhere, and a policy that
forbids them. It is well-formed XML as well. Names come from guests and headers, so everything that
is not written here goes through `_text`.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from qmpsnap.cli.findings import Audited, NotAudited
from qmpsnap.cli.text import printable
from qmpsnap.cli.views import size, witnesses
from qmpsnap.findings.finding import Finding, Severity
from qmpsnap.formats.layers import Disk, Layer
from qmpsnap.formats.verdict import Verdict

QUIET: Final = 4
"""So many layers in a row that have nothing to tell are drawn as one box."""

INK: Final = "#1c1c1c"
COLORS: Final = {
    "page": ("#ffffff", INK),
    "certain": ("#e8f5e9", INK),
    "believed": ("#fff8e1", INK),
    "conflict": ("#ffebee", "#8e1b1b"),
    "unknown": ("#eeeeee", "#8e1b1b"),
    "quiet": ("#f5f5f5", "#454545"),
    "error": ("#ffebee", "#8e1b1b"),
    "warning": ("#fff8e1", "#6b4a00"),
    "note": ("#f5f5f5", "#454545"),
}
"""Background and text, by class."""
_LOOKS: Final = {
    Verdict.EXACT: "certain",
    Verdict.AGREED: "certain",
    Verdict.STATED: "believed",
    Verdict.INFERRED: "believed",
    Verdict.CONFLICT: "conflict",
    Verdict.UNKNOWN: "unknown",
}
_LEGEND: Final = {
    "certain": "QEMU states the format, and nobody contradicts",
    "believed": "stated by libvirt or a header alone",
    "conflict": "two witnesses contradict each other",
    "unknown": "nobody states a format",
    "quiet": "several layers with nothing to tell",
}
_STYLE: Final = """
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1rem;font:1rem/1.45 system-ui,sans-serif}
code,.name{font-family:ui-monospace,monospace;overflow-wrap:anywhere}
h2{margin:2rem 0 .5rem;border-bottom:1px solid #9e9e9e}
h3{margin:1.5rem 0 .25rem;overflow-wrap:anywhere}
ul,ol{list-style:none;margin:0;padding:0}
.finding{margin:.5rem 0;padding:.5rem .75rem;border-left:.35rem solid;overflow-wrap:anywhere}
.finding p{margin:.25rem 0}
.disks{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(17rem,100%),1fr));gap:1rem;
align-items:start}
.disk{min-width:0;padding:.5rem;border:1px solid #9e9e9e;border-radius:.4rem}
.disk h4{margin:0 0 .5rem;overflow-wrap:anywhere}
.layer{padding:.4rem .6rem;border:1px solid;border-radius:.25rem;overflow-wrap:anywhere}
.layer+.layer{margin-top:1.4rem;position:relative}
.layer+.layer::before{content:"\\2193";position:absolute;top:-1.5rem;left:1rem;color:#454545}
.layer small{display:block}
.legend{display:flex;flex-wrap:wrap;gap:.5rem}
.legend li{padding:.1rem .5rem;border:1px solid;border-radius:.25rem}
@media print{body{max-width:none;padding:0;font-size:9pt}.finding,.layer{break-inside:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


def page(
    audited: Sequence[Audited],
    found: Sequence[Finding],
    not_audited: Sequence[NotAudited],
    *,
    when: str,
    version: str,
) -> str:
    """
    Lay an audit out.

    Args:
        audited: Guests that were to be read.
        found: Findings, the worst first.
        not_audited: Guests that were left out.
        when: The moment of the audit, for people.
        version: Of this program.
    """
    colors = "".join(f".{name}{{background:{b};color:{c}}}" for name, (b, c) in COLORS.items())
    body = [
        f"<h1>Disks of {_many(len(audited), 'guest')}</h1>",
        f"<p>{_summary(audited, found)} Read on {_text(when)} by qmpsnap {_text(version)}.</p>",
        "<h2>Findings</h2>",
        *(_findings(found) if found else ["<p>None.</p>"]),
        "<h2>Guests</h2>",
        '<ul class="legend">',
        *(f'<li class="{name}">{_text(words)}</li>' for name, words in _LEGEND.items()),
        "</ul>",
        *(line for one in audited for line in _guest(one)),
    ]
    if not_audited:
        body += ["<h2>Not audited</h2>", "<ul>"]
        body += [f"<li>{_name(one.guest)}: {_text(one.reason)}</li>" for one in not_audited]
        body.append("</ul>")
    head = (
        '<meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\"/>"
        f"<title>qmpsnap audit, {_text(when)}</title><style>{_STYLE}{colors}</style>"
    )
    lines = ['<html lang="en" xmlns="http://www.w3.org/1999/xhtml">', f"<head>{head}</head>"]
    return "\n".join(
        ["<!DOCTYPE html>", *lines, '<body class="page">', *body, "</body>", "</html>", ""]
    )


def _summary(audited: Sequence[Audited], found: Sequence[Finding]) -> str:
    disks = sum(len(one.seen.report.disks) for one in audited if one.seen)
    numbers = [(sum(one.severity is kind for one in found), kind.value) for kind in Severity]
    counted = ", ".join(_many(number, word) for number, word in numbers if number)
    return f"{_many(disks, 'disk')}: {counted or 'no findings'}."


def _many(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _findings(found: Iterable[Finding]) -> Iterator[str]:
    for one in found:
        where = " ".join(_text(name) for name in (one.guest, one.disk) if name)
        yield f'<div class="finding {one.severity.value}">'
        yield f"<p><strong>{one.severity.value}</strong> {_text(one.id)} {where}</p>"
        if one.file:
            yield f"<p>{_name(one.file)}</p>"
        yield f"<p>{_text(one.message)}</p><p>{_text(one.remedy)}</p></div>"


def _guest(one: Audited) -> Iterator[str]:
    yield f"<h3>{_text(one.guest or 'a guest without a name')}</h3><p>{_name(one.source)}</p>"
    if one.seen is None:
        yield "<p>It could not be read; the findings say why.</p>"
        return
    yield from (f"<p>{_text(note)}</p>" for note in one.seen.report.notes)
    yield '<div class="disks">'
    for disk in one.seen.report.disks:
        yield from _disk(disk)
    yield "</div>"


def _disk(disk: Disk) -> Iterator[str]:
    serial = f", serial {_text(disk.serial)}" if disk.serial else ""
    kind = "" if disk.kind == "disk" else f", {_text(disk.kind)}"
    yield f'<div class="disk"><h4>{_text(disk.disk)}{kind}{serial}</h4>'
    if disk.xml_differs:
        yield f'<p class="conflict">{_text(disk.xml_differs)}</p>'
    yield "<ol>" if disk.layers else "<p>empty</p>"
    for group in _grouped(disk):
        yield from _quiet(group) if len(group) > 1 else _layer(group[0])
    yield "</ol>" if disk.layers else ""
    if disk.beyond_chain:
        names = ", ".join(_name(file.name) for file in disk.beyond_chain)
        yield f"<p>also open: {names}</p>"
    yield "</div>"


def _grouped(disk: Disk) -> Iterator[tuple[Layer, ...]]:
    """Layers one by one, those in the middle together that have nothing to tell."""
    quiet: list[Layer] = []
    last = len(disk.layers) - 1
    for position, layer in enumerate(disk.layers):
        certain = _LOOKS[layer.verdict] == "certain" and not layer.flags
        if 0 < position < last and certain and (not quiet or quiet[0].format == layer.format):
            quiet.append(layer)
            continue
        yield from _ended(quiet)
        quiet = []
        yield (layer,)
    yield from _ended(quiet)


def _ended(quiet: Sequence[Layer]) -> Iterator[tuple[Layer, ...]]:
    if len(quiet) >= QUIET:
        yield tuple(quiet)
    else:
        yield from ((layer,) for layer in quiet)


def _layer(layer: Layer) -> Iterator[str]:
    yield f'<li class="layer {_LOOKS[layer.verdict]}">{_name(layer.file or layer.protocol)}'
    format_ = layer.format or "format unknown"
    about = f"{format_}, {layer.verdict.value}, {size(layer.virtual_size)}"
    yield f"<small>{_text(about)}</small><small>{_text(witnesses(layer))}</small>"
    if layer.flags:
        yield f"<small>{_text(', '.join(layer.flags))}</small>"
    yield "</li>"


def _quiet(layers: Sequence[Layer]) -> Iterator[str]:
    names = ", ".join(_name(layer.file) for layer in layers)
    yield f'<li class="layer quiet">{len(layers)} layers, {_text(layers[0].format)}'
    yield f"<small>{names}</small></li>"


def _name(name: object) -> str:
    return f"<code>{_text(name)}</code>"


def _text(text: object) -> str:
    """Whatever it is, it is shown and does nothing; XML has no way to write a control character."""
    return html.escape(printable(text))
