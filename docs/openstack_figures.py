"""docs/reference/benchmarks-openstack.md, from what `python -m tests.bench openstack` has measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).resolve().parents[1] / "fixtures" / "benchmarks-openstack.json"
_PAIRINGS: Final = ("stock", "our-nova", "ours")

_TEXT: Final = """\
# Snapshots of attached volumes, beside stock

<!-- Written by docs/generate.py from fixtures/benchmarks-openstack.json, which
`python -m tests.bench openstack --write` writes. -->

What a snapshot of an attached volume of 1 GiB takes from the request to Cinder until it is there, or gone. *Stock* is Nova's own libvirt driver with an unmodified Cinder; *our Nova* is `qmpsnap.LibvirtDriver` with an unmodified Cinder; *ours* has the drivers and the extension of qmpsnap in Cinder as well. All three are up at once and take turns. There is no keystone, no message bus and no network between them, and the share is a local folder. Medians of {rounds} rounds, in seconds; a ratio above 1 means that stock takes longer.

{setting}

What counts is how the three compare, on a machine that has nothing else to do: on one that has, each waits for a processor at every step, and the one with more steps waits longer. The load says which it was.

## End to end

A stock Cinder looks once a second whether Nova has finished, and then less often: what Nova saves is not seen here. Ours is woken.

{wall}

## The work of nova-compute

From the call in nova-compute until Cinder has accepted its update. Stock looks every half a second whether a job has ended, and takes a job that is gone for one that has succeeded. Ours waits for libvirt's events, reads the guest before and after, writes down what it is going to do, and flushes. The goals: 16 MiB committed or pulled five times faster than stock, 256 MiB never slower, and a create at most 1.5 times as long.

*Pull of the volume* is the deletion of the last snapshot. QEMU then copies the whole raw volume, holes as well, and nothing but the job itself counts.

{told}

## Processor time, and Cinder's own programs

Of one operation. *nova-compute* and *Cinder* are seconds on a processor, with the programs that they start (means); *programs* is how long Cinder's own (`qemu-img`, `rm`, `chmod`, by rootwrap) took by the clock, as its log has it, and their share of the time end to end. Where many are under way at once, or other programs run beside the wait, the share may be above 100 %.

{costs}
"""

Row = Mapping[str, Any]


def render(results: Mapping[str, Any]) -> str:
    """The whole page, in Markdown."""
    rows: dict[tuple[str, int], dict[str, Row]] = {}
    for row in results["rows"]:
        rows.setdefault((row["what"], row["mib"]), {})[row["pairing"]] = row
    return _TEXT.format(
        rounds=results["rounds"],
        setting="\n".join(f"- {line}" for line in results["setting"]),
        wall="\n".join(_times(rows, "wall_s")),
        told="\n".join(_times(rows, "told_s")),
        costs="\n".join(_costs(rows)),
    )


def page() -> str:
    """The page of what was measured last."""
    return render(json.loads(RESULTS.read_text(encoding="utf-8")))


def _times(rows: Mapping[tuple[str, int], Mapping[str, Row]], key: str) -> Iterator[str]:
    yield from _head("", "MiB", "stock", "our Nova", "ours", "stock / our Nova", "stock / ours")
    for (what, mib), by in rows.items():
        stock, *others = (by[name][key] for name in _PAIRINGS)
        ratios = [f"{stock / one:.1f}" for one in others]
        seconds = [f"{one:.3f}" for one in (stock, *others)]
        yield _row(what, str(mib or ""), *seconds, *ratios)


def _costs(rows: Mapping[tuple[str, int], Mapping[str, Row]]) -> Iterator[str]:
    yield from _head("", "MiB", "", "nova-compute", "Cinder", "programs", "share")
    for (what, mib), by in rows.items():
        for name in _PAIRINGS:
            one = by[name]
            seconds = [f"{one[key]:.3f}" for key in ("compute_s", "cinder_s", "programs_s")]
            share = f"{100 * one['programs_s'] / one['wall_s']:.0f} %"
            yield _row(what, str(mib or ""), name.replace("-n", " N"), *seconds, share)


def _head(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield "|" + "---:|" * len(names)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
