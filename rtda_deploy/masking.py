"""Addresses fit to be shown: without whatever in them may be a secret.

Everything in an address is masked that is not known to be harmless. What stands before the
host's ``@`` is a user, a password or a token. Values in a query are shown where their key is in a short list
(:data:`HARMLESS`) and they look like a number or a word; ``?sig=``, ``?X-Amz-Signature=``, ``?%74oken=`` and keys
that do not exist yet are not in it.
"""

from __future__ import annotations

import re
from typing import Iterator, List, Tuple
from urllib.parse import unquote

__all__ = ["HARMLESS", "mask_password", "mask_path"]

_MASK = "***"
# fmt: off
HARMLESS = frozenset(
    (
        "audio", "bitrate", "buffer_size", "camera", "cam", "ch", "channel", "chn", "codec", "compression",
        "duration", "enablesrtp", "fifo_size", "format", "fps", "frame_rate", "framerate", "frames", "gop", "h",
        "height", "imagesize", "inst", "latency", "line", "mirror", "mode", "pkt_size", "profile", "quality", "rate",
        "resolution", "rotate", "rotation", "size", "stream", "subtype", "timeout", "transport", "transportmode",
        "ttl", "unicast", "video", "videocodec", "w", "width",
        # what recordings and data sets are asked for, beside some of those above
        "classes", "count", "every", "from", "hold_back", "label_suffix", "lane", "list", "pictures", "select", "speed",
        "split", "to", "topic", "version",
    )
)
_PATHS = frozenset(("classes", "list", "pictures", "topic"))  # of these, keys whose values may be paths
_HARMLESS_PROPERTIES = frozenset(  # of GStreamer's elements, beside those above and everything that is a number
    (
        "bitrate", "caps", "device", "host", "interlace-mode", "location", "media", "multicast-iface", "name",
        "pixel-aspect-ratio", "protocols", "sensor-id", "uri",
    )
)
# fmt: on
_HARMLESS_VALUE = re.compile(r"[\w.,:+-]{1,24}%?")
_HARMLESS_PATH = re.compile(r"[\w.,:+~/-]{1,200}")
_HARMLESS_BARE = re.compile(r"\d{1,4}(x\d{1,4})?")
_NUMBER = re.compile(r"(\(\w+\)\s*)?(-?\d+(\.\d+)?(/\d+)?|true|false|[a-z][a-z-]{0,15}|[A-Z0-9_]{1,8}),?;?")

# Passwords are typed without escapes and hold @, /, quotes and spaces too. So one goes up to the last @ (in a pipeline:
# of its element), a value up to the next name=. That masks host:554/a@b as well: rather a port than a password.
_SCHEMES = "rtsps?|rtmps?|rtp|https?|srt|tcp|udp|wss?|foxglove|zenoh"
_HEAD = re.compile(rf"(?:[A-Za-z][A-Za-z0-9+.-]*://+|(?<![\w/.-])(?:{_SCHEMES}):?/+|(?P<bare>//))", re.IGNORECASE)
_NO_SCHEME = re.compile(r"(?!gst:|/)[^\s:]*:(?!//)")  # user:password@host
_SEGMENT = re.compile(r"/([^/?#\s]+)")
# Some cameras have no password but a path that nobody guesses: /AbCdEf0123456789, a UUID, a signed token.
_TOKENS = (
    re.compile(r"(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9]{16,}(?:\.\w{2,4})?"),
    re.compile(r"(?=.*\d)(?=.*[a-z])(?=.*[A-Z])[\w.~=+-]{24,}"),
    re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}.*"),
)
_HOST = re.compile(r"(\[[^\]]*\]|[^:@\s]*)(:\d{0,5})?")
_ELEMENT_END = re.compile(r"\s!\s|$")
_PAIR = re.compile(
    r"(?P<sep>[?#&;/]|\s|_(?=(?:channel|stream)=))(?P<name>(?:(?!_(?:channel|stream)=)[\w.%$~\[\]-])+)=(?=[^=&;\s])"
)
_SECRET_VALUE = re.compile(  # wherever it stands: in a pipeline, in a sentence
    r"""(?:(?:password|passwd|passphrase|passcode|pwd|loginpas|token|secret|credential|signature|session(?:_?id)?|jwt
        |cookie|authorization|(?:api|access|private|account|shared)[-_]?key
        |(?<![a-z0-9])(?:pass|pw|psw|auth|key|sig|sid))s?\d*\s*=\s*
      |(?:authorization|cookie)\s*:\s*)
    (?P<value>(?!\s|$)(?:(?P<quote>["'])(?:\\.|(?!(?P=quote))[^\\])*(?P=quote)(?=[&;\s]|$)
      |.*?(?=[&;\s][\w.%-]+\s*=|_channel=|\s!\s|$)))""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_PROPERTY = re.compile(r"""(?<=[\s,;])(?P<name>[\w-]+)=(?P<value>"(?:\\.|[^"\\])*"|'[^']*'|\S+)""")

_Span = Tuple[int, int]


def mask_password(text: str) -> str:
    """``rtsp://user:secret@host/1?fps=5&sig=abc`` as ``rtsp://***@host/1?fps=5&sig=***``.

    Works on any text that has an address in it, such as a GStreamer pipeline or an error message. Where it is not clear
    what belongs to a secret, more is masked.
    """
    return _replace(text, [*_named(text), *_in_addresses(text), *_properties(text)])


def mask_path(path: object) -> str:
    """A path as it is, unless an address was typed where a path belongs."""
    text = str(path)
    return mask_password(text) if ":/" in text else text


def _replace(text: str, spans: List[_Span]) -> str:
    shown, done = [], 0
    for start, end in sorted(spans):
        if end <= done or start == end:
            continue
        if start > done or not done:
            shown += [text[done:start], _MASK]
        done = end
    return "".join([*shown, text[done:]])


def _named(text: str) -> Iterator[_Span]:
    for match in _SECRET_VALUE.finditer(text):
        yield match.span("value")


def _in_addresses(text: str) -> Iterator[_Span]:
    end, schemes = 0, 0
    for head in _HEAD.finditer(text):
        if head.start() < end or head.group().lower().startswith("file:"):
            continue
        end = _element_end(text, head.end())
        schemes += not head.group("bare")
        yield from _of_address(text, head.end(), end, needs_colon=head.group("bare") is not None)
    if schemes:
        return
    typed = _NO_SCHEME.match(text)
    last = text.rfind("@", typed.end(), _element_end(text, 0)) if typed else -1
    if last >= 0:
        yield 0, last
    if "?" in text and not re.search(r"\s", text):  # host/v?sig=...
        yield from _query(text, max(last, text.index("?")), len(text))


def _element_end(text: str, start: int) -> int:
    found = _ELEMENT_END.search(text, start)
    return found.start() if found else len(text)


def _of_address(text: str, start: int, end: int, *, needs_colon: bool) -> Iterator[_Span]:
    host_end = next((place for place in range(start, end) if text[place] in "/?#" or text[place].isspace()), end)
    host = text[start:host_end]
    limit = end
    if "@" not in host and _HOST.fullmatch(host):  # a host it seems; but a password may begin like a port
        pair = next((pair for pair in _PAIR.finditer(text, start, end) if pair.group("sep") in "?#"), None)
        limit = pair.start() if pair else end
        if ":" not in host:
            space = re.compile(r"\s").search(text, start, limit)
            limit = space.start() if space else limit
    last = text.rfind("@", start, limit)
    if needs_colon and ":" not in text[start : max(last, start)]:
        last = -1
    if last >= 0:
        yield start, last
    elif not needs_colon and not _HOST.fullmatch(host):  # user:password, and the host was forgotten
        yield start + host.find(":") + 1, host_end
    if not needs_colon:
        yield from _in_path(text, max(last + 1, start), end)
        yield from _query(text, max(last + 1, start), end)


def _in_path(text: str, start: int, end: int) -> Iterator[_Span]:
    """Parts of the path that look as if they were made by chance."""
    stop = re.compile(r"[?#\s]").search(text, start, end)
    for segment in _SEGMENT.finditer(text, start, stop.start() if stop else end):
        if any(token.fullmatch(segment.group(1)) for token in _TOKENS):
            yield segment.span(1)


def _query(text: str, start: int, end: int) -> Iterator[_Span]:
    """The values of ``?name=value``, also behind ``/`` and ``#``, and a query that is nothing but one."""
    pairs: List[re.Match[str]] = []
    for pair in _PAIR.finditer(text, start, end):
        if pair.group("sep").isspace():  # the address has ended: a pipeline's next property
            end = pair.start()
            break
        if pair.group("sep") != "/" or not (pairs or "?" in text[start : pair.start()]):  # else it is part of a value
            pairs.append(pair)
    first = pairs[0].start() if pairs else end
    bare = re.compile(r"[?#](?P<value>\S+)").search(text, start, first)
    if bare and not (_HARMLESS_BARE.fullmatch(bare["value"]) or bare["value"].lower() in HARMLESS):
        yield bare.span("value")
    for pair, stop in zip(pairs, [*(pair.start() for pair in pairs[1:]), end]):
        name = unquote(pair.group("name")).lower()
        value = text[pair.end() : stop].split(None, 1)
        form = _HARMLESS_PATH if name in _PATHS else _HARMLESS_VALUE
        if name not in HARMLESS or not value or not form.fullmatch(value[0].rstrip("'\").,:")):
            yield pair.end(), stop


def _properties(text: str) -> Iterator[_Span]:
    """What a pipeline's elements are told, where it is no number, no short word and no known name."""
    if not text.startswith("gst:"):
        return
    for match in _PROPERTY.finditer(text):
        name = match.group("name").lower()
        known = name in HARMLESS or name in _HARMLESS_PROPERTIES
        if not known and not _NUMBER.fullmatch(match.group("value").strip("\"'")):
            yield match.span("value")
