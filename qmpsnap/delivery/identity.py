"""
Who sends, on the command line: `clouds.yaml` and `OS_*`, as for every OpenStack client.

openstacksdk reads them, since only it knows all of their rules (`secure.yaml`, profiles of vendors,
one endpoint instead of the catalog's). It is loaded when something is to be sent.
"""

from __future__ import annotations

from qmpsnap.delivery.cinder import SERVICE_TYPE, Cinder
from qmpsnap.errors import Refused


class IdentityUnusable(Refused):
    """There is nobody as whom updates can be sent to Cinder."""

    msg = "who sends updates to Cinder is not known: {self.reason}"
    remedy = (
        "Set OS_CLOUD to a cloud of clouds.yaml, or OS_AUTH_URL and what belongs to it; without "
        "keystone, OS_AUTH_TYPE=admin_token, OS_ENDPOINT and OS_TOKEN."
    )

    reason: str


def cinder_of_environment() -> Cinder:
    """
    Find Cinder by the environment; nothing is sent yet.

    Raises:
        IdentityUnusable: The environment names no identity, or its libraries are missing.
    """
    try:
        from keystoneauth1.exceptions import ClientException
        from openstack.config import OpenStackConfig
        from openstack.exceptions import ConfigException
    except ImportError as error:
        raise IdentityUnusable(f"{error}; install `qmpsnap[openstack]`") from error
    try:
        region = OpenStackConfig(app_name="qmpsnap").get_one()
        return Cinder(
            region.get_session(),
            endpoint=region.get_endpoint(SERVICE_TYPE),
            interface=region.get_interface(SERVICE_TYPE) or "public",
            region=region.get_region_name(SERVICE_TYPE),
        )
    except (ClientException, ConfigException, ValueError, OSError) as error:
        raise IdentityUnusable(" ".join(str(error).split())) from error
