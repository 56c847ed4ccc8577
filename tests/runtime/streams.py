"""Network cameras and films in one thread: HTTP on 127.0.0.1."""

from __future__ import annotations

import base64
import contextlib
import http.server
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
from patience import PATIENCE_S

from rtda_runtime.sources import Source, open_source


@contextlib.contextmanager
def mjpeg_server(
    pictures: List[np.ndarray], *, hang: bool = False, asked: Optional[List[Tuple[str, Optional[str]]]] = None
) -> Iterator[str]:
    """Serve ``pictures`` once per client, then hang up; ``hang``: accept and say nothing. Gives host:port.

    ``asked`` gets the path and the ``Authorization`` of each request.
    """
    parts = [jpeg(picture) for picture in pictures]
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

    with _serving(Handler) as address:
        try:
            yield address
        finally:
            stop.set()


def jpeg(picture: np.ndarray) -> bytes:
    """A picture as a camera sends it."""
    content: bytes = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    return content


def read_frames(source: Source) -> List[Any]:
    """Every frame until the end."""
    return list(iter(lambda: source.read(5.0), None))


def read_images(source: Union[Source, Path]) -> List[np.ndarray]:
    """The picture of each frame, of a source that is open or of a film."""
    if isinstance(source, Path):
        with open_source(source) as opened:
            return read_images(opened)
    return [frame.image for frame in read_frames(source)]


@contextlib.contextmanager
def byte_server(
    pieces: Sequence[bytes],
    *,
    headers: Optional[Dict[str, str]] = None,
    login: str = "",
    asked: Optional[List[Tuple[str, Optional[str]]]] = None,
) -> Iterator[str]:
    """Send ``pieces`` to each client whatever it asks for (no ranges), then hang up. Gives host:port.

    Args:
        login: ``user:password`` that is wanted.
        asked: Gets the path and the ``Authorization`` of each request.
    """
    wanted = "Basic " + base64.b64encode(login.encode()).decode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if asked is not None:
                asked.append((self.path, self.headers.get("Authorization")))
            if login and self.headers.get("Authorization") != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.end_headers()
                return
            self.send_response(200)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                for piece in pieces:
                    self.wfile.write(piece)

        def log_message(self, *_: Any) -> None: ...

    with _serving(Handler) as address:
        yield address


@contextlib.contextmanager
def _serving(handler: Any) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(PATIENCE_S)
        server.server_close()
