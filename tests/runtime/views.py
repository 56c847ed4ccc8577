"""A view on a free port of 127.0.0.1, and small clients for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

import numpy as np
from patience import PATIENCE_S, wait_for
from runtime.models import tiny_spec

from rtda_runtime import Result
from rtda_runtime.sinks.view import ViewSink
from rtda_runtime.sinks.view.server import ViewLimits

SPEC = tiny_spec()


def result(number: int, size_hw: Tuple[int, int] = (48, 64)) -> Result:
    rng = np.random.default_rng(number)
    return Result(
        frame=rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8),
        mask=rng.integers(0, 5, size_hw, dtype=np.uint8),
        captured_ns=time.perf_counter_ns(),
        sequence=number,
        dropped=0,
        timing={"age": 1.0},
        spec=SPEC,
    )


class View:
    """A view on a free port, with statistics that the test sets, and limits other than the usual ones."""

    def __init__(self, size_hw: Tuple[int, int] = (48, 64), **limits: Any) -> None:
        self.stats: Dict[str, Any] = {"state": "live"}
        self.make: Callable[[int], Result] = lambda number: result(number, size_hw)
        self.sink = ViewSink("127.0.0.1:0", SPEC, stats=lambda: self.stats, title="tiny", limits=ViewLimits(**limits))
        self.port = self.sink.port
        self.count = 0

    @classmethod
    def of(cls, sink: ViewSink) -> View:
        """A client's look at a view that somebody else feeds."""
        made = cls.__new__(cls)
        made.sink, made.port = sink, sink.port
        return made

    def write(self, times: int = 1) -> None:
        for _ in range(times):
            self.sink.write(self.make(self.count))
            self.count += 1

    @contextlib.contextmanager
    def moving(self, every_s: float = 0.01) -> Iterator[None]:
        """Frames keep coming, from another thread."""
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(every_s):
                self.write()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(PATIENCE_S)

    def connect(self, *, receive_buffer: int = 0) -> socket.socket:
        made = socket.socket()
        made.settimeout(PATIENCE_S)
        if receive_buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            made.connect(("127.0.0.1", self.port))
        except OSError:
            made.close()
            raise
        return made

    def get(self, path: str, method: str = "GET", headers: Optional[Dict[str, str]] = None) -> Tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def raw(self, content: bytes) -> bytes:
        """All that comes back until the server hangs up."""
        with self.connect() as made:
            made.sendall(content)
            return read_all(made)

    def report(self) -> Dict[str, Any]:
        return dict(json.loads(self.get("/stats.json")[2]))

    def until(self, happened: Callable[[], bool], what: str) -> None:
        wait_for(happened, what)


class Stream:
    """A client of the stream that reads part by part."""

    def __init__(self, view: View, path: str = "/stream.mjpg") -> None:
        self._socket = view.connect()
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self._file = self._socket.makefile("rb")
        self.head = self._block()

    def part(self) -> Tuple[Dict[str, str], bytes]:
        assert self._file.readline() == b"--rtda-frame\r\n"
        headers = dict(line.split(": ", 1) for line in self._block().splitlines())
        content = self._file.read(int(headers["Content-Length"]))
        assert self._file.readline() == b"\r\n"
        return headers, content

    def ended(self) -> bool:
        return self._file.read() == b""

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def _block(self) -> str:
        lines = []
        while True:
            line = self._file.readline()
            assert line, "the server hung up"
            if line == b"\r\n":
                return b"".join(lines).decode()
            lines.append(line)


def read_all(made: socket.socket) -> bytes:
    got = []
    with contextlib.suppress(ConnectionResetError):
        while True:
            piece = made.recv(1 << 16)
            if not piece:
                break
            got.append(piece)
    return b"".join(got)
