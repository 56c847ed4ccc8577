"""From ``--publish ADDRESS`` to the sink it means.

::

    foxglove                         WebSocket server for Foxglove on 127.0.0.1:8765
    foxglove://HOST:PORT             the same elsewhere; port 0: any free one
    zenoh                            Zenoh peer, keys rtda/mask, rtda/overlay ...
    zenoh://KEY/PREFIX?listen=E&connect=E&scouting=off&config=FILE
    mcap:FILE                        a recording that Foxglove plays
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Dict, List, Tuple
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
_ZENOH_OPTIONS = ("config", "connect", "listen", "scouting")

_log = logging.getLogger(__name__)


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
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
        raise ConfigError(f"{shown!r} has more than a host and a port", hint="foxglove://127.0.0.1:8765")
    if not is_loopback(host):
        _log.warning("%s: anyone who reaches this machine can watch; there is no password", shown)
    check_python("foxglove-sdk", (3, 10))
    from rtda_runtime.sinks.publish.foxglove import FoxgloveSink

    return FoxgloveSink(spec, name=name, host=host, port=_FOXGLOVE_PORT if port is None else port)


def _zenoh(uri: str, parts: SplitResult, spec: ModelSpec, name: str) -> Publisher:
    options = _zenoh_options(uri, parts.query)
    prefix = (parts.netloc + parts.path).strip("/") or _ZENOH_PREFIX
    if parts.fragment or any(sign in prefix for sign in "*$#?"):
        raise ConfigError(f"{prefix!r} is no Zenoh key", hint="letters, digits and slashes: zenoh://robot/front")
    scouting = options.get("scouting", ["on"])[-1]
    if scouting not in ("on", "off"):
        raise ConfigError(f"{mask_password(uri)!r}: scouting is {scouting!r}", hint="scouting=on or scouting=off")
    check_python("eclipse-zenoh", (3, 9))
    from rtda_runtime.sinks.publish.zenoh import ZenohSink

    return ZenohSink(
        spec,
        name=name,
        prefix=prefix,
        connect=tuple(options.get("connect", ())),
        listen=tuple(options.get("listen", ())),
        scouting=scouting == "on",
        config=Path(options["config"][-1]) if "config" in options else None,
    )


def _zenoh_options(uri: str, query: str) -> Dict[str, List[str]]:
    options = parse_qs(query, keep_blank_values=True)
    unknown = sorted(set(options) - set(_ZENOH_OPTIONS))
    if unknown:
        raise ConfigError(
            f"{mask_password(uri)!r} has unknown options: {', '.join(unknown)}",
            hint=f"known: {', '.join(_ZENOH_OPTIONS)}",
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
