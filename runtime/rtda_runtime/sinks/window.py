"""A window on this machine's display; needs an OpenCV that can open windows."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from pathlib import Path
from typing import Any, Callable, Mapping, Optional

import numpy as np

from rtda_deploy.errors import DeviceError
from rtda_deploy.files import write_bytes
from rtda_runtime._opencv import opencv
from rtda_runtime.result import Result
from rtda_runtime.sinks.base import Sink
from rtda_runtime.sinks.kinds import SinkContext
from rtda_runtime.sinks.overlay import Overlay

__all__ = ["WindowSink", "check_display", "opener", "save_snapshot"]

_X_SOCKETS = Path("/tmp/.X11-unix")
_CONNECT_S = 2.0
_NO_WINDOW = "in a browser instead: --view auto"

_log = logging.getLogger(__name__)


def opener(address: str, context: SinkContext) -> Callable[[], WindowSink]:
    """What opens the window of ``run --show``, which has no address."""
    title = f"rtda-deploy · {context.source}"
    return lambda: WindowSink(context.overlay(), title, on_quit=context.on_quit)


class WindowSink(Sink):
    """Shows the newest overlay; ``q`` or Escape quits, ``s`` saves what is shown.

    Args:
        overlay: Draws the results.
        title: Of the window.
        on_quit: Called from the sink's thread when the user quits or closes the window.
        snapshots: Folder for the pictures that ``s`` saves.

    Raises:
        DeviceError: If there is no display, or this OpenCV opens no windows.
    """

    name = "window"

    def __init__(
        self,
        overlay: Overlay,
        title: str = "rtda-deploy",
        *,
        on_quit: Optional[Callable[[], None]] = None,
        snapshots: Path = Path(),
    ) -> None:
        check_display()
        self._cv2: Any = opencv("to open a window")
        self._overlay = overlay
        self._title = title
        self._on_quit = on_quit
        self._snapshots = snapshots
        self._shown = False

    def write(self, result: Result) -> Mapping[str, float]:
        """Show one result and look for keys; gives ms for ``overlay`` and ``show``."""
        start = time.perf_counter_ns()
        picture = self._overlay.draw_result(result)
        drawn = time.perf_counter_ns()
        if not self._shown:
            self._cv2.namedWindow(self._title, self._cv2.WINDOW_NORMAL | self._cv2.WINDOW_KEEPRATIO)
            self._cv2.resizeWindow(self._title, picture.shape[1], picture.shape[0])
            self._shown = True
        elif self._was_closed():
            self._quit()
            return {}
        self._cv2.imshow(self._title, picture)
        self._obey(self._cv2.waitKey(1) & 0xFF, picture, result)
        return {"overlay": (drawn - start) / 1e6, "show": (time.perf_counter_ns() - drawn) / 1e6}

    def close(self) -> None:
        """Take the window away. Calling it again does nothing."""
        if self._shown:
            self._shown = False
            self._cv2.destroyAllWindows()

    def _was_closed(self) -> bool:
        return bool(self._cv2.getWindowProperty(self._title, self._cv2.WND_PROP_VISIBLE) < 1)

    def _obey(self, key: int, picture: np.ndarray, result: Result) -> None:
        if key in (ord("q"), 27):
            self._quit()
        elif key == ord("s"):
            _log.warning("saved %s", save_snapshot(picture, result, self._snapshots))

    def _quit(self) -> None:
        if self._on_quit is not None:
            self._on_quit()


def save_snapshot(picture: np.ndarray, result: Result, folder: Path = Path()) -> Path:
    """Write what is shown as ``snapshot-<number of the frame>.png``; a file of that name is replaced.

    Raises:
        FileAccessError: If it cannot be written.
    """
    cv2: Any = opencv("to write pictures")
    _, content = cv2.imencode(".png", picture)
    return write_bytes(folder / f"snapshot-{result.sequence:06d}.png", content.tobytes())


def check_display() -> None:
    """Check that a window can be opened here; without a display OpenCV's libraries would end the whole process.

    Raises:
        DeviceError: If there is no display, or this OpenCV opens no windows.
    """
    cv2: Any = opencv("to open a window")
    display, wayland = os.environ.get("DISPLAY", ""), os.environ.get("WAYLAND_DISPLAY", "")
    if not display and not wayland:
        raise DeviceError(
            "there is no display here for a window", why="neither DISPLAY nor WAYLAND_DISPLAY is set", hint=_NO_WINDOW
        )
    if re.search(r"^\s*GUI:\s*NONE", cv2.getBuildInformation(), re.MULTILINE):
        raise DeviceError(
            f"OpenCV {cv2.__version__} here opens no windows",
            why="it was built without (pip's opencv-python-headless is)",
            hint=f"pip uninstall opencv-python-headless; pip install opencv-python   ({_NO_WINDOW})",
        )
    if display and not wayland and not _answers(display):
        raise DeviceError(f"nothing answers on display {display}", why="DISPLAY names it", hint=_NO_WINDOW)


def _answers(display: str) -> bool:
    """Whether an X server listens on ``host:number.screen``."""
    found = re.fullmatch(r"(?P<host>[^:]*):(?P<number>\d+)(\.\d+)?", display)
    if found is None:
        return False
    host, number = found.group("host"), int(found.group("number"))
    if host not in ("", "unix"):
        return _connects(socket.AF_INET, (host, 6000 + number))
    path = str(_X_SOCKETS / f"X{number}")
    return _connects(socket.AF_UNIX, path) or _connects(socket.AF_UNIX, f"\0{path}")


def _connects(family: int, address: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_S)
        try:
            probe.connect(address)
        except OSError:
            return False
    return True
