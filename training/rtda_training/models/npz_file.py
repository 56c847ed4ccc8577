"""Weights in NumPy's ``.npz``: arrays under names, read without pickle, so that no code in a stranger's file runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rtda_deploy.border import parsing, reason
from rtda_deploy.errors import CheckpointError

__all__ = ["read_npz"]

_HINT = "save it with numpy.savez(path, **{name: tensor.numpy() for name, tensor in model.state_dict().items()})"


def read_npz(path: str | Path) -> dict[str, Tensor]:
    """The arrays of the file as tensors, under their names.

    Raises:
        CheckpointError: If it is no such file, or an array is damaged, holds objects or what is no number; by name.
    """
    file = Path(path)
    found: dict[str, Tensor] = {}
    what = f"{file.name} is no .npz file of plain weights"
    with parsing(CheckpointError, what, hint=_HINT), open(file, "rb") as stream:
        content = np.load(stream, allow_pickle=False)
        if not isinstance(content, np.lib.npyio.NpzFile):
            raise CheckpointError(f"{file.name} holds one array without a name", hint=_HINT)
        with content:
            for name in content.files:
                found[name] = _tensor(content, name, file.name)
    return found


def _tensor(content: np.lib.npyio.NpzFile, name: str, where: str) -> Tensor:
    try:
        array = content[name]
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    except Exception as err:  # zip's, zlib's and numpy's errors of a damaged member share no base
        objects = "allow_pickle" in str(err)
        raise CheckpointError(
            f"array {name!r} of {where} " + ("holds Python objects, not numbers" if objects else "cannot be read"),
            why="reading them could run code; none was run" if objects else reason(err),
            hint=_HINT,
        ) from err
