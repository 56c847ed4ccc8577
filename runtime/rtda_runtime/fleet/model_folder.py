"""A folder that holds one model and never changes: ``3f2a91c07b1e/model.onnx``, read-only, called after its SHA-256."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from pathlib import Path
from typing import List, Optional

from rtda_deploy.files import file_error
from rtda_runtime.engines.kinds import engine_kinds

__all__ = ["LEFTOVER_COPY", "copy_model", "digest_name", "is_digest", "model_file", "model_suffixes", "to_disk"]

_DIGITS = 12  # hexadecimal digits of a folder's name
_NAME = re.compile(rf"[0-9a-f]{{{_DIGITS}}}")
LEFTOVER_COPY = re.compile(rf"\.[0-9a-f]{{{_DIGITS}}}\.[0-9a-f]{{8}}")  # what a process left that was killed


def digest_name(sha256: str) -> str:
    """What the folder of a model is called."""
    return sha256[:_DIGITS]


def is_digest(name: str) -> bool:
    """Whether a folder is called as those of models are."""
    return _NAME.fullmatch(name) is not None


def model_suffixes() -> List[str]:
    """Of the files that engines open."""
    return [suffix for kind in engine_kinds() for suffix in kind.suffixes]


def model_file(folder: Path) -> Optional[Path]:
    """The file in a folder that an engine opens; None: there is none."""
    if not folder.is_dir():
        return None
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in model_suffixes())
    return files[0] if files else None


def copy_model(file: Path, folder: Path) -> None:
    """Copy a model, with what belongs to it, into a folder that is there whole or not at all, also after a power cut.

    Raises:
        FileAccessError: If it cannot be written.
    """
    work = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        work.mkdir(parents=True)
        for path in _belonging(file):
            target = work / path.name
            shutil.copyfile(str(path), str(target))
            target.chmod(0o444)
            to_disk(target)
        to_disk(work)
        os.rename(str(work), str(folder))
        to_disk(folder.parent)
    except OSError as err:
        raise file_error(err, folder, "write") from err
    finally:
        shutil.rmtree(str(work), ignore_errors=True)


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Raises:
        OSError: If the disk refuses.
    """
    descriptor = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _belonging(file: Path) -> List[Path]:
    """A model file, and what stands beside it: an engine's ``.json``, OpenVINO's ``.bin``."""
    beside = [file.with_name(f"{file.name}.json"), *([file.with_suffix(".bin")] if file.suffix == ".xml" else [])]
    return [file, *(path for path in beside if path.is_file())]
