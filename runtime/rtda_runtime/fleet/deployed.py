"""Models of a store as they are named on the command line: ``models/robot``, ``models/robot@3f2a91``, ``@previous``."""

from __future__ import annotations

import contextlib
import os
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
    if name and not os.path.exists(str(path)):
        store = path.with_name(name)
        if at and has_links(store):
            return ModelStore(store).find(digest).file
        _refuse_empty(store)
    if not path.is_dir() or (path.suffix.lower() in model_suffixes() and not has_links(path)):
        return path
    found = ModelStore(path).current if has_links(path) else None
    if found is None:
        raise ConfigError(
            f"{path} is a folder without a current model",
            hint=f"name a model file, or: {_promotion(path, path.name)}",
        )
    return found.file


def _refuse_empty(store: Path) -> None:
    """Refuse a path at which nothing is and that was meant as a store: it has no suffix, and lies where stores do."""
    beside: List[str] = []
    with contextlib.suppress(OSError):  # no folder, or one that cannot be read
        beside = sorted(str(path) for path in store.parent.iterdir() if has_links(path))
    if store.suffix or not (beside or store.parent.name == _MODELS):
        return
    known = f"known: {', '.join(beside)}; or " if beside else ""
    raise ConfigError(f"{store} has no model yet", hint=f"{known}put one there: {_promotion(store, store.name)}")


def _promotion(path: Path, name: str) -> str:
    """What to type so that there is a model."""
    where = "" if path.parent == Path(_MODELS) else f" --folder {shlex.quote(str(path.parent))}"
    return f"rtda-deploy models promote MODEL --frames DATA --name {shlex.quote(name)}{where}"
