"""What a command line tells that QMP does not."""

from __future__ import annotations

import json

import pytest

from qmpsnap.graph.started import freezing_filters

COR = {"driver": "copy-on-read", "node-name": "cor", "file": "top", "bottom": "mid"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), set()),
        (("-blockdev", json.dumps(COR)), {"cor"}),
        (("--blockdev", "driver=copy-on-read,node-name=cor,file=top,bottom=mid"), {"cor"}),
        (("-blockdev", json.dumps({**COR, "driver": "throttle"})), set()),
        (("-blockdev", "driver=copy-on-read,node-name=cor,file=top"), set()),
        (("-blockdev", json.dumps({"driver": "throttle", "node-name": "t", "file": COR})), {"cor"}),
        (("-name", json.dumps(COR)), set()),
        (("-blockdev", "{"), set()),
    ],
)
def test_filters_that_freeze_the_chain(words: tuple[str, ...], expected: set[str]) -> None:
    assert freezing_filters(("qemu-system-x86_64", *words)) == expected
