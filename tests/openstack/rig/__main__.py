"""
A rig by hand, until Ctrl-C: `python -m tests.openstack.rig [PAIRING] [SETTING …]`.

PAIRING is the name of one in pairings.py; a SETTING is `nova:SECTION.KEY=VALUE` or `cinder:…`.
Its folder is printed; `rig_at(Path(FOLDER))` is the rig for a Python beside it.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

from tests.openstack.rig import pairings
from tests.openstack.rig.rig import down, up


def main(name: str = "stock", *settings: str) -> None:
    """See above."""
    known = [one for one in vars(pairings).values() if isinstance(one, pairings.Pairing)]
    pairing = next(one for one in known if one.name == name)
    pairing = replace(
        pairing,
        nova=(*pairing.nova, *_of("nova:", settings)),
        cinder=(*pairing.cinder, *_of("cinder:", settings)),
    )
    folder = Path(mkdtemp(prefix="qmpsnap-rig-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        up(folder, pairing)
        print(folder, flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()
    finally:
        down(folder)


def _of(side: str, settings: tuple[str, ...]) -> list[str]:
    return [one.removeprefix(side) for one in settings if one.startswith(side)]


if __name__ == "__main__":
    main(*sys.argv[1:])
