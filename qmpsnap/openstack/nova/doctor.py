"""
What `qmpsnap doctor --nova` looks at: whether the nova-compute of this host uses the driver, and can.

It reads nova.conf as nova-compute does, asks Cinder one harmless question, and starts nothing but a
helper of its own, which ends with it. It sees and may change what its own user may, so run it as
nova-compute's user.
"""

from __future__ import annotations

import os
import pwd
import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from qmpsnap.cli.doctor import Check, State
from qmpsnap.delivery.machine import EXTENSION
from qmpsnap.guests.files.helper import Helper, lend
from qmpsnap.guests.files.opened import Held, Hidden, held_by
from qmpsnap.journal.file import Journal
from qmpsnap.openstack.nova.confined import mount_bases_of

DRIVER: Final = "qmpsnap.LibvirtDriver"
_MODULE: Final = "nova.virt.qmpsnap"
_MADE_FOR: Final = "34."
_SQUASHED: Final = (
    "Where the server takes root for nobody, name who may: `[qmpsnap_privileged] user` and `group`."
)
_AS: Final = (
    "Run this as the user that nova-compute runs as: `sudo -u {user} qmpsnap doctor --nova`."
)


def looked_at(config_files: tuple[str, ...]) -> tuple[list[Check], Journal | None]:
    """
    Look at Nova.

    Args:
        config_files: Nova's configuration; empty: where nova-compute looks for it.

    Returns:
        What was found, and the driver's journal; None where it cannot be told or read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, about each other
        return _looked_at(config_files)


def _looked_at(config_files: tuple[str, ...]) -> tuple[list[Check], Journal | None]:
    try:
        import nova.conf
        from oslo_config import cfg
    except ImportError as error:
        remedy = "Run this with the Python that nova-compute runs with."
        return [_bad("Nova", f"it cannot be imported: {error}", remedy)], None
    conf = nova.conf.CONF
    found: list[Check] = []
    try:
        files = list(config_files) or None
        conf([], project="nova", prog="nova-compute", default_config_files=files)
        found += _checks(conf)
        journal, problem = _journal(conf)
    except cfg.Error as error:
        remedy = "Name its files: `--config-file /etc/nova/nova.conf`."
        return [*found, _bad("nova.conf", str(error), remedy)], None
    return [*found, *([problem] if problem else [])], journal


def _checks(conf: Any) -> Iterator[Check]:
    read = ", ".join(conf.config_file or ())
    number = version("nova")
    if number.startswith(_MADE_FOR):
        yield _good("Nova", f"{number}, {read or 'without a file of configuration'}")
    else:
        yield _bad(
            "Nova", number, f"The driver is made for Nova {_MADE_FOR}x, and tried with that."
        )
    yield _driver(conf)
    yield _backend(conf)
    yield from _identity()
    yield _user()
    helper, check = _helper()
    yield check
    with _lent(helper):
        yield _processes()
        yield from _shares(conf, helper)


def _driver(conf: Any) -> Check:
    name = "compute_driver"
    if conf.compute_driver != DRIVER:
        remedy = f"[DEFAULT] compute_driver = {DRIVER}, and restart nova-compute."
        return _bad(name, f"{conf.compute_driver}, which is not ours", remedy)
    if find_spec(_MODULE) is None:
        remedy = "Install qmpsnap into nova-compute's Python again: `qmpsnap-nova.pth` is missing."
        return _bad(name, f"{DRIVER}, and Nova cannot find it", remedy)
    return _good(name, DRIVER)


def _backend(conf: Any) -> Check:
    """`auto` is threads for nova-compute: nova/cmd/compute.py."""
    name = "concurrency_backend"
    if conf.concurrency_backend == "eventlet":
        return _bad(
            name, "eventlet: the driver does not start", "Leave it at `threading` or `auto`."
        )
    return _good(name, conf.concurrency_backend)


def _identity() -> Iterator[Check]:
    """Whether the service can ask Cinder by itself, and what that is."""
    from qmpsnap.openstack.nova.reports import NO_IDENTITY, NovasCinder, has_identity

    if not has_identity():
        yield _bad("[cinder] auth", NO_IDENTITY, "auth_type, auth_url, username … in [cinder].")
        return
    yield _good("[cinder] auth", "the service has an identity")
    answer = NovasCinder().knows_us()
    if answer.status == 200:
        yield _good("Cinder", f"it answers, and knows {EXTENSION}: it is told formats")
    elif answer.status == 404:
        found = f"it answers, and does not know {EXTENSION}: formats stay on this host"
        yield Check(name="Cinder", state=State.OK, found=found)
    else:
        said = answer.text or f"status {answer.status}"
        yield _bad("Cinder", f"it does not answer: {said}", "Updates wait until it does.")


def _user() -> Check:
    mine, process = os.geteuid(), _nova_compute()
    if process is None:
        return _note("user", f"{_name(mine)}; no nova-compute runs here", _AS.format(user="nova"))
    theirs = process.stat().st_uid
    if theirs != mine:
        found = (
            f"nova-compute (process {process.name}) runs as {_name(theirs)}, this as {_name(mine)}"
        )
        return _note("user", found, _AS.format(user=_name(theirs)))
    return _good("user", f"{_name(mine)}, as nova-compute (process {process.name})")


def _helper() -> tuple[Helper | None, Check]:
    """Start the helper as nova-compute does (nova/cmd/compute.py), where it is needed."""
    name = "helper"
    if os.geteuid() == 0:
        return None, _good(name, "root needs none")
    from nova import utils
    from oslo_privsep import priv_context

    from qmpsnap.openstack.nova.helper import WITHOUT, NovasHelper

    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    helper = NovasHelper()
    try:
        return helper, _good(name, f"it starts, and works below {', '.join(helper.folders())}")
    except PermissionError as error:
        remedy = "Let sudo start it: docs/howto/openstack-compute.md, `Without root`."
        return None, _note(name, f"{error.strerror}: {WITHOUT}", remedy)


@contextmanager
def _lent(helper: Helper | None) -> Iterator[None]:
    lend(helper)
    try:
        yield
    finally:
        lend(None)


def _processes() -> Check:
    """What QEMU has open is seen in its `/proc`: by root, by its own user, and by the helper."""
    name = "QEMU's files"
    for process in _by_command("qemu-"):
        seen = held_by(int(process.name), Hidden(why="", here=True))
        if isinstance(seen, Held):
            return _good(name, f"seen, of process {process.name} for one")
        if not process.exists():
            continue  # it has just ended
        return _note(
            name,
            f"{_name(os.geteuid())} may not see what it has open: `not-seen` ({seen.why})",
            "Nothing is mended or removed on its account. The helper of nova-compute sees it.",
        )
    return _note(name, "no QEMU runs to try it on")


def _shares(conf: Any, helper: Helper | None) -> Iterator[Check]:
    """Markers are written beside the images; and headers of overlays are corrected there."""
    for base in mount_bases_of(conf):
        try:
            shares = sorted(one for one in Path(base).iterdir() if one.is_dir())
        except OSError:
            continue  # not used here
        for share in shares:
            if os.access(share, os.W_OK | os.X_OK, effective_ids=True):
                yield _good("share", f"{share} can be written")
                continue
            if helper is not None:
                yield _by_helper(helper, share)
                continue
            yield _note(
                "share",
                f"{_name(os.geteuid())} may not write into {share}",
                "Markers have no place there: a journal that is lost with its disk is not made up for.",
            )


def _by_helper(helper: Helper, share: Path) -> Check:
    try:
        helper.markers(str(share))
    except OSError as error:
        return _note("share", f"not even the helper sees {share}: {error.strerror}", _SQUASHED)
    return _good("share", f"{share} can be written by the helper")


def _journal(conf: Any) -> tuple[Journal | None, Check | None]:
    from qmpsnap.openstack.nova import options

    section = options.register(conf)
    for one in options.OPTIONS:
        getattr(
            section, one.dest
        )  # oslo.config says of a value what is wrong with it when it is read
    folder = section.state_folder
    try:
        owner = os.stat(folder).st_uid
    except FileNotFoundError:
        return Journal(folder), None
    except OSError as error:
        return None, _bad("state_folder", f"{folder}: {error.strerror}", _AS.format(user="nova"))
    if owner not in (0, os.geteuid()):
        found = f"{folder} belongs to {_name(owner)}, and this runs as {_name(os.geteuid())}"
        return None, _bad("state_folder", found, _AS.format(user=_name(owner)))
    return Journal(folder), None


def _nova_compute() -> Path | None:
    return next(_by_command("nova-compute"), None)


def _by_command(begins: str) -> Iterator[Path]:
    """Processes by the name of their program, or of the script that Python runs."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")[:2]
        except OSError:
            continue
        if any(os.path.basename(one).startswith(begins.encode()) for one in words):
            yield process


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _good(name: str, found: str) -> Check:
    return Check(name=name, state=State.OK, found=found)


def _note(name: str, found: str, remedy: str = "") -> Check:
    return Check(name=name, state=State.NOTE, found=found, remedy=remedy)


def _bad(name: str, found: str, remedy: str) -> Check:
    return Check(name=name, state=State.PROBLEM, found=found, remedy=remedy)
