"""What the parts of a driver are parts of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cinder.volume.driver import BaseVD as Family
else:
    # The parts stand between classes of Cinder's; what `super()` is differs from family to family.
    Family = object

__all__ = ["Family"]
