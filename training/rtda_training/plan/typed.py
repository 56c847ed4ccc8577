"""Values of a recipe as fields of dataclasses: unknown keys and values of another kind are refused."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection, Mapping
from typing import Any

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.slots import check_field
from rtda_training.toml_file import check_value, known_hint

__all__ = ["built", "typed_as"]

_KINDS = {str: "a text in quotes", int: "a whole number", float: "a number", bool: "true or false"}


def built(kind: type, values: Mapping[str, Any], where: str = "", also: Collection[str] = ()) -> Any:
    """A dataclass made of a table's values.

    Args:
        kind: The class; its fields are the keys that are allowed.
        values: The table.
        where: What the table is called in messages.
        also: Keys that are allowed beside the fields, for messages.

    Raises:
        ConfigError: On an unknown key, naming the nearest known one, or a value of the wrong kind or range.
    """
    hints = typing.get_type_hints(kind)
    prefix = f"{where}." if where else ""
    for key in values:
        if key not in hints:
            known = sorted({*hints, *also} - {"settings"}) if also else list(hints)
            raise ConfigError(f"setting {prefix}{key} is unknown", hint=known_hint(key, known))
    made = {key: typed_as(prefix + key, value, hints[key]) for key, value in values.items()}
    for field in dataclasses.fields(kind):
        if field.name in made:
            check_field(prefix + field.name, field, made[field.name])
    return kind(**made)


def typed_as(name: str, value: Any, hint: Any) -> Any:
    """``value`` as the type ``hint`` says: a table as a dataclass, a list as a tuple, a whole number as a float.

    Raises:
        ConfigError: If it is of another kind, naming the setting.
    """
    if typing.get_origin(hint) is not None and typing.get_origin(hint) is not tuple:
        return value  # settings: made before
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} must be a table, got {value!r}", hint=f"write [{name}] and its keys below")
        return built(hint, value, name)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{name} must be a list, got {value!r}", hint="such as [1, 2, 3]")
        kinds = typing.get_args(hint)
        if kinds[-1] is not Ellipsis and len(kinds) != len(value):
            raise ConfigError(f"{name} must have {len(kinds)} values, got {value!r}", hint="separate them by commas")
        return tuple(typed_as(name, item, kinds[0]) for item in value)
    check_value(name, value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{name} must be of type {hint.__name__}, got {value!r}", hint=_KINDS[hint])
    return value
