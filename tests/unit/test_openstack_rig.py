"""What the rig of the OpenStack tests is configured with, and what it reads in Cinder's log."""

from __future__ import annotations

from tests.openstack.rig.settings import with_settings
from tests.openstack.rig.updates import updates_in

CONF = "[DEFAULT]\nhost = rig\ndebug = True\n[nfs1]\nvolume_driver = a.B\n"
WHO = "[req-1a req-2b admin 111 - - - -]"
LOG = f"""\
1 INFO cinder.api.openstack.wsgi {WHO} POST http://127.0.0.1:1/v3/111/snapshots/aa/action
1 DEBUG cinder.api.openstack.wsgi {WHO} Action body: b'{{"os-update_snapshot_status": {{"status": "error"}}}}' get_method w.py:993
1 INFO eventlet.wsgi.server {WHO} 127.0.0.1 "POST /v3/111/snapshots/aa/action HTTP/1.1" status: 400  len: 2
1 INFO eventlet.wsgi.server [None req-3c admin 111] 127.0.0.1 "POST /v3/111/snapshots/aa/action HTTP/1.1" status: 202
"""


def test_a_setting_replaces_a_key_of_its_section() -> None:
    assert with_settings(CONF, ["nfs1.volume_driver=c.D"]) == CONF.replace("a.B", "c.D")


def test_a_setting_that_is_given_twice_is_a_list() -> None:
    assert with_settings(CONF, ["DEFAULT.host=a", "DEFAULT.host=b"]) == (
        "[DEFAULT]\ndebug = True\nhost = a\nhost = b\n[nfs1]\nvolume_driver = a.B\n"
    )


def test_a_section_that_is_not_there_is_added() -> None:
    assert with_settings(CONF, ["new.key=1"]) == f"{CONF}[new]\nkey = 1\n"


def test_an_update_is_found_with_its_answer() -> None:
    assert updates_in(LOG, "aa") == [({"status": "error"}, 400)]
    assert updates_in(LOG, "bb") == []
