"""The view's HTTP server: one thread, one event loop, and no client that can hold up another.

A client gets the next picture when the last one has left for it; until then newer ones pass it by. One that never reads
is given up after :data:`SEND_TIMEOUT_S`; meanwhile it holds the kernel's send buffer and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pkgutil
import socket
import threading
import time
from typing import Any, Awaitable, Callable, Dict, Iterator, Optional, Sequence, Set, Tuple

from rtda_runtime.sinks.guard import Guard
from rtda_runtime.sinks.http import BadRequest, Request, head, parse_request
from rtda_runtime.sinks.view.feed import BOUNDARY, Feed, report_json
from rtda_runtime.sinks.view.painter import MODES
from rtda_runtime.threads.named import NamedThread

__all__ = ["ViewServer"]

HEAD_LIMIT_B = 16 << 10  # of a request; a browser also sends the cookies of every other port of this machine
FIRST_TIMEOUT_S = 5.0  # for a connection to send its first whole request
HEAD_TIMEOUT_S = 15.0  # for each later one, and for an idle connection
SEND_TIMEOUT_S = 10.0  # for an answer or a picture to leave
MAX_CLIENTS = 64  # answered at a time, streams above all; /healthz and who is refused do not count
MAX_CONNECTIONS = 256  # beyond, the one that has been silent for longest is dropped

_LOOK_S = 0.2  # a waiting stream looks so often whether the state changed or its client left
_PAUSE_S = 1.0  # without file handles for new clients
_LINGER_S = 0.5  # a refused client may go on sending for so long; cut off at once it would not see the answer
_START_S = 10.0  # the thread needs milliseconds
_STOP_S = 0.9  # close() waits so long
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/script.js": ("script.js", "text/javascript; charset=utf-8"),
}
_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"

_log = logging.getLogger(__name__)


class ViewServer:
    """Serves a feed on a socket that listens, until :meth:`close`.

    Args:
        listening: Closed with the server.
        feed: Asked from the server's thread alone.
        guard: Asked for every path but ``/healthz``.
    """

    def __init__(self, listening: socket.socket, feed: Feed, guard: Guard) -> None:
        self._listening = listening
        self._feed = feed
        self._guard = guard
        self._files = {path: (_content(name), kind) for path, (name, kind) in _FILES.items()}
        self._answers: Dict[str, Callable[[Request], _Answer]] = {
            "/stats.json": self._stats,
            "/snapshot.png": self._snapshot,
            "/snapshot.jpg": self._snapshot,
        }
        self._streams = 0
        self._wanted = False  # a stream is about to wait for a newer result
        self._clients: Set[asyncio.Task[None]] = set()
        self._silent: Dict[socket.socket, None] = {}  # connections that are not being answered, longest first
        self._answered = 0  # requests in progress that the guard let in
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._fresh: Optional[asyncio.Event] = None
        self._stop: Optional[asyncio.Event] = None
        self._lock = threading.Lock()  # between announce() and the end of the loop
        started = threading.Event()
        self._thread = NamedThread("rtda-view-http", lambda: self._run(started))
        self._thread.start()
        if not started.wait(_START_S):
            _log.warning("the view does not start")

    def announce(self) -> None:
        """Tell waiting streams that there is a newer result; from any thread, in microseconds."""
        if self._wanted:
            self._wanted = False
            self._call(self._wake)

    def close(self) -> None:
        """End all connections and the thread. Calling it again does nothing."""
        self._call(self._end)
        if not self._thread.join_until(time.monotonic() + _STOP_S):
            _log.warning("the view does not end")

    def _call(self, function: Callable[[], None]) -> None:
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function)

    def _run(self, started: threading.Event) -> None:
        try:
            asyncio.run(self._serve(started))
        finally:
            self._listening.close()
            started.set()

    async def _serve(self, started: threading.Event) -> None:
        self._fresh, self._stop = asyncio.Event(), asyncio.Event()
        self._listening.setblocking(False)
        loop = self._loop = asyncio.get_event_loop()
        loop.add_reader(self._listening, self._accept)
        started.set()
        try:
            await self._stop.wait()
        finally:
            with self._lock:
                self._loop = None
            loop.remove_reader(self._listening)
            await self._hang_up()

    async def _hang_up(self) -> None:
        while self._clients:
            for task in self._clients:
                task.cancel()
            await asyncio.wait(self._clients, timeout=_LOOK_S)  # before 3.12 wait_for() may swallow a cancellation
        await asyncio.sleep(0)  # transports close their sockets in the next round

    def _end(self) -> None:
        if self._stop is not None:
            self._stop.set()

    def _wake(self) -> None:
        if self._fresh is not None:
            self._fresh.set()
            self._fresh = asyncio.Event()

    def _accept(self) -> None:
        """Not asyncio's own server: that one loses connections which it accepts while it is closed."""
        loop = asyncio.get_event_loop()
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as err:  # out of file handles; it stays readable, so asking again at once would spin
            _log.warning("view: no new clients for %g s: %s", _PAUSE_S, err.strerror)
            loop.remove_reader(self._listening)
            loop.call_later(_PAUSE_S, loop.add_reader, self._listening, self._accept)
            return
        self._silent[connection] = None
        if len(self._silent) + self._answered > MAX_CONNECTIONS:
            self._drop(next(iter(self._silent)))
        task = loop.create_task(self._client(connection))
        self._clients.add(task)
        task.add_done_callback(lambda _: connection.close())  # for one that was cancelled before its first step
        task.add_done_callback(lambda _: self._silent.pop(connection, None))
        task.add_done_callback(self._clients.discard)

    def _drop(self, connection: socket.socket) -> None:
        del self._silent[connection]
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)  # whoever waits for its request sees the end

    @contextlib.contextmanager
    def _answering(self, connection: socket.socket) -> Iterator[None]:
        if self._answered >= MAX_CLIENTS:
            raise BadRequest(429, "too many clients", [("Retry-After", "5")])
        self._silent.pop(connection, None)
        self._answered += 1
        try:
            yield
        finally:
            self._answered -= 1
            self._silent[connection] = None

    async def _client(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection, limit=HEAD_LIMIT_B)
        transport: Any = writer.transport
        transport.set_write_buffer_limits(high=0)  # drain() returns when all has left
        try:
            timeout_s = FIRST_TIMEOUT_S
            while await self._one_request(connection, reader, writer, timeout_s):
                timeout_s = HEAD_TIMEOUT_S
        except BadRequest as refused:
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await self._refuse(refused, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as err:
            _log.debug("view: a client left: %s", type(err).__name__)
        except Exception:  # the view must outlive a bug in one answer
            _log.exception("view: an answer failed")
        finally:
            transport.abort()

    async def _one_request(
        self,
        connection: socket.socket,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        timeout_s: float,
    ) -> bool:
        """Read and answer; whether the connection stays open."""
        try:
            content = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), timeout_s)
        except asyncio.LimitOverrunError as err:
            raise BadRequest(431, "the request's head is too large") from err
        request = parse_request(content)
        if request.path == "/healthz":
            await self._send(writer, request, self._health())
            return request.keep_alive
        cookie = self._guard.check(request)
        headers = [("Set-Cookie", cookie)] if cookie else []
        with self._answering(connection):
            if request.path == "/stream.mjpg":
                await self._stream(reader, writer, request, headers)
                return False
            await self._send(writer, request, self._answer(request), headers)
        return request.keep_alive

    def _answer(self, request: Request) -> _Answer:
        if request.path in self._files:
            content, kind = self._files[request.path]
            return 200, kind, content, ()
        if request.path not in self._answers:
            return _text(404, "no such page; there are /, /stream.mjpg, /snapshot.png, /stats.json and /healthz")
        return self._answers[request.path](request)

    def _health(self) -> _Answer:
        state, since_s = self._feed.state()
        content = report_json({"state": state, "since_s": round(since_s, 3)})
        return (200 if state == "live" else 503), _JSON, content, ()

    def _stats(self, _: Request) -> _Answer:
        return 200, _JSON, report_json({**self._feed.report(), "clients": self._streams}), ()

    def _snapshot(self, request: Request) -> _Answer:
        mode = self._mode(request)
        suffix = request.path[-4:]
        taken = self._feed.snapshot(mode, suffix)
        if taken is None:
            return _text(503, "no frame came yet")
        content, sequence = taken
        name = f'attachment; filename="rtda-{mode}-{sequence:06d}{suffix}"'
        return 200, "image/png" if suffix == ".png" else "image/jpeg", content, [("Content-Disposition", name)]

    def _mode(self, request: Request) -> str:
        mode = request.query.get("mode", MODES[0])
        if mode not in MODES:
            raise BadRequest(400, f"no such mode; there are {', '.join(MODES)}")
        if not self._feed.has_mode(mode):
            raise BadRequest(404, "this run has one model only; start it with --compare MODEL2")
        return mode

    async def _stream(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        request: Request,
        headers: Sequence[Tuple[str, str]],
    ) -> None:
        mode = self._mode(request)
        writer.write(head(200, f"multipart/x-mixed-replace; boundary={BOUNDARY}", None, headers))
        await _sent(writer)
        if request.method == "HEAD":
            return
        self._streams += 1
        try:
            await self._send_pictures(mode, reader, writer)
        finally:
            self._streams -= 1

    async def _send_pictures(self, mode: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent: Any = None
        transport: Any = writer.transport
        while not reader.at_eof() and not transport.is_closing():
            self._wanted = True  # before the look: what comes between the look and the wait ends the wait
            part, wait_s = self._feed.part(mode)
            if part is not None and part.key != sent:
                writer.write(part.data)
                await _sent(writer)
                sent = part.key
            elif wait_s is not None:
                await asyncio.sleep(wait_s)
            else:
                await self._wait_for_fresh()

    async def _wait_for_fresh(self) -> None:
        assert self._fresh is not None  # set before the first client is let in
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._fresh.wait(), _LOOK_S)

    async def _send(
        self, writer: asyncio.StreamWriter, request: Request, answer: _Answer, headers: Sequence[Tuple[str, str]] = ()
    ) -> None:
        status, kind, content, more = answer
        _log.debug("view: %s %s: %d", request.method, request.path, status)  # never the query: it may hold the token
        writer.write(head(status, kind, len(content), [*headers, *more], keep_alive=request.keep_alive))
        if request.method != "HEAD":
            writer.write(content)
        await _sent(writer)

    async def _refuse(self, refused: BadRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _log.debug("view: refused with %d", refused.status)
        content = f"{refused.text}\n".encode()
        writer.write(head(refused.status, _TEXT, len(content), refused.headers) + content)
        await _sent(writer)
        writer.write_eof()
        await asyncio.wait_for(_discard(reader), _LINGER_S)


_Answer = Tuple[int, str, bytes, Sequence[Tuple[str, str]]]


def _text(status: int, text: str) -> _Answer:
    return status, _TEXT, f"{text}\n".encode(), ()


async def _sent(writer: asyncio.StreamWriter) -> None:
    draining: Awaitable[None] = writer.drain()
    await asyncio.wait_for(draining, SEND_TIMEOUT_S)


async def _discard(reader: asyncio.StreamReader) -> None:
    while await reader.read(HEAD_LIMIT_B):
        pass


def _content(name: str) -> bytes:
    """A file of this package, from a folder or a zip; importlib.resources has no call that 3.8 and 3.13 both like."""
    content = pkgutil.get_data(__package__ or "", name)
    if content is None:
        raise FileNotFoundError(name)
    return content
