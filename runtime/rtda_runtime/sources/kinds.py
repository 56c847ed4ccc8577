"""The kinds of source, one row each. Opening, help texts, errors, ``cameras`` and ``doctor`` read this table.

To add one: a module with an opener, and a row in :data:`SOURCE_KINDS`. The opener is called with the address and a
:class:`CameraRequest`, and returns a function that opens the source; that is called again when a camera was lost.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, List, NamedTuple, Optional, Tuple, Union

from rtda_deploy.errors import ConfigError
from rtda_deploy.optional import Package
from rtda_runtime.kinds import OPENCV, Kind, examples, find_kind, function_named

if TYPE_CHECKING:
    from rtda_runtime.sources.base import Source
    from rtda_runtime.sources.v4l2 import CameraInfo

__all__ = ["SOURCE_KINDS", "CameraRequest", "SourceKind", "cameras", "open_source", "source_files", "source_kind"]


class CameraRequest(NamedTuple):
    """What is asked of a camera; a value that it does not grant is an error. None: its own choice.

    Attributes:
        size_wh: Width and height.
        fps: Frames per second.
        fourcc: Pixel format of a V4L2 camera: ``MJPG``.
    """

    size_wh: Optional[Tuple[int, int]] = None
    fps: Optional[float] = None
    fourcc: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class SourceKind(Kind):
    """A row of the table.

    Attributes:
        requests: The fields of :class:`CameraRequest` that it can be asked for.
        reconnects: A camera or stream, which can be opened again when it is lost.
        files: Returns the files that an address reads; empty: it reads none.
        cameras: Returns the cameras of this kind that are connected; empty: it cannot tell.
    """

    requests: Tuple[str, ...] = ()
    reconnects: bool = False
    files: str = ""
    cameras: str = ""


_GSTREAMER = ("OpenCV's GStreamer", "rtda_runtime.sources.gstreamer:doctor_line")

# The first row that matches an address has it. Programs may append rows of their own.
SOURCE_KINDS: List[SourceKind] = [
    SourceKind(
        name="V4L2 camera",
        pattern=r"\d+|(v4l2://)?/dev/(video\d+|v4l/.+)",
        example="0, /dev/video0",
        opener="rtda_runtime.sources.v4l2:opener",
        package=OPENCV,
        requests=("size_wh", "fps", "fourcc"),
        reconnects=True,
        cameras="rtda_runtime.sources.v4l2:list_cameras",
        checks=(("cameras", "rtda_runtime.sources.v4l2:doctor_line"),),
    ),
    SourceKind(
        name="CSI camera of a Jetson",
        pattern=r"(?i:csi)://.*",
        example="csi://0",
        opener="rtda_runtime.sources.gstreamer:opener",
        package=OPENCV,
        instead="leave --fourcc out",
        requests=("size_wh", "fps"),
        reconnects=True,
        checks=(_GSTREAMER,),
    ),
    SourceKind(
        name="network stream",
        pattern=r"(?i:https?|rtmps?|rtp|rtsps?|srt|tcp|udp)://.*",
        example="rtsp://..., http://...",
        opener="rtda_runtime.sources.stream:opener",
        package=Package("av", "runtime", "network cameras and films"),
        instead="set it in the camera, or name its stream of that size",
        reconnects=True,
    ),
    SourceKind(
        name="GStreamer pipeline",
        pattern=r"gst:.*",
        example="gst:...",
        opener="rtda_runtime.sources.gstreamer:opener",
        package=OPENCV,
        instead="add video/x-raw,width=1280,height=720,framerate=30/1 to the pipeline",
        reconnects=True,
        files="rtda_runtime.sources.gstreamer:files",
        checks=(_GSTREAMER,),
    ),
    SourceKind(
        name="test picture",
        pattern=r"(?i:test)://.*",
        example="test://bars?fps=30",
        opener="rtda_runtime.sources.synthetic:opener",
        instead="size and rate are part of the address: test://bars?fps=30&size=640x480",
    ),
    SourceKind(
        name="recording",
        pattern=r"(?i:file)://.*|(?![A-Za-z][A-Za-z0-9+.-]*://).+",
        example="clip.mp4, video:drive.mp4?every=1s, frames/, frames/%06d.png",
        opener="rtda_runtime.sources.recording:opener",
        instead="a recording has its own size and rate",
        files="rtda_runtime.sources.recording:files",
    ),
]


def source_kind(address: str) -> SourceKind:
    """The kind of an address.

    Raises:
        ConfigError: If it is of no known kind, naming an address of each.
    """
    kind = find_kind(SOURCE_KINDS, address)
    if kind is None:
        from rtda_deploy.masking import mask_password  # no --help needs it

        said = f"unknown kind of source: {mask_password(address)}" if address else "no source was given"
        raise ConfigError(said, hint=f"known: {examples(SOURCE_KINDS)}")
    return kind


def open_source(
    uri: Union[int, str, Path],
    *,
    size_wh: Optional[Tuple[int, int]] = None,
    fps: Optional[float] = None,
    fourcc: Optional[str] = None,
    reconnect: bool = False,
) -> Source:
    """Open a source of frames by its address; ``docs/sources.md`` lists the kinds.

    Args:
        uri: The address.
        size_wh: Width and height to ask a camera for; a camera that refuses is an error.
        fps: Rate to ask a camera for.
        fourcc: Pixel format to ask a V4L2 camera for, such as ``MJPG``.
        reconnect: A camera or live stream that is lost later is opened again until it is back
            (:class:`ReconnectingSource`). That it cannot be opened now is an error all the same.

    Raises:
        ConfigError: If the address is of no known kind, or something is asked that this kind cannot do.
        FileAccessError: If a file is missing, empty or unreadable.
        SourceError: If a recording holds nothing that can be decoded.
        CameraError: If a camera or stream is missing, not permitted or silent.
        DeviceError: If this OpenCV cannot open such a source.
        MissingPackageError: If the package that reads such a source is not installed.
    """
    from rtda_runtime.sources.reconnect import ReconnectingSource

    address = _typed(uri)
    kind = source_kind(address)
    request = CameraRequest(size_wh, fps, fourcc)
    _check_request(kind, address, request)
    opener = kind.opener_of(address, request)
    source: Source = opener()
    return ReconnectingSource(opener, first=source) if reconnect and kind.reconnects and source.live else source


def source_files(uri: Union[int, str, Path]) -> List[Path]:
    """The files that an address reads; none of a camera, a stream, or a recording that is not there."""
    address = _typed(uri)
    kind = find_kind(SOURCE_KINDS, address)
    found: List[Path] = function_named(kind.files)(address) if kind is not None and kind.files else []
    return found


def cameras() -> List[CameraInfo]:
    """The connected cameras of every kind that can tell."""
    return [camera for kind in SOURCE_KINDS if kind.cameras for camera in function_named(kind.cameras)()]


def _typed(uri: Union[int, str, Path]) -> str:
    """The address without the spaces around it, unless a file is called so."""
    text = str(uri)
    for address in (text, text.lstrip()):
        if os.path.exists(address[len("file://") :] if address.lower().startswith("file://") else address):
            return address
    return text.strip()


def _check_request(kind: SourceKind, address: str, request: CameraRequest) -> None:
    asked = request._asdict()
    words = {"size_wh": "size", "fps": "rate", "fourcc": "pixel format"}
    refused = [words[field] for field, value in asked.items() if value is not None and field not in kind.requests]
    if refused:
        from rtda_deploy.masking import mask_password

        raise ConfigError(f"{mask_password(address)} cannot be asked for a {' or '.join(refused)}", hint=kind.instead)
