"""Models of a store as they are named on the command line: ``models/robot``, ``models/robot@3f2a91``, ``@previous``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import List

from rtda_deploy.errors import ConfigError
from rtda_runtime.fleet.links import has_links
from rtda_runtime.fleet.model_folder import model_suffixes
from rtda_runtime.fleet.store import ModelStore

__all__ = ["deployed_model"]

_MODELS = "models"  # where rtda-deploy models puts all names, if it is not told another folder


def deployed_model(path: Path) -> Path:
    """The file of ``models/NAME`` (its current model) or ``models/NAME@DIGEST``; any other path is itself.

    The file is named by its folder that never changes. ``@current`` and ``@previous`` are known, too, and the first
    digits of a digest are enough. A folder that is named like a model file is refused by whoever opens it as one.

    Raises:
        ConfigError: If it is another folder without a current model, or no such model is there, or nothing was ever
            promoted under that name.
        FileAccessError: If the folder of the current model is gone.
    """
    name, at, digest = path.name.partition("@")
    if at and not path.exists() and has_links(path.with_name(name)):
        return ModelStore(path.with_name(name)).find(digest).file
    if not path.exists() and _names_store(path.with_name(name)):
        beside = [str(each) for each in _stores_in(path.parent)]
        known = f"known: {', '.join(beside)}; or " if beside else ""
        raise ConfigError(
            f"{path.with_name(name)} has no model yet", hint=f"{known}put one there: {_promotion(path, name)}"
        )
    if not path.is_dir() or (path.suffix.lower() in model_suffixes() and not has_links(path)):
        return path
    found = ModelStore(path).current if has_links(path) else None
    if found is None:
        raise ConfigError(
            f"{path} is a folder without a current model",
            hint=f"name a model file, or: {_promotion(path, path.name)}",
        )
    return found.file


def _names_store(path: Path) -> bool:
    """Whether a path at which nothing is was meant as a store: it has no suffix, and lies where stores do."""
    return not path.suffix and (path.parent.name == _MODELS or bool(_stores_in(path.parent)))


def _stores_in(folder: Path) -> List[Path]:
    return sorted(beside for beside in folder.iterdir() if has_links(beside)) if folder.is_dir() else []


def _promotion(path: Path, name: str) -> str:
    """What to type so that there is a model."""
    where = "" if path.parent == Path(_MODELS) else f" --folder {shlex.quote(str(path.parent))}"
    return f"rtda-deploy models promote MODEL --frames DATA --name {shlex.quote(name)}{where}"
