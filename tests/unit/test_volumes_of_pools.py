"""Volumes of storage pools in a definition: which files they are, and what libvirt says instead."""

from __future__ import annotations

import pytest

from qmpsnap.graph import xml
from qmpsnap.guests.offline import volumes
from qmpsnap.guests.offline.volumes import NoVolume, file_of, with_files
from qmpsnap.monitor.passthrough import MonitorBusy
from tests.unit.fake_libvirt import Domain, Error, install


@pytest.fixture(autouse=True)
def _libvirt(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def domain(source: str, *, below: str = "") -> str:
    """With one disk of this source."""
    return (
        "<domain><name>web1</name><devices><disk type='volume'><driver type='qcow2'/>"
        f"{source}{below}<target dev='vda'/></disk></devices></domain>"
    )


def paths(text: str) -> list[str | None]:
    return [layer.path for layer in xml.parse(text).disks[0].layers]


def of_pool(pool: str, volume: str) -> str:
    if volume == "gone":
        raise NoVolume("no storage vol with matching name")
    return f"/{pool}/{volume}"


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("<source pool='p' volume='v'/>", "/p/v"),
        ("<source pool='p' volume='v' mode='host'/>", "/p/v"),
        ("<source pool='p' volume='v' mode='direct'/>", None),
        ("<source pool='p' volume='gone'/>", None),
        ("<source file='/share/v'/>", "/share/v"),
        ("<source protocol='rbd' name='p/v'/>", None),
        ("<source pool='p'/><backingStore/>", None),
        ("<source volume='v'/>", None),
    ],
)
def test_file_of_a_source(source: str, path: str | None) -> None:
    text, missing = with_files(domain(source), of_pool)
    disk = xml.parse(text).disks[0]
    assert [layer.path for layer in disk.layers][:1] in ([path], [])
    assert dict(missing) == (
        {"p/gone": "libvirt gives no file for p/gone: no storage vol with matching name"}
        if "gone" in source
        else {}
    )
    for layer in disk.layers:
        assert layer.volume is ("volume=" in source and path is None)


def test_below_a_file() -> None:
    """So does libvirt leave it when a snapshot of the running guest comes over it."""
    below = (
        "<backingStore type='volume'><format type='raw'/><source pool='p' volume='v'/>"
        "<backingStore/></backingStore>"
    )
    text, missing = with_files(domain("<source file='/p/v.s1'/>", below=below), of_pool)
    assert (paths(text), dict(missing)) == (["/p/v.s1", "/p/v"], {})


def connection(kind: object = 0, path: object = "/p/v", **answers: object) -> Domain:
    volume = Domain(info=kind if isinstance(kind, Exception) else [kind, 1, 1], path=path)
    pool = Domain(storageVolLookupByName=volume)
    return Domain(**{"storagePoolLookupByName": pool, **answers})


@pytest.mark.parametrize("kind", [0, 1])
def test_libvirt_finds_it(kind: int) -> None:
    """Kinds 0 and 1 are files and block devices (virStorageVolType)."""
    asked = connection(kind)
    assert file_of(asked, "p", "v") == "/p/v"
    assert asked.calls == [("storagePoolLookupByName", "p")]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (connection(storagePoolLookupByName=Error("OPERATION_INVALID", "not active")), "active"),
        (connection(Error("OPERATION_INVALID", "no such volume")), "no such volume"),
        (connection(2), "it is no file of a host"),
        (connection(0, "pool/image"), "pool/image"),
    ],
    ids=["pool", "volume", "folder", "network"],
)
def test_libvirt_does_not(asked: Domain, words: str) -> None:
    with pytest.raises(NoVolume, match=words):
        file_of(asked, "p", "v")


def test_libvirt_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(_call: object) -> object:
        raise MonitorBusy("stopped")

    monkeypatch.setattr(volumes, "in_time", stuck)
    with pytest.raises(NoVolume, match="does not answer"):
        file_of(connection(), "p", "v")
