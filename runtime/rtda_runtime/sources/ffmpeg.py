"""FFmpeg through PyAV: its module, addresses as it reads them, and what its errors mean."""

from __future__ import annotations

import errno
import re
import socket
from typing import Any, NamedTuple, Optional
from urllib.parse import quote, unquote, urlsplit

from rtda_deploy.optional import require

__all__ = ["Trouble", "escape_login", "pyav", "trouble_of"]

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<rest>.*)", re.DOTALL)
_QUERY = re.compile(r"\?[A-Za-z_][\w.-]*=")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|(?=[\d.]*[A-Za-z_]|\d+(\.\d+){3})[\w-]+(\.[\w-]+)*\.?)(:\d{1,5})?(?=[/?#]|$)")
_SURE_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|\d+(\.\d+){3}|[\w.-]+(?=:\d))(:\d{1,5})?(?=[/?#]|$)")
_HOST_AND_PORT = re.compile(r"[^:@]*(:\d{0,5})?\Z")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_NEVER_ESCAPED = re.compile(r"[A-Za-z0-9._~-]")


def pyav() -> Any:
    """The module ``av``, kept quiet: what went wrong is said by our errors."""
    av: Any = require("av", extra="runtime", purpose="to decode video: of files, bags and network cameras")
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


def escape_login(address: str) -> str:
    """The address with user name and password escaped; without a login, as it is.

    ``rtsp://me:a/b#c@host/1`` becomes ``rtsp://me:a%2Fb%23c@host/1``. A password ends at an ``@`` that a host follows.
    What is escaped already stays: ``%40`` is ``@``. ``%41`` stays ``%41``, because nobody escapes an A.
    """
    found = _ADDRESS.match(address)
    if found is None:
        return address
    rest = found.group("rest")
    end = _login_end(rest)
    if end is None:
        return address
    user, colon, password = rest[:end].partition(":")
    return f"{found.group('scheme')}{_escaped(user)}{colon}{_escaped(password)}{rest[end:]}"


def _login_end(rest: str) -> Optional[int]:
    """Where the ``@`` after the login stands in what follows ``://``."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    query = _QUERY.search(rest)
    end = len(rest) if query is None else max(query.start(), len(authority))
    places = [place for place in range(len(rest)) if rest[place] == "@"]
    places = [place for place in places if place < end] or (places if not _HOST_AND_PORT.match(authority) else [])
    hosts = [place for place in places if _HOST.match(rest, place + 1)]
    sure = [place for place in hosts if _SURE_HOST.match(rest, place + 1)]
    near = [place for place in hosts if place < len(authority)]
    if "@" not in authority and _HOST_AND_PORT.match(authority):  # host/a@b, unless what follows is an address for sure
        return sure[-1] if sure else None
    if near and (near[-1] in sure or "." in rest[near[-1] : len(authority)] or not sure):
        return near[-1]
    likely = sure or hosts or places
    return likely[-1] if likely else None


def _escaped(text: str) -> str:
    escapes = _ESCAPE.findall(text)
    typed_raw = not escapes or any(_NEVER_ESCAPED.fullmatch(unquote(escape)) for escape in escapes)
    if typed_raw:
        return quote(text, safe="")
    return "".join(
        part if _ESCAPE.fullmatch(part) else quote(part, safe="") for part in re.split(f"({_ESCAPE.pattern})", text)
    )
