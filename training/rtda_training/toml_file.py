"""TOML as people write it: recipes, configs, grids and ``--set``; what cannot be read is one error with its fix."""

from __future__ import annotations

import difflib
import json
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rtda_deploy.border import parsing
from rtda_deploy.errors import ConfigError
from rtda_deploy.files import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["check_value", "known_hint", "read_toml", "toml_text", "toml_value", "typed_value"]

_LARGEST = 2**63 - 1  # what TOML promises to hold
_MOST_DOTS = 5000  # in a line: tomllib takes minutes for a key of 100,000 parts


def read_toml(path: str | Path, what: str, *, hint: str) -> dict[str, Any]:
    """The values of a TOML file.

    Raises:
        ConfigError: If it is no TOML, or holds a value that could not be written back; see :func:`check_value`.
        FileAccessError: If it cannot be read.
    """
    text = read_text(path, what=what)
    with parsing(ConfigError, f"{path} is no TOML", hint=hint):
        if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
            raise ConfigError(
                f"{path} has a line with more than {_MOST_DOTS} dots: no key has so many parts", hint=hint
            )
        table = tomllib.loads(text)
        for key, value in table.items():
            check_value(key, value)
        return table


def typed_value(text: str, key: str) -> Any:
    """What was typed after ``--set key=``: a value as TOML writes it, else the text itself.

    Raises:
        ConfigError: If it is a value that could not be written back, or is nested too deep.
    """
    with parsing(ConfigError, f"--set {key}={text[:60]} cannot be read", hint="such as --set steps=500"):
        try:
            found = tomllib.loads(f"value = {text}")
        except tomllib.TOMLDecodeError:
            found = {}
        value = found["value"] if set(found) == {"value"} else text  # a bare word is a text
        check_value(key, value)
        return value


def toml_value(value: Any) -> str:
    """A value of ``check_value`` as TOML writes it; ``read_toml`` gives it back."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


def toml_text(table: Mapping[str, Any], prefix: str = "") -> str:
    """A table as a TOML file: values, tables, and lists of tables; ``read_toml`` gives it back."""
    values, tables = [], []
    for key, value in table.items():
        if isinstance(value, Mapping):
            tables.append(f"\n[{prefix}{key}]\n" + toml_text(value, f"{prefix}{key}."))
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables += [f"\n[[{prefix}{key}]]\n" + toml_text(entry, f"{prefix}{key}.") for entry in value]
        else:
            values.append(f"{key} = {toml_value(value)}\n")
    return "".join(values + tables)


def known_hint(text: str, known: Iterable[str]) -> str:
    """A fix for an unknown name: ``did you mean steps? known: seed, steps``."""
    names = list(known)
    near = difflib.get_close_matches(text, names, n=1)
    return (f"did you mean {near[0]}? " if near else "") + f"known: {', '.join(names) or 'none'}"


def check_value(key: str, value: Any) -> None:
    """Refuse a number that is none or does not fit 64 bits, a date, and a text that no file can hold.

    Raises:
        ConfigError: Naming the key.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            check_value(f"{key}.{name}", inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            check_value(key, inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key} is {value}, which is no number", hint=f"write a finite number, such as {key} = 0.5")
    elif isinstance(value, int) and abs(value) > _LARGEST:
        raise ConfigError(f"{key} has {len(str(value))} digits", hint="a whole number of at most 64 bits")
    elif isinstance(value, str):
        _check_text(key, value)
    elif not isinstance(value, (bool, int, float)):
        raise ConfigError(f"{key} is a {type(value).__name__}", hint="write it in quotes if a text is meant")


def _check_text(key: str, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as err:
        raise ConfigError(
            f"{key} is {text!r}, which is no UTF-8 text", hint="rename the file or folder that it names"
        ) from err
