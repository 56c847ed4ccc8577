"""Cameras of the kernel's video interface (V4L2): USB cameras, ``/dev/videoN``; listed, and read through OpenCV."""

from __future__ import annotations

import dataclasses
import functools
import grp
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from rtda_deploy.border import parsing
from rtda_deploy.errors import CameraError, RtdaError, SourceError
from rtda_runtime._opencv import opencv
from rtda_runtime.sources.base import capture_time_ns, mode_text
from rtda_runtime.sources.capture import CaptureSource
from rtda_runtime.sources.kinds import CameraRequest

__all__ = ["CameraInfo", "configure", "doctor_line", "driver_time_ns", "list_cameras", "open_camera", "opener"]

_BAYER = ("BA", "GB", "BG", "RG", "GR", "pB", "pG", "pR", "Y10", "Y12")  # raw formats of sensors: RG10, BA81, pBAA ...
_DEV = Path("/dev")
_SYS = Path("/sys/class/video4linux")


@dataclasses.dataclass(frozen=True)
class CameraInfo:
    """One video node.

    Attributes:
        path: Such as ``/dev/video0``; the number can change when the machine starts again.
        name: What the driver calls it; empty where the kernel does not say.
        stable_path: The name under ``/dev/v4l/by-id`` that stays the same, where there is one.
        permitted: Whether this user may open it.
        main: False for the second node of a camera, which carries metadata and no pictures.
        group: Whose members may open it; None where that is unknown, or only root may.
    """

    path: str
    name: str
    stable_path: Optional[str]
    permitted: bool
    main: bool
    group: Optional[str] = None


def list_cameras(dev: Path = _DEV, sys_class: Path = _SYS) -> List[CameraInfo]:
    """The video nodes of this machine by number; empty where there are none."""
    stable = _stable_paths(dev)
    return [
        CameraInfo(
            path=str(path),
            name=_kernel_text(sys_class / path.name / "name"),
            stable_path=stable.get(path.name),
            permitted=os.access(str(path), os.R_OK | os.W_OK),
            main=_kernel_text(sys_class / path.name / "index") in ("", "0"),
            group=_group_of(path),
        )
        for path in camera_paths(dev)
    ]


def camera_paths(dev: Path = _DEV) -> List[Path]:
    """``/dev/video*`` by number."""
    found = [path for path in dev.glob("video*") if path.name[len("video") :].isdigit()]
    return sorted(found, key=lambda path: int(path.name[len("video") :]))


def stable_path(device: Path, dev: Path = _DEV) -> Optional[Path]:
    """Its name under ``/dev/v4l/by-id``, which it keeps when it is unplugged and comes back under another number."""
    found = _stable_paths(dev).get(device.resolve().name)
    return Path(found) if found else None


def _group_of(device: Path) -> Optional[str]:
    """The group that may open it; None where that is unknown, or only root may."""
    try:
        name = grp.getgrgid(device.stat().st_gid).gr_name
    except (KeyError, OSError):
        return None
    return None if name == "root" else name


def _kernel_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _stable_paths(dev: Path) -> Dict[str, str]:
    folder = dev / "v4l" / "by-id"
    try:
        links = sorted(folder.iterdir())
    except OSError:
        return {}
    return {link.resolve().name: str(link) for link in links}


def opener(address: str, request: CameraRequest, dev: Path = _DEV) -> Callable[[], CaptureSource]:
    """What opens a camera by its number or path, and again by the name that it keeps when its number changes."""
    device = dev / f"video{address}" if address.isdecimal() else Path(address.replace("v4l2://", "", 1))
    refuse = functools.partial(
        parsing, CameraError, f"cannot open {str(device)!r}", hint="rtda-deploy cameras lists what is connected"
    )
    with refuse():
        path = stable_path(device, dev) or device

    def opened() -> CaptureSource:
        with refuse():
            return open_camera(path, request, name=str(device))

    return opened


def open_camera(device: Path, request: CameraRequest = CameraRequest(), *, name: Optional[str] = None) -> CaptureSource:
    """Open a V4L2 camera such as ``/dev/video0``.

    Args:
        request: What to ask it for.
        name: What to call it; None: the device.

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
    configure(capture, device, request)

    def lost(happened: str) -> SourceError:
        return CameraError(
            f"camera {device} {happened}", hint="check the cable and USB power, then: rtda-deploy cameras"
        )

    granted_format = _code(capture.get(cv2.CAP_PROP_FOURCC))
    try:
        source = CaptureSource(
            capture,
            name or str(device),
            live=True,
            lost=lost,
            stamp_of=driver_time_ns,
            jpegs=granted_format == "MJPG" and _gives_jpegs(capture),
        )
    except CameraError as err:
        raise _raw_sensor(device, granted_format) or err from err
    source.asked = mode_text(request.size_wh, request.fps, request.fourcc)
    source.granted = mode_text(source.size_wh, source.fps, granted_format)
    return source


def driver_time_ns(capture: Any, now_ns: int, known: bool = False) -> Optional[int]:
    """When the driver filled the buffer that was grabbed last; None where it does not say so on the monotonic clock.

    Args:
        capture: ``cv2.VideoCapture`` on V4L2; its position is the buffer's time stamp.
        known: Earlier ones were on it, so this one is, however old it is.
    """
    cv2: Any = opencv("to open cameras")
    return capture_time_ns(round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6), now_ns, known=known)


def _gives_jpegs(capture: Any) -> bool:
    """Whether it now gives JPEGs as they are; OpenCV decodes half a JPEG without a word."""
    cv2: Any = opencv("to open cameras")
    capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    good, image = capture.retrieve() if capture.grab() else (False, None)
    if good and image is not None and image.tobytes()[:2] == b"\xff\xd8" and min(image.shape[:2]) == 1:
        return True
    capture.set(cv2.CAP_PROP_CONVERT_RGB, 1)
    return False


def configure(capture: Any, device: Path, request: CameraRequest) -> None:
    """Ask for format, size and rate, in the order V4L2 needs.

    Raises:
        CameraError: If the driver changes a value; the capture is closed then.
    """
    cv2: Any = opencv("to open cameras")
    wanted: List[Tuple[str, int, float]] = []
    if request.fourcc is not None:
        wanted.append(("format", cv2.CAP_PROP_FOURCC, float(cv2.VideoWriter_fourcc(*request.fourcc))))
    if request.size_wh is not None:
        width, height = request.size_wh
        wanted += [("width", cv2.CAP_PROP_FRAME_WIDTH, width), ("height", cv2.CAP_PROP_FRAME_HEIGHT, height)]
    if request.fps is not None:
        wanted.append(("rate", cv2.CAP_PROP_FPS, float(request.fps)))
    for _, key, value in wanted:
        capture.set(key, value)
    for what, key, value in wanted:
        got = capture.get(key)
        if abs(got - value) > 0.01 * value:
            capture.release()
            raise _refused(device, what, value, got)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # not every driver obeys; the newest-frame thread does the rest


def doctor_line() -> Tuple[str, str, str]:
    """State, detail and fix of the cameras here."""
    devices = [str(path) for path in camera_paths()]
    closed = [device for device in devices if not os.access(device, os.R_OK | os.W_OK)]
    if not devices:
        return "missing", "no /dev/video*", "plug one in, or pass the device into the container"
    if closed:
        return "problem", f"no permission on {', '.join(closed)}", "sudo usermod -aG video $USER, then log in again"
    return "ok", ", ".join(devices), ""


def _check_device(device: Path) -> None:
    if not device.exists():
        there = [str(path) for path in camera_paths()]
        found = f"there are: {' '.join(there)}" if there else "there is no camera at all (no /dev/video*)"
        raise CameraError(f"there is no camera {device}", why=found, hint="plug it in, then: rtda-deploy cameras")
    if not os.access(str(device), os.R_OK | os.W_OK):
        group = _group_of(device) or "video"
        raise CameraError(
            f"no permission to open camera {device}",
            why=f"cameras are for the members of group {group}, and this user is none",
            hint=f"sudo usermod -aG {group} $USER, then log out and in"
            f"   (in a container: --device {device} --group-add {group})",
        )


def _refused(device: Path, what: str, value: float, got: float) -> RtdaError:
    asked, given = f"{value:g}", f"{got:g}"
    if what == "format":
        asked, given = _code(value), _code(got)
    return CameraError(
        f"camera {device} does not give {what} {asked}, it offered {given}",
        hint=f"what it can do: v4l2-ctl -d {device} --list-formats-ext",
    )


def _raw_sensor(device: Path, granted_format: str) -> Optional[CameraError]:
    """A Jetson's camera connector shows as a video node too, but its pictures need the image processor."""
    if not granted_format.startswith(_BAYER):
        return None
    return CameraError(
        f"camera {device} gives raw sensor data ({granted_format}), no pictures",
        why="it sits on the camera connector (CSI), whose pictures are made by the image processor",
        hint="rtda-deploy run --camera csi://0",
    )


def _code(value: float) -> str:
    """A four-character code, such as MJPG; empty for none."""
    return int(value).to_bytes(4, "little").decode("ascii", "replace").strip("\0 ") if 0 < value < 1 << 32 else ""
