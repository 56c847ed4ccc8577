"""Models of a store as they are named on the command line: ``models/robot``, ``models/robot@3f2a91``, ``@previous``."""

from __future__ import annotations

from pathlib import Path

from rtda_deploy.errors import ConfigError
from rtda_runtime.fleet.links import has_links
from rtda_runtime.fleet.model_folder import model_suffixes
from rtda_runtime.fleet.store import ModelStore

__all__ = ["deployed_model"]


def deployed_model(path: Path) -> Path:
    """The file of ``models/NAME`` (its current model) or ``models/NAME@DIGEST``; any other path is itself.

    The file is named by its folder that never changes. ``@current`` and ``@previous`` are known, too, and the first
    digits of a digest are enough. A folder that is named like a model file is refused by whoever opens it as one.

    Raises:
        ConfigError: If it is another folder without a current model, or no such model is there.
        FileAccessError: If the folder of the current model is gone.
    """
    name, at, digest = path.name.partition("@")
    if at and not path.exists() and has_links(path.with_name(name)):
        return ModelStore(path.with_name(name)).find(digest).file
    if not path.is_dir() or (path.suffix.lower() in model_suffixes() and not has_links(path)):
        return path
    found = ModelStore(path).current if has_links(path) else None
    if found is None:
        raise ConfigError(
            f"{path} is a folder without a current model",
            hint=f"name a model file, or: rtda-deploy models promote MODEL --name {path.name} --frames DATA",
        )
    return found.file
