"""User names and passwords in addresses, typed as they are, written as FFmpeg reads them."""

from __future__ import annotations

import re
from typing import Optional
from urllib.parse import quote, unquote

__all__ = ["escape_login"]

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<rest>.*)", re.DOTALL)
_QUERY = re.compile(r"\?[A-Za-z_][\w.-]*=")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|(?=[\d.]*[A-Za-z_]|\d+(\.\d+){3})[\w-]+(\.[\w-]+)*\.?)(:\d{1,5})?(?=[/?#]|$)")
_SURE_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|\d+(\.\d+){3}|[\w.-]+(?=:\d))(:\d{1,5})?(?=[/?#]|$)")
_HOST_AND_PORT = re.compile(r"[^:@]*(:\d{0,5})?\Z")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_NEVER_ESCAPED = re.compile(r"[A-Za-z0-9._~-]")


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
