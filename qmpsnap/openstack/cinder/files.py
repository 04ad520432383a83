"""The part of a driver that reads and makes files: each with its format, none looked into for it."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from cinder import exception, objects
from msgspec.structs import replace
from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_utils import imageutils

from qmpsnap.formats.qcow2 import Header
from qmpsnap.guests.files.header import read_header
from qmpsnap.ledger.chain import Chain
from qmpsnap.ledger.files import moved
from qmpsnap.ledger.values import File, Format, Place, Statement
from qmpsnap.openstack.cinder import adopt, info
from qmpsnap.openstack.cinder.backups import is_overwritten
from qmpsnap.openstack.cinder.books import Books, FormatNotStated
from qmpsnap.openstack.cinder.encrypted import (
    KeyUnfit,
    Words,
    is_encrypted,
    layers_of,
    making,
    opening,
    opening_below,
)
from qmpsnap.openstack.cinder.family import Family
from qmpsnap.openstack.cinder.headers import beside, downwards
from qmpsnap.openstack.cinder.names import id_in, ledger_id, volume_of
from qmpsnap.openstack.cinder.reading import FileUnusable, describe
from qmpsnap.openstack.cinder.unsure import shows_what_lies_below

log = logging.getLogger(__name__)
GIB: Final = 1 << 30
_OWN: Final = r"({basedir}/[0-9a-f]+/)?{volume}(.(tmp-snap-)?[0-9a-f-]+)?{extensions}$"
"""Backing files that a volume may have. Source: cinder/volume/drivers/remotefs.py,
_qemu_img_info_base (OSSA-2014-033)."""


class Files(Family):  # type: ignore[misc]
    """
    Reads and makes a volume's files, by the formats of the ledger.

    Before `do_setup` there is no ledger (`_books` is None), and each method is its parent's: so it
    is in upstream's unit tests, and never in a service, whose manager begins with `do_setup`.
    """

    _books: Books | None = None

    def do_setup(self: Any, context: Any) -> None:
        """Set the driver up, and from now on keep the ledger."""
        super().do_setup(context)
        self._books = Books()

    def _qemu_img_info_base(
        self: Any,
        path: str,
        volume_name: str,
        basedir: str,
        ext_bf_template: Any = None,
        force_share: bool = False,
        run_as_root: bool = False,
        img_format: str | None = None,
    ) -> Any:
        if self._books is None:
            return super()._qemu_img_info_base(
                path, volume_name, basedir, ext_bf_template, force_share, run_as_root, img_format
            )
        stated = self._stated(path, volume_name)
        as_root = run_as_root or self._execute_as_root
        if is_overwritten():
            found: dict[str, Any] = {"filename": path, "format": stated, "virtual-size": 0}
        else:
            found = describe(path, stated, run=self._execute, as_root=as_root)
        backing = found.get("backing-filename")
        if backing is not None:
            extensions = "|".join(self._VALID_IMAGE_EXTENSIONS)
            own = _OWN if ext_bf_template is None else ext_bf_template.template
            extensions = rf"(\.({extensions}))?" if extensions else ""
            if ext_bf_template is None:
                pattern = own.format(basedir=basedir, volume=volume_name, extensions=extensions)
            else:
                pattern = ext_bf_template.substitute(
                    basedir=basedir, volname=volume_name, valid_ext=extensions
                )
            if not re.match(pattern, backing, re.IGNORECASE):
                raise exception.RemoteFSInvalidBackingFile(path=path, backing_file=backing)
        answer = imageutils.QemuImgInfo(json.dumps(found), format="json")
        answer.image = os.path.basename(path)
        answer.backing_file = None if backing is None else os.path.basename(backing)
        return answer

    def _stated(self: Any, path: str, volume_name: str) -> str:
        """
        The format of a file, in qemu-img's words.

        Raises:
            FormatNotStated: Nobody states it.
        """
        name = os.path.basename(path)
        if name.startswith(volume_name + "."):
            return "qcow2"  # whatever is put on a RemoteFS volume is
        volume = id_in(volume_name, cfg.CONF.volume_name_template)
        if volume is None:
            raise FormatNotStated(volume_name, name, "volume_name_template gives no such name")
        return str(self._books.stated(volume, name))

    def _adopted(self: Any, volume: Any) -> Chain[File]:
        """
        The chain of a volume; taken over first, where the ledger does not know it yet.

        Raises:
            ChainUnknown, FormatNotStated, ChainBroken: It has none that can be worked with.
        """
        key = ledger_id(volume)
        if not self._books.knows(key):
            found = adopt.statements(self._known(volume))
            doubted = self._books.run(lambda ledger: ledger.state(key, found))
            log.info("took volume %s over into the ledger: %s", key, _told(found))
            for one in doubted:
                log.warning("not believed: %s of volume %s", one, key)
        if not self._is_volume_attached(volume):
            self._let_go_of_unsure(volume)
        chain: Chain[File] = self._books.chain(key)
        active = self.get_active_image_from_info(volume)
        if active != chain.active.file:
            reason = f".info says that {active} is active, the ledger {chain.active.file}"
            raise adopt.ChainBroken(volume.name, reason)
        return chain

    def _let_go_of_unsure(self: Any, volume: Any) -> None:
        """Remove files, of a volume that nobody has attached, of which it makes no difference."""
        key, folder = ledger_id(volume), self._local_volume_dir(volume)
        for one in self._books.look(lambda ledger: ledger.files(key)):
            if one.place is not Place.UNSURE or one.backing is None:
                continue
            stated = self._books.stated(key, one.backing)
            below = describe(
                os.path.join(folder, one.backing), stated,
                run=self._execute, as_root=self._execute_as_root,
            )  # fmt: skip
            shows = shows_what_lies_below(folder, one, below["virtual-size"])
            if shows and self._holder_on_share(volume, one.file) is None:
                log.info("%s holds nothing, and nobody has the volume: it is let go", one.file)
                why = "nobody has the volume attached, and nothing was written to it"
                self._books.run(partial(leaves, key, one, why))
                self._remove(volume, one.file)

    def _holder_on_share(self: Any, volume: Any, file: str) -> str | None:
        """
        Who names a file of a volume on its share, whatever the ledger says; None where nobody does.

        Somebody else may have been at work since the ledger learnt of it: stock drivers, an operator.
        """
        key, folder = ledger_id(volume), self._local_volume_dir(volume)
        content = self._read_info_file(self._local_path_volume_info(volume), empty_if_missing=True)
        if content.get(adopt.ACTIVE) == file:
            return "`.info` says that it is active"
        known = self._books.look(lambda ledger: ledger.files(key))
        passed = {file, *(one.file for one in known if one.place is Place.LEFT)}
        others = [one for one in _overlays_of(volume, folder) if one not in passed]
        for one, header in beside(folder, others, self._header):
            if adopt.below(header) == file:
                return f"{one} lies on it"
        return None

    def _known(self: Any, volume: Any) -> adopt.Known:
        """Gather what there is to go by of a volume that the ledger does not know."""
        folder = self._local_volume_dir(volume)
        content = self._read_info_file(self._local_path_volume_info(volume), empty_if_missing=True)
        active = content.get(adopt.ACTIVE, volume.name)
        attached = [dict(one.connection_info or {}) for one in volume.volume_attachment or ()]
        known = adopt.Known(
            name=volume.name,
            info=content,
            headers=downwards(folder, active, volume.name, self._header),
            metadata=self._admin_metadata(volume),
            attached=tuple(one["format"] for one in attached if "format" in one),
            encrypted=is_encrypted(volume),
        )
        if adopt.ACTIVE in content:
            return known
        overlays = dict(beside(folder, _overlays_of(volume, folder), self._header))
        rows = objects.SnapshotList.get_all_for_volume(volume.obj_context, volume.id)
        return adopt.seen_beside(
            known, overlays, [one.id for one in rows if one.status not in adopt.UNMADE]
        )

    def _header(self: Any, path: str) -> Header:
        """The header of a file that is stated to be qcow2."""
        try:
            return read_header(path)
        except PermissionError:
            found = describe(path, "qcow2", run=self._execute, as_root=self._execute_as_root)
            return Header(
                version=3,
                virtual_size=found["virtual-size"],
                backing_file=found.get("backing-filename"),
                backing_format=found.get("backing-filename-format"),
            )

    def _admin_metadata(self: Any, volume: Any) -> dict[str, str]:
        with volume.obj_as_admin():
            return dict(volume.admin_metadata or {})

    def _follow_metadata(self: Any, volume: Any) -> None:
        """Have Cinder's own rows say what the ledger says: for Nova, and for the way back."""
        chain: Chain[File] = self._books.chain(ledger_id(volume))
        active, first = chain.active.format, chain.layers[-1].format
        with volume.obj_as_admin():
            metadata = volume.admin_metadata
            wanted = {"format": str(active)}
            if len(chain.layers) > 1 or "base_format" in metadata:
                wanted["base_format"] = str(first)
            if any(metadata.get(key) != value for key, value in wanted.items()):
                metadata.update(wanted)
                volume.save()

    def _write_info_file(self: Any, info_path: str, snap_info: dict[str, str]) -> None:
        if self._books is None or "active" not in snap_info:
            super()._write_info_file(info_path, snap_info)
            return
        secure = self.configuration.nas_secure_file_permissions == "true"
        info.write(
            info_path,
            snap_info,
            run=self._execute,
            as_root=self._execute_as_root,
            permissions="660" if secure else "ugo+rw",
        )

    def _do_create_snapshot(
        self: Any, snapshot: Any, backing_filename: str, new_snap_path: str
    ) -> None:
        """
        Make an overlay whose header has the format of the ledger; what lies below is not looked into.

        Raises:
            FormatNotStated, FileUnusable: There is nothing that it could lie on.
            KeyUnfit: It would have another key than what lies below.
        """
        if self._books is None:
            super()._do_create_snapshot(snapshot, backing_filename, new_snap_path)
            return
        volume = snapshot.volume
        folder = self._local_volume_dir(volume)
        backing = os.path.join(folder, backing_filename)
        stated = self._stated(backing, volume.name)
        if stated != "qcow2" and is_encrypted(volume):
            reason = "no overlay can say that it is LUKS: Cinder knows no such format"
            raise FileUnusable(backing, stated, reason)
        seen = describe(backing, stated, run=self._execute, as_root=self._execute_as_root)
        with making(volume) as encrypted:
            if encrypted:
                self._check_key(volume, backing_filename, encrypted)
            self._run_qemu_img(
                "create", "-q", "-f", "qcow2", "-u", "-b", backing_filename, "-F", stated,
                *encrypted, new_snap_path, str(seen["virtual-size"]), folder=folder,
            )  # fmt: skip
        self._set_permissions(new_snap_path)
        if self.secure_file_operations_enabled():
            command = ["chown", f"--reference={backing}", new_snap_path]
            self._execute(*command, run_as_root=self._execute_as_root)

    def _check_key(self: Any, volume: Any, backing: str, made: Words) -> None:
        """
        See that the key of a new overlay is that of all below it.

        `create -u` does not, and no one key opens the chain afterwards. QEMU compares the key with
        the LUKS header of each file as soon as it opens it for reading; `qemu-img info` does not.

        Raises:
            KeyUnfit: It is not.
        """
        layers = self._books.chain(ledger_id(volume)).layers
        below = layers[[one.file for one in layers].index(backing) :]
        files = opening_below(made, layers_of(self._local_volume_dir(volume), below))
        only = ("-U", "--output=json", "--start-offset=0", "--max-length=512")  # text: no LUKS
        command = ["qemu-img", "map", *only, *files]
        try:
            self._execute(*command, run_as_root=self._execute_as_root)
        except processutils.ProcessExecutionError as error:
            said = (error.stderr or str(error)).strip()
            raise KeyUnfit(volume.id, said.rpartition("': ")[2]) from error

    def _run_qemu_img(self: Any, *arguments: str, folder: str) -> None:
        """
        Run qemu-img in a folder of volumes: as root only where this process may not write there.

        Each rootwrap is a Python that has to start, half of what an operation costs.
        """
        open_to_all = self.configuration.nas_secure_file_permissions != "true"
        as_root = self._execute_as_root and not (open_to_all and os.access(folder, os.W_OK))
        self._execute("qemu-img", *arguments, run_as_root=as_root)

    def _set_permissions(self: Any, path: str) -> None:
        if os.stat(path).st_uid == os.geteuid():
            secure = self.configuration.nas_secure_file_permissions == "true"
            os.chmod(path, 0o660 if secure else 0o666)
        else:
            self._set_rw_permissions(path)

    def _commit_into(self: Any, volume: Any, layers: Sequence[File]) -> None:
        """Commit the first file of a chain into the next. It is not removed here: it is held still."""
        with opening(volume, layers_of(self._local_volume_dir(volume), layers)) as files:
            command = ["qemu-img", "commit", "-q", "-d", *files]
            self._execute(*command, run_as_root=self._execute_as_root)

    def _name_below(self: Any, volume: Any, layer: File, backing: str, format_: str) -> None:
        """Have the header of a file name its backing file, and with which format."""
        with opening(volume, layers_of(self._local_volume_dir(volume), [layer])) as file:
            command = ["qemu-img", "rebase", "-q", "-u", "-b", backing, "-F", format_, *file]
            self._execute(*command, run_as_root=self._execute_as_root)

    def _mend_headers(self: Any, volume: Any, chain: Chain[File]) -> None:
        """
        Have each header name the format that the ledger has, before qemu-img opens by it.

        Stock Cinder wrote into them what it had found in the bytes. Only of a volume that nobody
        has open; of a guest that runs, its compute host corrects them.

        Raises:
            ChainBroken: A header names another file than the ledger.
        """
        folder = self._local_volume_dir(volume)
        for layer in chain.layers:
            if layer.format is not Format.QCOW2 or layer.backing is None:
                continue
            path = os.path.join(folder, layer.file)
            header = self._header(path)
            if header.data_file is not None:
                raise FileUnusable(path, "qcow2", "its header names a data file")
            below = chain.layer(layer.backing)
            if (
                header.backing_file is None
                or os.path.basename(header.backing_file) != layer.backing
            ):
                reason = f"{layer.file} lies on {header.backing_file}, not on {layer.backing}"
                raise adopt.ChainBroken(volume.name, reason)
            if below is not None and header.backing_format != below.format:
                log.warning(
                    "%s says that %s is %s; it is %s: mended",
                    layer.file, layer.backing, header.backing_format, below.format,
                )  # fmt: skip
                self._name_below(volume, layer, header.backing_file, str(below.format))

    @contextmanager
    def _convertible(self: Any, volume: Any) -> Iterator[Chain[File]]:
        """The chain of a volume, its headers in order, for a qemu-img that follows them."""
        chain = self._adopted(volume)
        if not self._is_volume_attached(volume):
            self._mend_headers(volume, chain)
        yield chain


def _overlays_of(volume: Any, folder: str) -> list[str]:
    return [one for one in os.listdir(folder) if volume_of(one) == volume.name]


def leaves(key: str, file: File, why: str, ledger: Any) -> None:
    """State that an unsure file is in no chain; unless it has been settled in this very moment."""
    if ledger.file(key, file.file) == file:
        ledger.state(key, [replace(moved(file, Place.LEFT), detail=why)])


def _told(found: list[Statement]) -> str:
    return ", ".join(f"{one.file} is {one.format} ({one.witness})" for one in found)
