"""Sinks: where results go - pictures with an overlay, a window, video files, folders of masks."""

from __future__ import annotations

from rtda_runtime.sinks.base import Sink
from rtda_runtime.sinks.masks import MaskFolder
from rtda_runtime.sinks.overlay import Overlay, colorize
from rtda_runtime.sinks.video import VideoSink
from rtda_runtime.sinks.window import WindowSink

__all__ = ["MaskFolder", "Overlay", "Sink", "VideoSink", "WindowSink", "colorize"]
