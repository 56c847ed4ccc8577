"""JSON schemas of what is published, under the names by which Foxglove knows how to show it.

Source: Foxglove's message schemas ``foxglove.CompressedImage`` and ``foxglove.Log`` (docs.foxglove.dev); in JSON bytes
are base64 and times are ``{"sec", "nsec"}``. ``rtda.Statistics`` and ``rtda.Labels`` are ours.
"""

from __future__ import annotations

import enum
from typing import Any, Dict

__all__ = ["LOG_LEVELS", "SCHEMAS", "SCHEMA_OF"]

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
