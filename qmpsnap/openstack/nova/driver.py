"""
Nova's libvirt driver, with volume snapshots of our own.

    volume_snapshot_create ─► _volume_snapshot_create ─► the engine ─► a letter
    volume_snapshot_delete ─► _volume_snapshot_delete ─┘                  │
          └── whatever came of it ─► _volume_snapshot_update_status ◄─────┘ sent, and again

The names and arguments are Nova's, which its own tests hold us to; everything else of the driver is
inherited. Unlike Nova's: nothing is probed, a job that failed is no success, a guest that is gone is
told of at once, a failure is told with progress `0%`, what Cinder did not hear is sent again, and
every wait has an end.

Source: nova/virt/libvirt/driver.py, nova 34.0.0.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Final

from nova import context as nova_context
from nova import exception, objects, utils
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging

from qmpsnap import service
from qmpsnap.delivery.outbox import Outbox
from qmpsnap.errors import QmpsnapError
from qmpsnap.graph.xml import MalformedXml
from qmpsnap.guests.files.helper import lend
from qmpsnap.journal.file import Journal
from qmpsnap.journal.letter import Letter
from qmpsnap.openstack.nova import kept_xml, options
from qmpsnap.openstack.nova.calls import Call, begun, current
from qmpsnap.openstack.nova.encrypted import EncryptedDisk, NotNamed, files_below
from qmpsnap.openstack.nova.engine import opened, quiesce_of
from qmpsnap.openstack.nova.helper import WITHOUT, NovasHelper
from qmpsnap.openstack.nova.keeper import Keeper
from qmpsnap.openstack.nova.missed import tell_started
from qmpsnap.openstack.nova.refreshed import await_conclusion, check_refreshed
from qmpsnap.openstack.nova.reports import NO_IDENTITY, NovasCinder, has_identity
from qmpsnap.openstack.nova.start import Active, NotKnown, active_file
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.quiesce import NEVER
from qmpsnap.operations.where import Where
from qmpsnap.service import Update
from qmpsnap.status import ACTION, Operation

LOG = logging.getLogger(__name__)
_NOT_ATTACHED: Final = (exception.InstanceNotFound, exception.VolumeBDMNotFound)


class NeedsThreads(exception.NovaException):  # type: ignore[misc]
    """Under eventlet every wait of the engine would stop the whole service."""

    msg_fmt = (
        "qmpsnap.LibvirtDriver runs on threads only, and this service runs on eventlet: leave "
        "[DEFAULT] concurrency_backend at `threading`, or use libvirt.LibvirtDriver."
    )


class LibvirtDriver(libvirt_driver.LibvirtDriver):  # type: ignore[misc]
    """What `compute_driver = qmpsnap.LibvirtDriver` loads."""

    def __init__(self, virtapi: Any, read_only: bool = False) -> None:
        """
        As Nova's.

        Raises:
            NeedsThreads: The service runs on eventlet.
        """
        if not utils.concurrency_mode_threading():
            raise NeedsThreads()
        super().__init__(virtapi, read_only)
        self._qmpsnap = options.register(libvirt_driver.CONF)
        self._journal = Journal(self._qmpsnap.state_folder, keeps_open=True)
        self._cinder = NovasCinder()
        self._outbox = Outbox(self._journal, self._cinder.services, after=self._follow)
        self._keeper = Keeper(self._journal, self._outbox, self._reopened, self._tell_started)

    def init_host(self, host: str) -> None:
        """As Nova's; and begin what goes on beside the calls, once the service listens."""
        super().init_host(host)
        self._lend_helper()
        if not has_identity():
            LOG.warning("%s.", NO_IDENTITY)
        _once_it_listens(self.virtapi, self._keeper.start)

    def _lend_helper(self) -> None:
        """Have done by the helper what this service may not do itself; say what is missing without."""
        if os.geteuid() == 0:
            return
        helper = NovasHelper()
        lend(helper)
        try:
            LOG.info("The helper works below %s.", ", ".join(helper.folders()))
        except PermissionError as error:
            LOG.warning("%s: %s.", error.strerror, WITHOUT)

    # --- Nova's two calls

    def volume_snapshot_create(
        self, context: Any, instance: Any, volume_id: str, create_info: Mapping[str, Any]
    ) -> None:
        """
        Take a snapshot of an attached volume; see Nova's.

        Raises:
            NovaException: There is none, or what came of it is not known; what is known, Cinder has
                been told, or will be.
        """
        snapshot = create_info.get("snapshot_id")
        if snapshot is None:
            raise exception.InternalError("snapshot_id required in create_info")
        with self._called(Operation.CREATE, context, volume_id, snapshot, create_info) as call:
            try:
                guest = self._found(instance)
                self._volume_snapshot_create(
                    context, instance, guest, volume_id, create_info.get("new_file", "")
                )
            except Exception:
                LOG.exception("A volume snapshot was not taken.", instance=instance)
                self._volume_snapshot_update_status(context, snapshot, "error")
                raise
            self._volume_snapshot_update_status(context, snapshot, "creating")
            if not call.has_letter:
                self._await_conclusion(context, snapshot)
                self._volume_refresh_connection_info(context, instance, volume_id)

    def _found(self, instance: Any) -> Any:
        """Nova's guest; None where it cannot be had, of which the engine tells."""
        try:
            return self._host.get_guest(instance)
        except exception.NovaException:
            return None

    def _volume_snapshot_create(
        self, context: Any, instance: Any, guest: Any, volume_id: str, new_file: str
    ) -> None:
        info = {"type": "qcow2", "new_file": new_file, "snapshot_id": new_file}
        call = current() or _call(Operation.CREATE, context, volume_id, new_file, info)
        try:
            quiesce = quiesce_of(self, instance, self._qmpsnap.freeze_timeout)
            opener = self._opener(instance)
        except Exception as error:  # told as any other failure
            quiesce, opener = NEVER, _refusing(error)
        call.update = service.volume_snapshot_create(
            opener,
            volume_id,
            call.info,
            quiesce=quiesce,
            dialect="legacy",
            journal=self._journal,
            addressee=call.addressee(instance),
        )
        self._conclude(call.update, instance)

    def volume_snapshot_delete(
        self,
        context: Any,
        instance: Any,
        volume_id: str,
        snapshot_id: str,
        delete_info: Mapping[str, Any],
    ) -> None:
        """
        Merge the files of a snapshot of an attached volume; see Nova's.

        Raises:
            NovaException: They are not merged, or what came of it is not known; what is known,
                Cinder has been told, or will be.
        """
        with self._called(Operation.DELETE, context, volume_id, snapshot_id, delete_info) as call:
            try:
                self._volume_snapshot_delete(
                    context, instance, volume_id, snapshot_id, delete_info=delete_info
                )
            except Exception:
                LOG.exception("A volume snapshot was not deleted.", instance=instance)
                self._volume_snapshot_update_status(context, snapshot_id, "error_deleting")
                raise
            self._volume_snapshot_update_status(context, snapshot_id, "deleting")
            if not call.has_letter:
                self._volume_refresh_connection_info(context, instance, volume_id)

    def _volume_snapshot_delete(
        self,
        context: Any,
        instance: Any,
        volume_id: str,
        snapshot_id: str,
        delete_info: Mapping[str, Any] | None = None,
    ) -> None:
        info = delete_info or {}
        call = current() or _call(Operation.DELETE, context, volume_id, snapshot_id, info)
        call.update = service.volume_snapshot_delete(
            self._opener(instance),
            volume_id,
            snapshot_id,
            call.info,
            options=options.merge_options(self._qmpsnap),
            dialect="legacy",
            journal=self._journal,
            addressee=call.addressee(instance),
        )
        self._conclude(call.update, instance)

    @contextmanager
    def _called(self, *what: Any) -> Iterator[Call]:
        call = _call(*what)
        with begun(call), self._cinder.lent(call.snapshot, call.context):
            yield call

    def _opener(self, instance: Any) -> Callable[[], AbstractContextManager[Guest]]:
        passthrough = self._qmpsnap.allow_passthrough
        return lambda: opened(self._host, instance.uuid, passthrough=passthrough)

    def _conclude(self, update: Update, instance: Any) -> None:
        """Say how it went, and raise what Nova expects of a failure."""
        if isinstance(update.error, exception.NovaException):
            raise update.error
        if update.error is not None:
            raise exception.InternalError(_told(update.error)) from update.error
        for note in update.result.notes if update.result is not None else ():
            LOG.info("%s", note, instance=instance)

    # --- What Cinder is told

    def _volume_snapshot_update_status(self, context: Any, snapshot_id: str, status: str) -> None:
        """
        Tell Cinder what the current call came to; `status` is what Nova's own code would say.

        As Nova's, it raises nothing. What Cinder does not take stays in the outbox.
        """
        call = current()
        if call is None or call.update is None:
            super()._volume_snapshot_update_status(context, snapshot_id, status)
            return
        try:
            if call.update.letter is not None:
                mine = call.update.letter
                tried = self._outbox.send(ids=[mine], at_once=True).tried
                if (mine, "closed") not in [(one.id, one.state) for one in tried]:
                    self._keeper.wake()  # for what is left open, or to be sent again
                return
        except QmpsnapError as error:
            LOG.error("%s", _told(error))
        self._send_unstored(context, snapshot_id, call.update)

    def _send_unstored(self, context: Any, snapshot_id: str, update: Update) -> None:
        """Send what the journal could not take; once, as Nova does."""
        try:
            client = libvirt_driver.cinder.cinderclient(context)
            body: Any = update.body[ACTION]
            client.volume_snapshots.update_snapshot_status(snapshot_id, body)
        except Exception:
            LOG.exception("Cinder was not told of the snapshot %s.", snapshot_id)

    def _follow(self, letter: Letter) -> None:
        """
        Refresh the volume's connection_info, once Cinder has accepted an update.

        Raises:
            NotConcluded: Cinder still works on the snapshot; its connection_info is the old one.
        """
        to = letter.due.addressee
        user = self._cinder.user_of(to.snapshot)
        context = user or self._cinder.service_context(to.project)
        if letter.due.kind == "create":
            self._await_conclusion(context, to.snapshot)
        try:
            instance = objects.Instance.get_by_uuid(
                nova_context.get_admin_context(), to.after["instance"]
            )
            with suppress(exception.VolumeAttachmentNotFound):  # or not to be seen: looked at below
                self._volume_refresh_connection_info(context, instance, to.volume)
            check_refreshed(self._journal, letter, instance, libvirt_driver.CONF.host)
        except _NOT_ATTACHED:
            LOG.info("The volume %s is not attached any more.", to.volume)

    def _await_conclusion(self, context: Any, snapshot: str) -> None:
        await_conclusion(self._volume_api, context, snapshot, self._qmpsnap.refresh_timeout)

    # --- After an interruption

    def _tell_started(self) -> bool:
        return tell_started(self._journal, self._cinder, libvirt_driver.CONF.host)

    @contextmanager
    def _reopened(self, where: Where) -> Iterator[Guest]:
        """Open the guest of an operation that broke off."""
        with opened(
            self._host, where.guest or "", passthrough=self._qmpsnap.allow_passthrough
        ) as guest:
            yield guest

    def _get_volume_config(self, connection_info: Any, disk_info: Any) -> Any:
        """
        As Nova's; the file is the one that the guest has left off with.

        Raises:
            InternalError: Nobody knows which one that is.
        """
        conf = super()._get_volume_config(connection_info, disk_info)
        if conf.source_type != "file" or not conf.serial:
            return conf
        found = self._left_off_with(conf.serial, conf.source_path)
        if found is not None:
            LOG.warning(
                "The volume %s is started from %s (%s): Cinder has not concluded its last snapshot, "
                "and connection_info still names %s.",
                *(conf.serial, found.path, found.format, conf.source_path),
            )
            conf.source_path, conf.driver_format = found.path, found.format
        return _with_chain(conf)

    def _left_off_with(self, volume: str, path: str) -> Active | None:
        """
        The file that a guest has left off with, by the journal; None: it is that one.

        Raises:
            InternalError: Nobody knows which one it is.
        """
        try:
            self._keeper.settle(volume)
            return active_file(self._journal, volume, path)
        except (QmpsnapError, NotKnown) as error:
            raise exception.InternalError(_told(error)) from error

    def unrescue(self, context: Any, instance: Any) -> None:
        """
        As Nova's; the guest gets the files that its disks have by now, not those before the rescue.

        Raises:
            InternalError: Nobody knows which ones these are; the server is still rescued.
        """
        path = os.path.join(libvirt_utils.get_instance_path(instance), kept_xml.FILE)
        kept = libvirt_utils.load_file(path)
        try:
            volumes = kept_xml.files_of(kept)
        except MalformedXml:  # libvirt says so
            volumes = {}
        if volumes:
            self._renew(instance, path, kept, volumes)
        super().unrescue(context, instance)

    def _renew(self, instance: Any, path: str, kept: str, volumes: Collection[str]) -> None:
        """Have the definition that Nova has kept name the files that its volumes have by now."""
        try:
            for volume in volumes:
                self._keeper.settle(volume)
        except QmpsnapError as error:
            raise exception.InternalError(_told(error)) from error
        guest = self._found(instance)
        text = kept if guest is None else kept_xml.renewed(kept, guest.get_xml_desc())
        for volume, file in kept_xml.files_of(text).items():
            found = self._left_off_with(volume, file)
            if found is not None:
                text = kept_xml.pointed(text, volume, found.path, found.format)
        if not kept_xml.is_same(text, kept):
            LOG.info("The disks of unrescue.xml have changed since.", instance=instance)
            kept_xml.keep(path, text)


def _with_chain(conf: Any) -> Any:
    """The same disk; of an encrypted one with all files of its chain, which libvirt has to be told."""
    if conf.volume_encryption is None or conf.driver_format != "qcow2":
        return conf
    try:
        below = files_below(conf.source_path)
    except NotNamed as error:
        LOG.warning("The chain of the volume %s is left to libvirt: %s.", conf.serial, error)
        return conf
    return EncryptedDisk(conf, below) if below else conf


def _once_it_listens(virtapi: Any, start: Callable[[], None]) -> None:
    """
    Start something when the service has begun to listen.

    Nova calls the manager's `post_start_hook` then (nova/service.py), and tells the driver nothing.
    """
    manager: Any = getattr(virtapi, "_compute", None)
    hook = getattr(manager, "post_start_hook", None)
    if hook is None:
        start()
        return

    def also() -> None:
        hook()
        start()

    manager.post_start_hook = also


def _call(
    operation: Operation, context: Any, volume: str, snapshot: str, info: Mapping[str, Any]
) -> Call:
    """What is None in Nova's dictionaries is not given."""
    given = {k: v for k, v in info.items() if v is not None or k not in ("id", "operation")}
    return Call(operation=operation, context=context, volume=volume, snapshot=snapshot, info=given)


def _refusing(error: Exception) -> Callable[[], AbstractContextManager[Guest]]:
    def opener() -> AbstractContextManager[Guest]:
        raise error

    return opener


def _told(error: BaseException) -> str:
    way_out = getattr(error, "way_out", None)
    return f"{type(error).__name__}: {error}" + (f" {way_out}" if way_out else "")
