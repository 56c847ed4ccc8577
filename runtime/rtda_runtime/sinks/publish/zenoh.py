"""A Zenoh peer: encoded pictures and JSON under one key prefix, for fleets and for programs on other machines.

The payload is the file itself (``image/png``, ``image/jpeg``, ``application/json``); the attachment is a small JSON
object with ``stamp_ns``, ``captured_ns``, ``sequence``, ``size_wh`` and ``spec_sha256``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import re
import socket
import threading
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence
from urllib.parse import urlsplit

from rtda_deploy.errors import ConfigError, DeviceError
from rtda_deploy.masking import mask_password
from rtda_deploy.optional import require
from rtda_deploy.spec import ModelSpec
from rtda_runtime.result import Result
from rtda_runtime.sinks.http import is_loopback
from rtda_runtime.sinks.kinds import SinkContext
from rtda_runtime.sinks.publish.base import Publisher, query_options
from rtda_runtime.sinks.publish.messages import TOPICS

__all__ = ["ZenohSink", "opener"]

_PREFIX, _PORT = "rtda", 7447  # the port is Zenoh's own
_PORTS_TRIED = 100
_OPTIONS = ("config", "connect", "listen", "network", "scouting")
_REPEAT_S = 1.0  # labels and state are repeated for peers that join later: Zenoh keeps nothing
_JSON = "application/json"

_log = logging.getLogger(__name__)


def opener(address: str, context: SinkContext) -> Callable[[], ZenohSink]:
    """What opens ``zenoh``, or ``zenoh://KEY/PREFIX?OPTIONS`` with the options of ``docs/publish.md``.

    Raises:
        ConfigError: If the key or an option makes no sense, or lets others look without ``network=on``.
    """
    parts, options = urlsplit(address if ":" in address else "zenoh://"), query_options(address, _OPTIONS)
    prefix = (parts.netloc + parts.path).strip("/") or _PREFIX
    if parts.fragment or any(sign in prefix for sign in "*$#?"):
        raise ConfigError(f"{prefix!r} is no Zenoh key", hint="letters, digits and slashes: zenoh://robot/front")
    network = _switch(address, options, "network", default=False)
    scouting = _switch(address, options, "scouting", default=network)
    connect, listen = options.get("connect", []), options.get("listen", [])
    config = Path(options["config"][-1]) if "config" in options else None
    if config is None:
        _check_reach(listen, scouting=scouting, network=network)
    if config is None and not network and not listen:
        listen = [f"tcp/127.0.0.1:{0 if connect else _free_port(_PORT)}"]
    where: Any = {"prefix": prefix, "connect": connect, "listen": listen, "scouting": scouting, "config": config}
    return functools.partial(ZenohSink, context.spec, name=context.source, **where)


class ZenohSink(Publisher):
    """Puts ``PREFIX/mask``, ``PREFIX/overlay``, ``PREFIX/statistics``, ``PREFIX/labels`` and ``PREFIX/state``.

    Args:
        prefix: Key expression without wildcards.
        connect: Endpoints to connect to, such as ``tcp/192.168.1.2:7447``.
        listen: Endpoints to listen on; none: Zenoh's own, which is every network of this machine.
        scouting: Whether peers find each other by multicast; then every one of them can watch.
        config: A Zenoh configuration file (JSON5), read first; for routers, TLS and access control.

    Raises:
        ConfigError: If Zenoh refuses the key, an endpoint or the configuration.
        DeviceError: If it cannot listen or connect.
        MissingPackageError: If eclipse-zenoh is not installed.
    """

    name = "zenoh"

    def __init__(
        self,
        spec: ModelSpec,
        *,
        name: str,
        prefix: str = _PREFIX,
        connect: Sequence[str] = (),
        listen: Sequence[str] = (),
        scouting: bool = False,
        config: Optional[Path] = None,
    ) -> None:
        super().__init__(spec, name)
        self.address = f"{prefix}/**"
        ends = [mask_password(end) for end in (connect or listen)]
        self.url = f"zenoh {prefix}/**" + (f" {'through' if connect else 'at'} {', '.join(ends)}" if ends else "")
        self.note = self.url
        self._spec_sha256 = hashlib.sha256(spec.to_json().encode()).hexdigest()
        zenoh: Any = require("zenoh", extra="robotics", purpose="to publish with Zenoh")
        keys = _keys(zenoh, prefix)
        settings = _config(zenoh, connect, listen, scouting, config)
        try:
            self._session: Any = zenoh.open(settings)
        except zenoh.ZError as err:
            raise DeviceError(
                "Zenoh cannot listen or connect",
                why=_plain(err),
                hint="is the port free, is the router up? zenoh://KEY?listen=tcp/127.0.0.1:0 takes a free port",
            ) from err
        self._publishers = {topic: self._session.declare_publisher(key) for topic, key in keys.items()}
        if scouting and config is None:
            _log.warning("zenoh %s: anyone on this network can watch; without network=on it stays here", prefix)
        self._stop = threading.Event()
        self._repeater = threading.Thread(target=self._repeat, name="rtda-zenoh-labels", daemon=True)
        self._repeater.start()

    def _repeat(self) -> None:
        while not self._stop.wait(_REPEAT_S):
            self._greet()

    def _wanted(self, topic: str) -> bool:
        return bool(self._publishers[topic].matching_status.matching)

    def _send_image(self, topic: str, stamp_ns: int, format_: str, content: bytes, result: Result) -> None:
        header = {
            "stamp_ns": stamp_ns,
            "captured_ns": result.captured_ns,
            "sequence": result.sequence,
            "size_wh": [result.frame.shape[1], result.frame.shape[0]],
            "spec_sha256": self._spec_sha256,
        }
        self._put(topic, content, f"image/{format_}", header)

    def _send_json(self, topic: str, stamp_ns: int, values: Mapping[str, Any]) -> None:
        header = {"stamp_ns": stamp_ns, "spec_sha256": self._spec_sha256}
        self._put(topic, json.dumps(values, ensure_ascii=False).encode(), _JSON, header)

    def _send_state(self, stamp_ns: int, state: str, sentence: str) -> None:
        self._send_json("state", stamp_ns, {"state": state, "message": sentence, "source": self._source})

    def _put(self, topic: str, payload: bytes, encoding: str, header: Mapping[str, Any]) -> None:
        self._publishers[topic].put(payload, encoding=encoding, attachment=json.dumps(header).encode())

    def _end(self) -> None:
        self._stop.set()
        self._repeater.join(_REPEAT_S)
        self._session.close()


def _switch(uri: str, options: Dict[str, List[str]], name: str, *, default: bool) -> bool:
    value = options.get(name, ["on" if default else "off"])[-1]
    if value not in ("on", "off"):
        raise ConfigError(f"{mask_password(uri)!r}: {name} is {value!r}", hint=f"{name}=on or {name}=off")
    return value == "on"


def _check_reach(listen: Sequence[str], *, scouting: bool, network: bool) -> None:
    """Zenoh has no passwords: refuse what lets other machines look, unless ``network=on`` says that they may."""
    for endpoint in listen:
        kind, _, where = endpoint.partition("/")
        if kind in ("ws", "wss"):
            raise ConfigError(
                f"listen={endpoint}: any web site that is open in a browser here could look",
                why="Zenoh's WebSocket server does not ask which site a page is from",
                hint="listen=tcp/127.0.0.1:7447, or config=FILE with the access control of your own",
            )
        host = re.split(r"[?#]", where)[0].rpartition(":")[0].strip("[]")
        if host and not is_loopback(host) and not network:
            raise _open_to_all(f"listen={endpoint}")
    if scouting and not network:
        raise _open_to_all("scouting=on")


def _open_to_all(option: str) -> ConfigError:
    return ConfigError(
        f"{option}: anyone on this network could watch, and Zenoh asks for no password",
        hint="add &network=on if they may; or config=FILE with TLS and access control",
    )


def _free_port(first: int) -> int:
    """The first port from there on that nobody listens on here."""
    for port in range(first, first + _PORTS_TRIED):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    return first


def _keys(zenoh: Any, prefix: str) -> Dict[str, str]:
    try:
        return {topic: str(zenoh.KeyExpr(f"{prefix}/{topic}")) for topic in TOPICS}
    except zenoh.ZError as err:
        raise ConfigError(
            f"{prefix!r} is no Zenoh key", why=_plain(err), hint="letters, digits and slashes: zenoh://robot/front"
        ) from err


def _config(zenoh: Any, connect: Sequence[str], listen: Sequence[str], scouting: bool, file: Optional[Path]) -> Any:
    try:
        settings = zenoh.Config.from_file(str(file)) if file is not None else zenoh.Config()
        if file is None:
            settings.insert_json5("mode", json.dumps("peer"))
        if connect:
            settings.insert_json5("connect/endpoints", json.dumps(list(connect)))
        if listen:
            settings.insert_json5("listen/endpoints", json.dumps(list(listen)))
        if not scouting:
            settings.insert_json5("scouting/multicast/enabled", "false")
    except zenoh.ZError as err:
        raise ConfigError(
            "Zenoh refuses this configuration", why=_plain(err), hint="an endpoint looks like tcp/127.0.0.1:7447"
        ) from err
    return settings


def _plain(err: Exception) -> str:
    """Zenoh's sentence without the place in its own source code."""
    return str(err).split(" at /")[0]
