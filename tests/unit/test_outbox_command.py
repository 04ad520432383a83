"""`qmpsnap outbox`, and `--report`, as far as it needs no Cinder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.delivery.machine import Answer, Ask
from qmpsnap.delivery.outbox import Outbox
from qmpsnap.journal.expected import expected
from qmpsnap.journal.file import Journal
from qmpsnap.journal.letter import Addressee, Letter
from tests.rig.remedies import remedy
from tests.rig.rig import run_cli
from tests.unit.letter_samples import DONE, FAILED, due, found, stored

CREATE_INFO = '{"type": "qcow2", "new_file": "volume-1.new", "snapshot_id": "s1"}'
DELETE_INFO = '{"type": "qcow2", "file_to_merge": null, "merge_target_file": null}'


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("QMPSNAP_STATE", str(tmp_path))
    for name in ("OS_CLOUD", "OS_AUTH_URL", "OS_AUTH_TYPE"):
        monkeypatch.delenv(name, raising=False)
    return Journal()


def to_file(journal: Journal, path: Path, content: Any = DONE, **changes: Any) -> str:
    """A letter that is addressed to a file."""
    who = Addressee(snapshot="s1", volume="v1", to=f"file:{path}")
    with expected(journal, due(addressee=who, **changes)) as letter:
        letter.answer(content)
    return letter.id


def kill(journal: Journal, id_: str) -> None:
    """Let the service refuse it."""

    class Refuses:
        def ask(self, _letter: Letter, ask: Ask) -> Answer:
            return Answer(status=200 if ask.what == "dialect" else 405, text="never")

    Outbox(journal, lambda _to: Refuses()).send(ids=[id_], at_once=True)


def updates(*arguments: str) -> list[Any]:
    said = run_cli(["outbox", *arguments, "-o", "json"])
    assert said.code == 0, said
    assert said.json["schema"] == "qmpsnap.outbox/1"
    found: list[Any] = said.json["updates"]
    return found


class TestList:
    def test_nothing(self, journal: Journal) -> None:
        assert updates("list") == []
        assert not journal.path.exists()

    def test_json(self, journal: Journal) -> None:
        id_ = stored(journal, after={"instance": "i"})
        (one,) = updates("list")
        bodies = one.pop("bodies")
        changed = one.pop("changed")
        assert changed.endswith("Z")
        assert one == {
            "id": id_,
            "snapshot": "s1",
            "volume": "v1",
            "project": "p1",
            "to": "cinder",
            "kind": "delete",
            "token": "t1",
            "operation": None,
            "state": "waiting",
            "outcome": "done",
            "file_format": {"volume-1": "raw"},
            "why": None,
            "since": "1970-01-01T00:16:40Z",
            "attempts": 0,
            "unsure": False,
            "next_try": None,
            "answer": None,
            "after": {"instance": "i"},
        }
        assert bodies["legacy"] == {
            "os-update_snapshot_status": {"status": "deleting", "progress": "90%"}
        }
        assert bodies["spec"]["os-update_snapshot_status"]["operation"] == "t1"

    def test_in_words(self, journal: Journal) -> None:
        stored(journal, FAILED)
        with expected(journal, due("s2")):
            said = run_cli(["outbox", "list"]).out
        assert "failed" in said
        assert "due" in said
        assert "?" in said
        assert run_cli(["outbox", "list", "-o", "csv"]).out.count("\n") == 3

    def test_what_has_ended_with_all(self, journal: Journal, tmp_path: Path) -> None:
        to_file(journal, tmp_path / "f")
        assert run_cli(["outbox", "send"]).code == 0
        assert updates("list") == []
        assert [one["state"] for one in updates("list", "--all")] == ["closed"]

    def test_one_that_cannot_be_read(self, journal: Journal) -> None:
        stored(journal)
        with journal.opened() as store:
            store._database.execute("UPDATE letter SET due = '{}'")
        said = run_cli(["outbox", "list", "-o", "json"])
        assert "cannot be read" in said.json["notes"][0]


class TestShow:
    def test_in_words(self, journal: Journal) -> None:
        id_ = stored(journal)
        kill(journal, id_)
        said = run_cli(["outbox", "show", id_]).out
        assert "answer: 405: never" in said
        assert "deleting_compute_complete" in said

    @remedy("LetterNotFound")
    def test_no_such(self, journal: Journal) -> None:
        id_ = stored(journal)
        said = run_cli(["outbox", "show", "other"])
        assert said.code == 4
        assert id_ in said.err
        assert "qmpsnap outbox list --all" in said.err
        assert [one["id"] for one in updates("list", "--all")] == [id_]


class TestSend:
    def test_into_the_file_that_it_is_addressed_to(self, journal: Journal, tmp_path: Path) -> None:
        id_ = to_file(journal, tmp_path / "f")
        said = run_cli(["outbox", "send"])
        assert (said.code, said.out) == (0, "")
        assert "was accepted" in said.err
        assert json.loads((tmp_path / "f").read_text())["letter"] == id_

    def test_into_another(self, journal: Journal, tmp_path: Path) -> None:
        id_ = stored(journal)
        said = run_cli(["outbox", "send", id_, "--report", f"file:{tmp_path / 'g'}"])
        assert said.code == 0
        assert (tmp_path / "g").exists()

    def test_not_accepted(self, journal: Journal, tmp_path: Path) -> None:
        to_file(journal, tmp_path / "none" / "f")
        said = run_cli(["outbox", "send"])
        assert said.code == 1
        assert "not accepted yet" in said.err
        assert "No such file" in said.err

    def test_a_dead_one_by_its_name_alone(self, journal: Journal, tmp_path: Path) -> None:
        id_ = to_file(journal, tmp_path / "f")
        kill(journal, id_)
        assert "nothing is waiting" in run_cli(["outbox", "send"]).err
        assert run_cli(["outbox", "send", id_]).code == 0
        assert found(journal, id_)[0].state == "closed"

    def test_one_that_nobody_knows_the_content_of(self, journal: Journal) -> None:
        with expected(journal, due()) as letter:
            said = run_cli(["outbox", "send", letter.id])
        assert said.code == 4
        assert "it is due" in said.err

    def test_nobody_to_send_as(self, journal: Journal) -> None:
        stored(journal)
        said = run_cli(["outbox", "send"])
        assert said.code == 4
        assert "who sends updates to Cinder is not known" in said.err
        assert found(journal)[0].attempts == 0

    def test_where_to(self, journal: Journal) -> None:
        for report in ("nova", "file:"):
            assert run_cli(["outbox", "send", "--report", report]).code == 2


class TestDrop:
    def test_dropped(self, journal: Journal) -> None:
        id_ = stored(journal)
        assert run_cli(["outbox", "drop", id_]).code == 0
        assert found(journal)[0].state == "dropped"
        assert run_cli(["outbox", "drop", id_]).code == 4

    def test_not_while_it_is_due(self, journal: Journal) -> None:
        with expected(journal, due()) as letter:
            assert run_cli(["outbox", "drop", letter.id]).code == 4
        assert found(journal)[0].state == "due"

    def test_all_or_none(self, journal: Journal) -> None:
        id_ = stored(journal)
        assert run_cli(["outbox", "drop", id_, "other"]).code == 4
        assert found(journal)[0].state == "waiting"

    def test_a_sender_does_not_wake_it(self, journal: Journal) -> None:
        id_ = stored(journal)
        with journal.opened() as store:
            store.letters.drop(id_, 1.0)
            store.letters.note(id_, "waiting", answer="503", now=2.0)
        assert found(journal)[0].state == "dropped"


class TestReport:
    @pytest.mark.parametrize(
        ("arguments", "status"),
        [
            (["volume-snapshot-create", "1", CREATE_INFO], "error"),
            (["volume-snapshot-delete", "1", "s1", DELETE_INFO], "error_deleting"),
        ],
    )
    def test_the_body_that_is_printed_is_the_one_that_is_sent(
        self, journal: Journal, tmp_path: Path, arguments: list[str], status: str
    ) -> None:
        path = tmp_path / "f"
        said = run_cli(["--qmp", str(tmp_path / "none"), *arguments, "--report", f"file:{path}"])
        assert said.code == 7
        line = json.loads(path.read_text())
        assert line["body"] == json.loads(said.out)
        assert line["body"]["os-update_snapshot_status"]["status"] == status
        assert (line["snapshot"], line["volume"]) == ("s1", "1")
        assert found(journal)[0].state == "closed"

    def test_it_is_kept_when_it_is_not_accepted(self, journal: Journal, tmp_path: Path) -> None:
        arguments = ["volume-snapshot-delete", "1", "s1", DELETE_INFO]
        report = f"file:{tmp_path / 'none' / 'f'}"
        said = run_cli(["--qmp", str(tmp_path / "none"), *arguments, "--report", report])
        assert "qmpsnap outbox send" in said.err
        assert found(journal)[0].state == "waiting"

    def test_without_a_journal(self, journal: Journal) -> None:
        arguments = ["volume-snapshot-delete", "1", "s1", DELETE_INFO, "--no-journal"]
        assert run_cli(["--qmp", "/none", *arguments, "--report", "cinder"]).code == 2

    def test_nobody_to_send_as_is_said_before_anything_is_done(self, journal: Journal) -> None:
        arguments = ["volume-snapshot-delete", "1", "s1", DELETE_INFO, "--report", "cinder"]
        said = run_cli(["--qmp", "/none", *arguments])
        assert said.code == 4
        assert json.loads(said.out)["os-update_snapshot_status"]["status"] == "error_deleting"
        assert not journal.path.exists()

    def test_a_journal_that_cannot_be_used(self, journal: Journal, tmp_path: Path) -> None:
        """Told once all the same."""
        journal.path.write_text("no database")
        arguments = ["volume-snapshot-delete", "1", "s1", DELETE_INFO]
        said = run_cli(["--qmp", "/none", *arguments, "--report", f"file:{tmp_path / 'f'}"])
        assert said.code == 4
        assert json.loads((tmp_path / "f").read_text())["body"] == json.loads(said.out)
        assert "sent once" in said.err

    def test_by_default_nothing_is_stored(self, journal: Journal) -> None:
        run_cli(["--qmp", "/none", "volume-snapshot-delete", "1", "s1", DELETE_INFO])
        assert updates("list", "--all") == []
