"""Small bags for tests, written by the libraries of their formats: rosbags, mcap, Foxglove's SDK.

``write_ros1(path, {"/front": drive(10)})`` writes ten pictures of ``picture(0)`` ... in ``rgb8``, a tenth of a second
apart; ``drive(10, "jpeg")``, ``drive(10, "h264")`` other contents; ``write_ros2`` and ``write_mcap`` other formats.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import json
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import pytest

SIZE_WH = (48, 32)
START_NS = 1_700_000_000_000_000_000  # the first log time
PERIOD_NS = 100_000_000
LAG_NS = 5_000_000  # a picture is logged so long after its stamp

IMAGE, COMPRESSED = "sensor_msgs/Image", "sensor_msgs/CompressedImage"
FOX_RAW, FOX_COMPRESSED, FOX_VIDEO = "foxglove/RawImage", "foxglove/CompressedImage", "foxglove/CompressedVideo"

_FOXGLOVE_MSGS = {
    "foxglove_msgs/msg/CompressedImage": "TIME timestamp\nstring frame_id\nuint8[] data\nstring format\n",
    "foxglove_msgs/msg/CompressedVideo": "TIME timestamp\nstring frame_id\nuint8[] data\nstring format\n",
    "foxglove_msgs/msg/RawImage": "TIME timestamp\nstring frame_id\nuint32 width\nuint32 height\nstring encoding\n"
    "uint32 step\nuint8[] data\n",
}
_FIELDS = {
    IMAGE: "height width encoding is_bigendian step data",
    COMPRESSED: "format data",
    FOX_RAW: "width height encoding step data",
    FOX_COMPRESSED: "data format",
    FOX_VIDEO: "data format",
}


class Logged(NamedTuple):
    """A message: its type in the short form, when it was logged, its stamp, and its other fields."""

    kind: str
    log_ns: int
    stamp_ns: int
    fields: Dict[str, Any]


def picture(number: int, size_wh: Tuple[int, int] = SIZE_WH) -> np.ndarray:
    """Picture ``number`` of every recording here, uint8 (H, W, 3) BGR: soft colours, and a bright square that moves."""
    width, height = size_wh
    across = np.linspace(0, 150, width, dtype=np.float32)[None, :]
    down = np.linspace(0, 150, height, dtype=np.float32)[:, None]
    flat = np.full((height, width), 20 + 12 * (number % 8), np.float32)
    image = np.stack([across + 0 * down, 0 * across + down, flat], axis=-1).astype(np.uint8)
    left = 4 + (3 * number) % (width - 14)
    image[10:18, left : left + 8] = (40, 230, 230)
    return image


def log_times(count: int, *, start_ns: int = START_NS, period_ns: int = PERIOD_NS) -> List[int]:
    """When the messages of a drive are logged."""
    return [start_ns + number * period_ns for number in range(count)]


def drive(
    count: int,
    content: str = "rgb8",
    *,
    pictures: Optional[Sequence[np.ndarray]] = None,
    logged_ns: Optional[Sequence[int]] = None,
    stamps_ns: Optional[Sequence[int]] = None,
) -> List[Logged]:
    """Messages of ``count`` pictures, each stamped ``LAG_NS`` before it was logged.

    Args:
        content: ``rgb8``, ``bgr8``, ``mono8`` (sensor_msgs/Image); ``jpeg``, ``png`` (CompressedImage); ``h264``,
            ``h265`` (foxglove CompressedVideo, a key frame in five); ``fox-jpeg``, ``fox-rgb8``: in Foxglove's types.
    """
    shown = [picture(number) for number in range(count)] if pictures is None else list(pictures)
    logged = log_times(len(shown)) if logged_ns is None else list(logged_ns)
    stamps = [time - LAG_NS for time in logged] if stamps_ns is None else list(stamps_ns)
    if content in ("h264", "h265"):
        bodies = [{"format": content, "data": data} for data in encoded_video(shown, content)]
        kind = FOX_VIDEO
    elif content.endswith(("jpeg", "png")):
        form = content.rpartition("-")[2]
        bodies = [{"format": form, "data": encoded_picture(image, form)} for image in shown]
        kind = FOX_COMPRESSED if content.startswith("fox-") else COMPRESSED
    else:
        bodies = [raw(image, content.rpartition("-")[2]) for image in shown]
        kind = FOX_RAW if content.startswith("fox-") else IMAGE
    return [Logged(kind, *times, body) for *times, body in zip(logged, stamps, bodies)]


def raw(image: np.ndarray, encoding: str) -> Dict[str, Any]:
    """The fields of an Image with a BGR picture in rgb8, bgr8 or mono8 (its green)."""
    pixels = {"rgb8": image[..., ::-1], "bgr8": image, "mono8": image[..., 1]}[encoding]
    return laid_out(np.ascontiguousarray(pixels), encoding)


def laid_out(pixels: np.ndarray, encoding: str, *, padding: int = 0, big: int = 0) -> Dict[str, Any]:
    """The fields of an Image whose rows are those of ``pixels`` as they are, each with ``padding`` bytes behind it."""
    rows = np.pad(pixels.reshape(len(pixels), -1).view(np.uint8), ((0, 0), (0, padding)), constant_values=77)
    size = {"height": len(pixels), "width": pixels.shape[1], "step": rows.shape[1]}
    return {**size, "encoding": encoding, "is_bigendian": big, "data": rows.tobytes()}


def encoded_picture(image: np.ndarray, form: str) -> bytes:
    """As JPEG or PNG, by OpenCV."""
    cv2: Any = pytest.importorskip("cv2")
    content: bytes = cv2.imencode(".jpg" if form == "jpeg" else ".png", image)[1].tobytes()
    return content


def encoded_video(shown: Sequence[np.ndarray], codec: str = "h264", *, period: int = 5, crf: int = 1) -> List[bytes]:
    """One packet of Annex B for each picture, as Foxglove asks: no B frames, parameter sets with each key frame."""
    av: Any = pytest.importorskip("av")
    name = {"h264": "libx264", "h265": "libx265"}[codec]
    encoder = av.CodecContext.create(name, "w")
    encoder.height, encoder.width = shown[0].shape[:2]
    encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuv444p", Fraction(1, 10), Fraction(10)
    own = f"keyint={period}:min-keyint={period}:bframes=0:scenecut=0:repeat-headers=1:log-level=none"
    own += "" if codec == "h264" else ":annexb=1:open-gop=0"
    encoder.options = {"crf": str(crf), "preset": "ultrafast", "tune": "zerolatency", f"{name[3:]}-params": own}
    frames = [av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24") for image in shown]
    for number, frame in enumerate(frames):
        frame.pts = number
    packets = [packet for frame in [*frames, None] for packet in encoder.encode(frame)]
    assert len(packets) == len(shown)
    return [bytes(packet) for packet in packets]


def write_ros1(path: Path, topics: Mapping[str, Sequence[Logged]], *, compression: str = "", chunk: int = 0) -> Path:
    """A ``.bag``, by rosbags. ``compression``: ``bz2``, ``lz4``; ``chunk``: its size in bytes."""
    writer: Any = pytest.importorskip("rosbags.rosbag1", reason="needs rosbags").Writer(path)
    store = ros_types(1)
    if compression:
        writer.set_compression(writer.CompressionFormat[compression.upper()])
    if chunk:
        writer.chunk_threshold = chunk
    with writer:
        for topic, message, link in _linked(writer, topics, store):
            del topic
            writer.write(link, message.log_ns, serialised(message, "ros1"))
    return path


def write_ros2(
    folder: Path, topics: Mapping[str, Sequence[Logged]], storage: str = "sqlite3", *, compression: str = ""
) -> Path:
    """A folder of ROS 2, by rosbags. ``compression``: ``file``, ``message``, ``storage``."""
    rosbag2: Any = pytest.importorskip("rosbags.rosbag2", reason="needs rosbags")
    writer = rosbag2.Writer(folder, version=9, storage_plugin=rosbag2.StoragePlugin[storage.upper()])
    store = ros_types(2)
    if compression:
        writer.set_compression(rosbag2.CompressionMode[compression.upper()], rosbag2.CompressionFormat.ZSTD)
    with writer:
        for topic, message, link in _linked(writer, topics, store):
            del topic
            writer.write(link, message.log_ns, serialised(message, "cdr"))
    return folder


def write_mcap(
    path: Path, topics: Mapping[str, Sequence[Logged]], wire: str = "cdr", *, finish: bool = True, **options: Any
) -> Path:
    """An ``.mcap``, by mcap's writer.

    Args:
        wire: ``cdr`` (ROS 2), ``ros1``, ``protobuf``, ``json``.
        finish: False: as a process that was killed leaves it, without summary and footer.
        options: Of ``mcap.writer.Writer``: chunk_size, compression, use_chunking ...
    """
    mcap: Any = pytest.importorskip("mcap.writer", reason="needs mcap")
    encoding = {"cdr": "ros2msg", "ros1": "ros1msg", "protobuf": "protobuf", "json": "jsonschema"}[wire]
    with path.open("wb") as stream:
        writer = mcap.Writer(stream, **options)
        writer.start(profile={"cdr": "ros2", "ros1": "ros1"}.get(wire, ""), library="a test")
        channels = {}
        for topic, messages in topics.items():
            schema = writer.register_schema(schema_name(messages[0].kind, wire), encoding, b"{}")
            channels[topic] = writer.register_channel(topic, wire, schema)
        for topic, message in _in_order(topics):
            writer.add_message(channels[topic], message.log_ns, serialised(message, wire), message.log_ns)
        if finish:
            writer.finish()
    return path


def schema_name(kind: str, wire: str) -> str:
    """What a type is called: ``sensor_msgs/msg/Image``, ``foxglove.RawImage``, ``foxglove_msgs/msg/RawImage`` ..."""
    package, _, name = kind.partition("/")
    if wire in ("protobuf", "json"):
        return f"{package}.{name}"
    package = "foxglove_msgs" if package == "foxglove" else package
    return f"{package}/msg/{name}" if wire == "cdr" else f"{package}/{name}"


@functools.lru_cache(maxsize=None)
def ros_types(version: int) -> Any:
    """rosbags' types of ROS Noetic or Humble, and those of foxglove_msgs."""
    typesys: Any = pytest.importorskip("rosbags.typesys", reason="needs rosbags")
    store = typesys.get_typestore(typesys.Stores.ROS1_NOETIC if version == 1 else typesys.Stores.ROS2_HUMBLE)
    time = "time" if version == 1 else "builtin_interfaces/Time"
    for name, text in _FOXGLOVE_MSGS.items():
        store.register(typesys.get_types_from_msg(text.replace("TIME", time), name))
    return store


def serialised(message: Logged, wire: str) -> bytes:
    """The bytes of a message."""
    if wire == "json":
        time = {"sec": message.stamp_ns // 10**9, "nsec": message.stamp_ns % 10**9}
        data = base64.b64encode(message.fields["data"]).decode()
        return json.dumps({"timestamp": time, "frame_id": "front", **message.fields, "data": data}).encode()
    if wire == "protobuf":
        return _protobuf(message)
    if importlib.util.find_spec("rosbags") is None:
        return by_hand(message, wire)
    store = ros_types(1 if wire == "ros1" else 2)
    name = schema_name(message.kind, "cdr")
    time = store.types["builtin_interfaces/msg/Time"](*divmod(message.stamp_ns, 10**9))
    fields = {key: np.frombuffer(value, np.uint8) if key == "data" else value for key, value in message.fields.items()}
    if name.startswith("sensor_msgs"):
        header = store.types["std_msgs/msg/Header"]
        extra = {"seq": 7} if wire == "ros1" else {}
        fields["header"] = header(stamp=time, frame_id="front", **extra)
    else:
        fields.update(timestamp=time, frame_id="front")
        fields.pop("is_bigendian", None)
    made = store.types[name](**fields)
    content = store.serialize_ros1(made, name) if wire == "ros1" else store.serialize_cdr(made, name)
    return bytes(content)


def by_hand(message: Logged, wire: str) -> bytes:
    """What rosbags makes of a message, for Pythons that it is not made for."""
    cdr = wire == "cdr"
    content = bytearray(b"\0\1\0\0" if cdr else b"")

    def add(name: str, value: Any) -> None:
        if name == "is_bigendian":
            content.append(value)
            return
        piece = value.encode() + b"\0" * cdr if isinstance(value, str) else value
        content.extend(bytes(-len(content) % 4 if cdr else 0))
        content.extend(struct.pack("<I", piece if isinstance(piece, int) else len(piece)))
        content.extend(b"" if isinstance(piece, int) else piece)

    if message.kind in (IMAGE, COMPRESSED) and not cdr:
        add("seq", 7)
    for name, value in zip(("sec", "nanosec", "frame_id"), (*divmod(message.stamp_ns, 10**9), "front")):
        add(name, value)
    for name in _FIELDS[message.kind].split():
        add(name, message.fields[name])
    return bytes(content)


def _protobuf(message: Logged) -> bytes:
    messages: Any = pytest.importorskip("foxglove.messages", reason="needs foxglove-sdk")
    time = messages.Timestamp(*divmod(message.stamp_ns, 10**9))
    fields = {key: value for key, value in message.fields.items() if key != "is_bigendian"}
    content: bytes = getattr(messages, message.kind.partition("/")[2])(
        timestamp=time, frame_id="front", **fields
    ).encode()
    return content


def _in_order(topics: Mapping[str, Sequence[Logged]]) -> List[Tuple[str, Logged]]:
    """Every message in the order of time; of one topic as they are given, also where its times jump back."""
    places = [
        (index, number, topic, message)
        for number, (topic, messages) in enumerate(topics.items())
        for index, message in enumerate(messages)
    ]
    return [(topic, message) for _, _, topic, message in sorted(places, key=lambda place: place[:2])]


def _linked(writer: Any, topics: Mapping[str, Sequence[Logged]], store: Any) -> List[Tuple[str, Logged, Any]]:
    links = {}
    for topic, messages in topics.items():
        links[topic] = writer.add_connection(topic, schema_name(messages[0].kind, "cdr"), typestore=store)
    return [(topic, message, links[topic]) for topic, message in _in_order(topics)]
