"""Messages that hold a picture, read from the bytes in a bag: ROS 1, CDR (ROS 2), protobuf and JSON.

Five types hold pictures, and their layout does not change, so they are read here field by field: definitions need not
be in the bag (those of ROS 2 before Iron have none), nothing is copied, and no package is needed.

Source: wiki.ros.org/ROS/Connection Header and msg serialisation; OMG DDS-XTypes 1.3, 7.4 (XCDR); Foxglove's schemas.
"""

from __future__ import annotations

import base64
import dataclasses
import re
import struct
from typing import Any, Callable, Dict, Optional, Union

from rtda_deploy.border import json_values, parsing
from rtda_deploy.errors import FrameError
from rtda_deploy.protobuf import Message
from rtda_runtime.sources.image_messages import CompressedMessage, Header, ImageMessage

__all__ = ["WIRES", "PictureMessage", "VideoMessage", "picture_message", "picture_type", "readable"]

WIRES = ("ros1", "cdr", "protobuf", "json")  # how a message may be encoded
_BROKEN = "was it recorded and copied to its end?"
_NAME = re.compile(r"(sensor_msgs|foxglove)(?:_msgs)?(?:[./]|::)(?:msg(?:[./]|::))?(?:dds_(?:[./]|::))?(\w+?)_?")
_CDR_ORDER = {(0, 0): ">", (0, 1): "<", (0, 6): ">", (0, 7): "<"}  # plain CDR, plain CDR 2: the same for these types


@dataclasses.dataclass(frozen=True, eq=False)
class VideoMessage:
    """``foxglove.CompressedVideo``: one frame of a video."""

    header: Header
    format: str
    data: Any


PictureMessage = Union[ImageMessage, CompressedMessage, VideoMessage]


class _Fields:
    """The fields of a message of ROS, one after the other: packed in ROS 1, aligned to their size in CDR."""

    def __init__(self, content: Any, *, cdr: bool) -> None:
        self._all = memoryview(content)
        self._cdr = cdr
        self._order = "<"
        if cdr:
            kind = tuple(self._all[:2])
            if kind not in _CDR_ORDER:
                raise ValueError(f"its encapsulation {bytes(self._all[:2]).hex()} is not plain CDR")
            self._order = _CDR_ORDER[kind]
        self._start = self._place = 4 if cdr else 0

    def number(self) -> int:
        """uint32."""
        if self._cdr:
            self._place += -(self._place - self._start) % 4
        (value,) = struct.unpack_from(f"{self._order}I", self._all, self._place)
        self._place += 4
        return int(value)

    def byte(self) -> int:
        """uint8."""
        self._place += 1
        return self._all[self._place - 1]

    def data(self) -> memoryview:
        """uint8[], not copied; as long as the bytes that are there, where some are missing."""
        size = self.number()
        piece = self._all[self._place : self._place + size]
        self._place += size
        return piece

    def text(self) -> str:
        """string; in CDR it ends with a zero."""
        return bytes(self.data()).rstrip(b"\0").decode("utf-8")

    def stamp(self) -> Header:
        """A time and a coordinate frame."""
        return Header(self.number(), self.number(), self.text())

    def header(self) -> Header:
        """std_msgs/Header, which counts in ROS 1."""
        if not self._cdr:
            self.number()
        return self.stamp()


def _image(fields: _Fields) -> ImageMessage:
    header, height, width = fields.header(), fields.number(), fields.number()
    return ImageMessage(header, height, width, fields.text(), fields.byte(), fields.number(), fields.data())


def _raw_image(fields: _Fields) -> ImageMessage:
    header, width, height = fields.stamp(), fields.number(), fields.number()
    return ImageMessage(header, height, width, fields.text(), 0, fields.number(), fields.data())


def _compressed(fields: _Fields) -> CompressedMessage:
    return CompressedMessage(fields.header(), fields.text(), fields.data())


def _stamped_data(fields: _Fields) -> Dict[str, Any]:
    header, data = fields.stamp(), fields.data()
    return {"header": header, "data": data, "format": fields.text()}


_OF_ROS: Dict[str, Callable[[_Fields], PictureMessage]] = {
    "sensor_msgs/Image": _image,
    "sensor_msgs/CompressedImage": _compressed,
    "foxglove/RawImage": _raw_image,
    "foxglove/CompressedImage": lambda fields: CompressedMessage(**_stamped_data(fields)),
    "foxglove/CompressedVideo": lambda fields: VideoMessage(**_stamped_data(fields)),
}

# Numbers of the fields of Foxglove's .proto files.
_PROTOBUF = {
    "foxglove/RawImage": {"width": 2, "height": 3, "encoding": 4, "step": 5, "data": 6, "frame_id": 7},
    "foxglove/CompressedImage": {"data": 2, "format": 3, "frame_id": 4},
    "foxglove/CompressedVideo": {"frame_id": 2, "data": 3, "format": 4},
}
_NO_TIME = {"sec": 0, "nsec": 0}
_FIXED = ("width", "height", "step")  # fixed32


def picture_type(name: str) -> Optional[str]:
    """The short name of a type of pictures, such as ``sensor_msgs/Image`` of ``sensor_msgs/msg/Image``; else None."""
    found = _NAME.fullmatch(name)
    short = f"{found[1]}/{found[2]}" if found else ""
    return short if short in _OF_ROS else None


def readable(kind: str, wire: str) -> bool:
    """Whether messages of this type are read in this encoding; protobuf and JSON are Foxglove's."""
    return wire in ("ros1", "cdr") or (wire in WIRES and kind in _PROTOBUF)


def picture_message(kind: str, wire: str, content: Any) -> PictureMessage:
    """A message of a type that :func:`picture_type` named.

    Args:
        content: ``bytes``; the message's data are a view of them, except for JSON.

    Raises:
        FrameError: If the bytes are no such message.
    """
    with parsing(FrameError, f"a message of {len(content)} bytes is no {kind}", hint=_BROKEN):
        if wire in ("ros1", "cdr"):
            return _OF_ROS[kind](_Fields(content, cdr=wire == "cdr"))
        return _of_foxglove(kind, _of_protobuf(kind, content) if wire == "protobuf" else _of_json(content))


def _of_foxglove(kind: str, values: Dict[str, Any]) -> PictureMessage:
    header = Header(int(values["sec"]), int(values["nsec"]), values["frame_id"])
    if kind == "foxglove/RawImage":
        size = (int(values["height"]), int(values["width"]))
        return ImageMessage(header, *size, values["encoding"], 0, int(values["step"]), values["data"])
    made = VideoMessage if kind == "foxglove/CompressedVideo" else CompressedMessage
    return made(header, values["format"], values["data"])


def _of_protobuf(kind: str, content: Any) -> Dict[str, Any]:
    message = Message(memoryview(content), 0, len(content))
    times = message.messages(1)
    values: Dict[str, Any] = {"sec": times[-1].number(1), "nsec": times[-1].number(2)} if times else dict(_NO_TIME)
    for name, field in _PROTOBUF[kind].items():
        parts = message.messages(field)
        piece = parts[-1].content if parts else b""
        if name in _FIXED:
            values[name] = int.from_bytes(piece, "little")
        else:
            values[name] = piece if name == "data" else bytes(piece).decode("utf-8")
    return values


def _of_json(content: Any) -> Dict[str, Any]:
    values: Dict[str, Any] = json_values(bytes(content), "a message", FrameError, hint=_BROKEN)
    times = values.get("timestamp") or _NO_TIME
    data = base64.b64decode(values["data"], validate=True)
    return {**values, "frame_id": values.get("frame_id", ""), **times, "data": data}
