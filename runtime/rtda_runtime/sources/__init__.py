"""Sources of frames; one function opens any of them by its address.

====================================  ==============================================================
``0``, ``/dev/video0``                V4L2 camera; ``/dev/v4l/by-id/...`` is the name that stays
``clip.mp4``                          video file
``frames/``, ``frames/%06d.png``      pictures in natural order; a single picture too
``rtsp://...``, ``http://...``        network camera or stream (PyAV)
``csi://0``, ``gst:...``              Jetson's camera connector, any GStreamer pipeline that ends in appsink
``test://bars?fps=30``                moving colour bars; also ``size=640x480``, ``frames=100``; ``fps=0``: no pace
====================================  ==============================================================
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any, Callable, Optional, Tuple, Union
from urllib.parse import parse_qsl, urlsplit

from rtda_deploy.border import parsing
from rtda_deploy.errors import CameraError, ConfigError, FileAccessError, SourceError
from rtda_deploy.files import readable_file
from rtda_deploy.optional import available
from rtda_runtime.sources.address import mask_password
from rtda_runtime.sources.base import CLOCK, Frame, RefusedError, Source
from rtda_runtime.sources.devices import CameraInfo, cameras, stable_path
from rtda_runtime.sources.reconnect import ReconnectingSource
from rtda_runtime.sources.recording import recording_path
from rtda_runtime.sources.synthetic import BarsSource

__all__ = [
    "CLOCK",
    "BarsSource",
    "CameraInfo",
    "Frame",
    "ReconnectingSource",
    "RefusedError",
    "Source",
    "cameras",
    "mask_password",
    "open_source",
]

_STREAM_SCHEMES = ("http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp")
_KINDS = (
    "0, /dev/video0, csi://0, rtsp://..., http://..., clip.mp4, frames/, frames/%06d.png, test://bars?fps=30, gst:..."
)


def open_source(
    uri: Union[int, str, Path],
    *,
    size_wh: Optional[Tuple[int, int]] = None,
    fps: Optional[float] = None,
    fourcc: Optional[str] = None,
    reconnect: bool = False,
) -> Source:
    """Open a source of frames.

    Args:
        uri: See the table above.
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
    """
    text = str(uri).strip()
    scheme = _scheme(text)
    if scheme in ("camera", "csi", "gst"):
        return _again(_live_opener(text, scheme, size_wh, fps, fourcc), reconnect)
    if size_wh is not None or fps is not None or fourcc is not None:
        raise ConfigError(
            f"size, rate and format can be asked of cameras only, not of {mask_password(text)}",
            hint="for the test picture they are part of the address: test://bars?fps=30&size=640x480",
        )
    if scheme == "test":
        return _open_test(text)
    if scheme in _STREAM_SCHEMES:
        from rtda_runtime.sources.stream import open_stream

        return _again(lambda: open_stream(text), reconnect)
    if scheme not in ("", "file"):
        raise ConfigError(f"unknown kind of source: {mask_password(text)}", hint=f"known: {_KINDS}")
    path = recording_path(uri)
    shown = mask_password(text)
    if shown == text:
        with parsing(FileAccessError, f"cannot read {shown!r}", hint="check the spelling of its path"):
            return _open_recording(path)
    with contextlib.suppress(FileAccessError, SourceError, OSError, ValueError):
        return _open_recording(path)
    # A mistyped address. Outside of the with block: what was raised there holds the password.
    raise FileAccessError(
        f"cannot read {shown}",
        why="there is no file, folder or video of that name that can be read",
        hint="a camera is rtsp://user:password@host/path; a file with : and @ in its name needs its whole path, /...",
    )


def _scheme(text: str) -> str:
    if not text:
        raise ConfigError("no source was given", hint=f"known: {_KINDS}")
    if text.isdecimal() or re.match(r"(v4l2://)?/dev/(video\d+|v4l/.+)\Z", text):
        return "camera"
    if text.startswith("gst:"):
        return "gst"
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    return found.group(1).lower() if found else ""


def _again(opener: Callable[[], Source], reconnect: bool) -> Source:
    source = opener()
    return ReconnectingSource(opener, first=source) if reconnect and source.live else source


def _live_opener(
    text: str, scheme: str, size_wh: Optional[Tuple[int, int]], fps: Optional[float], fourcc: Optional[str]
) -> Callable[[], Source]:
    if scheme == "camera":
        from rtda_runtime.sources.v4l2 import open_camera

        device = Path(f"/dev/video{text}") if text.isdecimal() else Path(text.replace("v4l2://", "", 1))
        refused, hint = f"cannot open {str(device)!r}", "rtda-deploy cameras lists what is connected"
        with parsing(CameraError, refused, hint=hint):
            stays = stable_path(device) or device  # one that was unplugged may come back under another number

        def opened() -> Source:
            with parsing(CameraError, refused, hint=hint):
                return open_camera(stays, name=str(device), size_wh=size_wh, fps=fps, fourcc=fourcc)

        return opened
    if fourcc is not None:
        raise ConfigError(f"the pixel format of {mask_password(text)} cannot be chosen", hint="leave --fourcc out")
    if scheme == "gst" and (size_wh is not None or fps is not None):
        raise ConfigError(
            "a gst: pipeline says its size and rate itself", hint="add video/x-raw,width=1280,height=720 to it"
        )
    from rtda_runtime.sources.gstreamer import open_gstreamer

    return lambda: open_gstreamer(text, size_wh=size_wh, fps=fps)


def _open_recording(path: Path) -> Source:
    from rtda_runtime.sources.pictures import PICTURE_SUFFIXES, PictureSource, pictures_of_folder, pictures_of_pattern

    if path.is_dir():
        return PictureSource(str(path), pictures_of_folder(path))
    if re.search(r"%(0\d+)?d", path.name) and not path.exists():
        return PictureSource(str(path), pictures_of_pattern(path))
    try:
        readable_file(path, what="source")
    except FileAccessError as err:
        if "/" not in str(path) and not path.suffix:
            raise FileAccessError(
                err.message, why=f"{path} is no file or folder here", hint=f"known: {_KINDS}"
            ) from err
        raise
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return PictureSource(str(path), [path])
    if available("av"):
        from rtda_runtime.sources.stream import open_film

        return open_film(path)
    from rtda_runtime.sources.capture import open_video

    return open_video(path)


def _open_test(text: str) -> Source:
    parts = urlsplit(text)
    if parts.netloc != "bars":
        raise ConfigError(f"unknown test picture {text}", hint="known: test://bars?fps=30&size=640x480&frames=100")
    options: Any = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key == "fps" and re.fullmatch(r"\d+(\.\d+)?", value) and float(value) <= 1000:
            options["fps"] = float(value)
        elif key == "size" and re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", value):
            width, _, height = value.partition("x")
            options["size_wh"] = (int(width), int(height))
        elif key == "frames" and re.fullmatch(r"[1-9]\d*", value):
            options["num_frames"] = int(value)
        else:
            raise ConfigError(
                f"{text}: {key}={value} makes no sense", hint="known: fps=30 (0: no pace), size=640x480, frames=100"
            )
    return BarsSource(text, **options)
