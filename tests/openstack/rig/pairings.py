"""Which of the two sides is ours, as an operator would say it: by configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NOVA: Final = ("DEFAULT.compute_driver=qmpsnap.LibvirtDriver",)
"""Of nova.conf, where the compute side is ours."""
CINDER: Final = (
    "DEFAULT.osapi_volume_extension=cinder.api.contrib.standard_extensions",
    "DEFAULT.osapi_volume_extension=qmpsnap.openstack.cinder.Extension",
    "nfs1.volume_driver=qmpsnap.openstack.cinder.NfsDriver",
)
"""Of cinder.conf, where the volume side is ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """One way to combine them; `nova` and `cinder` are settings, `SECTION.KEY=VALUE`."""

    name: str
    nova: tuple[str, ...] = ()
    cinder: tuple[str, ...] = ()


STOCK: Final = Pairing(name="stock")
OUR_NOVA: Final = Pairing(name="our-nova", nova=NOVA)
BY_XML: Final = Pairing(name="our-nova-by-xml", nova=(*NOVA, "qmpsnap.allow_passthrough=False"))
"""Without asking QEMU itself."""
OUR_CINDER: Final = Pairing(name="our-cinder", cinder=CINDER)
OURS: Final = Pairing(name="ours", nova=NOVA, cinder=CINDER)
