"""Motion JPEG cameras over HTTP on 127.0.0.1; run as a process of its own, so that it can be killed.

    python mjpeg_server.py [--port N] [--password SECRET]

========== ==========================================================
``/cam``   colour bars, 64x48
``/sizes`` 64x48, from the tenth picture on 96x64
``/clock`` the time of each picture drawn into it (timecode.py)
``/page``  a web page
``/busy``  503
========== ==========================================================

25 pictures a second. With ``--password`` all ask for ``user`` and it. Prints its port when it listens, and ends when
its stdin is closed.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.server
import itertools
import sys
import threading
import time
from typing import Any, Callable, Dict

import cv2
import numpy as np
import timecode

FPS = 25


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--password")
    options = parser.parse_args()
    Handler.password = options.password
    server = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()


class Handler(http.server.BaseHTTPRequestHandler):
    password: Any = None

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        expected = "Basic " + base64.b64encode(f"user:{self.password}".encode()).decode()
        if self.password and self.headers.get("Authorization") != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
        elif path in PICTURES:
            self._stream(PICTURES[path])
        elif path == "/page":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<p>Welcome to your camera</p>" * 50)
        else:
            self.send_error(503 if path == "/busy" else 404)

    def _stream(self, picture: Callable[[int], np.ndarray]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        due_s = time.monotonic()
        with contextlib.suppress(OSError):
            for number in itertools.count():
                due_s += 1 / FPS
                time.sleep(max(0.0, due_s - time.monotonic()))
                part = cv2.imencode(".jpg", picture(number), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(part)}\r\n\r\n"
                self.wfile.write(head.encode() + part + b"\r\n")

    def log_message(self, *_: Any) -> None: ...


def _bars(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, (np.arange(width) + number) % 16 < 8] = (0, 128, 255)
    return picture


def _clock(number: int) -> np.ndarray:
    luma = bytearray(b"\x60" * (640 * 360))
    timecode.draw(luma, 640, timecode.now())
    return np.frombuffer(bytes(luma), np.uint8).reshape(360, 640)


PICTURES: Dict[str, Callable[[int], np.ndarray]] = {
    "/cam": _bars,
    "/sizes": lambda number: _bars(number) if number < 10 else _bars(number, 96, 64),
    "/clock": _clock,
}

main()
