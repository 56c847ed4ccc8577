"""What FFmpeg's errors mean to a person."""

from __future__ import annotations

import errno
import socket
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from rtda_deploy.optional import require

__all__ = ["Trouble", "pyav", "trouble_of"]


def pyav() -> Any:
    """The module ``av``, kept quiet: what went wrong is said by our errors."""
    av: Any = require("av", extra="runtime", purpose="to read network cameras; on a Jetson: pip install av")
    if av.logging.get_level() == av.logging.VERBOSE:  # the default of PyAV 12 and 13: FFmpeg's own words on stderr
        av.logging.set_level(av.logging.PANIC)
    return av


class Trouble(NamedTuple):
    """What PyAV's error means to a person; ``final``: it will be the same the next time."""

    sentence: str
    hint: str = "is it on, and is the address right?"
    final: bool = False


def trouble_of(err: object, uri: str, waited_s: float) -> Trouble:
    av: Any = pyav()
    if isinstance(err, av.error.HTTPUnauthorizedError):
        if "@" in uri:
            return Trouble("refused this user name and password (401)", "look them up in the camera's settings", True)
        return Trouble("asks for a user name and a password (401)", "put them before the host: user:password@", True)
    if isinstance(err, av.error.HTTPForbiddenError):
        return Trouble("does not let this user see it (403)", "give that user the right in the camera", True)
    if isinstance(err, av.error.HTTPNotFoundError):
        return Trouble("has nothing at this path (404)", "the path is in the camera's manual, often /stream1 or /live")
    if isinstance(err, (av.error.HTTPClientError, av.error.HTTPServerError)):
        return Trouble(f"answered with an error: {_text(err)}", "has it too many viewers? Its own log may say more")
    if isinstance(err, (av.error.ExitError, TimeoutError)):
        return Trouble(f"gave no video within {waited_s:g} s", "is it on, and does a firewall let it through?")
    if isinstance(err, av.error.ProtocolNotFoundError):
        return Trouble("needs a protocol that this FFmpeg was built without", "rtsp:// and http:// always work", True)
    if isinstance(err, (av.error.DecoderNotFoundError, av.error.DemuxerNotFoundError)):
        return Trouble("sends a codec that this FFmpeg was built without", "choose H.264 in its settings", True)
    if isinstance(err, av.error.InvalidDataError):
        return Trouble("gave nothing that can be read as video", "open the address in a browser or a player")
    return _network_trouble(err, uri)


def _network_trouble(err: object, uri: str) -> Trouble:
    number = getattr(err, "errno", None)
    if number == errno.ECONNREFUSED:
        return Trouble("refuses the connection: nobody listens there", "is it on, and is the port right?")
    if number in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return Trouble("cannot be reached: no route to it", "is it on, and in this network?")
    if number == errno.EIO and not _host_is_known(uri):
        return Trouble("cannot be found: nobody knows that host name", "is it spelt right? Try its IP address")
    return Trouble(f"gave nothing that can be read as video: {_text(err)}", "open it in a browser or a player")


def _host_is_known(uri: str) -> bool:
    """FFmpeg calls every failed look-up of a name an input/output error."""
    try:
        socket.getaddrinfo(urlsplit(uri).hostname, None)
    except (OSError, UnicodeError, ValueError):
        return False
    return True


def _text(err: object) -> str:
    """PyAV's words without the address that it appends."""
    return str(getattr(err, "strerror", "") or type(err).__name__)
