"""All layouts of libvirt guests. A new one goes into the module of its kind."""

from __future__ import annotations

from typing import Final

from tests.layouts_libvirt import jobs, shapes
from tests.layouts_libvirt.layout import Layout

LAYOUTS: Final[tuple[Layout, ...]] = (*shapes.LAYOUTS, *jobs.LAYOUTS)
