"""A proxy in front of a WebSocket server without access control: it checks each request before it forwards it.

Foxglove's SDK checks neither ``Host`` nor ``Origin``, so that a page of any web site, open in a browser on this
machine, could read the camera. The proxy listens on the public address; the SDK's own server listens on one of the 16
million loopback addresses, on a port that the system chooses, which a page cannot find by trying.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import threading
import time
from typing import Optional, Set, Tuple

from rtda_runtime.sinks.http import BadRequest, Guard, Request, head, parse_request
from rtda_runtime.threads.named import NamedThread

__all__ = ["Gate", "hidden_host"]

_HEAD_LIMIT_B = 16 << 10
_HEAD_TIMEOUT_S = 5.0
_MAX_CLIENTS = 64
_PIECE_B = 64 << 10
_BUFFER_B = 256 << 10  # the kernel holds so much per client on either side of the gate; a picture or two
_START_S = 10.0  # the thread needs milliseconds
_STOP_S = 0.9  # close() waits so long

_log = logging.getLogger(__name__)


def hidden_host() -> str:
    """A random loopback address: ``127.93.4.201``."""
    return "127." + ".".join(str(1 + secrets.randbelow(254)) for _ in range(3))


class Gate:
    """Forwards clients from a socket to a server behind it, once the guard has admitted them.

    Args:
        listening: Closed with the gate.
        inner: Host and port of the server.
        guard: Checks the request head of each connection.
        name: Its address as typed; each refused page is logged once, with the option that would admit it.
    """

    def __init__(self, listening: socket.socket, inner: Tuple[str, int], guard: Guard, *, name: str) -> None:
        self._listening, self._inner, self._guard, self._name = listening, inner, guard, name
        self._clients: Set[asyncio.Task[None]] = set()
        self._refused: Set[str] = set()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._stop: Optional[asyncio.Event] = None
        started = threading.Event()
        self._thread = NamedThread("rtda-gate", lambda: self._run(started))
        self._thread.start()
        if not started.wait(_START_S):
            _log.warning("the proxy in front of Foxglove's server does not start")

    def close(self) -> None:
        """End every connection and the thread. Calling it again does nothing."""
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(stop.set)
        self._thread.join_until(time.monotonic() + _STOP_S)

    def _run(self, started: threading.Event) -> None:
        try:
            asyncio.run(self._serve(started))
        finally:
            self._listening.close()
            started.set()

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_event_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, sock=self._listening, limit=_HEAD_LIMIT_B)
        started.set()
        await self._stop.wait()
        server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= _MAX_CLIENTS:
            writer.transport.abort()
            return
        task = asyncio.get_event_loop().create_task(self._client(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            content = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_TIMEOUT_S)
            request = parse_request(content)
            try:
                self._guard.check(request)
            except BadRequest:
                self._tell(request)
                raise
            await self._forward(content, reader, writer)
        except BadRequest as refused:
            text = f"{refused.text}\n".encode()
            writer.write(head(refused.status, "text/plain; charset=utf-8", len(text), refused.headers) + text)
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(writer.drain(), _HEAD_TIMEOUT_S)
            writer.close()
        except (OSError, EOFError, asyncio.TimeoutError, asyncio.LimitOverrunError) as err:
            _log.debug("foxglove: a client left: %s", type(err).__name__)
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
            raise

    def _tell(self, request: Request) -> None:
        origin = request.headers.get("origin")
        site = origin or request.headers.get("host", "")
        if site not in self._refused and len(self._refused) < _MAX_CLIENTS:
            self._refused.add(site)
            help_ = f"; {self._name}?origin={origin} lets its pages in" if origin else ""
            _log.warning("%s: a page of %r was not let in%s", self._name, site, help_)

    async def _forward(self, content: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        outer: socket.socket = writer.get_extra_info("socket")
        outer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_B)
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_B)
        made.setblocking(False)
        try:
            await asyncio.get_event_loop().sock_connect(made, self._inner)
            inner_reader, inner_writer = await asyncio.open_connection(sock=made)
        except BaseException:
            made.close()
            raise
        inner_writer.write(content)
        ways = [
            asyncio.ensure_future(_copy(reader, inner_writer)),
            asyncio.ensure_future(_copy(inner_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            inner_writer.close()
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        piece = await reader.read(_PIECE_B)
        if not piece:
            return
        writer.write(piece)
        await writer.drain()
