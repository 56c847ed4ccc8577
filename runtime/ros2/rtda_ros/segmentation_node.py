"""ROS 2 node: ``image_in`` -> ``class_mask``, ``color_mask``, ``overlay``, ``confidence``, ``label_info`` (latched).

Once a second its health goes to ``/diagnostics``, with ``shift`` whether the world is what the network knows, and with
``shadow`` how far a candidate agrees with it.

Parameters: ``model`` (needed), ``provider``, ``threads``, ``spec``, ``groups``, ``region``, ``confidence``,
``compressed``, ``max_age``, ``alpha``, ``shift``, ``shadow``, ``only_when_subscribed``, ``report_every``,
``reliability``, ``depth``. Everything about classes, colours and sizes is read from the model file.
"""

from __future__ import annotations

import array
import sys
from typing import Any, Dict, List, Optional

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.executors import ExternalShutdownException
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from rtda_deploy.errors import ConfigError, RtdaError
from rtda_runtime import Segmenter
from rtda_runtime.ros import (
    EVERY_S,
    CompressedMessage,
    Diagnostic,
    Header,
    ImageMessage,
    LabelInfo,
    Outputs,
    SegmentationWorker,
    label_info,
    open_candidate,
    open_segmenter,
)
from rtda_runtime.ros.worker import output_names

try:  # Humble and newer; before that vision_msgs has no such message
    from vision_msgs.msg import LabelInfo as LabelInfoMessage
    from vision_msgs.msg import VisionClass as VisionClassMessage
except ImportError:
    LabelInfoMessage = VisionClassMessage = None

_PARAMETERS: Dict[str, Any] = {
    "model": "",
    "provider": "auto",
    "threads": 0,
    "spec": "",
    "groups": [""],  # rclpy takes an empty list for one of bytes
    "region": "",
    "confidence": False,
    "compressed": False,
    "max_age": 0.0,
    "alpha": 0.5,
    "shift": "",
    "shadow": "",
    "only_when_subscribed": True,
    "report_every": 10.0,
    "reliability": "best_effort",
    "depth": 1,
}
_RELIABILITY = {"best_effort": ReliabilityPolicy.BEST_EFFORT, "reliable": ReliabilityPolicy.RELIABLE}


class SegmentationNode(Node):
    """Translates between rclpy and the worker."""

    def __init__(self) -> None:
        super().__init__("segmentation")
        values = {name: self.declare_parameter(name, default).value for name, default in _PARAMETERS.items()}
        self._only_when_subscribed = bool(values["only_when_subscribed"])
        input_qos = _input_qos(str(values["reliability"]), int(values["depth"]))
        segmenter = _open(values)
        self.get_logger().info(segmenter.description)
        segmenter.warm_up()
        shadow = open_candidate(values)
        names = output_names(confidence=bool(values["confidence"]))
        # A reliable publisher serves best-effort subscribers, too.
        self._publishers_by_name = {name: self.create_publisher(Image, name, _qos(latched=False)) for name in names}
        self._publish_labels(label_info(segmenter.spec, self._now()))
        self.worker = SegmentationWorker(
            segmenter,
            self._publish,
            wanted=self._wanted,
            now_ns=lambda: int(self.get_clock().now().nanoseconds),
            max_age_s=float(values["max_age"]),
            alpha=float(values["alpha"]),
            shift=str(values["shift"]),
            shadow=shadow,
            warn=self.get_logger().warning,
        )
        if values["compressed"]:
            self.create_subscription(CompressedImage, "image_in/compressed", self._on_compressed, input_qos)
        else:
            self.create_subscription(Image, "image_in", self._on_image, input_qos)
        self._health = self.create_publisher(DiagnosticArray, "/diagnostics", _qos(latched=False))
        self.create_timer(EVERY_S, self._publish_health)
        if values["report_every"] > 0:
            self.create_timer(float(values["report_every"]), self._report)

    def destroy_node(self) -> None:
        """End the worker, which publishes, before the publishers go."""
        self.worker.close()
        super().destroy_node()

    def _on_image(self, message: Any) -> None:
        self.worker.give(
            ImageMessage(
                _header(message),
                message.height,
                message.width,
                message.encoding,
                message.is_bigendian,
                message.step,
                message.data,
            )
        )

    def _on_compressed(self, message: Any) -> None:
        self.worker.give(CompressedMessage(_header(message), message.format, message.data))

    def _wanted(self) -> List[str]:
        if not self._only_when_subscribed:
            return list(self._publishers_by_name)
        publishers = self._publishers_by_name.items()
        return [name for name, publisher in publishers if publisher.get_subscription_count()]

    def _publish(self, outputs: Outputs) -> None:
        for name, publisher in self._publishers_by_name.items():
            image = getattr(outputs, name)
            if image is not None:
                publisher.publish(_message(image))

    def _publish_labels(self, info: LabelInfo) -> None:
        kind = String if LabelInfoMessage is None else LabelInfoMessage
        self._labels = self.create_publisher(kind, "label_info", _qos(latched=True))
        self._labels.publish(_labels_message(info))

    def _now(self) -> Header:
        seconds, nanoseconds = divmod(int(self.get_clock().now().nanoseconds), 1_000_000_000)
        return Header(seconds, nanoseconds, "")

    def _publish_health(self) -> None:
        self._health.publish(_health_message(self.worker.diagnostic, self._now()))

    def _report(self) -> None:
        self.get_logger().info(" ".join(f"{name} {value:g}" for name, value in self.worker.stats.items()))


def _open(values: Dict[str, Any]) -> Segmenter:
    if not values["model"]:
        raise ConfigError(
            "parameter model is not set", hint="ros2 launch rtda_ros segmentation.launch.py model:=/m.onnx"
        )
    return open_segmenter(values)


def _input_qos(reliability: str, depth: int) -> QoSProfile:
    """Sensor data: best effort, and one image, because a newer one is always better."""
    if reliability not in _RELIABILITY:
        raise ConfigError(f"parameter reliability is {reliability!r}", hint=f"known: {', '.join(_RELIABILITY)}")
    if depth < 1:
        raise ConfigError(f"parameter depth is {depth}", hint="1: the newest image")
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=_RELIABILITY[reliability],
        durability=DurabilityPolicy.VOLATILE,
    )


def _qos(*, latched: bool) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def _header(message: Any) -> Header:
    stamp = message.header.stamp
    return Header(stamp.sec, stamp.nanosec, message.header.frame_id)


def _fill_header(message: Any, header: Header) -> None:
    message.header.stamp.sec = header.sec
    message.header.stamp.nanosec = header.nanosec
    message.header.frame_id = header.frame_id


def _message(image: ImageMessage) -> Image:
    message = Image()
    _fill_header(message, image.header)
    message.height, message.width, message.step = image.height, image.width, image.step
    message.encoding, message.is_bigendian = image.encoding, image.is_bigendian
    message.data = array.array("B", image.data)  # any other type is checked byte by byte: a second per image
    return message


def _health_message(health: Diagnostic, header: Header) -> DiagnosticArray:
    status = DiagnosticStatus()
    status.level = bytes([health.level])  # rclpy's type of the IDL's byte
    status.name, status.message, status.hardware_id = health.name, health.message, health.hardware_id
    status.values = [KeyValue(key=key, value=value) for key, value in health.values]
    message = DiagnosticArray()
    _fill_header(message, header)
    message.status = [status]
    return message


def _labels_message(info: LabelInfo) -> Any:
    if LabelInfoMessage is None:
        message = String()
        message.data = info.to_json()
        return message
    message = LabelInfoMessage()
    _fill_header(message, info.header)
    message.class_map = [VisionClassMessage(class_id=one.class_id, class_name=one.class_name) for one in info.class_map]
    message.threshold = info.threshold
    return message


def main(args: Optional[List[str]] = None) -> None:
    """Run until ROS shuts down."""
    rclpy.init(args=args)
    node: Optional[SegmentationNode] = None
    code = 0
    try:
        node = SegmentationNode()
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RtdaError as err:
        get_logger("segmentation").fatal(". ".join(filter(None, (err.message, err.why, err.hint))))
        code = err.exit_code
    finally:
        if node is not None:
            node.destroy_node()
        if rclpy.ok():
            rclpy.shutdown()
    sys.exit(code)


if __name__ == "__main__":
    main()
