"""Publishing sinks: masks, overlays and statistics for Foxglove, Zenoh, or an MCAP file."""

from __future__ import annotations

from rtda_runtime.sinks.kinds import open_publisher
from rtda_runtime.sinks.publish.base import Publisher

__all__ = ["Publisher", "open_publisher"]
