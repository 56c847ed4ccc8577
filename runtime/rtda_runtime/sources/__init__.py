"""Sources of frames; :func:`open_source` opens any of them by its address. The names are loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtda_deploy.lazy import lazy

if TYPE_CHECKING:
    from rtda_deploy.masking import mask_password as mask_password
    from rtda_runtime.sources.base import CLOCK as CLOCK
    from rtda_runtime.sources.base import Frame as Frame
    from rtda_runtime.sources.base import RefusedError as RefusedError
    from rtda_runtime.sources.base import Source as Source
    from rtda_runtime.sources.kinds import cameras as cameras
    from rtda_runtime.sources.kinds import open_source as open_source
    from rtda_runtime.sources.reconnect import ReconnectingSource as ReconnectingSource
    from rtda_runtime.sources.synthetic import BarsSource as BarsSource
    from rtda_runtime.sources.v4l2 import CameraInfo as CameraInfo

_HOMES = {
    "CLOCK": "rtda_runtime.sources.base",
    "BarsSource": "rtda_runtime.sources.synthetic",
    "CameraInfo": "rtda_runtime.sources.v4l2",
    "Frame": "rtda_runtime.sources.base",
    "ReconnectingSource": "rtda_runtime.sources.reconnect",
    "RefusedError": "rtda_runtime.sources.base",
    "Source": "rtda_runtime.sources.base",
    "cameras": "rtda_runtime.sources.kinds",
    "mask_password": "rtda_deploy.masking",
    "open_source": "rtda_runtime.sources.kinds",
}

__all__ = list(_HOMES)

__getattr__, __dir__ = lazy(__name__, _HOMES)
