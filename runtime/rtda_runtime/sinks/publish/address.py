"""From ``--publish ADDRESS`` to the sink it means.

::

    foxglove                         WebSocket server for Foxglove on 127.0.0.1:8765
    foxglove://HOST:PORT             the same elsewhere, with a token; port 0: any free one
    foxglove://HOST:PORT?origin=URL  a web site whose pages may look too
    zenoh                            Zenoh peer on 127.0.0.1:7447, keys rtda/mask, rtda/overlay ...
    zenoh://KEY/PREFIX?network=on    the same for everybody on this network
    zenoh://KEY/PREFIX?listen=E&connect=E&scouting=on&config=FILE
    mcap:FILE                        a recording that Foxglove plays
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from pathlib import Path
from typing import Dict, List, Sequence, Tuple
from urllib.parse import SplitResult, parse_qs, urlsplit

from rtda_deploy.errors import ConfigError, MissingPackageError
from rtda_deploy.masking import mask_password
from rtda_deploy.spec import ModelSpec
from rtda_runtime.sinks.loopback import is_loopback
from rtda_runtime.sinks.publish.base import Publisher

__all__ = ["PUBLISHERS", "open_publisher"]

PUBLISHERS = ("foxglove", "zenoh", "mcap")

_EXAMPLES = "--publish foxglove, --publish zenoh, --publish mcap:drive.mcap"
_FOXGLOVE_HOST, _FOXGLOVE_PORT = "127.0.0.1", 8765  # Foxglove looks for a server there by itself
_ZENOH_PREFIX = "rtda"
_ZENOH_PORT = 7447  # Zenoh's own
_PORTS_TRIED = 100
_ZENOH_OPTIONS = ("config", "connect", "listen", "network", "scouting")
_ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]*://[A-Za-z0-9.\[\]:_-]*")


def open_publisher(uri: str, spec: ModelSpec, *, name: str) -> Publisher:
    """Open what ``--publish`` names.

    Args:
        uri: ``foxglove[://HOST:PORT]``, ``zenoh[://KEY/PREFIX]`` or ``mcap:FILE``.
        spec: Class names and palette.
        name: What the pictures show, such as the source's name without its password; people read it in Foxglove.

    Raises:
        ConfigError: If the address makes no sense.
        DeviceError: If the port is taken or the network says no.
        FileAccessError: If the file cannot be written.
        MissingPackageError: If the package behind it is not installed.
    """
    kind, separator, rest = uri.partition(":")
    if kind == "mcap":
        return _mcap(uri, rest, spec, name)
    if kind not in PUBLISHERS or (separator and not rest.startswith("//")):
        raise ConfigError(f"cannot publish to {mask_password(uri)!r}", hint=f"known: {_EXAMPLES}")
    parts = urlsplit(uri if separator else f"{kind}://")
    return _foxglove(uri, parts, spec, name) if kind == "foxglove" else _zenoh(uri, parts, spec, name)


def _mcap(uri: str, path: str, spec: ModelSpec, name: str) -> Publisher:
    if not path or path.startswith("//"):
        raise ConfigError(f"{uri!r} names no file", hint="--publish mcap:drive.mcap")
    from rtda_runtime.sinks.publish.mcap import McapSink

    return McapSink(Path(path), spec, name=name)


def _foxglove(uri: str, parts: SplitResult, spec: ModelSpec, name: str) -> Publisher:
    shown = mask_password(uri)
    try:
        host, port = parts.hostname or _FOXGLOVE_HOST, parts.port
    except ValueError as err:
        raise ConfigError(f"{shown!r} has no port between 0 and 65535", hint="foxglove://127.0.0.1:8765") from err
    if parts.path.strip("/") or parts.fragment or parts.username is not None:
        raise ConfigError(f"{shown!r} has more than a host and a port", hint="foxglove://127.0.0.1:8765")
    origins = _options(uri, parts.query, ("origin",)).get("origin", [])
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"{origin!r} is no web site", hint="foxglove://127.0.0.1:8765?origin=https://lichtblick.example.org"
            )
    check_python("foxglove-sdk", (3, 10))
    from rtda_runtime.sinks.publish.foxglove import FoxgloveSink

    return FoxgloveSink(spec, name=name, host=host, port=_FOXGLOVE_PORT if port is None else port, origins=origins)


def _zenoh(uri: str, parts: SplitResult, spec: ModelSpec, name: str) -> Publisher:
    options = _options(uri, parts.query, _ZENOH_OPTIONS)
    prefix = (parts.netloc + parts.path).strip("/") or _ZENOH_PREFIX
    if parts.fragment or any(sign in prefix for sign in "*$#?"):
        raise ConfigError(f"{prefix!r} is no Zenoh key", hint="letters, digits and slashes: zenoh://robot/front")
    network = _switch(uri, options, "network", default=False)
    scouting = _switch(uri, options, "scouting", default=network)
    connect, listen = options.get("connect", []), options.get("listen", [])
    config = Path(options["config"][-1]) if "config" in options else None
    if config is None:
        _check_reach(listen, scouting=scouting, network=network)
    if config is None and not network and not listen:
        listen = [f"tcp/127.0.0.1:{0 if connect else _free_port(_ZENOH_PORT)}"]
    check_python("eclipse-zenoh", (3, 9))
    from rtda_runtime.sinks.publish.zenoh import ZenohSink

    return ZenohSink(spec, name=name, prefix=prefix, connect=connect, listen=listen, scouting=scouting, config=config)


def _switch(uri: str, options: Dict[str, List[str]], name: str, *, default: bool) -> bool:
    value = options.get(name, ["on" if default else "off"])[-1]
    if value not in ("on", "off"):
        raise ConfigError(f"{mask_password(uri)!r}: {name} is {value!r}", hint=f"{name}=on or {name}=off")
    return value == "on"


def _check_reach(listen: Sequence[str], *, scouting: bool, network: bool) -> None:
    """Zenoh asks nobody who he is, so that others look only where somebody said that they may."""
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
            probe.bind((_FOXGLOVE_HOST, port))
            return port
    return first


def _options(uri: str, query: str, known: Sequence[str]) -> Dict[str, List[str]]:
    options = parse_qs(query, keep_blank_values=True)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(
            f"{mask_password(uri)!r} has unknown options: {', '.join(unknown)}", hint=f"known: {', '.join(known)}"
        )
    return options


def check_python(package: str, needed: Tuple[int, int], have: Tuple[int, int] = sys.version_info[:2]) -> None:
    """Refuse a Python for which ``package`` is not made, since pip would install nothing there.

    Raises:
        MissingPackageError: If this Python is older than ``needed``.
    """
    if have < needed:
        raise MissingPackageError(
            f"{package} needs Python {needed[0]}.{needed[1]} or newer, this is {have[0]}.{have[1]}",
            hint="record with --publish mcap:drive.mcap, which Foxglove opens; or use the ROS node (docs/ros.md)",
        )
