"""Reading somebody else's weights: from a file, out of its wrappers, and in what they differ from ours."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtda_deploy.errors import CheckpointError, FileAccessError
from rtda_deploy.files import file_error
from rtda_deploy.optional import require

__all__ = ["difference", "read_weights", "unwrapped"]

# Where training scripts keep the network's weights; "model_state" is RTDA's.
_WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model", "weights", "net")
_DATA_PARALLEL = "module."
_SHOWN = 5  # keys of each kind in a message


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.pth`` (read without unpickling objects) or ``.safetensors`` file, unwrapped.

    Raises:
        FileAccessError: If the file cannot be opened.
        CheckpointError: If it is no such file, or holds more than plain tensors and containers.
        MissingPackageError: For ``.safetensors`` where safetensors is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileAccessError(f"no weights file at {path}", hint="check the path")
    try:
        if path.suffix == ".safetensors":
            loaded = require("safetensors.torch", extra="training", purpose=f"to read {path.name}").load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as err:
        raise file_error(err, path, "read") from err
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as err:
        raise CheckpointError(
            f"{path.name} is no file of plain weights",
            hint="save it again with torch.save(model.state_dict(), path)",
        ) from err
    return unwrapped(loaded)


def unwrapped(checkpoint: object) -> dict[str, Tensor]:
    """The tensors inside ``{"state_dict": ...}``-like wrappers, without DataParallel's ``module.`` prefix.

    Raises:
        CheckpointError: If there are no tensors in it.
    """
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(
            f"expected a dict of tensors, got {type(checkpoint).__name__}",
            hint="save model.state_dict(), not the model",
        )
    inner = _inner(checkpoint)
    if inner is not None:
        return unwrapped(inner)
    tensors = {str(key): value for key, value in checkpoint.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(str(key) for key in list(checkpoint)[:_SHOWN])
        raise CheckpointError(
            f"found no tensors in the checkpoint, only: {keys or 'nothing'}", hint="save model.state_dict() into it"
        )
    while all(key.startswith(_DATA_PARALLEL) for key in tensors):
        tensors = {key[len(_DATA_PARALLEL) :]: value for key, value in tensors.items()}
    return tensors


def difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """What must change for ``found`` to load into ``expected``; empty if nothing.

    ``num_batches_tracked`` may be missing: files older than PyTorch 0.4.1 have none, and inference needs none.
    """
    missing = [key for key in expected if key not in found and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in found if key not in expected]
    reshaped = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in found and found[key].shape != tensor.shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    return "; ".join(f"{len(keys)} {kind}: {_shown(keys)}" for kind, keys in kinds.items() if keys)


def _inner(checkpoint: Mapping[Any, Any]) -> Mapping[Any, Any] | None:
    for name in _WRAPPERS:
        inner = checkpoint.get(name)
        if isinstance(inner, Mapping):
            return inner
    return None


def _shown(keys: list[str]) -> str:
    rest = ", ..." if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + rest
