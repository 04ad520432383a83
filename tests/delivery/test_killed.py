"""A sender that is killed at every moment: each update takes effect once, and what follows is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qmpsnap.journal.file import Journal
from qmpsnap.journal.letter import Content
from tests.rig.sending import MOMENTS
from tests.rig.volume_service import VolumeService
from tests.rig.waiting import until
from tests.unit.letter_samples import DONE, FAILED, found, stored


def sender(folder: Path, service: VolumeService, moment: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.rig.sending", str(folder), service.endpoint, "60"]
    return subprocess.Popen([*command, moment], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("is_spec", [True, False], ids=["ours", "stock"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    ("status", "content", "is_quick"),
    [("creating", DONE, False), ("deleting", DONE, True), ("deleting", FAILED, True)],
    ids=["created", "deleted", "not deleted"],
)
def test_at_every_moment(
    tmp_path: Path, moment: str, is_spec: bool, status: str, content: Content, is_quick: bool
) -> None:
    tmp_path.chmod(0o700)
    journal = Journal(tmp_path)
    with VolumeService(is_spec=is_spec, is_quick=is_quick) as service:
        service.wait_for("s1", status, "t1")
        kind = status.replace("ing", "e")
        id_ = stored(journal, content, kind=kind, after={"instance": "i"})
        with sender(tmp_path, service, moment) as first:
            assert first.wait() == -signal.SIGKILL
        assert found(journal, id_)[0].state in ("waiting", "accepted")
        with sender(tmp_path, service) as second:

            def is_closed() -> bool:
                # A stock Cinder's driver wakes some time; until then the row may be anybody's.
                service.notice()
                return found(journal, id_)[0].state == "closed"

            until(is_closed, "it is never closed")
            second.kill()
        assert len(service.effects) == 1
    assert set((tmp_path / "followed").read_text().split()) == {id_}


def test_between_the_conclusion_and_the_sending(tmp_path: Path) -> None:
    """The process that concludes the operation is killed right after: the next one sends."""
    tmp_path.chmod(0o700)
    code = """
import os, signal, sys
from qmpsnap.journal.expected import expected
from qmpsnap.journal.file import Journal
from qmpsnap.journal.record import Conclusion
from tests.unit.journal_samples import act, merging
from tests.unit.letter_samples import due

journal = Journal(sys.argv[1])
with expected(journal, due()) as letter, journal.opened() as store:
    store.begin(merging("op"), [act(1)], letter.id)
    if sys.argv[2] == "after":
        store.conclude(merging("op"), Conclusion(outcome="finished", ended=2.0))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    journal = Journal(tmp_path)
    with VolumeService() as service:
        service.wait_for("s1", "deleting", "t1")
        ended = subprocess.run([sys.executable, "-c", code, str(tmp_path), "after"], check=False)
        assert ended.returncode == -signal.SIGKILL
        with sender(tmp_path, service) as process:
            until(lambda: found(journal)[0].state == "closed")
            process.kill()
        assert [one.status for one in service.effects] == ["deleting"]


def test_before_the_conclusion_nothing_is_sent(tmp_path: Path) -> None:
    """The outcome is not known: `resume` settles it first."""
    tmp_path.chmod(0o700)
    code = """
import os, signal, sys
from qmpsnap.journal.expected import expected
from qmpsnap.journal.file import Journal
from tests.unit.journal_samples import act, merging
from tests.unit.letter_samples import due

journal = Journal(sys.argv[1])
with expected(journal, due()) as letter, journal.opened() as store:
    store.begin(merging("op"), [act(1)], letter.id)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    journal = Journal(tmp_path)
    with VolumeService() as service:
        service.wait_for("s1", "deleting", "t1")
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
        with sender(tmp_path, service) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "round\n"
            process.kill()
        assert (service.effects, [one.state for one in found(journal)]) == ([], ["due"])


def test_before_anything_was_begun_it_failed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    code = """
import os, signal, sys
from qmpsnap.journal.expected import expected
from qmpsnap.journal.file import Journal
from tests.unit.letter_samples import due

with expected(Journal(sys.argv[1]), due()):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with VolumeService() as service:
        service.wait_for("s1", "deleting", "t1")
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
        with sender(tmp_path, service) as process:
            until(lambda: bool(service.effects))
            process.kill()
        assert [one.status for one in service.effects] == ["error_deleting"]
    assert os.listdir(tmp_path)
