"""Ways to break a file, each drawn from a ``random.Random``: of bytes, of text, of JSON values, of an address."""

from __future__ import annotations

import json
import random
import re
from typing import Any, Callable, List, Sequence

__all__ = ["mutated_address", "mutated_bytes", "mutated_json", "mutated_text", "mutated_values"]

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")
_NUMBERS = ("NaN", "nan", "inf", "-Infinity", "1e999", "1" + "0" * 400, "-1", "0", "65536", str(2**53 + 1), "0.5", "²")
_TEXTS = ("", "\0", "../../x", "\ud800", "a" * 5000, "\x1b[2J", "²", "名", "None", "%s%n", "a\nb", "inf")
_DEEP = (100, 3000, 100_000)
_PIECES = (*"?&=:%#+x0; ²", "//", "%00", "%zz", "\0", "..", "\ud800", "-1", "9" * 30)


def mutated_bytes(rng: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """One to three changes: bits turned, bytes overwritten, cut off, left out, doubled, put in, or another's end."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(data) + 1)
        length = min(rng.choice((1, 2, 4, 16, 256, 4096)), max(1, len(data) - place))
        way = rng.randrange(8)
        if way == 0 and data:
            for _ in range(rng.choice((1, 1, 8, 64))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif way == 1:
            data[place : place + length] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
        elif way == 2:
            del data[place:]
        elif way == 3:
            del data[place : place + length]
        elif way == 4:
            data[place:place] = data[place : place + length] * rng.choice((1, 3))
        elif way == 5:
            data[place:place] = rng.randbytes(length)
        elif way == 6:
            data[place : place + 4] = rng.choice((2**31 - 1, 2**32 - 1, 2**16, 0)).to_bytes(
                4, rng.choice(("little", "big"))
            )
        elif others:
            other = rng.choice(others)
            data[place:] = other[min(place, len(other)) :]
    return bytes(data)


def mutated_text(rng: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """As people and editors break text: odd numbers, odd words, lines lost or doubled, nested too deep, encodings."""
    way = rng.randrange(9)
    text = content.decode("utf-8")
    place = rng.randrange(len(text) + 1)
    if way == 0:
        text = _odd_number(rng, text)
    elif way == 1:
        text = text[:place] + rng.choice(_TEXTS) + text[place:]
    elif way == 2:
        lines = text.splitlines(keepends=True) or [""]
        index = rng.randrange(len(lines))
        lines[index : index + 1] = rng.choice(([], [lines[index]] * 2, [rng.choice(lines)]))
        text = "".join(lines)
    elif way == 3:
        text = text[:place] + rng.choice(("[", '{"a":', "[[", "a.", "(")) * rng.choice(_DEEP) + text[place:]
    elif way == 4:
        return text.encode(rng.choice(("utf-16", "utf-8-sig", "utf-32", "utf-16-le")), "surrogatepass")
    elif way == 5:
        odd = json.dumps(rng.choice(_TEXTS))
        text = re.sub(r'"[^"]*"', lambda found: odd if rng.random() < 0.1 else found[0], text)
    else:
        return mutated_bytes(rng, content, others)
    return text.encode("utf-8", "surrogatepass")


def _odd_number(rng: random.Random, text: str) -> str:
    """One of its numbers exchanged for an odd one."""
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return text
    found = rng.choice(numbers)
    return text[: found.start()] + rng.choice(_NUMBERS) + text[found.end() :]


def mutated_json(rng: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A JSON text whose values are exchanged, or broken as any text."""
    if rng.random() < 0.4:
        return mutated_text(rng, content, others)
    values = mutated_values(rng, json.loads(content))
    return json.dumps(values, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def mutated_values(rng: random.Random, values: Any, odd: Callable[[random.Random], Any] | None = None) -> Any:
    """``values``, changed: one to three values in its dicts and lists left out, or exchanged for odd ones."""
    make = odd or _odd_value
    for _ in range(rng.randint(1, 3)):
        holders: List[Any] = [holder for holder in _containers(values) if holder]
        if not holders:
            return make(rng)
        holder = rng.choice(holders)
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
        way = rng.randrange(5)
        if way == 0:
            del holder[key]
        elif way == 1 and isinstance(holder, dict):
            holder[rng.choice(_TEXTS)] = holder.pop(key)
        else:
            holder[key] = make(rng)
    return values


def mutated_address(rng: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """An address mistyped: characters put in, left out or doubled, and its parts in another order."""
    text = content.decode("utf-8")
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(text) + 1)
        way = rng.randrange(4)
        if way == 0:
            text = text[:place] + rng.choice(_PIECES) + text[place:]
        elif way == 1:
            text = text[:place] + text[place + rng.randint(1, 4) :]
        elif way == 2:
            text = _odd_number(rng, text)
        else:
            parts = re.split(r"([?&=:])", text)
            rng.shuffle(parts)
            text = "".join(parts)
    return text.encode("utf-8", "surrogatepass")


def _odd_value(rng: random.Random) -> Any:
    deep: Any = []
    for _ in range(rng.choice((2, 50))):
        deep = [deep]
    plain = (None, True, -1, 0, 1.5, 2**40, 10**400, float("nan"), float("inf"))
    return rng.choice((*plain, [], {}, [1, 2, 3], deep, {"a": deep}, *_TEXTS))


def _containers(values: Any) -> List[Any]:
    found: List[Any] = []
    left, seen = [values], set()
    while left:
        value = left.pop()
        if isinstance(value, (dict, list)) and id(value) not in seen:  # one may hold itself
            seen.add(id(value))
            found.append(value)
            left += list(value.values()) if isinstance(value, dict) else value[:20]
    return found
