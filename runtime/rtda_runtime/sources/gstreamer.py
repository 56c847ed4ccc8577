"""GStreamer pipelines: ``csi://N`` (Jetson's camera connector) and ``gst:...`` (any pipeline that ends in appsink).

Through OpenCV where it was built with GStreamer, as JetPack's is; else through GStreamer's own Python bindings
(PyGObject), because OpenCV from pip is built without GStreamer. The bindings belong to the system's Python:
``docs/sources.md`` has the virtual environment that sees them.
"""

from __future__ import annotations

import functools
import importlib
import re
import time
from pathlib import Path
from typing import Any, Callable, List, Optional, Tuple

import numpy as np

from rtda_deploy.errors import CameraError, ConfigError, DeviceError, SourceError
from rtda_deploy.masking import mask_password
from rtda_deploy.optional import available, is_jetson
from rtda_runtime._opencv import has_gstreamer, opencv
from rtda_runtime.sources.base import (
    CATCH_UP_S,
    TOO_SLOW,
    Frame,
    GrabbingSource,
    RefusedError,
    Source,
    capture_time_ns,
    mode_text,
)
from rtda_runtime.sources.capture import CaptureSource
from rtda_runtime.sources.kinds import CameraRequest
from rtda_runtime.sources.lateness import Lateness
from rtda_runtime.threads.buffers import BufferPool

__all__ = ["GStreamerSource", "csi_pipeline", "doctor_line", "files", "opener"]

_START_TIMEOUT_S = 10.0
_SLICE_NS = 100_000_000  # how long one look at the pipeline may take; then errors and interrupt() are looked at
_CHANNELS = {"BGR": 3, "BGRx": 4, "BGRA": 4, "GRAY8": 1}
_INSTALL = "install the package with that element; most are in gstreamer1.0-plugins-good, -bad, -ugly or -libav"
_UNHIDE = "pip uninstall opencv-python opencv-python-headless"
_TRY = "try the pipeline by itself: gst-launch-1.0 ..."
_CSI_PIPELINE = (  # the last stages drop old frames in the driver, so that the newest one is what is read
    "nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM){caps} ! nvvidconv ! video/x-raw, format=BGRx"
    " ! videoconvert ! video/x-raw, format=BGR ! appsink drop=true max-buffers=1 sync=false"
)
_LOCATION = re.compile(r"""\blocation\s*=\s*(?:"([^"]+)"|'([^']+)'|(\S+))""")


def opener(address: str, request: CameraRequest) -> Callable[[], Source]:
    """What opens ``csi://N`` or ``gst:PIPELINE``.

    Raises:
        CameraError: If no sensor is named.
    """
    typed = address.startswith("gst:")
    pipeline = address[len("gst:") :].strip() if typed else csi_pipeline(address, request)
    return functools.partial(_open, pipeline, mask_password(address), request)


def files(address: str) -> List[Path]:
    """What the pipeline's elements name as their location."""
    return [Path(next(filter(None, found))) for found in _LOCATION.findall(address)]


def _open(pipeline: str, name: str, request: CameraRequest) -> Source:
    source: Source
    if has_gstreamer():
        source = _through_opencv(pipeline, name)
    else:
        source = GStreamerSource(pipeline, name, gst=_bindings(name))
    source.asked, source.granted = mode_text(request.size_wh, request.fps), mode_text(source.size_wh, source.fps)
    return source


def csi_pipeline(address: str, request: CameraRequest) -> str:
    """The pipeline that ``csi://N`` stands for."""
    caps = ", width={}, height={}".format(*request.size_wh) if request.size_wh else ""
    caps += f", framerate={round(request.fps)}/1" if request.fps else ""
    sensor = address[len("csi://") :].strip("/") or "0"
    if not sensor.isdecimal():
        raise CameraError(f"{mask_password(address)} names no CSI sensor", hint="they are numbered: csi://0")
    return _CSI_PIPELINE.format(sensor=sensor, caps=caps)


class GStreamerSource(GrabbingSource):
    """Frames of a pipeline's appsink, through GStreamer's Python bindings.

    The pipeline runs on the system's monotonic clock, so a buffer's time is a capture time on ours.

    Args:
        pipeline: As typed for gst-launch; has one ``appsink``.
        gst: The module ``gi.repository.Gst``.
    """

    def __init__(self, pipeline: str, name: str, *, gst: Any, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self.name = name
        self._gst = gst
        self._clock = clock
        self._pool = BufferPool()
        self._lateness = Lateness()
        self._stamped = False
        self._sync_typed = "sync=" in pipeline
        self._pipeline: Any = self._parse(pipeline)
        try:
            self._sink: Any = self._find_sink()
            self._start()
            self._first = self._grab(_START_TIMEOUT_S)
            if self._first is None:
                raise SourceError(f"{name} ended before its first frame", hint=_TRY)
        except BaseException:
            self.close()
            raise
        self.size_wh = (self._first.image.shape[1], self._first.image.shape[0])

    def interrupt(self) -> None:
        self._closed = True  # _grab() looks at it after each slice

    def close(self) -> None:
        self._closed = True
        pipeline, self._pipeline, self._first = self._pipeline, None, None
        if pipeline is not None:
            self._sink = None
            pipeline.set_state(self._gst.State.NULL)

    def _parse(self, text: str) -> Any:
        try:
            return self._gst.parse_launch(text)
        except Exception as err:  # GLib.Error, whose class is not here without the bindings
            said = mask_password(str(getattr(err, "message", err)))
        missing = "no element" in said
        kind = DeviceError if missing else ConfigError
        raise kind(
            f"{self.name} is no pipeline that GStreamer here can run: {said}",
            hint=_INSTALL if missing else _TRY,
        )

    def _find_sink(self) -> Any:
        found: List[Any] = []
        if isinstance(self._pipeline, self._gst.Bin):
            elements = self._pipeline.iterate_sinks()
            while True:
                result, element = elements.next()
                if result != self._gst.IteratorResult.OK:
                    break
                found.append(element)
        sinks = [element for element in found if element.get_factory().get_name() == "appsink"]
        if len(sinks) != 1:
            raise ConfigError(
                f"{self.name} has {len(sinks)} appsinks, one is needed", hint="end it in: ! videoconvert ! appsink"
            )
        formats = ", ".join(_CHANNELS)
        sinks[0].set_property("caps", self._gst.Caps.from_string(f"video/x-raw, format=(string){{ {formats} }}"))
        return sinks[0]

    def _start(self) -> None:
        self._pipeline.use_clock(self._gst.SystemClock.obtain())
        returned = self._gst.StateChangeReturn
        paused = self._pipeline.set_state(self._gst.State.PAUSED)
        self.live = paused == returned.NO_PREROLL  # what is live cannot show a picture while it is paused
        self.stamp = "pipeline" if self.live else "read"
        if self.live and not self._sync_typed:
            self._sink.set_property("sync", False)  # else it waits until the picture would be shown
        if returned.FAILURE in (paused, self._pipeline.set_state(self._gst.State.PLAYING)):
            raise self._trouble() or CameraError(f"camera {self.name} did not start", hint=_TRY)

    def _grab(self, timeout_s: float) -> Optional[Frame]:
        deadline_s, behind_s = time.monotonic() + timeout_s, time.monotonic() + CATCH_UP_S
        asked_ns = self._clock()
        while not self._closed:
            sample = self._sink.emit("try-pull-sample", _SLICE_NS)
            if sample is not None:
                frame = self._frame(sample, asked_ns)
                if frame is not None:
                    return frame
                if time.monotonic() > behind_s:
                    raise CameraError(f"camera {self.name} {TOO_SLOW}", hint=_TRY)
                asked_ns, deadline_s = self._clock(), time.monotonic() + timeout_s
                continue
            trouble = self._trouble()
            if trouble is not None:
                raise trouble
            if self._sink.get_property("eos"):
                if not self.live:
                    return None
                raise CameraError(f"camera {self.name} ended, after {self._given} frames", hint=_TRY)
            if time.monotonic() > deadline_s:
                raise CameraError(f"camera {self.name} gave no frame for {timeout_s:g} s", hint=_TRY)
        raise self._closed_error()

    def _trouble(self) -> Optional[CameraError]:
        """The error that an element put on the pipeline's bus, if one did."""
        message = self._pipeline.get_bus().pop_filtered(self._gst.MessageType.ERROR)
        if message is None:
            return None
        error, details = message.parse_error()
        said = mask_password(str(error.message))
        if error.matches(self._gst.ResourceError.quark(), self._gst.ResourceError.NOT_AUTHORIZED):
            return RefusedError(
                f"camera {self.name} refused the user name and password", why=said, hint="user-id=... user-pw=..."
            )
        hint = "put videoconvert before appsink" if "not-negotiated" in str(details) else _TRY
        return CameraError(f"camera {self.name} stopped: {said}", hint=hint)

    def _frame(self, sample: Any, asked_ns: int) -> Optional[Frame]:
        """The sample's picture; None for one that is old."""
        caps = sample.get_caps().get_structure(0)
        width, height, pixels = caps.get_value("width"), caps.get_value("height"), caps.get_value("format")
        good, numerator, denominator = caps.get_fraction("framerate")
        if good and numerator > 0:
            self.fps = numerator / denominator
        buffer = sample.get_buffer()
        now_ns = self._clock()
        captured_ns = self._captured_ns(sample, buffer, now_ns)
        if self.live and self._lateness.is_old(now_ns, now_ns - asked_ns, captured_ns):
            self._leave_out_old()
            return None
        good, mapped = buffer.map(self._gst.MapFlags.READ)
        if not good:
            raise CameraError(f"camera {self.name} gave a frame that cannot be read", hint=_TRY)
        try:
            image = self._image(mapped.data, width, height, _CHANNELS[pixels])
        finally:
            buffer.unmap(mapped)
        if captured_ns is None:
            captured_ns = now_ns - self._lateness.lag_ns
        return Frame(image=image, captured_ns=captured_ns, sequence=self._next)

    def _image(self, data: Any, width: int, height: int, channels: int) -> np.ndarray:
        rows = np.frombuffer(data, np.uint8)
        rows = rows[: rows.size - rows.size % height].reshape(height, -1)  # GStreamer pads rows to four bytes
        pixels = rows[:, : width * channels].reshape(height, width, channels)
        image = self._pool.take((height, width, 3))
        np.copyto(image, pixels[:, :, :3])  # grey is repeated
        return image

    def _captured_ns(self, sample: Any, buffer: Any, now_ns: int) -> Optional[int]:
        """When the pipeline's source made the buffer; None where it does not say."""
        if not self.live or buffer.pts == self._gst.CLOCK_TIME_NONE:
            return None
        running_ns = sample.get_segment().to_running_time(self._gst.Format.TIME, buffer.pts)
        stamp_ns = capture_time_ns(int(self._pipeline.get_base_time() + running_ns), now_ns, known=self._stamped)
        self._stamped = self._stamped or stamp_ns is not None
        return stamp_ns


def doctor_line() -> Tuple[str, str, str]:
    """State, detail and fix: whether ``csi://`` and ``gst:`` open here."""
    if available("gi"):
        return "ok", "not asked: csi:// and gst: sources open through PyGObject", ""
    if not available("cv2"):
        return "missing", "no OpenCV", ""
    if has_gstreamer():
        return "ok", "yes: csi:// and gst: sources open", ""
    if is_jetson():
        return "problem", "no: CSI cameras will not open", f"{_UNHIDE}   (they hide JetPack's OpenCV)"
    fix = "an environment that sees the system's PyGObject: docs/sources.md"
    return "missing", "no: csi:// and gst: sources do not open; USB, RTSP, HTTP and files do", fix


def _through_opencv(pipeline: str, name: str) -> CaptureSource:
    cv2: Any = opencv("to open cameras")

    def lost(happened: str) -> SourceError:
        return CameraError(f"camera {name} {happened}", hint=_TRY)

    capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        raise lost("did not start")
    return CaptureSource(capture, name, live=True, lost=lost)


def _bindings(name: str) -> Any:
    """The module ``gi.repository.Gst``, ready for use."""
    try:
        gi: Any = importlib.import_module("gi")
        gi.require_version("Gst", "1.0")
        gst: Any = importlib.import_module("gi.repository.Gst")
    except (ImportError, ValueError) as err:
        raise _no_gstreamer(name) from err
    gst.init(None)
    return gst


def _no_gstreamer(name: str) -> DeviceError:
    cv2: Any = opencv("to open cameras")
    if is_jetson():
        fix = f"{_UNHIDE} (they hide JetPack's own); then: rtda-deploy doctor"
    else:
        fix = (
            "sudo apt-get install python3-gi python3-gst-1.0 gstreamer1.0-plugins-good; then, with the system's Python:"
            " /usr/bin/python3 -m venv --system-site-packages .venv"
        )
    return DeviceError(
        f"{name} needs GStreamer",
        why=f"OpenCV {cv2.__version__} here was built without (pip's wheels are), and this Python has no python3-gi",
        hint=fix,
    )
