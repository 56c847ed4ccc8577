"""Starts the RTSP and HTTP cameras, kills them, starts them again on the same port."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Optional

FOLDER = Path(__file__).parent
SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's, because its python3-gst-1.0 is for it alone
_NEEDED = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


class CameraServer:
    """A camera's server in a process of its own; ends with the ``with`` block.

    Args:
        kind: ``rtsp`` or ``mjpeg``.
        options: Of ``rtsp_server.py`` or ``mjpeg_server.py``.
    """

    def __init__(self, kind: str, *options: str) -> None:
        python = SYSTEM_PYTHON if kind == "rtsp" else sys.executable
        self._command = [python, str(FOLDER / f"{kind}_server.py"), *options]
        self._scheme = "rtsp" if kind == "rtsp" else "http"
        self._process: Optional[subprocess.Popen[str]] = None
        self.port = "0"
        self.start()

    def url(self, path: str, user: str = "") -> str:
        """The address of one of its cameras; ``user``: name and password, with a colon."""
        return f"{self._scheme}://{user}{'@' if user else ''}127.0.0.1:{self.port}{path}"

    def start(self) -> None:
        """Start it, on the port it had before if it ran before."""
        self._process = subprocess.Popen(
            [*self._command, "--port", self.port],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            assert self._process.stderr is not None
            said = self._process.stderr.read()
            self.kill()
            raise RuntimeError(f"the server did not start: {said}")
        self.port = port

    def freeze(self) -> None:
        """Connections stay, but nothing is sent any more; as a cable that was pulled."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """As a power cut does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()

    def __enter__(self) -> CameraServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def rtsp_is_missing() -> str:
    """Why there can be no RTSP server here; empty where there can."""
    try:
        found = subprocess.run([SYSTEM_PYTHON, "-c", _NEEDED], capture_output=True, text=True)
    except OSError:
        return f"no {SYSTEM_PYTHON}"
    if found.returncode != 0:
        return "GStreamer's RTSP server is not installed: apt-get install the packages of .ci/packages.txt"
    return ""
