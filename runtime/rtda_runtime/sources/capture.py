"""Everything that OpenCV's VideoCapture reads: video files, V4L2 cameras, network streams, GStreamer pipelines."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any, Callable, List, Optional, Tuple

from rtda_deploy.errors import CameraError, DeviceError, RtdaError, SourceError
from rtda_deploy.optional import is_jetson
from rtda_runtime._opencv import has_gstreamer, opencv
from rtda_runtime.sources.address import mask_password
from rtda_runtime.sources.base import Frame, Source
from rtda_runtime.sources.devices import camera_paths

__all__ = ["CaptureSource", "open_camera", "open_gstreamer", "open_stream", "open_video"]

_log = logging.getLogger(__name__)

_OPEN_TIMEOUT_S = 10.0  # an RTSP camera that wakes up answers within a few seconds
_READ_TIMEOUT_S = 5.0  # of FFmpeg; the pipeline has its own, which can be shorter
_CSI_PIPELINE = (  # the last stages drop old frames in the driver, so that the newest one is what is read
    "nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM){caps} ! nvvidconv ! video/x-raw, format=BGRx"
    " ! videoconvert ! video/x-raw, format=BGR ! appsink drop=true max-buffers=1 sync=false"
)


class CaptureSource(Source):
    """Frames of an opened ``cv2.VideoCapture``. The first one is read at once: it proves the stream and gives its size.

    Args:
        lost: Makes the error for a source that gives no frame (any more), given what happened.
    """

    def __init__(
        self,
        capture: Any,
        name: str,
        *,
        live: bool,
        lost: Callable[[str], SourceError],
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        cv2: Any = opencv("to read videos and cameras")
        self.name = name
        self._capture: Any = capture
        self._lost = lost
        self._clock = clock
        self._next = 0
        self._ended = False
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.fps = float(rate) if 0 < rate < 1000 else None  # above: a time base, not a rate
        self.num_frames = int(count) if 0 < count < 1e9 else None
        self.live = live and self.num_frames is None
        self._first = self._grab(0.0)
        if self._first is None:
            self.close()
            raise lost("holds no frame that can be decoded")
        self.size_wh = (self._first.image.shape[1], self._first.image.shape[0])

    def read(self, timeout_s: float = 2.0) -> Optional[Frame]:
        if self._capture is None and not self._ended:
            raise SourceError(f"{self.name} is closed", hint="open it again")
        frame, self._first = self._first, None
        if frame is None and not self._ended:
            frame = self._grab(timeout_s)
        if frame is None:
            self._end()
            return None
        self._next = frame.sequence + 1
        return frame

    def close(self) -> None:
        capture, self._capture, self._first, self._ended = self._capture, None, None, False
        if capture is not None:
            capture.release()

    def _grab(self, timeout_s: float) -> Optional[Frame]:
        start = self._clock()
        good, image = self._capture.read()
        now = self._clock()
        if good and image is not None and image.size:
            if image.ndim == 2:
                cv2: Any = opencv("to read videos and cameras")
                image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
            return Frame(image=image, captured_ns=now, sequence=self._next)
        if self.live and self._next:
            waited_s = (now - start) / 1e9
            late = f"gave no frame for {waited_s:.1f} s" if waited_s >= timeout_s > 0 else "ended or was disconnected"
            raise self._lost(f"{late}, after {self._next} frames")
        return None

    def _end(self) -> None:
        """Note the end; say so when the file promised more."""
        if not self._ended and self.num_frames is not None and self._next < self.num_frames:
            _log.warning(
                "%s ended after %d of %d frames: the rest is missing or damaged", self.name, self._next, self.num_frames
            )
        self._ended = True


def open_video(path: Path) -> CaptureSource:
    """Open a video file that was checked to exist.

    Raises:
        SourceError: If it is no video, or holds no frame that can be decoded.
    """
    cv2: Any = opencv("to read videos")

    def lost(happened: str) -> SourceError:
        return SourceError(
            f"video {path} {happened}", hint="is it damaged, or no video? Try it in a player: ffplay, vlc"
        )

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        capture = cv2.VideoCapture(str(path))  # JetPack's OpenCV reads files through GStreamer
    if not capture.isOpened():
        raise lost("cannot be opened as a video")
    return CaptureSource(capture, str(path), live=False, lost=lost)


def open_camera(
    device: Path,
    *,
    size_wh: Optional[Tuple[int, int]] = None,
    fps: Optional[float] = None,
    fourcc: Optional[str] = None,
) -> CaptureSource:
    """Open a V4L2 camera such as ``/dev/video0``.

    Raises:
        CameraError: If it is missing, busy, not permitted, gives no frame, or refuses the size, rate or format.
    """
    _check_device(device)
    cv2: Any = opencv("to open cameras")
    # Video nodes are opened by number, because older OpenCV takes a path only through another backend.
    resolved = device.resolve().name
    number = resolved[len("video") :]
    target: Any = int(number) if resolved.startswith("video") and number.isdigit() else str(device)
    capture = cv2.VideoCapture(target, cv2.CAP_V4L2)
    if not capture.isOpened():
        raise CameraError(
            f"camera {device} cannot be opened",
            why="another program uses it, or it is no capture device (cameras often have a second, metadata node)",
            hint=f"who uses it: fuser -v {device}   which there are: rtda-deploy cameras",
        )
    _configure(cv2, capture, device, size_wh, fps, fourcc)

    def lost(happened: str) -> SourceError:
        return CameraError(
            f"camera {device} {happened}", hint="check the cable and USB power, then: rtda-deploy cameras"
        )

    return CaptureSource(capture, str(device), live=True, lost=lost)


def open_stream(uri: str, *, timeout_s: float = _OPEN_TIMEOUT_S) -> CaptureSource:
    """Open ``rtsp://``, ``http://`` or another network address that OpenCV's FFmpeg reads.

    Raises:
        CameraError: If nobody answers, or what answers is no video. Its text holds no password.
    """
    cv2: Any = opencv("to read network streams")
    name = mask_password(uri)

    def lost(happened: str) -> SourceError:
        return CameraError(f"{name} {happened}", hint=f"is it on, and is the address right? Try: ffplay {name}")

    limits: List[int] = []
    for option, limit_s in (("OPEN", timeout_s), ("READ", min(timeout_s, _READ_TIMEOUT_S))):
        if hasattr(cv2, f"CAP_PROP_{option}_TIMEOUT_MSEC"):  # since OpenCV 4.5.3
            limits += [getattr(cv2, f"CAP_PROP_{option}_TIMEOUT_MSEC"), round(limit_s * 1000)]
    start = time.monotonic()
    capture = cv2.VideoCapture(uri, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        waited = time.monotonic() - start >= 0.9 * timeout_s
        raise lost(f"gave no video within {timeout_s:g} s" if waited else "cannot be reached, or is no video stream")
    return CaptureSource(capture, name, live=True, lost=lost)


def open_gstreamer(
    uri: str, *, size_wh: Optional[Tuple[int, int]] = None, fps: Optional[float] = None
) -> CaptureSource:
    """Open ``csi://N`` (Jetson's camera connector) or ``gst:PIPELINE``, a pipeline that ends in ``appsink``.

    Raises:
        DeviceError: If this OpenCV was built without GStreamer.
        CameraError: If the pipeline does not start or gives no frame.
    """
    name = mask_password(uri)
    if not has_gstreamer():
        raise _no_gstreamer(name)
    cv2: Any = opencv("to open cameras")
    pipeline = uri[len("gst:") :].strip() if uri.startswith("gst:") else _csi_pipeline(uri, size_wh, fps)

    def lost(happened: str) -> SourceError:
        return CameraError(f"camera {name} {happened}", hint="try the pipeline by itself: gst-launch-1.0 ...")

    capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        raise lost("did not start")
    return CaptureSource(capture, name, live=True, lost=lost)


def _csi_pipeline(uri: str, size_wh: Optional[Tuple[int, int]], fps: Optional[float]) -> str:
    caps = f", width={size_wh[0]}, height={size_wh[1]}" if size_wh else ""
    caps += f", framerate={round(fps)}/1" if fps else ""
    sensor = uri[len("csi://") :].strip("/") or "0"
    if not sensor.isdigit():
        raise CameraError(f"{uri} names no CSI sensor", hint="they are numbered: csi://0")
    return _CSI_PIPELINE.format(sensor=sensor, caps=caps)


def _no_gstreamer(name: str) -> DeviceError:
    cv2: Any = opencv("to open cameras")
    if is_jetson():
        fix = "pip uninstall opencv-python opencv-python-headless (they hide JetPack's own); then: rtda-deploy doctor"
    else:
        fix = "sudo apt-get install libopencv-python, and a virtual environment with --system-site-packages"
    return DeviceError(
        f"{name} needs an OpenCV with GStreamer; OpenCV {cv2.__version__} here was built without (pip's wheels are)",
        hint=fix,
    )


def _check_device(device: Path) -> None:
    if not device.exists():
        there = [str(path) for path in camera_paths()]
        found = f"there are: {' '.join(there)}" if there else "there is no camera at all (no /dev/video*)"
        raise CameraError(f"there is no camera {device}", why=found, hint="plug it in, then: rtda-deploy cameras")
    if not os.access(str(device), os.R_OK | os.W_OK):
        raise CameraError(
            f"no permission to open camera {device}",
            hint="sudo usermod -aG video $USER, then log out and in   (in a container: --device and --group-add video)",
        )


def _configure(
    cv2: Any,
    capture: Any,
    device: Path,
    size_wh: Optional[Tuple[int, int]],
    fps: Optional[float],
    fourcc: Optional[str],
) -> None:
    """Ask for format, size and rate, in the order V4L2 needs; a value the driver changes is an error."""
    wanted: List[Tuple[str, int, float]] = []
    if fourcc is not None:
        wanted.append(("format", cv2.CAP_PROP_FOURCC, float(cv2.VideoWriter_fourcc(*fourcc))))
    if size_wh is not None:
        wanted.append(("width", cv2.CAP_PROP_FRAME_WIDTH, float(size_wh[0])))
        wanted.append(("height", cv2.CAP_PROP_FRAME_HEIGHT, float(size_wh[1])))
    if fps is not None:
        wanted.append(("rate", cv2.CAP_PROP_FPS, float(fps)))
    for _, key, value in wanted:
        capture.set(key, value)
    for what, key, value in wanted:
        got = capture.get(key)
        if abs(got - value) > 0.01 * value:
            capture.release()
            raise _refused(device, what, value, got)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # not every driver obeys; the newest-frame thread does the rest


def _refused(device: Path, what: str, value: float, got: float) -> RtdaError:
    asked, given = f"{value:g}", f"{got:g}"
    if what == "format":
        asked, given = (int(code).to_bytes(4, "little").decode("ascii", "replace") for code in (value, got))
    return CameraError(
        f"camera {device} does not give {what} {asked}, it offered {given}",
        hint=f"what it can do: v4l2-ctl -d {device} --list-formats-ext",
    )
