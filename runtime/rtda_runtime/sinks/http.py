"""The little of HTTP/1.1 that our servers speak: GET and HEAD without bodies, answers that browsers cannot misuse."""

from __future__ import annotations

import dataclasses
import http
import http.client
import io
import re
from typing import Dict, Mapping, Optional, Sequence, Tuple
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["BadRequest", "Request", "head", "parse_request"]

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
