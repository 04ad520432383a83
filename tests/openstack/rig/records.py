"""What a boot with a volume attached leaves in Nova's database; in the compute process only."""

from __future__ import annotations

import json
from typing import Any

from nova import context, exception, objects
from nova.compute import vm_states

from tests.openstack.rig.layout import PROJECT


def admin() -> Any:
    """A request's context; the token is what Cinder's noauth takes."""
    return context.RequestContext(
        user_id="admin",
        project_id=PROJECT,
        is_admin=True,
        auth_token=f"admin:{PROJECT}",
        service_catalog=[],
    )


def register(body: dict[str, Any]) -> None:
    """Write down an instance, and a volume that is attached to it."""
    ctx = admin()
    try:
        instance = objects.Instance.get_by_uuid(ctx, body["server"])
    except exception.InstanceNotFound:
        instance = _instance(ctx, body["server"], body.get("properties", {}))
    mappings = objects.BlockDeviceMappingList.get_by_instance_uuid(ctx, instance.uuid)
    if any(one.volume_id == body["volume"] for one in mappings):
        return
    objects.BlockDeviceMapping(
        ctx,
        instance_uuid=instance.uuid,
        volume_id=body["volume"],
        source_type="volume",
        destination_type="volume",
        device_name=body["device"],
        attachment_id=body["attachment"],
        boot_index=0,
        connection_info=json.dumps(body["connection_info"]),
    ).create()


def _instance(ctx: Any, server: str, properties: dict[str, str]) -> Any:
    """`properties` are the image's, as Nova keeps them with the instance."""
    instance = objects.Instance(
        ctx,
        uuid=server,
        project_id=PROJECT,
        user_id="admin",
        host="rig",
        node="rig",
        compute_id=1,  # the table wants one
        vm_state=vm_states.ACTIVE,
        image_ref="",
        display_name="rig",
        metadata={},
        system_metadata={f"image_{name}": value for name, value in properties.items()},
    )
    instance.flavor = objects.Flavor(
        ctx,
        memory_mb=64,
        vcpus=1,
        root_gb=1,
        ephemeral_gb=0,
        swap=0,
        extra_specs={},
        name="t",
        flavorid="t",
        rxtx_factor=1.0,
        vcpu_weight=0,
        disabled=False,
        is_public=True,
        id=1,
    )
    instance.old_flavor = instance.new_flavor = None
    instance.create()
    return instance


def mapping(volume: str) -> Any:
    """Nova's row about an attached volume."""
    return objects.BlockDeviceMapping.get_by_volume_id(admin(), volume)


def unregister(volume: str) -> None:
    """Forget that a volume is attached, as Nova does when it has detached it."""
    mapping(volume).destroy()


def instance_of(volume: str) -> Any:
    """The instance that a volume is attached to."""
    return objects.Instance.get_by_uuid(admin(), mapping(volume).instance_uuid)
