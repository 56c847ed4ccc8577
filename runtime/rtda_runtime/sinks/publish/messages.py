"""The five topics that are published of each result, on every transport, stamped with the time of the frame.

``mask``
    PNG, the class index as grey value: lossless, and every image library reads it.
``overlay``
    JPEG: the mask in the data set's colours over the frame, with its legend.
``statistics``
    JSON: share of each class among the labelled pixels, milliseconds per stage, frames dropped, state of the camera.
``labels``
    JSON: class indices, names and colours.
``state``
    A line of log for each change of the camera's state: live, stale, lost.

Their JSON schemas have the names by which Foxglove knows how to show them. Source: Foxglove's message schemas
``foxglove.CompressedImage`` and ``foxglove.Log`` (docs.foxglove.dev); in JSON bytes are base64 and times are ``{"sec",
"nsec"}``. ``rtda.Statistics`` and ``rtda.Labels`` are ours.

Stamps are nanoseconds since 1970. Frames are stamped on the monotonic clock, whose distance to the wall clock is
measured once, so that distances between stamps are exact even when NTP adjusts the wall clock.
"""

from __future__ import annotations

import enum
import time
from typing import Any, Dict, Optional

import numpy as np

from rtda_deploy.spec import ModelSpec
from rtda_runtime._opencv import opencv
from rtda_runtime.mask.groups import count_classes
from rtda_runtime.result import Result
from rtda_runtime.sinks.overlay import Overlay

__all__ = ["FRAME_ID", "LOG_LEVELS", "SCHEMAS", "SCHEMA_OF", "TOPICS", "Messages", "wall_clock_offset_ns"]

TOPICS = ("mask", "overlay", "statistics", "labels", "state")
FRAME_ID = "camera"

_JPEG_QUALITY = 85  # no visible blocks around the legend's letters
_PNG_LEVEL = 1  # zlib; masks have few colours: higher levels are slower and hardly smaller


class Messages:
    """Turns results into what is published. One thread at a time.

    Args:
        name: What the pictures show, such as the camera's name.
        offset_ns: Wall clock minus the clock of ``captured_ns``; None: measured now.
    """

    def __init__(self, spec: ModelSpec, name: str, *, offset_ns: Optional[int] = None) -> None:
        self._spec = spec
        self._name = name
        self._overlay = Overlay(spec)
        self._offset_ns = wall_clock_offset_ns() if offset_ns is None else offset_ns

    def stamp_ns(self, result: Result) -> int:
        """When the frame was captured, nanoseconds since 1970."""
        return result.captured_ns + self._offset_ns

    def now_ns(self) -> int:
        """Now, on the clock of :meth:`stamp_ns`."""
        return time.perf_counter_ns() + self._offset_ns

    def mask_png(self, result: Result) -> bytes:
        """The mask as an 8-bit grey PNG; decoded it is the same bit for bit."""
        cv2: Any = opencv("to publish masks")
        return _encoded(cv2.imencode(".png", result.mask, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL]))

    def overlay_jpeg(self, result: Result) -> bytes:
        """The overlay with its legend as a JPEG."""
        cv2: Any = opencv("to publish overlays")
        picture = self._overlay.draw_result(result)
        return _encoded(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]))

    def statistics(self, result: Result) -> Dict[str, Any]:
        """Numbers about one result, JSON-ready.

        ``shares`` are of the labelled pixels, by class name; ``unlabelled`` is the share of the whole picture that has
        no class.
        """
        counts = count_classes(result.mask, self._spec)
        return {
            "timestamp": timestamp(self.stamp_ns(result)),
            "captured_ns": result.captured_ns,
            "sequence": result.sequence,
            "dropped": result.dropped,
            "state": result.state,
            "size_wh": [result.mask.shape[1], result.mask.shape[0]],
            "timing_ms": {stage: round(float(spent), 3) for stage, spent in result.timing.items()},
            "shares": {name: round(share, 6) for name, share in counts.shares.items()},
            "unlabelled": round(counts.unlabelled, 6),
        }

    def labels(self) -> Dict[str, Any]:
        """What the values of a mask mean, JSON-ready."""
        return {
            "source": self._name,
            "ignore_index": self._spec.ignore_index,
            "classes": [
                {"index": index, "name": name, "color": list(colour)}
                for index, (name, colour) in enumerate(zip(self._spec.class_names, self._spec.palette))
            ],
        }


def wall_clock_offset_ns() -> int:
    """``time.time_ns()`` minus ``time.perf_counter_ns()``, from the closest of a few readings."""
    readings = []
    for _ in range(5):
        before = time.perf_counter_ns()
        wall = time.time_ns()
        after = time.perf_counter_ns()
        readings.append((after - before, wall - (before + after) // 2))
    return min(readings)[1]


def timestamp(stamp_ns: int) -> Dict[str, int]:
    """Nanoseconds since 1970 as Foxglove writes them in JSON."""
    return {"sec": stamp_ns // 1_000_000_000, "nsec": stamp_ns % 1_000_000_000}


def _encoded(done: Any) -> bytes:
    content: np.ndarray = done[1]
    return content.tobytes()


SCHEMA_OF = {
    "mask": "foxglove.CompressedImage",
    "overlay": "foxglove.CompressedImage",
    "statistics": "rtda.Statistics",
    "labels": "rtda.Labels",
    "state": "foxglove.Log",
}


class LogLevel(enum.IntEnum):
    """Of ``foxglove.Log``, as the SDK spells them."""

    Info = 2
    Warning = 3
    Error = 4


LOG_LEVELS = {"live": LogLevel.Info, "stale": LogLevel.Warning, "lost": LogLevel.Error}

_TIME = {
    "type": "object",
    "title": "time",
    "properties": {
        "sec": {"type": "integer", "minimum": 0},
        "nsec": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
    },
}
_NUMBERS = {"type": "object", "additionalProperties": {"type": "number"}}
_TEXT = {"type": "string"}
_WHOLE = {"type": "integer", "minimum": 0}


def _object(title: str, **properties: Any) -> Dict[str, Any]:
    return {"title": title, "type": "object", "properties": properties, "required": list(properties)}


SCHEMAS: Dict[str, Dict[str, Any]] = {
    "foxglove.CompressedImage": _object(
        "foxglove.CompressedImage",
        timestamp=_TIME,
        frame_id=_TEXT,
        data={"type": "string", "contentEncoding": "base64"},
        format=_TEXT,
    ),
    "foxglove.Log": _object(
        "foxglove.Log", timestamp=_TIME, level=_WHOLE, message=_TEXT, name=_TEXT, file=_TEXT, line=_WHOLE
    ),
    "rtda.Statistics": _object(
        "rtda.Statistics",
        timestamp=_TIME,
        captured_ns=_WHOLE,
        sequence=_WHOLE,
        dropped=_WHOLE,
        state=_TEXT,
        size_wh={"type": "array", "items": _WHOLE},
        timing_ms=_NUMBERS,
        shares=_NUMBERS,
        unlabelled={"type": "number"},
    ),
    "rtda.Labels": _object(
        "rtda.Labels",
        source=_TEXT,
        ignore_index=_WHOLE,
        classes={
            "type": "array",
            "items": _object("rtda.Label", index=_WHOLE, name=_TEXT, color={"type": "array", "items": _WHOLE}),
        },
    ),
}
