"""Who sends, with keystone itself: passwords, application credentials, tokens that are revoked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from keystoneauth1.identity.v3 import Password
from keystoneauth1.session import Session

from qmpsnap.journal.file import Journal
from tests.openstack.rig.keystone import PASSWORD, Keystone, is_there
from tests.rig.rig import run_cli
from tests.rig.tiers import missing
from tests.rig.volume_service import VolumeService
from tests.unit.letter_samples import found, stored

pytestmark = pytest.mark.filterwarnings("ignore:Support for InfluxDB")


def admin(keystone: Keystone) -> Session:
    auth = Password(
        keystone.url,
        username="admin",
        password=PASSWORD,
        project_name="admin",
        user_domain_id="default",
        project_domain_id="default",
    )
    return Session(auth=auth)


@pytest.fixture(scope="module")
def keystone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystone]:
    if not is_there():
        missing("openstack", "keystone (`make openstack` installs it)")
    with Keystone(tmp_path_factory.mktemp("keystone")) as listening:
        yield listening


@pytest.fixture(scope="module")
def service(keystone: Keystone) -> Iterator[VolumeService]:
    """A volume service in the catalog, that lets in whom keystone lets in."""
    session = admin(keystone)

    def post(what: str, **values: Any) -> str:
        made = session.post(f"{keystone.url}/{what}s", json={what: values}).json()[what]["id"]
        return str(made)

    def is_let_in(token: str) -> bool:
        headers = {"X-Subject-Token": token}
        answer = session.get(f"{keystone.url}/auth/tokens", headers=headers, raise_exc=False)
        return bool(answer.status_code == 200)

    with VolumeService(is_let_in=is_let_in) as listening:
        kind = post("service", type="block-storage", name="cinder")
        url = listening.endpoint
        post("endpoint", service_id=kind, interface="public", url=url, region_id="RegionOne")
        yield listening


@pytest.fixture
def journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keystone: Keystone, service: VolumeService
) -> Journal:
    """With one update that waits; the environment names keystone, and nobody yet."""
    tmp_path.chmod(0o700)
    for name, value in {
        "QMPSNAP_STATE": str(tmp_path),
        "OS_AUTH_URL": keystone.url,
        "OS_REGION_NAME": "RegionOne",
    }.items():
        monkeypatch.setenv(name, value)
    service.effects.clear()
    service.wait_for("s1", "deleting", "t1")
    stored(Journal())
    return Journal()


def by_password(monkeypatch: pytest.MonkeyPatch, password: str = PASSWORD) -> None:
    for name, value in {
        "OS_USERNAME": "admin",
        "OS_PASSWORD": password,
        "OS_PROJECT_NAME": "admin",
        "OS_USER_DOMAIN_ID": "default",
        "OS_PROJECT_DOMAIN_ID": "default",
    }.items():
        monkeypatch.setenv(name, value)


def is_told(journal: Journal, service: VolumeService) -> bool:
    said = run_cli(["outbox", "send"])
    (letter,) = found(journal)
    assert (said.code == 0) == (letter.state == "closed") == (len(service.effects) == 1), said
    return said.code == 0


def test_a_password(
    journal: Journal, service: VolumeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_password(monkeypatch)
    assert is_told(journal, service)


def test_one_that_is_wrong_and_then_mended(
    journal: Journal, service: VolumeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_password(monkeypatch, "wrong")
    assert not is_told(journal, service)
    (letter,) = found(journal)
    assert (letter.state, letter.is_unsure) == ("waiting", False)
    assert "Unauthorized" in (letter.answer or "")
    by_password(monkeypatch)
    assert is_told(journal, service)


def test_an_application_credential(
    keystone: Keystone, journal: Journal, service: VolumeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = admin(keystone)
    made = session.post(
        f"{keystone.url}/users/{session.get_user_id()}/application_credentials",
        json={"application_credential": {"name": "qmpsnap", "secret": "s3cret"}},
    ).json()["application_credential"]
    monkeypatch.setenv("OS_AUTH_TYPE", "v3applicationcredential")
    monkeypatch.setenv("OS_APPLICATION_CREDENTIAL_ID", made["id"])
    monkeypatch.setenv("OS_APPLICATION_CREDENTIAL_SECRET", "s3cret")
    assert is_told(journal, service)


def test_a_token(
    keystone: Keystone, journal: Journal, service: VolumeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = admin(keystone)
    monkeypatch.setenv("OS_AUTH_TYPE", "v3token")
    monkeypatch.setenv("OS_TOKEN", str(session.get_token()))
    monkeypatch.setenv("OS_PROJECT_ID", str(session.get_project_id()))
    assert is_told(journal, service)


def test_a_token_that_is_revoked_on_the_way(
    keystone: Keystone, journal: Journal, service: VolumeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session fetches another one, and sends once more."""
    by_password(monkeypatch)
    refused: list[str] = []
    ask = service.is_let_in

    def revoked(token: str) -> bool:
        if not refused:
            refused.append(token)
            headers = {"X-Subject-Token": token}
            admin(keystone).delete(f"{keystone.url}/auth/tokens", headers=headers)
        return ask(token)

    monkeypatch.setattr(service, "is_let_in", revoked)
    assert is_told(journal, service)
    assert service.headers[-1]["x-auth-token"] != refused[0]
