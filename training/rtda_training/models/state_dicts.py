"""State dicts: read from a file, taken out of wrappers, checked, and compared with what a network expects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtda_deploy.border import parsing
from rtda_deploy.errors import CheckpointError, FileAccessError
from rtda_deploy.model_files import PADDLE_SUFFIX
from rtda_deploy.optional import require
from rtda_training.models.npz_file import read_npz
from rtda_training.models.pdparams_file import read_pdparams
from rtda_training.torch_file import read_torch_file

__all__ = [
    "averages_left_out",
    "checked_tensors",
    "difference",
    "read_weights",
    "refuse_broken_numbers",
    "renamed",
    "unwrapped",
    "with_zeros",
]

# Where training scripts keep the network's weights, in the order they are looked for; "model_state" is RTDA's. An
# average over training (EMA) is taken where nothing else is there.
_AVERAGES = ("ema", "model_ema", "ema_state_dict", "state_dict_ema", "params_ema")
_WRAPPERS = (
    *("state_dict", "model_state", "model_state_dict", "model", "weights", "net", "network", "params", "module"),
    *_AVERAGES,
)
# What DataParallel, torch.compile and Lightning put before every name; taken off in any order, as often as they stand.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "ema.", "ema_model.")
_COMPILED = "_orig_mod."  # stands within a name too, where a part of the network was compiled
_OF_PADDLE = {"_mean": "running_mean", "_variance": "running_var"}
_DEEPEST = 8  # wrappers within wrappers
_SHOWN = 5  # keys of each kind in a message


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.pth``, ``.npz``, ``.pdparams`` (all read without unpickling objects) or ``.safetensors``.

    They are unwrapped.

    Raises:
        FileAccessError: If the file cannot be opened.
        CheckpointError: If it is no such file, or holds more than plain tensors and containers.
        MissingPackageError: For ``.safetensors`` where safetensors is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileAccessError(f"no weights file at {path}", hint="check the path")
    hint = "save it again with torch.save(model.state_dict(), path)"
    if path.suffix == ".npz":
        return unwrapped(read_npz(path))
    if path.suffix.lower() == PADDLE_SUFFIX:
        return {_named_as_here(key): tensor for key, tensor in unwrapped(read_pdparams(path)).items()}
    if path.suffix == ".safetensors":
        library = require("safetensors.torch", extra="training", purpose=f"to read {path.name}")
        with parsing(CheckpointError, f"{path.name} is no file of plain weights", hint=hint):
            return unwrapped(library.load_file(path))
    return unwrapped(read_torch_file(path, "file of plain weights", hint=hint))


def _named_as_here(key: str) -> str:
    """A name of Paddle's with the ending that torch gives the statistics of a batch norm."""
    start, _, ending = key.rpartition(".")
    return f"{start}.{_OF_PADDLE[ending]}" if ending in _OF_PADDLE else key


def unwrapped(checkpoint: object) -> dict[str, Tensor]:
    """The tensors inside ``{"state_dict": ...}``-like wrappers, without what DataParallel and others put before names.

    Where a part of the names only has such a prefix, as Lightning writes a network beside its losses, that part is
    given: whatever is loaded must fit the network whole.

    Raises:
        CheckpointError: If there are no tensors in it, or tensors that no network could use.
    """
    inner = checkpoint
    for _ in range(_DEEPEST):
        if not isinstance(inner, Mapping):
            raise CheckpointError(
                f"expected a dict of tensors, got {type(inner).__name__}", hint="save model.state_dict(), not the model"
            )
        held = next((inner[name] for name in _WRAPPERS if isinstance(inner.get(name), Mapping)), None)
        if held is None:
            break
        inner = held
    else:
        raise CheckpointError(
            f"its wrappers go on for more than {_DEEPEST} levels", hint="save model.state_dict() itself"
        )
    tensors = {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = _shown([str(key) for key in inner])
        raise CheckpointError(
            f"found no tensors in the checkpoint, only: {keys or 'nothing'}", hint="save model.state_dict() into it"
        )
    return checked_tensors(_without_prefixes(tensors))


def averages_left_out(checkpoint: Mapping[Any, Any]) -> list[str]:
    """Names under which a checkpoint keeps an average of the weights beside those that :func:`unwrapped` takes."""
    found = [name for name in _WRAPPERS if isinstance(checkpoint.get(name), Mapping)]
    return [name for name in found[1:] if name in _AVERAGES]


def checked_tensors(weights: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The weights, if each is a plain tensor under a name: dense, with its values, neither complex nor quantised.

    Raises:
        CheckpointError: Naming the first that is not; loading it would drop a part of it or fail half-way.
    """
    for key, tensor in weights.items():
        if not isinstance(key, str):
            raise CheckpointError(
                f"a weight's name is {key!r}, not a text", hint="save model.state_dict(), whose names are texts"
            )
        fault = _fault(tensor)
        if fault:
            raise CheckpointError(
                f"weight {_shown([key])} is {fault}",
                hint="save plain ones: torch.save({k: v.to_dense().float() for k, v in weights.items()}, path)"
                if fault == "sparse"
                else "save the model.state_dict() of the network in float32",
            )
    return dict(weights)


def _fault(tensor: object) -> str:
    if not isinstance(tensor, Tensor):
        return f"no tensor but a {type(tensor).__name__}"
    if tensor.is_meta:
        return "without values (a tensor of the device meta)"
    if tensor.is_quantized:
        return "quantised"
    if tensor.layout != torch.strided:
        return "sparse"
    if tensor.is_complex():
        return "complex, and its imaginary part has no place in the network"
    return ""


def refuse_broken_numbers(weights: Mapping[str, Tensor], where: str) -> None:
    """Raise ``CheckpointError`` where a weight is NaN or infinite: every mask would be of one class."""
    broken = [key for key, tensor in weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{where} holds NaN or infinity in {len(broken)} of {len(weights)} weights: {_shown(broken)}",
            why="its training went astray, or it was converted with too small a type",
            hint="take an earlier checkpoint of that run, or train again with a smaller learning rate",
        )


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    found = tensors
    while True:
        held = {prefix: sum(key.startswith(prefix) for key in found) for prefix in _PREFIXES}
        prefix = max(held, key=lambda entry: held[entry])
        if held[prefix] * 2 <= len(found):  # less than half: not what stands before the network's names
            break
        found = {key[len(prefix) :]: value for key, value in found.items() if key.startswith(prefix)}
    plain = {key.replace(_COMPILED, ""): value for key, value in found.items()}
    return plain if len(plain) == len(found) else found


def renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors with other prefixes: ``names`` says which takes which one's place, and the longest that fits wins.

    Names that no prefix fits stay as they are.
    """
    prefixes = sorted(names, key=len, reverse=True)
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        prefix = next((start for start in prefixes if key.startswith(start)), "")
        found[names.get(prefix, "") + key[len(prefix) :]] = tensor
    return found


def with_zeros(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The tensors, with zeros for those of ``names`` that are expected and not there."""
    return {**{name: torch.zeros(expected[name].shape) for name in names if name in expected}, **found}


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
    retyped = [
        f"{key} {str(found[key].dtype).removeprefix('torch.')}"
        for key, tensor in expected.items()
        if key in found and tensor.is_floating_point() and not found[key].is_floating_point()
    ]
    kinds = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": reshaped,
        "of whole numbers": retyped,
    }
    return "; ".join(f"{len(keys)} {kind}: {_shown(keys)}" for kind, keys in kinds.items() if keys)


def _shown(keys: list[str]) -> str:
    rest = ", ..." if len(keys) > _SHOWN else ""
    return ", ".join(key if key.isprintable() else repr(key) for key in keys[:_SHOWN]) + rest
