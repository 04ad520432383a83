"""libvirt's hook: what it refuses, by markers and by the journal, and what it leaves alone."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from qmpsnap import hook
from qmpsnap.guests.files.door import take_file
from qmpsnap.journal.file import Journal
from qmpsnap.journal.markers import steps_for
from qmpsnap.journal.record import Conclusion, Record
from tests.unit.journal_samples import WHERE, act, creating, merging, pulling

DOMAIN = """
<domain type='kvm'><name>web1</name><devices>
  <disk type='file'><source file='{path}'/><backingStore type='file'>
    <source file='{below}'/></backingStore></disk>
  <disk type='network'><source protocol='nbd' name='x'/></disk>
  <disk type='file' device='cdrom'/>
</devices></domain>
"""


@pytest.fixture(autouse=True)
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    monkeypatch.setenv("QMPSNAP_STATE", str(state))
    return Journal()


def asked(
    monkeypatch: pytest.MonkeyPatch,
    *paths: str,
    arguments: tuple[str, ...] = ("prepare", "begin", "-"),
    text: str = DOMAIN,
) -> int:
    below = paths[1] if len(paths) > 1 else "/none"
    given = text.format(path=paths[0], below=below).encode()
    monkeypatch.setattr(sys, "argv", ["hook", "web1", *arguments])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(given)))
    return hook.main()


def begun(journal: Journal, record: Record, *does: str) -> None:
    with journal.opened() as store:
        store.begin(record, [act(number, does=one) for number, one in enumerate(does, start=1)])


def test_two_operations_of_one_id(
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """One is this host's, one is another's, whose caller has repeated its token."""
    (share := tmp_path / "share").mkdir()
    record = replace(creating(), works_on=("/share/volume-1",))
    begun(journal, record, "switch")
    for one, lines in ((record, 1), (replace(record, begun=2000.0), 2)):
        for step in steps_for(one)[0]:
            path = f"{share}/.qmpsnap-c"
            take_file(replace(step, arguments={**step.arguments, "path": path}))
        paths = ("/share/volume-1", f"{share}/x")
        assert asked(monkeypatch, *paths) == 1
        assert len(capsys.readouterr().err.splitlines()) == lines


@pytest.mark.parametrize(
    ("record", "does", "code"),
    [
        pytest.param(creating(), ("make", "switch"), 1, id="the switch was sent"),
        pytest.param(creating(), ("make",), 0, id="before the switch"),
        pytest.param(pulling(), ("start",), 1, id="a pull has begun"),
        pytest.param(merging(), ("start", "commit"), 0, id="a commit always leaves a whole chain"),
        pytest.param(
            replace(creating(), where=replace(WHERE, road="offline")),
            ("switch",),
            0,
            id="of a guest that is off",
        ),
    ],
)
def test_by_the_journal(
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    record: Record,
    does: tuple[str, ...],
    code: int,
) -> None:
    begun(journal, record, *does)
    assert asked(monkeypatch, "/share/volume-1") == code
    said = capsys.readouterr().err
    assert (f"run `qmpsnap resume {record.id}`" in said) == bool(code)
    assert asked(monkeypatch, "/share/other") == 0


def test_a_layer_below_counts(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(journal, creating(), "switch")
    assert asked(monkeypatch, "/share/other", "/share/volume-1") == 1


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("done", 0),
        ('"\\r\\n"', 0),
        ('"Error flushing drive: No space left on device"', 1),
        ("! FileFailed: cannot sync", 1),
    ],
)
def test_a_commit_whose_flush_has_failed(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    record = merging()
    begun(journal, record, "start", "flush")
    with journal.opened() as store:
        store.go_on(record.id, [(2, answer)], [])
    assert asked(monkeypatch, "/share/volume-1.s2") == code


def test_a_template_that_others_read_as_well(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a guest is to write to it."""
    own = ("/share/volume-1.s1", "/share/volume-1.new")
    begun(journal, replace(creating(), works_on=own), "switch")
    assert asked(monkeypatch, "/share/other", "/share/volume-1") == 0
    assert asked(monkeypatch, "/share/volume-1", "/none") == 1
    assert asked(monkeypatch, "/share/other", "/share/volume-1.s1") == 1


POOL = "<pool type='dir'><name>p</name><source><dir path='/no'/></source><target><path>{}</path></target></pool>"
IN_A_POOL = """
<domain type='kvm'><name>web1</name><devices>
  <disk type='volume'><source pool='{path}' volume='volume-1'/></disk></devices></domain>
"""


@pytest.mark.parametrize("state", ["etc", "run"])
@pytest.mark.parametrize(
    ("kept", "asks", "code"),
    [
        (POOL.format("/share"), "p", 1),
        (f"<!-- do not edit --><poolstate>{POOL.format('/share')}</poolstate>", "p", 1),
        (POOL.format(" /share/ "), "p", 1),
        (POOL.format("/elsewhere"), "p", 0),
        (POOL.format(""), "p", 0),
        ("<pool><path>/share</path></pool>", "p", 0),
        ("no XML", "p", 0),
        (POOL.format("/share"), "q", 0),
    ],
)
def test_volume_of_a_pool(
    journal: Journal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    kept: str,
    asks: str,
    code: int,
) -> None:
    """libvirt hands it over by its own name, also below a snapshot of the running guest."""
    monkeypatch.setattr(hook, "_POOLS", (f"{tmp_path}/etc", f"{tmp_path}/run"))
    (tmp_path / state).mkdir()
    (tmp_path / state / "p.xml").write_text(kept)
    begun(journal, creating(), "switch")
    assert asked(monkeypatch, asks, text=IN_A_POOL) == code
    other = IN_A_POOL.replace("volume-1", "volume-2")
    assert asked(monkeypatch, asks, text=other) == 0


def test_settled(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(journal, creating(), "switch")
    with journal.opened() as store:
        store.conclude(creating(), Conclusion(outcome="finished", ended=1.0))
    assert asked(monkeypatch, "/share/volume-1") == 0


def test_by_a_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another host, or when the journal is gone."""
    (step, *_) = steps_for(creating("abc"))[0]
    text = str(step.arguments["text"]).replace("/share/", f"{tmp_path}/")
    arguments = {"path": f"{tmp_path}/.qmpsnap-abc", "text": text}
    take_file(replace(step, arguments=arguments))
    assert asked(monkeypatch, f"{tmp_path}/volume-1") == 1
    assert asked(monkeypatch, f"{tmp_path}/volume-2") == 0
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "volume-1")
    assert asked(monkeypatch, str(link)) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"record": 1}', '{"record": {}}', "[" * 100_000])
def test_a_marker_that_cannot_be_read_forbids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / ".qmpsnap-x").write_text(text)
    assert asked(monkeypatch, f"{tmp_path}/anything") == 1


@pytest.mark.parametrize("damage", [b"", b"x" * 5000])
def test_a_journal_that_cannot_be_read_keeps_no_guest_from_starting(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    journal.path.write_bytes(damage)
    assert asked(monkeypatch, "/share/volume-1") == 0
    assert journal.path.read_bytes() == damage


def test_a_row_that_is_none(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(journal, creating(), "switch")
    with journal.opened() as store:
        store._database.execute("UPDATE operation SET record = '[]'")
    assert asked(monkeypatch, "/share/volume-1") == 0


def test_other_moments_and_other_texts(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(journal, creating(), "switch")
    for moment in ("start", "started", "stopped", "release", "reconnect"):
        assert asked(monkeypatch, "/share/volume-1", arguments=(moment, "begin", "-")) == 0
    assert asked(monkeypatch, "/share/volume-1", text="no XML") == 0


def test_it_imports_little() -> None:
    import subprocess

    code = "import sys, qmpsnap.hook; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(said.stdout.split())
    assert {name for name in modules if name.startswith("qmpsnap.")} == {
        "qmpsnap.guests",
        "qmpsnap.guests.files",
        "qmpsnap.guests.files.folders",
        "qmpsnap.guests.files.helper",
        "qmpsnap.guests.files.markers",
        "qmpsnap.hook",
        "qmpsnap.journal",
        "qmpsnap.journal.answers",
    }
    assert modules.isdisjoint({"lxml", "msgspec", "click", "dataclasses", "tempfile", "asyncio"})
