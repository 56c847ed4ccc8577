"""What ``rtda-deploy label`` wrote, as folders of one PNG a picture, whichever layout it has.

Masks in tar shards are unpacked, those alone that are trained on.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from rtda_deploy.border import json_values, parsing
from rtda_deploy.errors import DataError
from rtda_deploy.files import file_bytes, write_bytes

__all__ = ["labelled_folder", "unpack_labels"]

_PLAN, _RECORD = "plan.json", "labelled.json"
_KINDS = ("masks", "confidences")
_HINT = "type the same label command again: it goes on where it was"


def labelled_folder(path: Path, kind: str = "masks") -> Path:
    """The folder of PNGs that is meant by an output folder of ``label``; any other folder is itself.

    Args:
        path: ``OUT``, ``OUT/masks`` or ``OUT/confidences``.
        kind: What is asked for where ``OUT`` is named.

    Raises:
        DataError: If the labels are not whole.
    """
    out = _output(path)
    if out is None:
        return path
    if not (out / _RECORD).is_file():
        raise DataError(f"{out} is not labelled to its end", hint=_HINT)
    return out / kind if path == out else path


def unpack_labels(folder: Path, keys: Iterable[str], into: Path) -> Path:
    """A folder of :func:`labelled_folder` with its PNGs in it: itself, or ``into`` where they lie in shards.

    Args:
        folder: ``OUT/masks`` or ``OUT/confidences``.
        keys: Of the pictures whose labels are wanted; one that has none is passed over.
        into: Gets them, with the ``classes.json`` of ``folder``.

    Raises:
        DataError: If a shard is damaged.
        FileAccessError: If ``into`` cannot be written to.
    """
    out = _output(folder)
    if out is None or folder.name not in _KINDS or _values(out / _RECORD)["layout"] != "tar":
        return folder
    wanted: Dict[str, List[Tuple[str, str]]] = {}
    known = {name: unit["id"] for unit in _values(out / _PLAN)["units"] for name in _names(unit)}
    for key in keys:
        name = next((name for name in (key, Path(key).name) if name in known), None)
        if name is not None:
            wanted.setdefault(known[name], []).append((name, key))
    for unit, pairs in wanted.items():
        _extract(out / "shards" / f"{unit}.tar", folder.name, pairs, into)
    classes = folder / "classes.json"
    if classes.is_file():
        into.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(classes), str(into / classes.name))
    return into


def _output(path: Path) -> Optional[Path]:
    """The output folder that is meant; None: ``path`` is none of one."""
    if (path / _PLAN).is_file():
        return path
    return path.parent if path.name in _KINDS and (path.parent / _PLAN).is_file() else None


def _names(unit: Dict[str, Any]) -> List[str]:
    return [unit.get("folder", "") + name for name in unit["names"]]


def _extract(shard: Path, kind: str, pairs: List[Tuple[str, str]], into: Path) -> None:
    if not shard.is_file():
        return  # given up: whoever needs its masks says which are missing
    damaged = parsing(DataError, f"{shard} is damaged", hint="remove it and type the same label command again")
    with damaged, tarfile.open(str(shard), "r:") as archive:
        members = {member.name: member for member in archive}
        for name, key in pairs:
            member = members.get(f"{kind}/{name}.png")
            stream = None if member is None else archive.extractfile(member)
            if stream is not None:
                write_bytes(into / f"{key}.png", stream.read())


def _values(path: Path) -> Dict[str, Any]:
    hint = "was it edited? Label again into another folder"
    with parsing(DataError, f"{path} is no file of label", hint=hint):
        return dict(json_values(file_bytes(path), str(path), DataError, hint=hint))
