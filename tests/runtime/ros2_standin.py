"""A thin stand-in for rclpy and its message packages, for machines without ROS 2.

The message classes are made from the field lists of rosbags' ROS 2 type stores and check what is assigned as rclpy's
generated classes do. ``vision_msgs`` is registered from its .msg text (vision_msgs 4, Humble and newer).
Names and arguments of the rest are those of rclpy; nothing else of it is there.
"""

from __future__ import annotations

import array
import contextlib
import enum
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import numpy as np

VISION_CLASS = "uint16 class_id\nstring class_name\n"
LABEL_INFO = "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n"
_NODE = Path(__file__).parents[2] / "runtime" / "ros2" / "rtda_ros" / "segmentation_node.py"
_RANGES = {"uint8": (0, 255), "uint16": (0, 65535), "uint32": (0, 2**32 - 1), "int32": (-(2**31), 2**31 - 1)}


def type_store(release: str, *, vision: bool = True) -> Any:
    """rosbags' types of a ROS 2 release, such as ``HUMBLE``."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(getattr(Stores, f"ROS2_{release}"))
    if vision:
        store.register(get_types_from_msg(VISION_CLASS, "vision_msgs/msg/VisionClass"))
        store.register(get_types_from_msg(LABEL_INFO, "vision_msgs/msg/LabelInfo"))
    return store


class Message:
    """Base of the message classes: only fields of the type, only values of the field's type."""

    _fields: Dict[str, Any]
    _kind: str

    def __init__(self, **values: Any) -> None:
        for name, field in self._fields.items():
            object.__setattr__(self, name, field.default())
        for name, value in values.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._fields:
            raise AttributeError(f"{self._kind} has no field {name}")
        assert self._fields[name].fits(value), f"{self._kind}.{name} cannot be {type(value).__name__}"
        object.__setattr__(self, name, value)


class _Field:
    def __init__(self, default: Callable[[], Any], fits: Callable[[Any], bool]) -> None:
        self.default, self.fits = default, fits


class Types:
    """Message classes of one type store, made when asked for."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self._made: Dict[str, type] = {}

    def __getitem__(self, kind: str) -> Any:
        if kind not in self._made:
            fields = {name: self._field(*what) for name, what in self.store.fielddefs[kind][1]}
            self._made[kind] = type(kind.rpartition("/")[2], (Message,), {"_fields": fields, "_kind": kind})
        return self._made[kind]

    def to_cdr_and_back(self, message: Any) -> Any:
        """What a subscriber gets: rosbags' object after serialisation."""
        content = self.store.serialize_cdr(self._plain(message), message._kind)
        return self.store.deserialize_cdr(bytes(content), message._kind)

    def _field(self, node: Any, what: Any) -> _Field:
        if node.name == "NAME":
            kind = self[what]
            return _Field(kind, lambda value: isinstance(value, kind))
        if node.name == "SEQUENCE":
            (inner, of), _ = what
            if inner.name == "BASE" and of[0] == "uint8":
                # rclpy takes other sequences, too, looking at each byte: that slow way is not allowed here
                return _Field(lambda: array.array("B"), lambda value: isinstance(value, array.array))
            one = self._field(inner, of)
            return _Field(list, lambda value: isinstance(value, (list, tuple)) and all(map(one.fits, value)))
        base = what[0]
        if base == "byte":
            return _Field(lambda: b"\0", lambda value: isinstance(value, bytes) and len(value) == 1)
        if base == "string":
            return _Field(str, lambda value: isinstance(value, str))
        if base.startswith("float"):
            return _Field(float, lambda value: isinstance(value, float))
        least, most = _RANGES[base]
        return _Field(int, lambda value: type(value) is int and least <= value <= most)

    def _plain(self, message: Any) -> Any:
        values = {}
        for name in message._fields:
            value = getattr(message, name)
            if isinstance(value, Message):
                value = self._plain(value)
            elif isinstance(value, array.array):
                value = np.frombuffer(value, np.uint8)
            elif isinstance(value, bytes):
                value = value[0]
            elif isinstance(value, (list, tuple)):
                value = [self._plain(one) for one in value]
            values[name] = value
        return self.store.types[message._kind](**values)


class ReliabilityPolicy(enum.IntEnum):
    RELIABLE = 1
    BEST_EFFORT = 2


class DurabilityPolicy(enum.IntEnum):
    TRANSIENT_LOCAL = 1
    VOLATILE = 2


class HistoryPolicy(enum.IntEnum):
    KEEP_LAST = 1
    KEEP_ALL = 2


class QoSProfile:
    def __init__(
        self, *, history: HistoryPolicy, depth: int, reliability: ReliabilityPolicy, durability: DurabilityPolicy
    ) -> None:
        self.history, self.depth, self.reliability, self.durability = history, depth, reliability, durability


class Publisher:
    def __init__(self, msg_type: type, topic: str, qos_profile: QoSProfile) -> None:
        self.msg_type, self.topic, self.qos_profile = msg_type, topic, qos_profile
        self.subscribers = 0
        self.published: List[Any] = []
        self.destroyed = False

    def publish(self, msg: Any) -> None:
        if not isinstance(msg, self.msg_type):
            raise TypeError(f"Expected {self.msg_type}, got {type(msg)}")
        assert not self.destroyed, "published after destroy_node"
        self.published.append(msg)

    def get_subscription_count(self) -> int:
        return self.subscribers


class ExternalShutdownException(Exception):
    pass


class Ros2:
    """What a test sees of the middleware: parameters to set, what was created, what was logged."""

    def __init__(self, store: Any, parameters: Optional[Dict[str, Any]] = None) -> None:
        self.types = Types(store)
        self.parameters = parameters or {}
        self.publishers: Dict[str, Publisher] = {}
        self.subscriptions: Dict[str, Any] = {}
        self.timers: Dict[float, Callable[[], None]] = {}
        self.log: List[Any] = []
        self.now_ns = 50_000_000_000
        self.running = False
        self.spin: Callable[[Any], None] = lambda node: None

    def modules(self) -> Dict[str, types.ModuleType]:
        """For ``sys.modules``."""
        names = {
            "rclpy": {"init": self._init, "ok": lambda: self.running, "shutdown": self._shutdown, "spin": self._spin},
            "rclpy.executors": {"ExternalShutdownException": ExternalShutdownException},
            "rclpy.logging": {"get_logger": lambda name: self._logger()},
            "rclpy.node": {"Node": self._node_class()},
            "rclpy.qos": {
                one.__name__: one for one in (DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy)
            },
            "diagnostic_msgs.msg": self._messages("diagnostic_msgs", "DiagnosticArray", "DiagnosticStatus", "KeyValue"),
            "sensor_msgs.msg": self._messages("sensor_msgs", "CompressedImage", "Image"),
            "std_msgs.msg": self._messages("std_msgs", "String"),
        }
        if "vision_msgs/msg/LabelInfo" in self.types.store.fielddefs:
            names["vision_msgs.msg"] = self._messages("vision_msgs", "LabelInfo", "VisionClass")
        else:
            names["vision_msgs.msg"] = {}  # Foxy has the package, but not these messages
        made = {}
        for name, content in names.items():
            for part in {name.partition(".")[0], name}:
                made.setdefault(part, types.ModuleType(part))
            vars(made[name]).update(content)
        return made

    def _messages(self, package: str, *names: str) -> Dict[str, Any]:
        return {name: self.types[f"{package}/msg/{name}"] for name in names}

    def _init(self, args: Optional[List[str]] = None) -> None:
        self.running = True

    def _shutdown(self) -> None:
        assert self.running, "rclpy.shutdown() without init()"
        self.running = False

    def _spin(self, node: Any) -> None:
        self.spin(node)

    def _logger(self) -> Any:
        levels = ("info", "warning", "error", "fatal")
        return types.SimpleNamespace(
            **{level: lambda text, level=level: self.log.append((level, text)) for level in levels}
        )

    def _node_class(self) -> type:
        ros = self

        class Node:
            def __init__(self, node_name: str) -> None:
                self.node_name = node_name

            def declare_parameter(self, name: str, value: Any) -> Any:
                given = ros.parameters.get(name, value)
                assert type(given) is type(value), f"parameter {name} is declared as {type(value).__name__}"
                return types.SimpleNamespace(name=name, value=given)

            def create_publisher(self, msg_type: type, topic: str, qos_profile: Any) -> Publisher:
                ros.publishers[topic] = Publisher(msg_type, topic, qos_profile)
                return ros.publishers[topic]

            def create_subscription(self, msg_type: type, topic: str, callback: Any, qos_profile: Any) -> Any:
                ros.subscriptions[topic] = types.SimpleNamespace(
                    msg_type=msg_type, callback=callback, qos_profile=qos_profile
                )
                return ros.subscriptions[topic]

            def create_timer(self, timer_period_sec: float, callback: Callable[[], None]) -> None:
                ros.timers[timer_period_sec] = callback

            def get_logger(self) -> Any:
                return ros._logger()

            def get_clock(self) -> Any:
                return types.SimpleNamespace(now=lambda: types.SimpleNamespace(nanoseconds=ros.now_ns))

            def destroy_node(self) -> None:
                for publisher in ros.publishers.values():
                    publisher.destroyed = True

        return Node


@contextlib.contextmanager
def loaded(ros: Ros2) -> Iterator[Any]:
    """The node's module, loaded on the stand-in."""
    modules = ros.modules()
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        found = importlib.util.spec_from_file_location("segmentation_node_under_test", _NODE)
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        yield module
    finally:
        for name, old in before.items():
            if old is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = old
