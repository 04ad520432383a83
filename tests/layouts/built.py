"""
Guests over what cannot be had in a test: the answers of a QEMU, put together by hand.

Each is made of a recording of a real one that has the same shape over NBD; only the protocol
node's driver and the names are others. How QEMU names such nodes: block/ssh.c, nfs.c, nvme.c and
curl.c write a URL (`*_refresh_filename()`); gluster.c, iscsi.c and rbd.c do not, and block.c then
writes the options that tell data apart (`*_strong_*opts`) as `json:`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from tests.layouts.layout import Json, Truth
from tests.rig import fixtures

MADE_OF: Final = fixtures.FOLDER / "qemu-7.2"
FOLDER: Final = fixtures.FOLDER / "built"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A protocol, and how QEMU writes the name of a file there."""

    driver: str
    url: str
    """As it stands in a header."""
    options: Json | None = None
    """Where QEMU writes `json:` and these."""


_REMOTES: Final = (
    Remote(driver="ssh", url="ssh://nova@store:22/volumes/volume-1"),
    Remote(driver="nfs", url="nfs://store/volumes/volume-1?uid=107&gid=107"),
    Remote(driver="nvme", url="nvme://0000:01:00.0/1"),
    Remote(driver="ftp", url="ftp://store/volumes/volume-1"),
    Remote(
        driver="rbd",
        url="rbd:volumes/volume-1",
        options={"pool": "volumes", "image": "volume-1", "driver": "rbd"},
    ),
    Remote(
        driver="gluster",
        url="gluster://store:24007/volumes/volume-1",
        options={
            "server.0.host": "store",
            "driver": "gluster",
            "path": "volume-1",
            "server.0.type": "inet",
            "server.0.port": "24007",
            "volume": "volumes",
        },
    ),
    Remote(
        driver="iscsi",
        url="iscsi://store:3260/iqn.2010-10.org.openstack:volume-1/1",
        options={
            "transport": "tcp",
            "portal": "store:3260",
            "target": "iqn.2010-10.org.openstack:volume-1",
            "lun": 1,
            "driver": "iscsi",
        },
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A recording to build, and the truth about it."""

    remote: Remote
    shape: str
    """The layout whose recording it is made of."""
    truth: Truth

    @property
    def name(self) -> str:
        """Of the file: `nbd-raw` over ssh is `ssh-raw`."""
        return f"{self.remote.driver}{self.shape.removeprefix('nbd')}"


def _shapes(remote: Remote) -> tuple[Built, ...]:
    there = f"{remote.driver}:"
    return (
        Built(remote=remote, shape="nbd-raw", truth={"vda": ((there, "raw"),)}),
        Built(remote=remote, shape="nbd-qcow2", truth={"vda": ((there, "qcow2"),)}),
        Built(remote=remote, shape="nbd-without-node", truth={"vda": ((there, "raw"),)}),
        Built(
            remote=remote,
            shape="nbd-below",
            truth={"vda": (("top", "qcow2"), (there, "raw"))},
        ),
    )


BUILT: Final = tuple(built for remote in _REMOTES for built in _shapes(remote))


def build(built: Built) -> str:
    """Return the transcript."""
    source = (MADE_OF / f"{built.shape}.jsonl").read_text()
    first, *lines = (json.loads(line) for line in source.splitlines())
    first["qemu"] = None  # no QEMU ever said this
    made = [first, *(_over(line, built.remote) for line in lines)]
    return "".join(json.dumps(line) + "\n" for line in made)


def _over(value: Any, remote: Remote) -> Any:
    """Walk through a reply. A dictionary with `drv` or `format` tells whose name is in it."""
    if isinstance(value, list):
        return [_over(one, remote) for one in value]
    if not isinstance(value, dict):
        return remote.driver if value == "nbd" else value
    driver = value.get("drv", value.get("format"))
    return {
        key: _name(key, one, driver, remote)
        if isinstance(one, str) and one.startswith("nbd+unix:")
        else _over(one, remote)
        for key, one in value.items()
    }


def _name(key: str, name: str, driver: object, remote: Remote) -> str:
    in_header = key in {"backing-filename", "full-backing-filename"}
    if remote.options is None or in_header:
        return remote.url
    # What is below the qcow2 in `nbd-below` is a raw node.
    above = "raw" if key == "backing_file" else driver
    described = (
        remote.options if above == "nbd" else {"driver": above, "file": dict(remote.options)}
    )
    return "json:" + json.dumps(described)
