"""All layouts. A new one goes into the module of its kind."""

from __future__ import annotations

from typing import Final

from tests.layouts import drives, filters, formats, jobs, protocols, shapes
from tests.layouts.layout import Layout

LAYOUTS: Final[tuple[Layout, ...]] = (
    *formats.LAYOUTS,
    *protocols.LAYOUTS,
    *filters.LAYOUTS,
    *drives.LAYOUTS,
    *shapes.LAYOUTS,
    *jobs.LAYOUTS,
)
