"""Who sends: `OS_*` and `clouds.yaml`, with a service that lets one token in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qmpsnap.delivery.identity import IdentityUnusable, cinder_of_environment
from qmpsnap.journal.file import Journal
from tests.rig.remedies import remedy
from tests.rig.rig import run_cli
from tests.rig.volume_service import VolumeService
from tests.unit.letter_samples import found, stored

TOKEN = "admin:p1"
# openstacksdk 4.22 warns of an option that nobody has set; Python shows that to nobody.
pytestmark = pytest.mark.filterwarnings("ignore:Support for InfluxDB")


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("QMPSNAP_STATE", str(tmp_path))
    return Journal()


@pytest.fixture
def service() -> Iterator[VolumeService]:
    with VolumeService(token=TOKEN) as listening:
        listening.wait_for("s1", "deleting", "t1")
        yield listening


@remedy("IdentityUnusable")
def test_by_variables(
    journal: Journal, service: VolumeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(journal)
    said = run_cli(["outbox", "send"])
    assert said.code == 4
    assert "OS_AUTH_TYPE=admin_token, OS_ENDPOINT and OS_TOKEN" in said.err
    monkeypatch.setenv("OS_AUTH_TYPE", "admin_token")
    monkeypatch.setenv("OS_TOKEN", TOKEN)
    monkeypatch.setenv("OS_ENDPOINT", service.endpoint.replace("%(project_id)s", "p1"))
    said = run_cli(["outbox", "send"])
    assert said.code == 0, said
    assert (len(service.effects), found(journal)[0].state) == (1, "closed")


def test_by_clouds_yaml_with_an_endpoint_of_its_own(
    journal: Journal, service: VolumeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(journal)
    (tmp_path / "clouds.yaml").write_text(
        "clouds:\n  here:\n    auth_type: admin_token\n    auth:\n"
        f"      token: '{TOKEN}'\n      endpoint: http://127.0.0.1:9/\n"
        f"    block_storage_endpoint_override: {service.endpoint}\n"
    )
    # The folder of the process is looked into when openstacksdk is loaded, once.
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    monkeypatch.setenv("OS_CLOUD", "here")
    said = run_cli(["outbox", "send"])
    assert said.code == 0, said
    assert len(service.effects) == 1


def test_one_that_is_not_let_in(
    journal: Journal, service: VolumeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(journal)
    monkeypatch.setenv("OS_AUTH_TYPE", "admin_token")
    monkeypatch.setenv("OS_TOKEN", "other")
    monkeypatch.setenv("OS_ENDPOINT", service.endpoint.replace("%(project_id)s", "p1"))
    said = run_cli(["outbox", "send"])
    assert said.code == 1
    assert "401" in said.err
    assert found(journal)[0].state == "waiting"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OS_CLOUD": "none-such"},
        {"OS_AUTH_TYPE": "none-such", "OS_AUTH_URL": "http://127.0.0.1:9/"},
    ],
)
@pytest.mark.usefixtures("journal")
def test_nobody(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(IdentityUnusable, match="not known"):
        cinder_of_environment()
