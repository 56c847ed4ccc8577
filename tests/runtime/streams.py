"""A network camera in one thread: HTTP, motion JPEG, on 127.0.0.1."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from typing import Any, Iterator, List, Optional, Tuple

import cv2
import numpy as np
from patience import PATIENCE_S


@contextlib.contextmanager
def mjpeg_server(
    pictures: List[np.ndarray], *, hang: bool = False, asked: Optional[List[Tuple[str, Optional[str]]]] = None
) -> Iterator[str]:
    """Serve ``pictures`` once per client, then hang up; ``hang``: accept and say nothing. Gives host:port.

    ``asked`` gets the path and the ``Authorization`` of each request.
    """
    parts = [cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes() for picture in pictures]
    stop = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if asked is not None:
                asked.append((self.path, self.headers.get("Authorization")))
            if hang:
                stop.wait(PATIENCE_S)
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            with contextlib.suppress(OSError):
                for part in parts:
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(part)}\r\n\r\n"
                    self.wfile.write(head.encode() + part + b"\r\n")
                    time.sleep(0.005)

        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        stop.set()
        server.shutdown()
        thread.join(PATIENCE_S)
        server.server_close()
