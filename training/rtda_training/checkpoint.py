"""Checkpoints: one file with the weights, the ModelSpec and, while training goes on, everything needed to go on.

``{"format": "rtda-deploy", "spec": JSON text, "weights": state dict, "training": dict}``, plain tensors and containers
only, so that ``torch.load(weights_only=True)`` reads it and no code in a stranger's file ever runs.
"""

from __future__ import annotations

import pickle
import pickletools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtda_deploy import __version__
from rtda_deploy.errors import CheckpointError, ConfigError
from rtda_deploy.files import readable_file, sha256_file
from rtda_deploy.spec import ModelSpec
from rtda_training.labels import CITYSCAPES
from rtda_training.models import NETWORKS, SegmentationNetwork, build_network, load_foreign
from rtda_training.models.state_dicts import difference, unwrapped
from rtda_training.torch_file import write_torch_file

__all__ = ["FORMAT", "Checkpoint", "model_from_checkpoint", "read_checkpoint", "write_checkpoint"]

FORMAT = "rtda-deploy"
_FOREIGN_SIZE_HW = (512, 1024)  # what both lineages were trained and measured at


@dataclass(frozen=True)
class Checkpoint:
    """What a ``.pth`` holds.

    Attributes:
        spec: The contract of the network; ``provenance["architecture"]`` says which network.
        weights: State dict of the network under our own names.
        training: State to resume from; empty in a file meant for export only.
        path: Where it was read from; empty for a new one.
    """

    spec: ModelSpec
    weights: Mapping[str, Tensor]
    training: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""


def read_checkpoint(path: str | Path, *, spec: ModelSpec | None = None) -> Checkpoint:
    """Read our own checkpoint, or one of the two lineages the papers used (RTDA's, CoinCheung's BiSeNetV1).

    Args:
        path: A ``.pth`` file.
        spec: Used instead of the file's own; needed by a foreign file with other than Cityscapes' 19 classes.

    Raises:
        FileAccessError: If it cannot be opened.
        CheckpointError: If it is no checkpoint, holds code, or is of another network (naming the keys that differ).
        SpecError: If its spec is missing or broken.
    """
    file = readable_file(path, what="checkpoint")
    content = _load(file)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, not a checkpoint")
    if content.get("format") == FORMAT:
        return _own(content, file, spec)
    try:
        return _foreign(content, file, spec)
    except CheckpointError as err:
        raise CheckpointError(f"{file}: {err.message}", hint=err.hint) from err


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
    }
    return write_torch_file(path, content)


def model_from_checkpoint(checkpoint: Checkpoint) -> SegmentationNetwork:
    """The network of a checkpoint with its weights, in evaluation mode.

    Raises:
        CheckpointError: If the architecture is unknown or the weights do not fit it (naming the keys that differ).
    """
    architecture = checkpoint.spec.provenance.get("architecture")
    where = checkpoint.path or "the checkpoint"
    known = [kind.network.NAME for kind in NETWORKS.values()]
    if not isinstance(architecture, Mapping) or architecture.get("name") not in known:
        raise CheckpointError(
            f"{where} is of architecture {architecture!r}",
            hint=f"this version builds {', '.join(known)}; upgrade rtda-deploy",
        )
    try:
        model = build_network(architecture, num_classes=checkpoint.spec.num_classes)
    except ConfigError as err:
        raise CheckpointError(
            f"{where} is of architecture {dict(architecture)!r}", why=err.message, hint=err.hint
        ) from err
    problem = difference(model.state_dict(), checkpoint.weights)
    if problem:
        raise CheckpointError(f"{where} does not fit its own architecture: {problem}", hint="was the file edited?")
    model.load_state_dict(dict(checkpoint.weights))
    return model.eval()


def _load(file: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the pickle's protocol; whether it can be read is what counts
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as err:  # on garbage, torch's unpickler raises whatever its garbage leads to
        blocked = _blocked(err, file) if isinstance(err, pickle.UnpicklingError) else ""
        if not blocked:
            raise _no_checkpoint(file, err) from err
        raise CheckpointError(
            f"{file} holds more than tensors and plain values; code in it was not run",
            why=blocked,
            hint="save it again with torch.save(model.state_dict(), path)",
        ) from err


def _no_checkpoint(file: Path, err: Exception) -> CheckpointError:
    reason = str(err).splitlines()[0][:160] if str(err) else type(err).__name__
    return CheckpointError(
        f"{file} is no checkpoint that torch can read",
        why=reason,
        hint="was it copied whole? A checkpoint is a .pth of train, or of RTDA's or CoinCheung's code",
    )


def _blocked(err: Exception, file: Path) -> str:
    """The object that torch refused to make; empty where that was not what went wrong."""
    for line in str(err).splitlines():
        if "GLOBAL" in line or "Unsupported global" in line or "Unsupported class" in line:
            return line.strip()[:200]
    return "it is a Python pickle of objects" if _pickles_objects(file) else ""


def _pickles_objects(file: Path) -> bool:
    """Whether the file is a whole pickle that names a class or function; its opcodes are listed, none is run."""
    try:
        names = {opcode.name for opcode, _, _ in pickletools.genops(file.read_bytes())}
    except Exception:  # no pickle: whatever listing garbage leads to
        return False
    return bool(names & {"GLOBAL", "STACK_GLOBAL", "INST"})


def _own(content: Mapping[str, Any], file: Path, spec: ModelSpec | None) -> Checkpoint:
    weights = content.get("weights")
    training = content.get("training", {})
    if not isinstance(weights, Mapping) or not isinstance(training, Mapping):
        raise CheckpointError(f"{file} lacks its weights", hint="was it written to its end?")
    if spec is not None and "architecture" in spec.provenance:
        return Checkpoint(spec, weights, training, str(file))
    own_spec = ModelSpec.from_json(str(content.get("spec", "")), where=f"spec of {file}")
    if spec is not None:  # written by hand: which network it is, the checkpoint knows
        architecture = own_spec.provenance.get("architecture")
        own_spec = spec.replace(provenance={**spec.provenance, "architecture": architecture})
    return Checkpoint(own_spec, weights, training, str(file))


def _foreign(content: Mapping[str, Any], file: Path, spec: ModelSpec | None) -> Checkpoint:
    foreign = load_foreign(None, unwrapped(content))
    model = foreign.model
    if spec is None and model.num_classes != CITYSCAPES.num_classes:
        raise CheckpointError(
            f"it has {model.num_classes} classes and no names for them",
            hint="write their names, palette and size into a spec file: --spec spec.json",
        )
    provenance = {
        "architecture": model.architecture,
        "lineage": foreign.lineage,
        "parent_sha256": sha256_file(file),
    }
    found = spec or ModelSpec(
        size_hw=_FOREIGN_SIZE_HW,
        class_names=CITYSCAPES.names,
        palette=CITYSCAPES.palette,
        interpolation="cubic" if foreign.lineage == "rtda" else "linear",
        provenance=provenance,
        **foreign.preprocessing,
    )
    found = found.replace(provenance={**found.provenance, **provenance})
    return Checkpoint(found, model.state_dict(), {}, str(file))
