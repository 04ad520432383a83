"""A retry in the very moment in which a failure can be seen, before the driver has seen it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.openstack.rig.rig import Rig


@contextmanager
def retried_at_once(rig: Rig, snapshot: str) -> Iterator[None]:
    """
    Have the row of a failed deletion become that of the next try, by whoever writes the failure.

    A reset of its state and another request leave `deleting`, and a progress that nobody has
    touched. By hand one has a second at most, until Cinder's loop looks again.
    """
    rig.rows("create table retried (snapshot)")
    rig.rows(
        "create trigger retry after update of status on snapshots "
        f"when new.id = '{snapshot}' and new.status = 'error_deleting' "
        "and not exists (select 1 from retried) begin "
        "insert into retried values (new.id); "
        "update snapshots set status = 'deleting', progress = '90%' where id = new.id; end"
    )
    try:
        yield
    finally:
        rig.rows("drop trigger retry")
        rig.rows("drop table retried")
