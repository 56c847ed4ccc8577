"""The error hierarchy is the one drawn in the docstring, and each error carries what the command line prints.

Every error that the product raises has a fix: its call says ``hint=``, and not an empty one.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Dict, Iterator, List, Set, Tuple, Type

import pytest

import rtda_deploy.errors
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


ROOT = Path(__file__).parents[2]
PRODUCT = ("rtda_deploy", "training/rtda_training", "export/rtda_export", "runtime")


def trees() -> Dict[Path, ast.Module]:
    files = [path for folder in PRODUCT for path in (ROOT / folder).rglob("*.py")]
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}


def error_names(modules: Dict[Path, ast.Module]) -> Set[str]:
    """Our errors, and the classes anywhere in the product that derive from one."""
    names = set(rtda_deploy.errors.__all__)
    classes = [node for tree in modules.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for _ in range(3):  # a class may derive from one that is defined in a later file
        names |= {node.name for node in classes if any(isinstance(b, ast.Name) and b.id in names for b in node.bases)}
    return names


def calls_of(tree: ast.Module, names: Set[str]) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            name = (
                called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
            )
            if name in names or (name == "error" and isinstance(called, ast.Name) and node.keywords):
                yield node


def has_hint(call: ast.Call) -> bool:
    for keyword in call.keywords:
        if keyword.arg is None:  # **more: whoever passes it on
            return True
        if keyword.arg == "hint":
            return not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
    return False


def own_hint(tree: ast.Module) -> Set[str]:
    """Classes that make their hint themselves."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            inner = [call for call in ast.walk(node) if isinstance(call, ast.Call) and has_hint(call)]
            if any(isinstance(call.func, ast.Attribute) and call.func.attr == "__init__" for call in inner):
                found.add(node.name)
    return found


def test_every_error_of_the_product_says_what_to_do() -> None:
    modules = trees()
    names = error_names(modules) - {name for tree in modules.values() for name in own_hint(tree)} - {"RtdaError"}
    without: List[Tuple[str, int, str]] = [
        (str(path.relative_to(ROOT)), call.lineno, ast.unparse(call)[:100])
        for path, tree in modules.items()
        for call in calls_of(tree, names)
        if not has_hint(call)
    ]
    assert not without, "\n".join(f"{path}:{line}: {text}" for path, line, text in without)


def test_the_walk_sees_an_error_without_a_fix() -> None:
    tree = ast.parse('raise DataError("a")\nraise DataError("b", hint="")\nraise DataError("c", hint="do")')
    assert [has_hint(call) for call in calls_of(tree, {"DataError"})] == [False, False, True]
