"""Frozen dataclasses and named tuples as JSON, and back: what is read is held against the types of the fields.

A class with ``to_dict`` and ``from_dict`` of its own, such as one whose JSON is flat, is written and read by them.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import itertools
from typing import Any, Dict, Mapping, Type, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["fields_from_json", "fields_to_json", "from_json", "to_json"]

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Dicts, lists, strings and numbers only; fields in the order of the class."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
        return fields_to_json(value)
    if isinstance(value, collections.abc.Mapping):
        return {key: to_json(item) for key, item in value.items()}
    return [to_json(item) for item in value]


def fields_to_json(record: Any) -> Dict[str, Any]:
    """Each field of a dataclass or named tuple by its name."""
    return {name: to_json(getattr(record, name)) for name in get_type_hints(type(record))}


def from_json(kind: Any, value: Any, name: str = "the record") -> Any:
    """A value of the type ``kind``, as :func:`to_json` has written it.

    Args:
        kind: A dataclass, a named tuple, ``str``, ``int``, ``float``, ``bool``, ``Any``; ``Optional``, ``List``,
            ``Tuple`` and ``Mapping`` of those.
        value: As ``json`` reads it.
        name: Of the value, for the error.

    Raises:
        ValueError: If it is of another type, or lacks a field that must be there.
    """
    if kind in (str, int, float, bool):
        return _checked(kind, value, name)
    if kind is Any:
        return value
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Union:  # of a type and None
        return None if value is None else from_json(inner[0], value, name)
    if origin in (list, tuple):
        kinds = itertools.repeat(inner[0]) if origin is list or inner[-1] is ... else inner
        items = _checked(list, value, name)
        if isinstance(kinds, tuple) and len(kinds) != len(items):
            raise ValueError(f"{name} has {len(items)} values, expected {len(kinds)}")
        return origin(from_json(item_kind, item, name) for item_kind, item in zip(kinds, items))
    if origin is collections.abc.Mapping:
        return {key: from_json(inner[1], item, key) for key, item in _checked(dict, value, name).items()}
    read = getattr(kind, "from_dict", None)
    values = _checked(dict, value, name)
    return read(values) if read is not None else fields_from_json(kind, values)


def fields_from_json(kind: Type[T], values: Mapping[str, Any]) -> T:
    """An object of a dataclass or named tuple; keys that it does not know are passed over.

    A field that is not there is None where it may be None, else its default.

    Raises:
        ValueError: As :func:`from_json`.
    """
    hints = get_type_hints(kind)
    given = {name: from_json(hint, values[name], name) for name, hint in hints.items() if name in values}
    given.update((name, None) for name, hint in hints.items() if name not in given and type(None) in get_args(hint))
    try:
        return kind(**given)
    except TypeError as err:  # one of those that are not there has no default
        raise ValueError(f"it has no {', '.join(sorted(set(hints) - set(given)))}") from err


def _checked(kind: type, value: Any, name: str) -> Any:
    fits = type(value) in (int, float) if kind is float else type(value) is kind  # JSON writes 30.0 as 30 too
    if not fits:
        raise ValueError(f"{name} is {value!r}, expected {kind.__name__}")
    return value
