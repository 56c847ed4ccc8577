"""Run a segmentation network on a robot: source -> preprocess -> infer -> mask at camera size -> sinks.

The names below are loaded when first used, so ``import rtda_runtime`` costs little more than numpy. Nothing in this
package imports torch; OpenCV and ONNX Runtime are imported by the functions that need them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtda_deploy.lazy import lazy

if TYPE_CHECKING:
    from rtda_runtime.discovery import newest_model as newest_model
    from rtda_runtime.engines import Engine as Engine
    from rtda_runtime.engines import open_engine as open_engine
    from rtda_runtime.mask.upsample import upsample_argmax as upsample_argmax
    from rtda_runtime.pipeline.options import PipelineOptions as PipelineOptions
    from rtda_runtime.pipeline.pipeline import Pipeline as Pipeline
    from rtda_runtime.pool import SegmenterPool as SegmenterPool
    from rtda_runtime.result import Result as Result
    from rtda_runtime.segmenter import Segmenter as Segmenter
    from rtda_runtime.shift.collecting import CollectOptions as CollectOptions
    from rtda_runtime.shift.collecting import Collector as Collector
    from rtda_runtime.sinks import MaskFolder as MaskFolder
    from rtda_runtime.sinks import Overlay as Overlay
    from rtda_runtime.sinks import Sink as Sink
    from rtda_runtime.sinks import VideoSink as VideoSink
    from rtda_runtime.sinks import WindowSink as WindowSink
    from rtda_runtime.sinks import colorize as colorize
    from rtda_runtime.sources import Frame as Frame
    from rtda_runtime.sources import Source as Source
    from rtda_runtime.sources import cameras as cameras
    from rtda_runtime.sources import open_source as open_source

__all__ = [
    "CollectOptions",
    "Collector",
    "Engine",
    "Frame",
    "MaskFolder",
    "Overlay",
    "Pipeline",
    "PipelineOptions",
    "Result",
    "Segmenter",
    "SegmenterPool",
    "Sink",
    "Source",
    "VideoSink",
    "WindowSink",
    "cameras",
    "colorize",
    "newest_model",
    "open_engine",
    "open_source",
    "upsample_argmax",
]

_HOMES = {
    "CollectOptions": "rtda_runtime.shift.collecting",
    "Collector": "rtda_runtime.shift.collecting",
    "Engine": "rtda_runtime.engines",
    "Frame": "rtda_runtime.sources",
    "MaskFolder": "rtda_runtime.sinks",
    "Overlay": "rtda_runtime.sinks",
    "Pipeline": "rtda_runtime.pipeline.pipeline",
    "PipelineOptions": "rtda_runtime.pipeline.options",
    "Result": "rtda_runtime.result",
    "Segmenter": "rtda_runtime.segmenter",
    "SegmenterPool": "rtda_runtime.pool",
    "Sink": "rtda_runtime.sinks",
    "Source": "rtda_runtime.sources",
    "VideoSink": "rtda_runtime.sinks",
    "WindowSink": "rtda_runtime.sinks",
    "cameras": "rtda_runtime.sources",
    "colorize": "rtda_runtime.sinks",
    "newest_model": "rtda_runtime.discovery",
    "open_engine": "rtda_runtime.engines",
    "open_source": "rtda_runtime.sources",
    "upsample_argmax": "rtda_runtime.mask.upsample",
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
