"""The page that says how long what is waited for: it has the numbers of the code."""

from __future__ import annotations

import re
from pathlib import Path

from qmpsnap.guests.files import qemu_img
from qmpsnap.guests.libvirt import guest as libvirt_guest
from qmpsnap.guests.libvirt import neighbours
from qmpsnap.guests.qmp import guest as qmp_guest
from qmpsnap.guests.reader import MAX_STALL_S
from qmpsnap.monitor import base, passthrough, socket
from qmpsnap.operations import fresh, headers, quiesce

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "architecture.md"
LIMITS = {
    "connecting to a QMP socket": [socket.CONNECT_TIMEOUT_S],
    "one command": [base.DEFAULT_TIMEOUT_S, passthrough.PATIENCE_S],
    "`qemu-img`": [qemu_img.TIMEOUT_S],
    "libvirt's XML after a change": [fresh.XML_LAG_S],
    "a header that is written again": [headers.MEND_S],
    "libvirt's list of its guests; what each of them names": [
        neighbours.LIST_TIMEOUT_S,
        neighbours.ASK_TIMEOUT_S,
    ],
    "the guest, for one reading (estimated)": [MAX_STALL_S],
    "the guest agent": [quiesce.LIMIT_S],
    "connecting again after a connection broke": [
        qmp_guest.RECONNECT_S,
        libvirt_guest.RECONNECT_S,
    ],
}


def test_each() -> None:
    rows = dict(re.findall(r"^\| (.+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE))
    said = {
        what: [float(one) for one in re.findall(r"([\d.]+) s\b", rows[what])] for what in LIMITS
    }
    assert said == LIMITS
