"""What may reach a terminal: text of files with its control characters made visible, in an encoding that it has.

Class names, metadata and file names come from elsewhere. An escape sequence in one of them would move the cursor or
change the title; and a character that the terminal's encoding lacks would end a finished run with an error.
"""

from __future__ import annotations

import codecs
import contextlib
import re
import sys
from typing import Any, Iterator, List, Tuple, Union

__all__ = ["never_fail_to_encode", "raw", "visible", "visible_output"]

# C0 without tab and newline, DEL, C1, and what changes the direction of text or ends a line elsewhere.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_CONTROL_OR_LINE = re.compile(_CONTROL.pattern[:-1] + "\t\n]")
_HANDLER = "rtda-deploy-visible"
_STAND_INS = {
    "·": "-", "…": "...", "→": "->", "←": "<-", "✓": "+", "✗": "x", "–": "-", "—": "-", "×": "x", "±": "+-", "²": "2",
    "µ": "u", "≥": ">=", "≤": "<=", "°": " deg", "’": "'", "“": '"', "”": '"', "━": "-", "─": "-", "█": "#",
}  # fmt: skip


def visible(text: str, *, line: bool = False) -> str:
    """``text`` with ``\\x1b`` and its like written out; ``line``: tabs and newlines too."""
    return (_CONTROL_OR_LINE if line else _CONTROL).sub(lambda found: _written_out(found.group()), text)


def raw(stream: Any) -> Any:
    """The stream behind :func:`visible_output`, for those who write escape sequences of their own."""
    return stream.raw_stream if isinstance(stream, _VisibleStream) else stream


@contextlib.contextmanager
def visible_output() -> Iterator[None]:
    """While the block runs, whatever is printed to stdout and stderr is made visible."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_VisibleStream(raw(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def never_fail_to_encode() -> None:
    """From now on stdout and stderr write a stand-in for what their encoding lacks: ``->`` or ``\\xe9``."""
    codecs.register_error(_HANDLER, _stand_in)
    streams: List[Any] = [sys.stdout, sys.stderr]
    for stream in streams:
        with contextlib.suppress(AttributeError, ValueError):  # a stream without an encoding, or none at all
            stream.reconfigure(errors=_HANDLER)


class _VisibleStream:
    """Everything of a stream, but that what is written is made visible first."""

    def __init__(self, stream: Any) -> None:
        self.raw_stream = stream

    def write(self, text: str) -> int:
        self.raw_stream.write(visible(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw_stream, name)


def _written_out(character: str) -> str:
    code = ord(character)
    return {9: "\\t", 10: "\\n", 13: "\\r"}.get(code) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def _stand_in(err: UnicodeError) -> Tuple[Union[str, bytes], int]:
    if not isinstance(err, UnicodeEncodeError):
        raise err
    character = err.object[err.start]
    code = ord(character)
    if 0xDCA0 <= code <= 0xDCFF:  # a byte of a file's name that is no text: as the file system has it
        return bytes([code - 0xDC00]), err.start + 1
    return _STAND_INS.get(character) or (f"\\U{code:08x}" if code > 0xFFFF else _written_out(character)), err.start + 1
