"""The words of an expression about a frame, each with its place in the text; errors mark that place.

::

    share(person) > 2% and confidence < 0.6
    share("traffic light") > 0
"""

from __future__ import annotations

import re
from typing import List, NamedTuple

from rtda_deploy.errors import ConfigError

__all__ = ["Word", "split_words", "wrong"]

_MOST_CHARACTERS = 1000
_SHOWN = 60  # characters of the text that an error shows
_WORD = re.compile(
    r"""(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?%?)
      | (?P<call>[A-Za-z_]\w*)\s*\((?P<argument>\s*(?:"[^"]*"|'[^']*'|[^()"'<>=!&|]*)\s*)\)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<sign><=|>=|==|!=|[-+*/<>()])""",
    re.VERBOSE,
)
_NOT_CALLS = ("and", "or", "not")  # "not (a < b)" joins, it calls nothing
_MEANT = {
    "=": "== compares two numbers",
    "&": "write: and",
    "|": "write: or",
    "!": "write: not (or != to compare)",
    ",": "join conditions with: and",
    "[": "write: share(CLASS)",
    '"': 'quotation marks stand around a class: share("traffic light")',
    "'": 'quotation marks stand around a class: share("traffic light")',
}


class Word(NamedTuple):
    """A word of an expression.

    Attributes:
        kind: ``number``, ``name``, ``call`` (a function with its argument), ``sign``, or ``end``.
        text: As typed; names in lower case.
        argument: What stands between the parentheses of a call, without quotation marks.
        start: First character in the whole text.
        end: The one after its last.
    """

    kind: str
    text: str
    argument: str
    start: int
    end: int


def split_words(text: str) -> List[Word]:
    """The words of an expression; the last is of the kind ``end``.

    Raises:
        ConfigError: If a character is no part of any word, or the text is empty or longer than 1000 characters.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ConfigError(f"an expression of {len(text)} characters is too long", hint=f"at most {_MOST_CHARACTERS}")
    words: List[Word] = []
    place = 0
    while True:
        while place < len(text) and text[place].isspace():
            place += 1
        if place == len(text):
            words.append(Word("end", "", "", place, place + 1))
            return words
        found = _WORD.match(text, place)
        if found is not None and (found["call"] or "").lower() in _NOT_CALLS:
            found = re.compile(r"(?P<name>\w+)").match(text, place)
        if found is None:
            raise wrong(text, place, place + 1, f"{text[place]!r} means nothing here", _MEANT.get(text[place], ""))
        words.append(_word(found))
        place = found.end()


def _word(found: re.Match[str]) -> Word:
    groups = found.groupdict()
    kind = next(kind for kind in ("number", "call", "name", "sign") if groups.get(kind))
    argument = (groups.get("argument") or "").strip().strip("\"'").strip()
    text = groups[kind].lower()
    return Word(kind, text, argument, found.start(), found.end())


def wrong(text: str, start: int, end: int, what: str, hint: str = "") -> ConfigError:
    """The error of an expression, with its place marked on a line below it.

    Args:
        text: The whole expression.
        start: First character of what is wrong.
        end: The one after its last.
        what: What is wrong, such as ``a number is missing``.
        hint: The fix; empty: an example.
    """
    plain = "".join(letter if letter.isprintable() else "?" for letter in text)
    first = max(0, min(start - _SHOWN // 2, len(plain) - _SHOWN))
    before = "..." if first else ""
    shown = before + plain[first : first + _SHOWN] + ("..." if first + _SHOWN < len(plain) else "")
    width = max(1, min(end, first + _SHOWN) - start)
    marks = " " * (len(before) + start - first) + "^" * width
    return ConfigError(
        f"the expression does not parse at character {start + 1}: {what}",
        why=f"{shown}\n{marks}",
        hint=hint or 'such as "share(person) > 0.02 and confidence < 0.6"',
    )
