"""Jobs that fail: never a success, the chain intact and usable."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmpsnap.operations import merge
from qmpsnap.operations.job.states import JobFailed, JobView
from qmpsnap.operations.requests import DeleteRequest
from tests.rig import images
from tests.rig.jobs import ACTIVE, TOP, failing_disk, make_chain
from tests.rig.rig import BASE, DISK, MIB, SERIAL, SIZE, assert_sound
from tests.rig.roads import MakeRig, direct_rig
from tests.rig.situations import situation


@situation(
    "The job fails: no space, or an I/O error",
    happens="the job is dismissed only after its error was read, and the error is reported; the chain is as it was",
    code=5,
    then="Mend the cause, then give the same command again.",
    pain=1,
)
@pytest.mark.parametrize(("errno", "words"), [(28, "No space left"), (5, "Input/output error")])
@pytest.mark.parametrize("kind", ["commit", "pull"])
def test_a_failed_job_is_no_success(tmp_path: Path, kind: str, errno: int, words: str) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    make_chain(folder, SIZE)
    disk = failing_disk(folder, BASE if kind == "commit" else ACTIVE, errno)
    with direct_rig(folder, disk) as rig:
        before, content = rig.files(), rig.guest.read_sha256(DISK)
        said = rig.delete(TOP, BASE) if kind == "commit" else rig.delete(None, None)
        assert said.code == 5, said
        assert said.status == {"status": "error_deleting", "progress": "0%"}
        assert words in said.err
        assert rig.files() == before == [ACTIVE, TOP, BASE]
        assert_sound(rig.disk())
        assert rig.guest.read_sha256(DISK) == content
        assert rig.guest.qmp("query-jobs") == []  # its error was read, then it was dismissed
        rig.kill()
        assert images.sha256_of(folder / ACTIVE, "qcow2") == content


@pytest.mark.parametrize("kind", ["commit", "pull"])
@pytest.mark.parametrize("state", ["running", "pending"])
def test_a_job_that_somebody_cancels_is_no_success(
    make_rig: MakeRig, kind: str, state: str
) -> None:
    with make_rig("raw", size=64 * MIB) as rig:
        rig.guest.write(DISK, 0, 32 * MIB, 1)
        rig.create("s1")
        rig.guest.write(DISK, 8 * MIB, 32 * MIB, 2)
        rig.create("s2")
        before, content = rig.files(), rig.guest.read_sha256(DISK)
        cancelled: list[str] = []

        def cancel(plan: object, view: JobView) -> None:
            jobs = rig.guest.qmp("query-jobs")
            assert isinstance(jobs, list)
            if not cancelled and jobs and (state == "running" or view.status == "pending"):
                cancelled.append(view.status)
                rig.guest.qmp("job-cancel", {"id": jobs[0]["id"]})

        request = DeleteRequest(
            disk=SERIAL,
            file_to_merge=TOP if kind == "commit" else None,
            merge_target_file=BASE if kind == "commit" else None,
        )
        with rig.host() as host, pytest.raises(JobFailed, match=r"[Cc]ancel"):
            merge.delete(host, request, cancel)
        assert cancelled
        assert rig.files() == before
        assert_sound(rig.disk())
        assert rig.guest.read_sha256(DISK) == content
        again = rig.delete(request.file_to_merge, request.merge_target_file)
        assert again.code == 0, again
        assert rig.guest.read_sha256(DISK) == content
