"""Sinks: where results go - pictures with an overlay, a window, video files, folders of masks, viewers, publishers.

The names are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtda_deploy.lazy import lazy

if TYPE_CHECKING:
    from rtda_runtime.sinks.base import Sink as Sink
    from rtda_runtime.sinks.masks import MaskFolder as MaskFolder
    from rtda_runtime.sinks.overlay import Overlay as Overlay
    from rtda_runtime.sinks.overlay import colorize as colorize
    from rtda_runtime.sinks.video import VideoSink as VideoSink
    from rtda_runtime.sinks.window import WindowSink as WindowSink

_HOMES = {
    "MaskFolder": "rtda_runtime.sinks.masks",
    "Overlay": "rtda_runtime.sinks.overlay",
    "Sink": "rtda_runtime.sinks.base",
    "VideoSink": "rtda_runtime.sinks.video",
    "WindowSink": "rtda_runtime.sinks.window",
    "colorize": "rtda_runtime.sinks.overlay",
}

__all__ = list(_HOMES)

__getattr__, __dir__ = lazy(__name__, _HOMES)
