"""The error hierarchy is the one drawn in the docstring, and each error carries what the command line prints."""

from __future__ import annotations

import inspect
import re
from typing import Dict, List, Tuple, Type

import pytest

from rtda_deploy import errors
from rtda_deploy.errors import RtdaError

CLASSES: Dict[str, Type[RtdaError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, RtdaError) and kind.__module__ == errors.__name__
}


def drawn() -> List[Tuple[str, str, int]]:
    """(name, parent, exit code) of each line of the drawing; a line without a code has its parent's."""
    found: List[Tuple[str, str, int]] = []
    path: List[Tuple[int, str, int]] = []
    for line in str(errors.__doc__).splitlines():
        match = re.match(r"^( {4}[│├└─ ]*)(\w+Error)\b(?:\s+exit (\d))?", line)
        if not match:
            continue
        column = len(match.group(1))
        while path and path[-1][0] >= column:
            path.pop()
        parent, code = (path[-1][1], path[-1][2]) if path else ("Exception", 1)
        code = int(match.group(3)) if match.group(3) else code
        found.append((match.group(2), parent, code))
        path.append((column, match.group(2), code))
    return found


def test_the_drawing_shows_every_class_once() -> None:
    assert sorted(name for name, _, _ in drawn()) == sorted(CLASSES) == sorted(errors.__all__)


@pytest.mark.parametrize(("name", "parent", "code"), drawn())
def test_the_drawing_is_true(name: str, parent: str, code: int) -> None:
    assert CLASSES[name].__bases__[0].__name__ == parent
    assert CLASSES[name].exit_code == code


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_what_why_and_fix_are_kept_apart(kind: Type[RtdaError]) -> None:
    error = kind("it broke", why="it was old", hint="buy a new one")
    assert (error.message, error.why, error.hint) == ("it broke", "it was old", "buy a new one")
    assert str(error) == "it broke"
    assert (kind("x").why, kind("x").hint) == ("", "")
    assert error.exit_code in (1, 2, 3, 4)


def test_a_limit_is_no_failure_and_the_environment_no_wrong_usage() -> None:
    codes = {name: kind.exit_code for name, kind in CLASSES.items()}
    assert {name for name, code in codes.items() if code == 2} == {"ConfigError"}
    assert {name for name, code in codes.items() if code == 3} == {"CameraError", "DeviceError", "MissingPackageError"}
    assert {name for name, code in codes.items() if code == 4} == {"LimitMissedError"}
