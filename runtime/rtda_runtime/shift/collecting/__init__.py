"""Frames kept for the next training: which, where, and how many (docs/collect.md).

The names are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtda_deploy.lazy import lazy

if TYPE_CHECKING:
    from rtda_runtime.shift.collecting.collector import Collector as Collector
    from rtda_runtime.shift.collecting.limits import CollectOptions as CollectOptions

_HOMES = {
    "CollectOptions": "rtda_runtime.shift.collecting.limits",
    "Collector": "rtda_runtime.shift.collecting.collector",
}

__all__ = list(_HOMES)

__getattr__, __dir__ = lazy(__name__, _HOMES)
