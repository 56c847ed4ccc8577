"""Checkpoints: one file with the weights, the ModelSpec and, while training goes on, everything needed to go on.

``{"format": "rtda-deploy", "spec": JSON text, "weights": state dict, "training": dict}``, plain tensors and containers
only, so that ``torch.load(weights_only=True)`` reads it and no code in an untrusted file runs. ``"card"``, JSON text,
and ``"norm_inputs"``, tensors, stand beside them once the network was measured, when its training ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtda_deploy import __version__
from rtda_deploy.border import parsing
from rtda_deploy.errors import CheckpointError, ConfigError
from rtda_deploy.files import readable_file, sha256_file
from rtda_deploy.model_files import PADDLE_SUFFIX
from rtda_deploy.spec import ModelSpec
from rtda_training.labels import CITYSCAPES
from rtda_training.models import NETWORKS, SegmentationNetwork, build_network, load_foreign
from rtda_training.models.pdparams_file import read_pdparams
from rtda_training.models.state_dicts import (
    averages_left_out,
    checked_tensors,
    difference,
    refuse_broken_numbers,
)
from rtda_training.torch_file import read_torch_file, write_torch_file

__all__ = ["FORMAT", "Checkpoint", "model_from_checkpoint", "read_checkpoint", "stored_content", "write_checkpoint"]

FORMAT = "rtda-deploy"
_WHOLE = "was it copied whole? A checkpoint is a .pth of train, or of RTDA's, CoinCheung's or another known code"
_MEAN = ".running_mean"  # what the name of a batch norm's means ends with
_FOREIGN_SIZE_HW = (512, 1024)  # what the lineages were measured at


@dataclass(frozen=True)
class Checkpoint:
    """What a ``.pth`` holds.

    Attributes:
        spec: The contract of the network; ``provenance["architecture"]`` says which network.
        weights: State dict of the network under our own names.
        training: State to resume from; empty in a file meant for export only.
        path: Where it was read from; empty for a new one.
        card: Its calibration card as ``rtda_deploy.card`` writes it; empty where it has none.
        norm_inputs: What enters its batch norms on pictures of its source
            (:func:`rtda_training.stages.norm_shift.norm_inputs`); empty where that was not measured.
    """

    spec: ModelSpec
    weights: Mapping[str, Tensor]
    training: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""
    card: str = ""
    norm_inputs: Mapping[str, Tensor] = field(default_factory=dict)


def read_checkpoint(path: str | Path, *, spec: ModelSpec | None = None) -> Checkpoint:
    """Read our own checkpoint, or one of the published lineages (``rtda_training.models.lineages``).

    Args:
        path: A ``.pth`` file, or PaddleSeg's ``.pdparams``.
        spec: Used instead of the file's own; needed by a foreign file with other than Cityscapes' 19 classes.

    Raises:
        FileAccessError: If it cannot be opened.
        CheckpointError: If it is no checkpoint, holds code, or is of another network (naming the keys that differ).
        SpecError: If its spec is missing or broken.
    """
    file = readable_file(path, what="checkpoint")
    content = stored_content(file)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{file} holds a {type(content).__name__}, not a checkpoint",
            hint="save model.state_dict(), a dict of tensors",
        )
    with parsing(CheckpointError, f"{file} is no checkpoint of a network", hint=_WHOLE):
        if content.get("format") == FORMAT:
            return _own(content, file, spec)
        try:
            return _foreign(content, file, spec)
        except CheckpointError as err:
            raise CheckpointError(f"{file}: {err.message}", why=err.why, hint=err.hint) from err


def stored_content(file: Path) -> Any:
    """What a file of torch or Paddle holds, tensors and plain values; no code in it runs.

    Raises:
        FileAccessError: If it cannot be opened.
        CheckpointError: If it cannot be read, or holds objects that only code could make.
    """
    if file.suffix.lower() == PADDLE_SUFFIX:
        return read_pdparams(file)
    return read_torch_file(file, hint=_WHOLE)


def write_checkpoint(path: str | Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint, whole or not at all.

    Raises:
        FileAccessError: If the folder cannot be written to or the disk is full.
    """
    content = {
        "format": FORMAT,
        "version": __version__,
        "spec": checkpoint.spec.to_json(),
        "weights": dict(checkpoint.weights),
        "training": dict(checkpoint.training),
        **({"card": checkpoint.card} if checkpoint.card else {}),
        **({"norm_inputs": dict(checkpoint.norm_inputs)} if checkpoint.norm_inputs else {}),
    }
    return write_torch_file(path, content)


def model_from_checkpoint(checkpoint: Checkpoint) -> SegmentationNetwork:
    """The network of a checkpoint with its weights, in evaluation mode.

    Raises:
        CheckpointError: If the architecture is unknown or the weights do not fit it (naming the keys that differ).
    """
    architecture = checkpoint.spec.provenance.get("architecture")
    where = checkpoint.path or "the checkpoint"
    known = [network.NAME for network in NETWORKS.values()]
    if not isinstance(architecture, Mapping) or architecture.get("name") not in known:
        raise CheckpointError(
            f"{where} is of architecture {architecture!r}",
            hint=f"this version builds {', '.join(known)}; upgrade rtda-deploy",
        )
    with parsing(CheckpointError, f"{where} holds no network", hint=_WHOLE):
        # Shapes are compared on the meta device first, so that a file cannot claim memory it has no weights for.
        with torch.device("meta"):
            shapes = _built(architecture, checkpoint, where)
        problem = difference(shapes.state_dict(), checkpoint.weights)
        if problem:
            raise CheckpointError(f"{where} does not fit its own architecture: {problem}", hint="was the file edited?")
        model = _built(architecture, checkpoint, where)
        model.load_state_dict(dict(checkpoint.weights))
        refuse_broken_numbers(model.state_dict(), where)
        return model.eval()


def _built(architecture: Mapping[str, Any], checkpoint: Checkpoint, where: str) -> SegmentationNetwork:
    try:
        return build_network(architecture, num_classes=checkpoint.spec.num_classes)
    except ConfigError as err:
        raise CheckpointError(
            f"{where} is of architecture {dict(architecture)!r}", why=err.message, hint=err.hint
        ) from err


def _own(content: Mapping[str, Any], file: Path, spec: ModelSpec | None) -> Checkpoint:
    weights = content.get("weights")
    training = content.get("training", {})
    if not isinstance(weights, Mapping) or not isinstance(training, Mapping):
        raise CheckpointError(f"{file} lacks its weights", hint="was it written to its end?")
    try:
        weights = checked_tensors(weights)
    except CheckpointError as err:
        raise CheckpointError(f"{file}: {err.message}", hint=err.hint) from err
    card = content.get("card", "")
    card = card if isinstance(card, str) else ""
    norms = _norm_inputs(content.get("norm_inputs"), weights)
    if spec is not None and "architecture" in spec.provenance:
        return Checkpoint(spec, weights, training, str(file), card, norms)
    own_spec = ModelSpec.from_json(str(content.get("spec", "")), where=f"spec of {file}")
    if spec is not None:  # written by hand, without the network; the checkpoint's own spec names it
        architecture = own_spec.provenance.get("architecture")
        own_spec = spec.replace(provenance={**spec.provenance, "architecture": architecture})
    return Checkpoint(own_spec, weights, training, str(file), card, norms)


def _norm_inputs(values: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a file says of the source; nothing where that fits no batch norms of its own, which can be done without."""
    if not isinstance(values, Mapping):
        return {}
    sizes = {key[: -len(_MEAN)]: len(value) for key, value in weights.items() if key.endswith(_MEAN)}
    found = {str(name): value for name, value in values.items()}
    fits = all(
        isinstance(value, Tensor)
        and tuple(value.shape) == (2, sizes.get(name, 0))
        and bool(torch.isfinite(value).all())
        for name, value in found.items()
    )
    return {name: value.float() for name, value in found.items()} if fits else {}


def _foreign(content: Mapping[str, Any], file: Path, spec: ModelSpec | None) -> Checkpoint:
    foreign = load_foreign(None, content)
    model = foreign.model
    if spec is None and model.num_classes != CITYSCAPES.num_classes:
        raise CheckpointError(
            f"it has {model.num_classes} classes and no names for them",
            hint=f"rtda-deploy inspect {file.name} --spec-template > spec.json, write their names, palette and size "
            "into it, and add --spec spec.json",
        )
    provenance: dict[str, Any] = {
        "architecture": model.architecture,
        "lineage": foreign.lineage,
        "parent_sha256": sha256_file(file),
    }
    left_out = averages_left_out(content)
    if left_out:
        provenance["left_out"] = f"{', '.join(left_out)} (weights averaged over training)"
    found = spec or ModelSpec(
        size_hw=_FOREIGN_SIZE_HW,
        class_names=CITYSCAPES.names,
        palette=CITYSCAPES.palette,
        provenance=provenance,
        **foreign.preprocessing,
    )
    found = found.replace(provenance={**found.provenance, **provenance})
    return Checkpoint(found, model.state_dict(), {}, str(file))
