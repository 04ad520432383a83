"""What a report can be asked."""

from __future__ import annotations

from msgspec.structs import replace

from tests.unit import samples


def test_names_of_a_disk() -> None:
    assert samples.disk(2).names == {
        "vda",
        "1",
        "/machine/peripheral/vda/virtio-backend",
        "volume-1.s1-node",
        "volume-1-node",
    }


def test_nothing_is_no_name() -> None:
    disk = samples.disk(serial="", qdev=None, root=None, layers=())
    assert disk.names == {"vda"}


def test_device_id_is_a_name() -> None:
    disk = samples.disk(disk="vdb", qdev="/machine/peripheral/virtio-disk0/virtio-backend")
    assert "virtio-disk0" in disk.names


def test_stated_formats_by_path() -> None:
    unknown = samples.changed_layer(samples.disk(3), 1, format=None)
    network = samples.disk(layers=(samples.layer("x", path=None),))
    found = samples.guest(unknown, network).stated()
    assert found == {"/share/volume-1.s2": "qcow2", "/share/volume-1": "raw"}


def test_two_disks_on_one_base() -> None:
    upper = samples.disk(2)
    other = replace(upper, disk="vdb", layers=(samples.layer("volume-2.s1"), upper.layers[1]))
    assert samples.guest(upper, other).stated()["/share/volume-1"] == "raw"


def test_nothing_below_a_guess_is_readable() -> None:
    disk = samples.changed_layer(samples.disk(3), 1, flags=("probed",))
    assert samples.guest(disk).readable() == {
        "/share/volume-1.s2": "qcow2",
        "/share/volume-1.s1": "qcow2",
    }
    assert samples.guest(samples.disk(3)).readable() == samples.guest(samples.disk(3)).stated()
