"""What `cinder import`, `cinder check` and our driver advise is a command about Cinder's own ledger."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from qmpsnap.ledger import tables
from qmpsnap.ledger.judge import Reason
from qmpsnap.ledger.named import name_it
from qmpsnap.ledger.operations import OperationUnsettled
from qmpsnap.ledger.store import Store
from qmpsnap.ledger.values import Format, Intent, Kind, Place, Statement, Witness

CONF: Final = """[DEFAULT]
host = rig
state_path = {0}
enabled_backends = nfs1
[nfs1]
volume_driver = qmpsnap.openstack.cinder.NfsDriver
nfs_mount_point_base = {0}/mnt
[database]
connection = sqlite:///{0}/cinder.sqlite
[oslo_concurrency]
lock_path = {0}
"""
SHARE: Final = "127.0.0.1:/export"


def database_of(folder: Path) -> sa.Engine:
    """Cinder's database; no connection stays open."""
    return sa.create_engine(f"sqlite:///{folder}/cinder.sqlite", poolclass=sa.NullPool)


@dataclass(frozen=True)
class Cinder:
    """A Cinder's database, and one volume of which nobody states the format."""

    folder: Path
    volume: str

    @property
    def conf(self) -> str:
        """Its configuration; not where others look for it."""
        return str(self.folder / "cinder.conf")

    @property
    def store(self) -> Store:
        """The ledger."""
        return Store(database_of(self.folder))

    def run(self, *words: str) -> tuple[int, str]:
        """Give a command where no variable names a ledger."""
        env = {key: one for key, one in os.environ.items() if key != "QMPSNAP_LEDGER"}
        env |= {"QMPSNAP_STATE": str(self.folder / "own"), "HOME": str(self.folder / "own")}
        command = [sys.executable, "-Wignore", "-m", "qmpsnap", *words]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=False)
        return done.returncode, done.stdout

    def cinder(self, *words: str) -> tuple[int, Any]:
        """Give one of `qmpsnap cinder`; its code and document."""
        code, out = self.run("cinder", *words, "--config-file", self.conf, "-o", "json")
        return code, json.loads(out)

    def found(self, kind: str) -> list[str]:
        """What `cinder check` advises about one kind of finding."""
        findings = self.cinder("check")[1]["findings"]
        return [one["remedy"] for one in findings if one["kind"] == kind]

    def follow(self, advice: str, **words: str) -> str:
        """Give the command that is printed in backquotes, each word in capitals replaced."""
        (command,) = re.findall("`qmpsnap (ledger .*?)`", advice)
        code, out = self.run(*(words.get(one, one) for one in shlex.split(command)))
        assert code == 0
        assert not (self.folder / "own" / "ledger.db").exists()
        return out

    def knows(self) -> Format | None:
        """What the ledger has of the volume's file."""
        with self.store.reading() as ledger:
            return ledger.format(self.volume, f"volume-{self.volume}")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of Cinder's."""
    folder = tmp_path_factory.mktemp("cinder")
    (folder / "cinder.conf").write_text(CONF.format(folder))
    manage = [sys.executable, "-Wignore", f"{sys.prefix}/bin/cinder-manage"]
    words = ["--config-file", str(folder / "cinder.conf"), "db", "sync"]
    subprocess.run([*manage, *words], check=True, stdout=subprocess.DEVNULL)
    return folder / "cinder.sqlite"


@pytest.fixture
def cinder(database: Path, tmp_path: Path) -> Cinder:
    (tmp_path / "cinder.sqlite").write_bytes(database.read_bytes())
    (tmp_path / "cinder.conf").write_text(CONF.format(tmp_path))
    volume = str(uuid.uuid4())
    mounted = hashlib.md5(SHARE.encode(), usedforsecurity=False).hexdigest()
    folder = tmp_path / "mnt" / mounted
    folder.mkdir(parents=True)
    (folder / f"volume-{volume}").write_bytes(bytes(1 << 20))
    with database_of(tmp_path).begin() as connection:
        kind = connection.scalar(sa.text("select id from volume_types"))
        connection.execute(
            sa.text(
                "insert into volumes (id, host, size, status, provider_location, deleted, "
                "volume_type_id) values (:id, 'rig@nfs1', 1, 'available', :share, 0, :kind)"
            ),
            {"id": volume, "share": SHARE, "kind": kind},
        )
    return Cinder(tmp_path, volume)


@pytest.mark.parametrize("by", ["import", "check"])
def test_an_unknown_format_is_settled_as_it_is_advised(cinder: Cinder, by: str) -> None:
    code, document = cinder.cinder("import")
    assert code == 3
    advice = document["volumes"][0]["remedy"]
    assert [advice] == cinder.found("unknown-format")
    if by == "check":
        (advice,) = cinder.found("unknown-format")
    cinder.follow(advice, FORMAT="raw", REASON="it was made so")
    assert cinder.knows() is Format.RAW
    assert cinder.found("unknown-format") == []
    assert cinder.cinder("import")[0] == 0


_ADVICE = """
import json, sys
from qmpsnap.ledger.named import name_it
from qmpsnap.openstack.cinder.books import FormatNotStated
from qmpsnap.openstack.cinder.reading import FileUnusable
conf, volume = sys.argv[1:]
name_it(f"cinder:{conf}")
unknown, unusable = FormatNotStated(volume, f"volume-{volume}", "nobody"), FileUnusable("a", "raw", "x")
print(json.dumps([unknown.way_out, unusable.way_out]))
"""


def test_our_drivers_advice_names_the_same_ledger(cinder: Cinder) -> None:
    """
    As in the service, which has read the same configuration.

    In a process of its own: Nova's options, which another test may have registered here, have names
    of Cinder's.
    """
    cinder.cinder("import")
    words = [sys.executable, "-Wignore", "-c", _ADVICE, cinder.conf, cinder.volume]
    said = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
    unknown, unusable = json.loads(said.splitlines()[-1])
    cinder.follow(unknown.replace("`qmpsnap c", "`"), FORMAT="raw", REASON="so")
    assert cinder.knows() is Format.RAW
    assert f"volume-{cinder.volume}" in cinder.follow(unusable)


_COUNTED = """
import sys
from types import SimpleNamespace
from cinder import objects
from cinder.common import config
from oslo_config import cfg
from qmpsnap.openstack.cinder.snapshots import count_once
conf, *ids = sys.argv[1:]
cfg.CONF([], project="cinder", default_config_files=[conf])
objects.register_all()
rows = [SimpleNamespace(id=one, use_quota=True) for one in ids]
for one in rows:
    count_once(one)
print([one.use_quota for one in rows])
"""


def test_a_deletion_that_is_brought_twice_is_counted_once(cinder: Cinder) -> None:
    there, gone = str(uuid.uuid4()), str(uuid.uuid4())
    with database_of(cinder.folder).begin() as connection:
        for one, deleted in ((there, 0), (gone, 1)):
            connection.execute(
                sa.text(
                    "insert into snapshots (id, volume_id, status, deleted, volume_type_id, use_quota) "
                    "select :id, :volume, 'deleting', :deleted, id, 1 from volume_types"
                ),
                {"id": one, "volume": cinder.volume, "deleted": deleted},
            )
    words = [sys.executable, "-Wignore", "-c", _COUNTED, cinder.conf, there, gone]
    said = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[True, False]"


def test_the_service_knows_how_its_ledger_is_named(cinder: Cinder) -> None:
    named = pytest.importorskip("qmpsnap.openstack.cinder.named")
    cfg = pytest.importorskip("oslo_config.cfg")
    conf = cfg.ConfigOpts()
    conf([], project="cinder", default_config_files=[cinder.conf])
    assert named.name_of_cinders(conf) == f"cinder:{cinder.conf}"
    conf([], project="cinder")
    assert named.name_of_cinders(conf) == "cinder:"


def test_a_database_that_is_not_there_is_said_to_be(cinder: Cinder) -> None:
    conf = cinder.folder / "other.conf"
    conf.write_text(CONF.format(cinder.folder / "none"))
    command = [sys.executable, "-Wignore", "-m", "qmpsnap", "ledger", "show"]
    done = subprocess.run(
        [*command, "--ledger", f"cinder:{conf}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert f"the ledger in cinder:{conf} cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_operation_and_an_unsure_file_are_settled_as_it_is_advised(cinder: Cinder) -> None:
    cinder.cinder("import")
    base, overlay = f"volume-{cinder.volume}", f"volume-{cinder.volume}.a"
    intent = Intent(
        volume=cinder.volume, snapshot="a", kind=Kind.CREATE, file=overlay, onto=base, host="h"
    )
    with cinder.store.writing() as ledger:
        ledger.state(
            cinder.volume,
            [
                Statement(
                    file=base, format=Format.RAW, base=True, backing=None, place=Place.CHAIN,
                    witness=Witness.OPERATOR,
                )
            ],
        )  # fmt: skip
        token = ledger.begin(intent).token
        ledger.made(token)
        ledger.hand_over(token)
    with cinder.store.engine.begin() as connection:
        began = tables.operations.c.begun
        (at,) = connection.execute(sa.select(began)).one()
        connection.execute(sa.update(tables.operations).values(begun=at - timedelta(hours=3)))
    name_it(f"cinder:{cinder.conf}")
    try:
        with pytest.raises(OperationUnsettled) as refused, cinder.store.writing() as ledger:
            ledger.begin(replace(intent, snapshot="b", file=f"{base}.b"))
        advice = refused.value.way_out
    finally:
        name_it("")
    (told,) = cinder.found("open-operation")
    assert re.findall("`(.*)`", told) == re.findall("`(.*)`", advice)
    cinder.follow(told, REASON="the host is gone")
    (told,) = cinder.found("unsure")
    cinder.follow(told, REASON="no guest has it")
    with cinder.store.reading() as ledger:
        assert ledger.chain(cinder.volume).active.file == base


@pytest.mark.parametrize("option", ["nfs_mount_point_base", "volume_driver"])
def test_what_holds_for_every_back_end(cinder: Cinder, option: str) -> None:
    """Cinder's own way to say an option once."""
    text = Path(cinder.conf).read_text()
    (line,) = re.findall(f"^{option} = .*\n", text, re.MULTILINE)
    Path(cinder.conf).write_text(text.replace(line, "") + f"[backend_defaults]\n{line}")
    assert cinder.cinder("import")[1]["counts"]["unknown"] == 1


def test_a_back_end_that_is_not_there(cinder: Cinder) -> None:
    said = "no such back end: nfs-1; of these families there are: nfs1"
    command = [
        sys.executable,
        "-Wignore",
        "-m",
        "qmpsnap",
        "cinder",
        "import",
        "--backend",
        "nfs-1",
    ]
    done = subprocess.run(
        [*command, "--config-file", cinder.conf], capture_output=True, text=True, check=False
    )
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_what_is_unknown_stays_so_until_somebody_says_it(cinder: Cinder, tmp_path: Path) -> None:
    """An import is run again; a guest may have been asked in between."""
    chain = tmp_path / "web1.json"
    layer = {"file": f"volume-{cinder.volume}", "format": "raw", "verdict": "exact"}
    chain.write_text(json.dumps({"disks": [{"layers": [layer]}]}))
    for words in ((), (), ("--again",)):
        code, document = cinder.cinder("import", *words)
        assert (code, document["counts"]["unknown"]) == (3, 1)
    assert cinder.knows() is None
    code, document = cinder.cinder("import", "--chain", str(chain))
    assert (code, document["counts"]["imported"]) == (0, 1)
    assert cinder.knows() is Format.RAW
    assert cinder.cinder("import", "--chain", str(chain))[1]["counts"]["known"] == 1


def test_unknown_volumes_whose_files_have_changed_are_told(cinder: Cinder) -> None:
    cinder.cinder("import")
    (share,) = (cinder.folder / "mnt").iterdir()
    volume = share / f"volume-{cinder.volume}"
    overlay = f"{volume.name}.{uuid.uuid4()}"
    words = ["-f", "qcow2", "-u", "-b", volume.name, "-F", "raw", str(share / overlay), "1M"]
    subprocess.run(["qemu-img", "create", "-q", *words], check=True)
    (share / f"{volume.name}.info").write_text(json.dumps({"active": overlay}))
    code, document = cinder.cinder("import")
    assert (code, document["volumes"][0]["result"]) == (3, "failed")
    code, document = cinder.cinder("import", "--again")
    assert (code, document["counts"]["imported"]) == (0, 1)
    assert cinder.knows() is Format.RAW


def _of_raw(cinder: Cinder) -> None:
    """Cinder has the format of its volume."""
    with database_of(cinder.folder).begin() as connection:
        connection.execute(
            sa.text(
                "insert into volume_admin_metadata (volume_id, key, value, deleted) "
                "values (:id, 'format', 'raw', 0)"
            ),
            {"id": cinder.volume},
        )


def _with_snapshot(cinder: Cinder, status: str) -> None:
    """Its volume has a snapshot in Cinder, which failed, and has no file."""
    with database_of(cinder.folder).begin() as connection:
        connection.execute(
            sa.text(
                "insert into snapshots (id, volume_id, status, deleted, volume_type_id, use_quota) "
                "select :id, :volume, :status, 0, id, 1 from volume_types"
            ),
            {"id": str(uuid.uuid4()), "volume": cinder.volume, "status": status},
        )


def test_a_snapshot_that_stock_makes_meanwhile_is_no_failed_one(cinder: Cinder) -> None:
    """Whether its file is in the chain is seen once that has ended."""
    (share,) = (cinder.folder / "mnt").iterdir()
    name = f"volume-{cinder.volume}"
    _of_raw(cinder)
    words = [
        "-f",
        "qcow2",
        "-u",
        "-b",
        name,
        "-F",
        "raw",
        str(share / f"{name}.{uuid.uuid4()}"),
        "1M",
    ]
    subprocess.run(["qemu-img", "create", "-q", *words], check=True)
    _with_snapshot(cinder, "creating")
    code, document = cinder.cinder("import")
    assert code == 3
    (left,) = document["volumes"]
    assert left["result"] == "failed"
    assert "is being made or deleted" in left["detail"]
    with database_of(cinder.folder).begin() as connection:  # what `snapshot-reset-state` does
        (snapshot,) = connection.execute(sa.text("select id from snapshots")).scalars()
        connection.execute(sa.text("update snapshots set status = 'error'"))
    assert f"--state error {snapshot}`" in left["remedy"]
    for _ in range(2):  # each time, until somebody states whether it is in use
        code, document = cinder.cinder("import")
        assert code == 3
        assert [one["result"] for one in document["volumes"]] == ["unknown"]
    cinder.follow(document["volumes"][0]["remedy"].partition(". One that")[0], REASON="it is not")
    assert cinder.cinder("import")[0] == 0


def test_files_that_stock_has_changed_are_taken_over_as_it_is_advised(cinder: Cinder) -> None:
    """Between the import and the switch of the driver, say."""
    (share,) = (cinder.folder / "mnt").iterdir()
    volume = share / f"volume-{cinder.volume}"
    _of_raw(cinder)
    for status in ("error", "deleting", "error_deleting"):
        _with_snapshot(cinder, status)
    assert cinder.cinder("import")[0] == 0
    assert cinder.found("other-files") == []
    overlay = f"{volume.name}.{uuid.uuid4()}"
    words = ["-f", "qcow2", "-u", "-b", volume.name, "-F", "raw", str(share / overlay), "1M"]
    subprocess.run(["qemu-img", "create", "-q", *words], check=True)
    lost = cinder.found("other-files")  # killed before it wrote `.info`
    (share / f"{volume.name}.info").write_text(json.dumps({"active": overlay}))
    for advice in (*lost, *cinder.found("other-files")):
        assert "`qmpsnap cinder import --again`" in advice
    assert cinder.cinder("import", "--again")[0] == 0
    assert cinder.found("other-files") == []
    (share / f"{volume.name}.info").write_text("")
    (advice,) = cinder.found("files-not-read")
    with cinder.store.writing() as ledger:
        intent = Intent(
            volume=cinder.volume, snapshot="b", kind=Kind.CREATE, file=f"{volume.name}.b",
            onto=overlay, host="h",
        )  # fmt: skip
        ledger.begin(intent)
    assert cinder.found("files-not-read") == []  # it is being changed


def test_what_is_not_as_cinder_writes_it_is_told_and_a_refusal_for_some_days(
    cinder: Cinder,
) -> None:
    (share,) = (cinder.folder / "mnt").iterdir()
    info = share / f"volume-{cinder.volume}.info"
    _of_raw(cinder)
    assert cinder.cinder("import")[0] == 0

    def found() -> set[str]:
        kinds = {one["kind"] for one in cinder.cinder("check")[1]["findings"]}
        return kinds & {"files-not-read", "refused-updates"}

    with cinder.store.writing() as ledger:
        ledger.refuse("s", Reason.NOT_A_SERVICE, "somebody")
    info.write_text("[]")
    assert found() == {"files-not-read", "refused-updates"}
    with cinder.store.engine.begin() as connection:
        last = tables.refusals.c.last
        (at,) = connection.execute(sa.select(last)).one()
        connection.execute(sa.update(tables.refusals).values(last=at - timedelta(days=3)))
    info.write_text(json.dumps({"active": {}}))
    assert found() == {"files-not-read"}


def test_files_that_are_not_here_are_told_once(cinder: Cinder) -> None:
    """Of a share that is not mounted, not of each of its volumes."""
    (share,) = (cinder.folder / "mnt").iterdir()
    _of_raw(cinder)
    assert cinder.cinder("import")[0] == 0
    away = share.rename(cinder.folder / "away")
    (advice,) = cinder.found("files-not-read")
    assert "where the share is mounted" in advice
    away.rename(share)
    assert cinder.found("files-not-read") == []
