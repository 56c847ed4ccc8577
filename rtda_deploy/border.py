"""The border of a file kind: whatever its parser makes of broken bytes becomes that kind's error, with why and a fix.

A parser fails in as many ways as a file can be broken: nested too deep, a length that asks for all memory, bytes that
are no text, a number that is none. A reader that lists the exceptions it has met is surprised by the next one, so every
one of them is caught here, and only here.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from typing import Any, Callable, Iterator, NoReturn, Optional, Type, Union

from rtda_deploy.errors import RtdaError

__all__ = ["json_values", "parsing", "reason"]

_LONGEST_REASON = 160  # characters
_MOST_DIGITS = 19  # of a whole number that fits 64 bits
_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")  # written as an escape, or already in the text


@contextlib.contextmanager
def parsing(error: Type[RtdaError], message: str, *, hint: str) -> Iterator[None]:
    """Read a stranger's file in this block: any exception but our own becomes ``error``, with the reason as ``why``.

    Args:
        error: What is raised.
        message: What the file is not, such as ``classes.json is no classes file``.
        hint: The fix.
    """
    try:
        yield
    except RtdaError:
        raise
    except Exception as err:
        raise error(message, why=reason(err), hint=hint) from err


def reason(err: BaseException) -> str:
    """What a parser's exception says, in one line for people."""
    if isinstance(err, RecursionError):
        return "it is nested too deep"
    if isinstance(err, MemoryError):
        return "reading it takes more memory than there is"
    if isinstance(err, UnicodeError):
        return "it holds bytes or characters that are no text (utf-8)"
    if isinstance(err, OSError) and err.strerror:  # without its file, which the message names, masked where it must be
        return err.strerror
    if isinstance(err, KeyError):
        return f"it lacks {err}"
    line = (str(err).strip().splitlines() or [""])[0].strip() or type(err).__name__
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 3] + "..."


def json_values(
    content: Union[str, bytes],
    where: str,
    error: Type[RtdaError],
    *,
    hint: str,
    allow_nan: bool = False,
    pairs: Optional[Callable[[Any], Any]] = None,
) -> Any:
    """The values of a JSON text, with or without a byte order mark.

    Args:
        content: As it stands in the file.
        where: Names it in the error.
        error: What is raised.
        hint: The fix.
        allow_nan: Read ``NaN`` and ``Infinity`` as floats, for files in which a score that was not to be had is one.
        pairs: Makes an object of its pairs of key and value; None: a dict, of a key that is there twice the last.

    Raises:
        RtdaError: ``error``, if it is no JSON, is nested too deep, holds NaN, Infinity or a number that fits neither 64
            bits nor a float, or a character that is none (half a surrogate pair).
    """
    with parsing(error, f"{where} is no JSON", hint=hint):
        text = content.decode(json.detect_encoding(content)) if isinstance(content, bytes) else content
        constant: Callable[[str], float] = float if allow_nan else _no_number
        values = json.loads(
            text, parse_constant=constant, parse_int=_whole_number, parse_float=_number, object_pairs_hook=pairs
        )
        if _LONE_SURROGATE.search(text):  # half of a pair is an error, a pair is a character
            json.dumps(values, ensure_ascii=False).encode("utf-8")
        return values


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _whole_number(text: str) -> int:
    if len(text.lstrip("-")) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits is too large")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value
