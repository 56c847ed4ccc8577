"""The little of HTTP/1.1 that our servers speak: GET and HEAD without bodies, answers that browsers cannot misuse.

And who may look: which addresses only this machine reaches, and the guard of the view and of Foxglove's server.
"""

from __future__ import annotations

import dataclasses
import hmac
import http
import http.client
import io
import ipaddress
import re
import socket
from typing import Dict, Mapping, Optional, Sequence, Tuple
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["BadRequest", "Guard", "Request", "head", "is_loopback", "outward_host", "parse_request"]

_REQUEST_LINE = re.compile(r"([A-Za-z]{1,16}) (/[\x21-\x7e]{0,2047}) HTTP/1\.([01])")

# A page that loads nothing from elsewhere, is framed by nobody, and tells no other site where it came from.
_SECURITY = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)


class BadRequest(Exception):
    """A request that is refused, with the status to answer; the connection ends after it."""

    def __init__(self, status: int, text: str, headers: Sequence[Tuple[str, str]] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = tuple(headers)


@dataclasses.dataclass(frozen=True)
class Request:
    """What a client asks for; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    keep_alive: bool


def parse_request(content: bytes) -> Request:
    """Read a request's head, its empty line included.

    Raises:
        BadRequest: 400 if it is no HTTP/1 request, 405 for other methods, 413 for one with a body.
    """
    line, _, rest = content.partition(b"\n")
    match = _REQUEST_LINE.fullmatch(line.rstrip(b"\r").decode("latin-1"))
    if match is None:
        raise BadRequest(400, "not an HTTP/1 request")
    method, target, minor = match.groups()
    if method not in ("GET", "HEAD"):
        raise BadRequest(405, "only GET and HEAD", [("Allow", "GET, HEAD")])
    headers = _headers(rest)
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise BadRequest(413, "requests have no body here")
    if minor == "1" and "host" not in headers:
        raise BadRequest(400, "the Host header is missing")
    try:
        parts = urlsplit(f"http://view{target}")
        query = {name: values[-1] for name, values in parse_qs(parts.query, max_num_fields=16).items()}
    except ValueError as err:
        raise BadRequest(400, "not an address") from err
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection if minor == "1" else "keep-alive" in connection
    return Request(method, unquote(parts.path), query, headers, keep_alive)


def _headers(content: bytes) -> Dict[str, str]:
    try:
        parsed = http.client.parse_headers(io.BytesIO(content))
    except http.client.HTTPException as err:
        raise BadRequest(431, "too many headers") from err
    if parsed.defects or len(parsed.get_all("host") or []) > 1:
        raise BadRequest(400, "broken headers")
    return {name.lower(): value.strip() for name, value in parsed.items()}


def head(
    status: int, kind: str, length: Optional[int], headers: Sequence[Tuple[str, str]] = (), *, keep_alive: bool = False
) -> bytes:
    """Status line and headers; ``length`` None: the answer goes on until the connection ends."""
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", f"Content-Type: {kind}"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    lines.append(f"Connection: {'keep-alive' if keep_alive else 'close'}")
    lines += [f"{name}: {value}" for name, value in (*_SECURITY, *headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


_UNROUTED = ("192.0.2.1", 9)  # TEST-NET-1 of RFC 5737: connecting a datagram socket sends nothing


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or an IP address, can mean nothing but this machine (names: RFC 6761)."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def outward_host(host: str) -> str:
    """``host`` as it stands in a URL; for "all interfaces" the address by which others most likely reach this one."""
    try:
        everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host
    if everywhere:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(_UNROUTED)
                host = str(probe.getsockname()[0])
            except OSError:  # no network at all
                host = "127.0.0.1"
    return f"[{host}]" if ":" in host else host


_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_ORIGIN = re.compile(r"https?://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")


class Guard:
    """Who may look.

    On a loopback address: whoever is on this machine, but no web page of another site. Its name in ``Host``, after its
    DNS entry was pointed here, or in ``Origin`` gives it away; programs send no ``Origin``. Elsewhere: who has the
    token, in the address or in the cookie.

    Args:
        token: Empty: none is needed.
        cookie: Name of the cookie; cookies do not tell ports apart, so it has the port in it. Empty: none is set.
        origins: Whose pages may look beside those of this machine, such as ``https://app.foxglove.dev``.
    """

    def __init__(self, token: str, cookie: str = "", origins: Sequence[str] = ()) -> None:
        self._token = token.encode("ascii")
        self._cookie = cookie
        self._origins = frozenset(origin.lower() for origin in origins)

    def check(self, request: Request) -> Optional[str]:
        """The ``Set-Cookie`` to answer with, if the token came in the address.

        Raises:
            BadRequest: 403.
        """
        if not self._token:
            self._check_site(request)
            return None
        if self._is_token(request.query.get("token", "")):
            pair = f"{self._cookie}={self._token.decode('ascii')}"
            return f"{pair}; Path=/; HttpOnly; SameSite=Strict" if self._cookie else None
        if not self._cookie or not self._is_token(_cookie_value(request.headers.get("cookie", ""), self._cookie)):
            raise BadRequest(403, "the token is missing or wrong: open the whole link that rtda-deploy run printed")
        return None

    def _check_site(self, request: Request) -> None:
        host = request.headers.get("host")
        if host is not None and not _names_this_machine(host, _HOST):
            raise BadRequest(403, "this server answers to localhost, 127.0.0.1 and [::1] only")
        origin = request.headers.get("origin")
        if origin is None:  # a program; or a browser that shows a picture in a page, which says that it is elsewhere
            foreign = request.headers.get("sec-fetch-site") == "cross-site" and request.path != "/"
        else:
            foreign = origin.lower() not in self._origins and not _names_this_machine(origin, _ORIGIN)
        if foreign:
            raise BadRequest(403, "pages of other sites may not look")

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token)


def _cookie_value(header: str, name: str) -> str:
    for pair in header.split(";"):
        key, _, value = pair.strip().partition("=")
        if key == name:
            return value
    return ""


def _names_this_machine(text: str, form: re.Pattern[str]) -> bool:
    match = form.fullmatch(text)
    return match is not None and is_loopback(match.group("host").strip("[]"))
