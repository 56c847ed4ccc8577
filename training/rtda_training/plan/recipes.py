"""Recipe files: where they are, what they are called, and their values laid over those of their ``base``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtda_deploy.errors import ConfigError
from rtda_training.toml_file import known_hint, read_toml

__all__ = ["laid_over", "read_recipe", "recipe_names", "recipe_title", "shipped_folder"]


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in shipped_folder("recipes").glob("*.toml"))


def recipe_title(recipe: str) -> tuple[str, str]:
    """Name and description of a recipe, which may lack what a plan needs.

    Raises:
        ConfigError: If it is unknown, or no TOML.
        FileAccessError: If the file cannot be read.
    """
    table = read_recipe(recipe)
    return str(table["name"]), str(table.get("description", ""))


def read_recipe(recipe: str, derived: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A recipe's values, laid over those of its ``base``.

    Args:
        recipe: Name or path.
        derived: Files that have it as their base.

    Raises:
        ConfigError: If a recipe is unknown, no TOML, or a base of itself.
        FileAccessError: If a file cannot be read.
    """
    path = _find(recipe)
    if path in derived:
        raise ConfigError(f"{path.name} is a base of itself", hint="take base out of one of them")
    table = read_toml(path, "recipe", hint="compare it with one in training/recipes")
    table.setdefault("name", path.stem)
    base = table.pop("base", "")
    if not isinstance(base, str):
        raise ConfigError(f"base of {path.name} must be a recipe, got {base!r}", hint='such as base = "source-only"')
    if not base:
        return table
    beside = path.parent / base
    return laid_over(read_recipe(str(beside) if beside.is_file() else base, (*derived, path)), table)


def _find(recipe: str) -> Path:
    if recipe.endswith(".toml") or "/" in recipe:
        return Path(recipe)
    known = recipe_names()
    if recipe not in known:
        raise ConfigError(f"recipe {recipe!r} is unknown", hint=f"{known_hint(recipe, known)}; or a path to a .toml")
    return shipped_folder("recipes") / f"{recipe}.toml"


def laid_over(shared: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """``entry`` laid over ``shared``, tables key by key."""
    found = dict(shared)
    for key, value in entry.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = {**found[key], **value} if both else value
    return found


def shipped_folder(name: str) -> Path:
    """Where ``recipes`` or ``ablations`` lie: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / name
    return installed if installed.is_dir() else package.parent / name
