"""What the ROS 1 and the ROS 2 node share: pictures, labels and the worker, without any ROS import.

The nodes themselves are ROS packages of their own, ``runtime/ros1`` and ``runtime/ros2``, because they are built with
catkin and colcon; they translate messages, parameters and QoS, and nothing else.
"""

from __future__ import annotations

from rtda_runtime.ros.diagnostics import EVERY_S, Diagnostic
from rtda_runtime.ros.images import image_from_array
from rtda_runtime.ros.parameters import LabelInfo, label_info, open_candidate, open_segmenter
from rtda_runtime.ros.worker import Outputs, SegmentationWorker
from rtda_runtime.sources.image_messages import (
    CompressedMessage,
    Header,
    ImageMessage,
    frame_from_compressed,
    frame_from_image,
)

__all__ = [
    "EVERY_S",
    "CompressedMessage",
    "Diagnostic",
    "Header",
    "ImageMessage",
    "LabelInfo",
    "Outputs",
    "SegmentationWorker",
    "frame_from_compressed",
    "frame_from_image",
    "image_from_array",
    "label_info",
    "open_candidate",
    "open_segmenter",
]
