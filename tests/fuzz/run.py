"""
Run many cases in a process of its own, with its memory and its time limited.

    python -m tests.fuzz.run KIND FIRST_SEED CASES

It prints one JSON object of figures. The first case that breaks a promise ends it: its seed, its
input and the traceback go to standard error, and the exit code is 1.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
import tempfile
import traceback
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from time import process_time
from types import FrameType
from typing import Final

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.from_graph import guest_from_graph
from qmpsnap.formats.from_xml import guest_from_xml
from qmpsnap.formats.layers import Disks
from qmpsnap.formats.qcow2 import READ_SIZE
from qmpsnap.formats.qcow2 import parse as parse_header
from qmpsnap.graph import xml
from qmpsnap.guests.reader import Reader
from qmpsnap.guests.replay import ReplayGuest
from qmpsnap.monitor.base import (
    DEFAULT_TIMEOUT_S,
    CommandTimedOut,
    ConnectionLost,
    LostInMidCommand,
    reading,
)
from qmpsnap.monitor.transcript import ReplayMonitor, Transcript, parse
from tests.fuzz import headers, oracle, replies, xmls
from tests.unit import recordings

MEMORY: Final = 256 * 1024 * 1024
"""Bytes of address space that the whole process may have."""
WORK: Final = 1_300_000
"""Calls of functions that reading one case may take; the costliest measured took a tenth."""
CASE_S: Final = 20
"""Seconds of processor time for one case, should it be stuck without a call."""


class TooMuchWork(AssertionError):
    """A case that does not end, or nearly so."""


class Vanishing(ReplayMonitor):
    """A guest that is gone after some queries."""

    def __init__(self, transcript: Transcript, after: int, error: QmpsnapError) -> None:
        """Fail with `error` once `after` queries were answered."""
        super().__init__(transcript)
        self._left = after
        self._error = error

    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> object:
        """See `Monitor.execute`."""
        self._left -= 1
        if self._left < 0:
            raise self._error
        return super().execute(command, arguments, timeout)


@contextmanager
def limited_work(most: list[int]) -> Iterator[None]:
    """Count calls, of functions in C too, and stop at `WORK`; `most[0]` is the record."""
    left = WORK

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            sys.setprofile(None)
            raise TooMuchWork(f"more than {WORK} calls")

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)
        most[0] = max(most[0], WORK - left)


@dataclass(slots=True)
class Figures:
    """What a run counts."""

    outcomes: Counter[str]
    most: list[int]


def check_transcript(text: str, rng: random.Random, figures: Figures) -> str:
    """
    Read a transcript as `--replay` does, and hold what comes out against what it says.

    Returns:
        All that was printed.
    """
    try:
        with limited_work(figures.most):
            transcript = parse(text, "case")
            if transcript.exchanges and rng.randrange(12) == 0:
                report = _read_vanishing(transcript, rng)
            else:
                report = ReplayGuest(transcript).read()
    except QmpsnapError as error:
        figures.outcomes[error.id] += 1
        return oracle.check_error(error)
    figures.outcomes["report"] += 1
    oracle.check_report(report, oracle.Said(text))
    return oracle.check_output(report, thorough=rng.randrange(20) == 0)


def _read_vanishing(transcript: Transcript, rng: random.Random) -> Disks:
    error = rng.choice(
        (
            ConnectionLost("a query", "gone\x1b[m"),
            LostInMidCommand("a query", "gone"),
            CommandTimedOut("a query", 30.0),
        )
    )
    with reading():
        reader = Reader(Vanishing(transcript, rng.randrange(7), error))
        graph = reader.read()
        known = reader.details(graph)
        return guest_from_graph(graph, guest=known.name, serials=known.serials)


def check_header(data: bytes, rng: random.Random, figures: Figures) -> str:
    """
    Read a header, and report a chain of which it is the upper layer.

    Returns:
        All that was printed.
    """
    try:
        with limited_work(figures.most):
            found = parse_header(data[:READ_SIZE], "/share/\x1b[2Jtop")
    except QmpsnapError as error:
        figures.outcomes[error.id] += 1
        return oracle.check_error(error)
    figures.outcomes["report"] += 1

    def raw(text: str) -> bytes:
        return text.encode("utf-8", "surrogateescape")

    offset, length = int.from_bytes(data[8:16]), int.from_bytes(data[16:20])
    written = data[offset : offset + length].split(b"\0")[0] if offset else b""
    assert raw(found.backing_file or "") == written
    assert found.virtual_size == int.from_bytes(data[24:32])
    for kind, text in (
        (headers.BACKING_FORMAT, found.backing_format),
        (headers.DATA_FILE, found.data_file),
    ):
        if text:
            at = data.find(raw(text))
            while at >= 0 and data[at - 8 : at - 4] != kind.to_bytes(4):
                at = data.find(raw(text), at + 1)
            assert at >= 0, f"no extension says {text!r}"

    by_path = {"/share/top": found}
    reports = [guest_from_graph(recordings.graph("qcow2-chain"), headers=by_path)]
    reports.append(guest_from_xml(xml.parse(xmls.OLD), headers=by_path))
    for report in reports:
        disk = next(disk for disk in report.disks if len(disk.layers) == 3)
        for layer in disk.layers:
            oracle.check_layer(layer)
        assert disk.layers[0].backing_name == found.backing_file
        said = [one.format for one in disk.layers[1].evidence if one.witness == "header"]
        assert len(said) == (found.backing_format is not None)
    return oracle.check_output(rng.choice(reports), thorough=rng.randrange(20) == 0)


class Cuts:
    """Recorded transcripts that end too early: first at the end of each line, then anywhere."""

    def __init__(self) -> None:
        """Of every recording; the edges as its QEMU told them."""
        self.texts: Final = [
            replies.transcript(replies.lines_of(name, "debug")) for name in recordings.NAMES
        ]
        self._ends: Final = list(accumulate(len(text) for text in self.texts))
        whole = "".join(self.texts)
        self.lines: Final = [at for at, character in enumerate(whole) if character == "\n"]

    def seeds(self, first: int, cases: int) -> Iterator[int]:
        """All ends of lines, and at least `cases` other places, evenly spread."""
        if cases == 1:
            return iter((first,))
        lines = len(self.lines)
        places = self._ends[-1]
        return chain(range(lines), range(lines, lines + places, places // cases or 1))

    def case(self, seed: int) -> str:
        """Cut at one place of all."""
        lines = len(self.lines)
        at = self.lines[seed] if seed < lines else seed - lines
        number = bisect_right(self._ends, at)
        text = self.texts[number]
        return text[: at - self._ends[number] + len(text)]


def run(kind: str, first: int, cases: int) -> Figures:
    """
    Run the cases of `first` and the seeds after it.

    Raises:
        SystemExit: A promise was broken; the case was printed.
    """
    figures = Figures(outcomes=Counter(), most=[0])
    with tempfile.NamedTemporaryFile("w", prefix="qmpsnap-fuzz-") as secret:
        secret.write(xmls.SECRET)
        secret.flush()
        make, check, seeds = _kind(kind, first, cases, secret.name)
        for seed in seeds:
            signal.setitimer(signal.ITIMER_PROF, CASE_S)
            made: str | bytes = ""
            try:
                made = make(seed)
                printed = check(made, random.Random(seed), figures)
                assert xmls.SECRET not in printed, "an external entity was read"
            except Exception:
                sys.setprofile(None)
                traceback.print_exc()
                print(f"input: {made[:20_000]!r}", file=sys.stderr)
                print(f"seed: {seed}", file=sys.stderr)
                sys.exit(1)
    return figures


def _kind(
    kind: str, first: int, cases: int, secret: str
) -> tuple[Callable[[int], str | bytes], Callable[..., str], Iterator[int]]:
    seeds = range(first, first + cases)
    match kind:
        case "replies":
            return replies.case, check_transcript, iter(seeds)
        case "xmls":
            return lambda seed: xmls.case(seed, secret), check_transcript, iter(seeds)
        case "headers":
            return headers.case, check_header, iter(seeds)
        case _:
            cuts = Cuts()
            return cuts.case, check_transcript, cuts.seeds(first, cases)


def _memory() -> dict[str, int]:
    """Most memory so far, resident and address space; `getrusage` would count the parent's too."""
    status = Path("/proc/self/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return {name: int(lines[name].split()[0]) // 1024 for name in ("VmHWM", "VmPeak")}


def _out_of_time(signal_number: int, frame: object) -> None:
    raise TooMuchWork(f"more than {CASE_S} s of processor time")


def main() -> None:
    """The command."""
    signal.signal(signal.SIGPROF, _out_of_time)
    kind, first, cases = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    run(kind, first, 1)
    before = _memory()
    figures = run(kind, first, cases)
    peak = _memory()
    print(
        json.dumps(
            {
                "cases": sum(figures.outcomes.values()),
                "outcomes": dict(figures.outcomes.most_common()),
                "most_calls": figures.most[0],
                "seconds": round(process_time(), 1),
                "start_mib": before["VmHWM"],
                "peak_mib": peak["VmHWM"],
                "address_space_mib": peak["VmPeak"],
            }
        )
    )


if __name__ == "__main__":
    main()
