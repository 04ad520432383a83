"""The id in the name of a volume, wherever Cinder is told to put it."""

from __future__ import annotations

import pytest

from qmpsnap.openstack.cinder.names import id_in

ID = "0f6a3c1e-2b5d-4c7e-9a8b-1d2e3f405162"
OTHER = "5e6a3c1e-2b5d-4c7e-9a8b-1d2e3f405162"


@pytest.mark.parametrize(
    "template", ["volume-%s", "%s-vol", "volume-%s.img", "%s", f"{OTHER}-%s", f"%s.{OTHER}", "f%s"]
)
def test_it_is_where_the_template_puts_it(template: str) -> None:
    assert id_in(template % ID, template) == ID


@pytest.mark.parametrize("name", ["", "volume-", ID, f"volume-{ID}.img", f"volume-{ID[:-1]}"])
def test_a_name_of_another_template_has_none(name: str) -> None:
    assert id_in(name, "volume-%s") is None
