"""The view's HTTP server: the standard library's, a thread for each connection, and limits on what clients may take.

A client gets the next picture when the last one has left for it; newer ones replace those it had no time for. One that
never reads is given up after :attr:`ViewLimits.send_s`; until then it holds its thread and the kernel's send buffer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import socket
import sys
import threading
import time
from http.server import ThreadingHTTPServer
from socketserver import BaseRequestHandler
from typing import Any, Dict, Iterator, Optional, Sequence, Tuple

from rtda_runtime.sinks.http import BadRequest, Guard, Request, head, parse_request
from rtda_runtime.sinks.view.feed import BOUNDARY, Feed
from rtda_runtime.sinks.view.pages import Answer, Pages, text_answer
from rtda_runtime.threads.named import NamedThread

__all__ = ["ViewLimits", "ViewServer"]

_LOOK_S = 0.2  # a waiting stream looks so often whether the state changed or its client left
_POLL_S = 0.1  # the accepting thread looks so often whether it is to end
_PAUSE_S = 1.0  # without file handles or threads for new clients
_LINGER_S = 0.5  # a refused client may go on sending for so long; cut off at once it would not see the answer
_STOP_S = 0.9  # close() waits so long
_PIECE_B = 16 << 10

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ViewLimits:
    """What clients may take.

    Attributes:
        head_bytes: Of a request; a browser also sends the cookies of every other port of this machine.
        first_s: Seconds for a connection to send its first whole request.
        idle_s: For each later one, and for an idle connection.
        send_s: For an answer or a picture to leave.
        clients: Answered at a time, streams above all; ``/healthz`` and who is refused do not count.
        connections: Beyond, the one that has been silent for longest is dropped.
    """

    head_bytes: int = 16 << 10
    first_s: float = 5.0
    idle_s: float = 15.0
    send_s: float = 10.0
    clients: int = 64
    connections: int = 256


class ViewServer(ThreadingHTTPServer):
    """Serves a feed on a socket that listens, from the start until :meth:`close`.

    Args:
        listening: Closed with the server.
        feed: What is shown.
        guard: Asked for every path but ``/healthz``.
        limits: What clients may take.
    """

    block_on_close = False  # close() waits for the threads itself, and not for ever

    def __init__(self, listening: socket.socket, feed: Feed, guard: Guard, limits: ViewLimits) -> None:
        super().__init__(listening.getsockname()[:2], _Connection, bind_and_activate=False)
        self.socket.close()  # made by the constructor, and bound to nothing
        self.socket = listening
        self.feed, self.guard, self.limits = feed, guard, limits
        self.pages = Pages(feed, lambda: self._streams)
        self.closing = threading.Event()
        self._lock = threading.Lock()  # over the four below
        self._clients: Dict[Any, NamedThread] = {}
        self._silent: Dict[Any, None] = {}  # connections that are not being answered, longest first
        self._answered = 0  # requests in progress that the guard let in
        self._streams = 0
        self._fresh = threading.Condition()
        self._looking = 0  # streams that are about to wait for a newer result
        self._results = 0
        self._accepting = NamedThread("rtda-view-http", lambda: self.serve_forever(_POLL_S))
        self._accepting.start()

    def announce(self) -> None:
        """Tell waiting streams that there is a newer result; from any thread, in microseconds."""
        if self._looking:
            with self._fresh:
                self._results += 1
                self._fresh.notify_all()

    def close(self) -> None:
        """End all connections and threads. Calling it again does nothing."""
        deadline_s = time.monotonic() + _STOP_S
        self.closing.set()
        self.shutdown()
        self.server_close()
        with self._lock:
            threads = [self._accepting, *self._clients.values()]
            for connection in self._clients:
                _hang_up(connection)
        self.announce()
        if not all(thread.join_until(deadline_s) for thread in threads):
            _log.warning("the view does not end")

    # what the standard library's server calls

    def get_request(self) -> Tuple[Any, Any]:
        """Accept a connection."""
        try:
            return super().get_request()
        except OSError as err:  # out of file handles; the socket stays readable, so asking again at once would spin
            if not isinstance(err, (BlockingIOError, ConnectionAbortedError)):
                _log.warning("view: no new clients for %g s: %s", _PAUSE_S, err.strerror)
                self.closing.wait(_PAUSE_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a new connection its thread."""
        thread = NamedThread("rtda-view-client", lambda: self.process_request_thread(request, client_address))
        with self._lock:
            self._clients[request] = thread
            self._silent[request] = None
            if len(self._silent) + self._answered > self.limits.connections:
                oldest = next(iter(self._silent))
                del self._silent[oldest]
                _hang_up(oldest)  # whoever waits for its request sees the end
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection and close it."""
        with self._lock:
            self._clients.pop(request, None)
            self._silent.pop(request, None)
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what ended a connection; the view outlives it."""
        err = sys.exc_info()[1]
        if isinstance(err, OSError):
            _log.debug("view: a client left: %s", type(err).__name__)
            return
        _log.exception("view: an answer failed")
        if isinstance(err, RuntimeError):  # no thread can be started
            self.closing.wait(_PAUSE_S)

    # what a connection asks for

    @contextlib.contextmanager
    def answering(self, connection: Any) -> Iterator[None]:
        """Count a request that was let in, as long as it is answered.

        Raises:
            BadRequest: If too many are.
        """
        with self._lock:
            if self._answered >= self.limits.clients:
                raise BadRequest(429, "too many clients", [("Retry-After", "5")])
            self._silent.pop(connection, None)
            self._answered += 1
        try:
            yield
        finally:
            with self._lock:
                self._answered -= 1
                self._silent[connection] = None

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """Count a stream."""
        with self._lock:
            self._streams += 1
        try:
            yield
        finally:
            with self._lock:
                self._streams -= 1

    @contextlib.contextmanager
    def look(self) -> Iterator[_Look]:
        """Around a look at the feed and the wait after it: a result that comes between the two ends the wait."""
        with self._fresh:
            self._looking += 1
            seen = self._results
        try:
            yield _Look(self._fresh, lambda: self._results != seen)
        finally:
            with self._fresh:
                self._looking -= 1


class _Look:
    """A stream's look at the feed; ``wait`` returns as soon as something came after it began, or after a while."""

    def __init__(self, fresh: threading.Condition, is_newer: Any) -> None:
        self._fresh, self._is_newer = fresh, is_newer

    def wait(self) -> None:
        with self._fresh:
            self._fresh.wait_for(self._is_newer, _LOOK_S)


class _Connection(BaseRequestHandler):
    """One client: reads its requests and answers them, one after the other.

    Requests are read by :func:`parse_request`, which takes less than the standard library does: no bodies, no other
    methods than GET and HEAD, no second ``Host``.
    """

    server: ViewServer

    def setup(self) -> None:
        """Begin with nothing received."""
        self._received = b""

    def handle(self) -> None:
        """Answer until the client leaves, takes too long or is refused."""
        limits = self.server.limits
        try:
            timeout_s = limits.first_s
            while self._one_request(timeout_s):
                timeout_s = limits.idle_s
        except BadRequest as refused:
            with contextlib.suppress(OSError):
                self._refuse(refused)

    def _one_request(self, timeout_s: float) -> bool:
        """Read and answer; whether the connection stays open."""
        content = self._next_head(timeout_s)
        if content is None:
            return False
        request = parse_request(content)
        if request.path == "/healthz":
            self._send(request, self.server.pages.health())
            return request.keep_alive
        cookie = self.server.guard.check(request)
        headers = [("Set-Cookie", cookie)] if cookie else []
        with self.server.answering(self.request):
            if request.path == "/stream.mjpg":
                self._stream(request, headers)
                return False
            self._send(request, self.server.pages.answer(request), headers)
        return request.keep_alive

    def _next_head(self, timeout_s: float) -> Optional[bytes]:
        """The head of the next request with its empty line; None if the client left or took too long to send it.

        Raises:
            BadRequest: If it is too large.
        """
        deadline_s = time.monotonic() + timeout_s
        while b"\r\n\r\n" not in self._received:
            if len(self._received) > self.server.limits.head_bytes:
                raise BadRequest(431, "the request's head is too large")
            left_s = deadline_s - time.monotonic()
            if left_s <= 0.0:
                return None
            self.request.settimeout(left_s)
            piece = self.request.recv(_PIECE_B)
            if not piece:
                return None
            self._received += piece
        content, _, self._received = self._received.partition(b"\r\n\r\n")
        return content + b"\r\n\r\n"

    def _stream(self, request: Request, headers: Sequence[Tuple[str, str]]) -> None:
        mode = self.server.pages.mode(request)
        self._send_all(head(200, f"multipart/x-mixed-replace; boundary={BOUNDARY}", None, headers))
        if request.method == "HEAD":
            return
        sent: Any = None
        with self.server.streaming():
            while not self.server.closing.is_set() and not self._left():
                with self.server.look() as look:
                    part, wait_s = self.server.feed.part(mode)
                    waits = part is None or part.key == sent
                    if waits and wait_s is None:
                        look.wait()
                if part is not None and not waits:
                    self._send_all(part.data)
                    sent = part.key
                elif wait_s is not None:
                    self.server.closing.wait(wait_s)

    def _left(self) -> bool:
        self.request.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            return not self.request.recv(1, socket.MSG_PEEK)
        return False

    def _send(self, request: Request, answer: Answer, headers: Sequence[Tuple[str, str]] = ()) -> None:
        status, kind, content, more = answer
        _log.debug("view: %s %s: %d", request.method, request.path, status)  # never the query: it may hold the token
        content_length = len(content)
        if request.method == "HEAD":
            content = b""
        self._send_all(head(status, kind, content_length, [*headers, *more], keep_alive=request.keep_alive) + content)

    def _send_all(self, data: bytes) -> None:
        self.request.settimeout(self.server.limits.send_s)  # for all of it together
        self.request.sendall(data)

    def _refuse(self, refused: BadRequest) -> None:
        _log.debug("view: refused with %d", refused.status)
        status, kind, content, headers = text_answer(refused.status, refused.text, refused.headers)
        self._send_all(head(status, kind, len(content), headers) + content)
        self.request.shutdown(socket.SHUT_WR)
        deadline_s = time.monotonic() + _LINGER_S
        while time.monotonic() < deadline_s:
            self.request.settimeout(max(0.01, deadline_s - time.monotonic()))
            if not self.request.recv(_PIECE_B):
                return


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
