"""Conditions on a frame as people type them: ``share(person) > 0.02 and confidence < 0.6``.

::

    condition  = both {"or" both}        both = single {"and" single}       single = "not" single | comparison
    comparison = sum [("<" | "<=" | ">" | ">=" | "==" | "!=") sum]          sum = product {("+" | "-") product}
    product    = value {("*" | "/") value}
    value      = NUMBER ["%"] | NAME | "share(" CLASS ")" | "(" condition ")" | "-" value

Read by this parser alone; nothing of the text is run. A number and a condition are told apart while it is read.
"""

from __future__ import annotations

import math
import operator
from typing import Callable, Dict, FrozenSet, List, Mapping, NamedTuple, Sequence, Set

from rtda_deploy.errors import ConfigError
from rtda_runtime.mask.groups import class_hint, class_index
from rtda_runtime.shift.collecting.words import Word, split_words, wrong

__all__ = ["VALUES", "Expression"]

# Names that an expression may use, and what they are.
VALUES: Dict[str, str] = {
    "brightness": "mean grey level of the picture, 0 (black) to 1",
    "confidence": "how sure the network is, mean over the pixels, 0 to 1",
    "disagreement": "share of the pixels that the two networks of --shadow or --compare call different classes",
    "novelty": "how unlike the footage in the model's card, else the frames of this run before it, 0 to 1",
    "unlabelled": "share of the picture without a class, such as outside --region",
}
_DEEPEST = 32  # parentheses within one another
_COMPARED: Dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": lambda a, b: a < b or a > b,  # of what is no number, nothing holds
}


class _Frame(NamedTuple):
    values: Mapping[str, float]
    shares: Sequence[float]


class _Part(NamedTuple):
    """A part of an expression: a condition (1.0 or 0.0) or a number, from ``start`` to ``end`` of the text."""

    condition: bool
    value: Callable[[_Frame], float]
    start: int
    end: int


class Expression:
    """A condition that holds of a frame or not.

    Args:
        text: As typed.
        class_names: Of the network; ``share(CLASS)`` may use them, case and the difference of space, - and _ aside.

    Attributes:
        text: As typed.
        names: Of :data:`VALUES`, those that it uses.

    Raises:
        ConfigError: If it does not parse, with the place marked; if a name or a class is unknown, or it is a number
            where a condition is wanted.
    """

    def __init__(self, text: str, class_names: Sequence[str]) -> None:
        self.text = text
        parser = _Parser(text, class_names)
        self._part = parser.whole()
        self.names: FrozenSet[str] = frozenset(parser.names)

    def holds(self, values: Mapping[str, float], shares: Sequence[float]) -> bool:
        """Whether it holds of a frame.

        Args:
            values: By the names of :data:`VALUES`; at least those of :attr:`names`.
            shares: Of the labelled pixels by class index, 0 to 1.
        """
        return bool(self._part.value(_Frame(values, shares)))

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


class _Parser:
    """Reads from left to right with one word in view."""

    def __init__(self, text: str, class_names: Sequence[str]) -> None:
        self.names: Set[str] = set()
        self._text = text
        self._classes = class_names
        self._words: List[Word] = split_words(text)
        self._place = 0
        self._depth = 0

    def whole(self) -> _Part:
        if self._next.kind == "end":
            raise wrong(self._text, 0, 1, "it is empty")
        part = self._condition()
        if self._next.kind != "end":
            raise self._unexpected("and, or, or the end")
        return self._wanted(part, condition=True)

    @property
    def _next(self) -> Word:
        return self._words[self._place]

    def _take(self, *texts: str) -> bool:
        """Go on past the next word if it is one of these."""
        if self._next.kind in ("sign", "name") and self._next.text in texts:
            self._place += 1
            return True
        return False

    def _condition(self) -> _Part:
        return self._joined("or", self._both)

    def _both(self) -> _Part:
        return self._joined("and", self._single)

    def _joined(self, word: str, read: Callable[[], _Part]) -> _Part:
        parts = [read()]
        while self._take(word):
            self._wanted(parts[-1], condition=True)
            parts.append(self._wanted(read(), condition=True))
        if len(parts) == 1:
            return parts[0]
        tests, every = [part.value for part in parts], all if word == "and" else any
        return _Part(True, lambda frame: every(test(frame) for test in tests), parts[0].start, parts[-1].end)

    def _single(self) -> _Part:
        start = self._next.start
        if self._take("not"):
            inner = self._wanted(self._deeper(self._single), condition=True)
            return _Part(True, lambda frame: not inner.value(frame), start, inner.end)
        return self._comparison()

    def _comparison(self) -> _Part:
        left = self._sum()
        sign = self._next.text
        if not self._take(*_COMPARED):
            return left
        self._wanted(left, condition=False)
        right = self._wanted(self._sum(), condition=False)
        if self._next.kind == "sign" and self._next.text in _COMPARED:
            here = self._next
            raise wrong(self._text, here.start, here.end, "a second comparison", "compare twice: a < b and b < c")
        test = _COMPARED[sign]
        return _Part(True, lambda frame: test(left.value(frame), right.value(frame)), left.start, right.end)

    def _sum(self) -> _Part:
        return self._calculated({"+": operator.add, "-": operator.sub}, self._product)

    def _product(self) -> _Part:
        return self._calculated({"*": operator.mul, "/": _divided}, self._value)

    def _calculated(self, signs: Mapping[str, Callable[[float, float], float]], read: Callable[[], _Part]) -> _Part:
        left = read()
        while self._next.kind == "sign" and self._next.text in signs:
            calculate = signs[self._next.text]
            self._place += 1
            self._wanted(left, condition=False)
            left = _pair(calculate, left, self._wanted(read(), condition=False))
        return left

    def _value(self) -> _Part:
        word = self._next
        if self._take("("):
            inner = self._deeper(self._condition)
            if not self._take(")"):
                raise self._unexpected(")")
            return inner._replace(start=word.start, end=self._words[self._place - 1].end)
        if self._take("-"):
            inner = self._wanted(self._deeper(self._value), condition=False)
            return _Part(False, lambda frame: -inner.value(frame), word.start, inner.end)
        if word.kind == "number":
            return self._past(word, self._number(word))
        if word.kind == "name" and word.text not in ("and", "or", "not"):
            return self._past(word, self._named(word))
        if word.kind == "call":
            return self._past(word, self._called(word))
        raise self._unexpected("a number, a name or share(CLASS)")

    def _past(self, word: Word, value: Callable[[_Frame], float]) -> _Part:
        self._place += 1
        return _Part(False, value, word.start, word.end)

    def _number(self, word: Word) -> Callable[[_Frame], float]:
        number = float(word.text.rstrip("%")) / (100.0 if word.text.endswith("%") else 1.0)
        if not math.isfinite(number):
            raise wrong(self._text, word.start, word.end, "the number is too large")
        return lambda frame: number

    def _named(self, word: Word) -> Callable[[_Frame], float]:
        name = word.text
        if name not in VALUES:
            known = ", ".join(VALUES)
            hint = f"share({word.text}) is its share of the picture" if self._is_class(name) else f"known: {known}"
            what = "share of which class?" if name == "share" else f"{name} is unknown"
            raise wrong(self._text, word.start, word.end, what, "share(CLASS)" if name == "share" else hint)
        self.names.add(name)
        return lambda frame: float(frame.values[name])

    def _called(self, word: Word) -> Callable[[_Frame], float]:
        if word.text != "share":
            raise wrong(self._text, word.start, word.end, f"{word.text}( ) is unknown", "known: share(CLASS)")
        index = class_index(word.argument, self._classes)
        if index is None:
            what = f"there is no class {word.argument!r}" if word.argument else "share of which class?"
            raise wrong(self._text, word.start, word.end, what, class_hint(word.argument, self._classes))
        place = index
        return lambda frame: float(frame.shares[place])

    def _is_class(self, name: str) -> bool:
        return class_index(name, self._classes) is not None

    def _deeper(self, read: Callable[[], _Part]) -> _Part:
        self._depth += 1
        if self._depth > _DEEPEST:
            here = self._words[self._place - 1]
            raise wrong(self._text, here.start, here.end, "it is nested too deep", f"at most {_DEEPEST} levels")
        part = read()
        self._depth -= 1
        return part

    def _wanted(self, part: _Part, *, condition: bool) -> _Part:
        if part.condition != condition:
            what = "this is a number, and a condition is wanted" if condition else "this is no number"
            hint = "compare it: share(person) > 0.02" if condition else "join conditions with: and, or, not"
            raise wrong(self._text, part.start, part.end, what, hint)
        return part

    def _unexpected(self, wanted: str) -> ConfigError:
        word = self._next
        found = "the end" if word.kind == "end" else repr(self._text[word.start : word.end])
        return wrong(self._text, word.start, word.end, f"expected {wanted}, found {found}")


def _pair(calculate: Callable[[float, float], float], left: _Part, right: _Part) -> _Part:
    return _Part(False, lambda frame: calculate(left.value(frame), right.value(frame)), left.start, right.end)


def _divided(a: float, b: float) -> float:
    """Not a number where nothing can be said, so that no comparison with it holds."""
    return a / b if b else math.nan
