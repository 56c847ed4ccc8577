"""The view in a browser: a small HTTP server that shows the newest result to whoever looks."""

from __future__ import annotations

from rtda_runtime.sinks.view.sink import ViewSink

__all__ = ["ViewSink"]
