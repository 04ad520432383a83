"""One volume, its guest, and the operations on it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import libvirt

from tests.openstack.rig.guest import Guest
from tests.openstack.rig.rig import ApiError, Rig
from tests.openstack.story.content import BLOCK, Content
from tests.openstack.story.model import Model
from tests.rig.waiting import HANG_S

GIB: Final = 1 << 30
MIB: Final = 1 << 20
DEEPEST: Final = 6
"""Layers; beyond it, snapshots are only deleted."""
BEFORE_S: Final = 0.2
"""Between two looks."""


class Volume:
    """A volume of one GiB to begin with, attached to a guest that runs."""

    def __init__(self, rig: Rig, chance: random.Random, folder: Path) -> None:
        self.rig, self._chance = rig, chance
        self.id = rig.create_volume()
        self.gib = 1
        self.model = Model(self.id)
        self.content = Content(folder / f"{self.id}.raw", GIB)
        self.guest: Guest | None = None
        self.is_on = False
        """Whether it is to run: an operator starts it again when it does not."""
        self.reset: set[str] = set()
        self.left_open: set[str] = set()
        """
        Snapshots whose overlays QEMU may still have open, outside the chain: libvirtd was killed after
        its `blockdev-add`, and the next one knows nothing of that node.
        """
        """Snapshots whose status somebody has set by hand since."""
        self._asked: tuple[str, str | None] | None = None
        """What was asked for, and of which snapshot."""
        self.attach()

    # --- What an operator does, and what is done before the next thing begins

    def attach(self) -> None:
        """Attach it to a new guest, and start that."""
        self.guest = Guest(self.rig, self.id)
        self.power_on()

    def power_on(self) -> None:
        """
        Start the guest as Nova would, until it runs.

        Nova refuses as long as nobody knows which file is the right one.
        """
        assert self.guest is not None
        self.is_on = True
        said, end = "", time.monotonic() + HANG_S
        while time.monotonic() < end:
            try:
                if self.guest.domain is not None and self.guest.domain.isActive():
                    return
                self.guest.start()
            except (AssertionError, libvirt.libvirtError, OSError, ApiError) as error:
                said = f"{type(error).__name__}: {error}"
                time.sleep(BEFORE_S)
        raise TimeoutError(f"the guest of {self.id} does not start: {said}")

    def power_off(self) -> None:
        """Switch it off, without asking the guest."""
        assert self.guest is not None
        self.is_on = False
        with suppress(libvirt.libvirtError):
            self.guest.stop()

    def detach(self) -> None:
        """Switch it off, and detach the volume."""
        assert self.guest is not None
        self.is_on = False
        self.guest.detach()
        self.rig.nova("POST", "unregister", {"volume": self.id})
        self.guest = None

    def back_up(self) -> None:
        """Connect again after a death of libvirtd, and start the guest where it does not run."""
        if self.guest is not None:
            self.guest.connect()
            if self.is_on:
                self.power_on()

    # --- What is asked of Cinder

    def choose(self) -> str:
        """What is to happen to it next; returns its name. It is begun by `begin`."""
        deep, taken = len(self.model.layers), len(self.model.files) + len(self.model.failed)
        if self.guest is None:
            weights = {"create": 3, "delete": 4 if taken else 0, "extend": 1, "attach": 4}
        else:
            weights = {"create": 7, "delete": 7 if taken else 0, "detach": 1}
            weights |= {"off": 1} if self.is_on else {"on": 4}
        if deep >= DEEPEST:
            weights["create"] = 0
        (found,) = self._chance.choices([*weights], [*weights.values()])
        return found

    def begin(self, what: str) -> str:
        """Ask for it. What Cinder does not answer, it may have heard; returns what it is in words."""
        self._asked = None
        local: dict[str, Callable[[], None]] = {
            "attach": self.attach,
            "detach": self.detach,
            "off": self.power_off,
            "on": self.power_on,
        }
        if what in local:
            local[what]()
            return what
        if what == "extend":
            self._ask(
                "POST", f"/volumes/{self.id}/action", {"os-extend": {"new_size": self.gib + 1}}
            )
            self._asked = (what, None)
            return what
        if what == "create":
            self._asked = (what, None)
            body = {"snapshot": {"volume_id": self.id, "force": True}}
            self._ask("POST", "/snapshots", body)
            return what
        failed = sorted(self.model.failed)
        snapshot = failed[0] if failed else self._chance.choice([*self.model.files])
        place = "failed" if failed else self.model.layers.index(self.model.files[snapshot])
        self._asked = (what, snapshot)
        self._ask("DELETE", f"/snapshots/{snapshot}")
        return f"delete {snapshot[:8]} ({place} of {len(self.model.layers)})"

    def _ask(self, method: str, path: str, body: object = None) -> None:
        # OSError: the API has just died.
        with suppress(OSError):
            self.rig.volumes(method, path, body, "3.50")

    def take_in(self, rows: dict[str, str]) -> None:
        """Have the model follow what has become of what was asked."""
        what, snapshot = self._asked or (None, None)
        self._asked = None
        new = {*rows} - {*self.model.files} - self.model.failed
        if what == "create" and len(new) == 1:
            (made,) = new
            self.model.created(made, rows[made])
        if what == "delete" and snapshot is not None and snapshot not in rows:
            self.model.deleted(snapshot, attached=self.guest is not None)
        if what == "extend":
            ((self.gib,),) = self.rig.rows("select size from volumes where id = ?", self.id)
            self.content.grow(self.gib * GIB)

    def try_again(self, rows: dict[str, str]) -> None:
        """What an operator has to do before Cinder takes another request."""
        self.reset &= {*rows}
        for snapshot, status in rows.items():
            if status == "error_deleting":
                self.set_state(snapshot, "error")

    def reset_volume(self) -> None:
        """`cinder reset-state`."""
        body = {"os-reset_status": {"status": "available" if self.guest is None else "in-use"}}
        self.rig.volumes("POST", f"/volumes/{self.id}/action", body)

    def set_state(self, snapshot: str, status: str) -> None:
        """`cinder snapshot-reset-state`."""
        body = {"os-reset_status": {"status": status}}
        self.rig.volumes("POST", f"/snapshots/{snapshot}/action", body)
        self.reset.add(snapshot)

    # --- What the guest does

    def write(self) -> None:
        """Write a few mebibytes and flush them; nothing dies meanwhile."""
        if self.guest is None or not self.is_on:
            return
        pattern = self._chance.randrange(1, 256)
        length = self._chance.randrange(1, 9) * MIB
        offset = self._chance.randrange(0, 64) * MIB // 4
        self.guest.io(f"write -P {pattern} {offset} {length}")
        self.guest.io("flush")
        self.content.wrote(pattern, offset, length)

    def scribble(self) -> None:
        """Write a block while something may die, and flush it if nothing does."""
        if self.guest is None or not self.is_on:
            return
        pattern = self._chance.randrange(1, 256)
        offset = self._chance.randrange(0, 80 * MIB // BLOCK) * BLOCK
        self.content.may_have_written(pattern, offset)
        with suppress(AssertionError, libvirt.libvirtError):
            self.guest.io(f"write -P {pattern} {offset} {BLOCK}")
            self.guest.io("flush")
            self.content.is_certain(offset)
