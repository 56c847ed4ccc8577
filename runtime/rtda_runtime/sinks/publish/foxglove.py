"""A WebSocket server that Foxglove opens as a live connection.

For a client that reads too slowly only the newest few messages are kept, so that one that never reads costs neither
memory nor time of the loop.
"""

from __future__ import annotations

import functools
import re
import secrets
import socket
from typing import Any, Callable, Mapping, Sequence
from urllib.parse import urlsplit

from rtda_deploy.errors import ConfigError, DeviceError
from rtda_deploy.masking import mask_password
from rtda_deploy.optional import require
from rtda_deploy.spec import ModelSpec
from rtda_runtime.result import Result
from rtda_runtime.sinks.http import Guard, is_loopback, outward_host
from rtda_runtime.sinks.kinds import SinkContext
from rtda_runtime.sinks.publish.base import Publisher, query_options
from rtda_runtime.sinks.publish.gate import Gate, hidden_host
from rtda_runtime.sinks.publish.messages import FRAME_ID, LOG_LEVELS, SCHEMA_OF, SCHEMAS

__all__ = ["FoxgloveSink", "opener"]

_HOST, _PORT = "127.0.0.1", 8765  # Foxglove looks for a server there by itself
_ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]*://[A-Za-z0-9.\[\]:_-]*")
# Foxglove in a browser, embedded in another page, and as a program, whose own page is a file. "null" is not among them:
# any page can have it.
ORIGINS = ("https://app.foxglove.dev", "https://embed.foxglove.dev", "file://")
_TOKEN_BYTES = 24
_BACKLOG = 16  # messages kept per client: about five frames of all topics


def opener(address: str, context: SinkContext) -> Callable[[], FoxgloveSink]:
    """What opens ``foxglove``, ``foxglove://HOST:PORT`` or ``foxglove://HOST:PORT?origin=URL``.

    Raises:
        ConfigError: If it names anything else.
    """
    shown = mask_password(address)
    try:
        parts = urlsplit(address if ":" in address else "foxglove://")
        host, port = parts.hostname or _HOST, parts.port
    except ValueError as err:
        raise ConfigError(f"{shown!r} has no port between 0 and 65535", hint="foxglove://127.0.0.1:8765") from err
    if parts.path.strip("/") or parts.fragment or parts.username is not None:
        raise ConfigError(f"{shown!r} has more than a host and a port", hint="foxglove://127.0.0.1:8765")
    origins = query_options(address, ("origin",)).get("origin", [])
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"{origin!r} is no web site", hint="foxglove://127.0.0.1:8765?origin=https://lichtblick.example.org"
            )
    where: Any = {"host": host, "port": _PORT if port is None else port, "origins": origins}
    return functools.partial(FoxgloveSink, context.spec, name=context.source, **where)


class FoxgloveSink(Publisher):
    """Serves the topics ``/rtda/mask``, ``/rtda/overlay``, ``/rtda/statistics``, ``/rtda/labels`` and ``/rtda/state``.

    Args:
        host: Address to listen on. One that others reach needs the token that is part of :attr:`url`.
        port: Port; 0: a free one, told by ``address``.
        origins: Web sites whose pages may look, beside Foxglove's own and those that this machine serves:
            ``https://lichtblick.example.org``.

    Attributes:
        url: What to open in Foxglove; holds the token where one is needed: to be shown to the user, not logged.

    Raises:
        DeviceError: If it cannot listen there.
        MissingPackageError: If foxglove-sdk is not installed.
    """

    name = "foxglove"

    def __init__(
        self,
        spec: ModelSpec,
        *,
        name: str,
        host: str = _HOST,
        port: int = _PORT,
        origins: Sequence[str] = (),
    ) -> None:
        super().__init__(spec, name)
        self._sdk: Any = _sdk()
        self._context = context = self._sdk.Context()  # without it the channels are closed
        channels = self._sdk.channels
        self._images = {
            topic: channels.CompressedImageChannel(f"/rtda/{topic}", context=context) for topic in ("mask", "overlay")
        }
        self._json = {
            topic: self._sdk.Channel(f"/rtda/{topic}", schema=SCHEMAS[SCHEMA_OF[topic]], context=context)
            for topic in ("statistics", "labels")
        }
        self._states: Any = channels.LogChannel("/rtda/state", context=context)
        self._channels = {**self._images, **self._json, "state": self._states}
        try:
            listening = _listen(host, port)
            try:
                inner = hidden_host()
                self._server: Any = self._sdk.start_server(
                    name=f"rtda-deploy {self._source}",
                    host=inner,
                    port=0,
                    context=context,
                    server_listener=_listener(self._sdk, self._welcome),
                    message_backlog_size=_BACKLOG,
                )
            except BaseException:
                listening.close()
                raise
        except (OSError, RuntimeError) as err:  # the SDK's FoxgloveError is a RuntimeError
            self._closed = True
            raise DeviceError(
                f"cannot serve Foxglove on {host}:{port}",
                why=str(getattr(err, "strerror", None) or err).replace("FoxgloveError: ", ""),
                hint="choose another port: --publish foxglove://127.0.0.1:0 takes a free one",
            ) from err
        token = "" if is_loopback(host) else secrets.token_urlsafe(_TOKEN_BYTES)
        port = int(listening.getsockname()[1])
        shown = f"[{host}]" if ":" in host else host
        self.address = f"ws://{shown}:{port}"
        self.url = self.note = f"ws://{outward_host(host)}:{port}" + (f"/?token={token}" if token else "")
        self._gate = Gate(
            listening,
            (inner, int(self._server.port)),
            Guard(token, origins=(*ORIGINS, *origins)),
            name=f"foxglove://{shown}:{port}",
        )

    def _welcome(self, topic: str) -> None:
        """Called by the server's own thread, which must not wait for a thread that waits for the server."""
        if topic not in ("/rtda/labels", "/rtda/state"):
            return
        if self._lock.acquire(blocking=False):
            try:
                self._greet()
            finally:
                self._lock.release()
        else:
            self._greeted = False  # the next result greets

    def _wanted(self, topic: str) -> bool:
        return bool(self._channels[topic].has_sinks())

    def _send_image(self, topic: str, stamp_ns: int, format_: str, content: bytes, result: Result) -> None:
        image = self._sdk.messages.CompressedImage(
            timestamp=self._stamp(stamp_ns), frame_id=FRAME_ID, data=content, format=format_
        )
        self._images[topic].log(image, log_time=stamp_ns)

    def _send_json(self, topic: str, stamp_ns: int, values: Mapping[str, Any]) -> None:
        self._json[topic].log(dict(values), log_time=stamp_ns)

    def _send_state(self, stamp_ns: int, state: str, sentence: str) -> None:
        level = getattr(self._sdk.messages.LogLevel, LOG_LEVELS.get(state, LOG_LEVELS["live"]).name)
        line = self._sdk.messages.Log(
            timestamp=self._stamp(stamp_ns), level=level, message=f"{state}: {sentence}", name=self._source
        )
        self._states.log(line, log_time=stamp_ns)

    def _stamp(self, stamp_ns: int) -> Any:
        return self._sdk.messages.Timestamp(stamp_ns // 1_000_000_000, stamp_ns % 1_000_000_000)

    def _end(self) -> None:
        self._gate.close()
        self._server.stop()


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that ended a second ago holds no port
        made.bind(where)
        made.listen()
    except BaseException:
        made.close()
        raise
    return made


def _sdk() -> Any:
    for module in ("foxglove.channels", "foxglove.messages", "foxglove.websocket"):
        require(module, extra="robotics", purpose="to publish to Foxglove")
    return require("foxglove", extra="robotics", purpose="to publish to Foxglove")


def _listener(sdk: Any, subscribed: Any) -> Any:
    class Listener(sdk.websocket.ServerListener):
        def on_subscribe(self, client: Any, channel: Any) -> None:
            subscribed(channel.topic)

    return Listener()
