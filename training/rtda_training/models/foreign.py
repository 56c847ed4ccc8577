"""Checkpoints of the published lineages under our names: loaded exactly or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rtda_deploy.errors import CheckpointError
from rtda_training.models.lineages import LINEAGES, Lineage, Preprocessing
from rtda_training.models.network import SegmentationNetwork
from rtda_training.models.networks import build_network, network_class
from rtda_training.models.state_dicts import difference, renamed, unwrapped, with_zeros

__all__ = ["ForeignCheckpoint", "load_foreign"]

_AUX = "aux_heads."


@dataclass(frozen=True)
class ForeignCheckpoint:
    """A checkpoint of a lineage in our network.

    Attributes:
        model: The network with the weights in it, in the mode it was in.
        lineage: A key of ``LINEAGES``, such as ``"rtda"``.
        preprocessing: How pictures must be prepared for these weights, as fields of a ``ModelSpec``.
        aux_loaded: False where the checkpoint has no auxiliary heads; those of ``model`` are then untrained.
    """

    model: SegmentationNetwork
    lineage: str
    preprocessing: Preprocessing
    aux_loaded: bool


def load_foreign(model: SegmentationNetwork | None, state_dict: Mapping[str, object]) -> ForeignCheckpoint:
    """Load a checkpoint of one of the published lineages, exactly or not at all.

    Args:
        model: The network to fill; None: one is built, its backbone and classes read off the checkpoint's shapes.
        state_dict: As ``torch.load(path, weights_only=True)`` gives it; wrappers and ``module.`` are looked through.

    Raises:
        CheckpointError: If it is of no known lineage, does not fit ``model``, or differs from its lineage (the message
            names the first five keys of each kind); or if its blocks are fused, so that nothing can be trained.
    """
    tensors = unwrapped(state_dict)
    name = _detected(tensors)
    lineage = LINEAGES[name]
    _refuse_fused(tensors, lineage)
    found = _renamed(tensors, lineage)
    settings, classes = lineage.settings(found), _classes(found, lineage)
    if model is None:
        model = build_network(lineage.network, num_classes=classes, **settings)
    _check_same_kind(model, lineage, settings, classes)
    aux_loaded = any(key.startswith(_AUX) for key in found)
    expected = {key: t for key, t in model.state_dict().items() if aux_loaded or not key.startswith(_AUX)}
    found = with_zeros(found, expected, lineage.zeros)
    problem = difference(expected, found)
    if problem:
        raise CheckpointError(
            f"this looks like a {name} checkpoint but differs (our names): {problem}",
            hint="other revisions of that code have other layers; convert it with the revision it was trained with",
        )
    if name == "rtda":
        _refuse_skipped_norm(found)
    model.load_state_dict(found, strict=False)
    return ForeignCheckpoint(model, name, lineage.preprocessing, aux_loaded)


def _detected(tensors: Mapping[str, Tensor]) -> str:
    """The key of the lineage that the names are of."""
    explained = {
        name: sum(key.startswith(tuple(lineage.names)) for key in tensors) for name, lineage in LINEAGES.items()
    }
    best = max(explained, key=lambda name: explained[name])
    # Half: a damaged file of a known lineage is still recognised, and then told what it lacks.
    if explained[best] * 2 > len(tensors):
        return best
    if any(key.startswith("backbone.") for key in tensors):
        raise CheckpointError(
            "these are weights under rtda-deploy's own names, not of a foreign lineage",
            hint="load the checkpoint file itself: it carries its ModelSpec",
        )
    unknown = [key for key in tensors if not key.startswith(tuple(LINEAGES[best].names))]
    raise CheckpointError(
        f"unknown checkpoint: {len(unknown)} of {len(tensors)} names are of no known lineage, "
        f"such as {', '.join(key if key.isprintable() else repr(key) for key in unknown[:5])}",
        hint=f"known lineages: {', '.join(LINEAGES)}",
    )


def _refuse_fused(tensors: Mapping[str, Tensor], lineage: Lineage) -> None:
    """A fused block is one convolution: its paths and batch norms cannot be had back."""
    fused = [key for key in tensors if lineage.fused and lineage.fused in key]
    if fused:
        raise CheckpointError(
            f"the blocks of this checkpoint are fused already, such as {fused[0]}: it can learn nothing more",
            why="the paths that a block learns by, and their batch norms, are gone",
            hint="give the checkpoint from before the fusion; export fuses by itself",
        )


def _renamed(tensors: Mapping[str, Tensor], lineage: Lineage) -> dict[str, Tensor]:
    """The tensors under our names, each once. Names the table does not know stay as they are."""
    twice = lineage.duplicate
    copies = {f"backbone.{key[len(twice) :]}": t for key, t in tensors.items() if twice and key.startswith(twice)}
    once = {key: tensor for key, tensor in tensors.items() if not twice or not key.startswith(twice)}
    found = renamed(
        {name: t for name, t in once.items() if not name.endswith(lineage.ones) or not bool((t == 1).all())},
        lineage.names,
    )
    for theirs, ours in lineage.endings.items():
        found = {name.removesuffix(theirs) + ours if name.endswith(theirs) else name: t for name, t in found.items()}
    _add_copies(found, copies)
    return found


def _add_copies(found: dict[str, Tensor], copies: Mapping[str, Tensor]) -> None:
    """Use the second copy of the backbone where a saver that drops shared tensors kept only that one."""
    for key, tensor in copies.items():
        if key.startswith("backbone.fc."):
            continue
        if key in found and not torch.equal(found[key], tensor):
            raise CheckpointError(
                f"the checkpoint holds {key} twice with different values, so neither can be trusted",
                hint="save it again with torch.save(model.state_dict(), path) by the code that trained it",
            )
        found.setdefault(key, tensor)


def _classes(found: Mapping[str, Tensor], lineage: Lineage) -> int:
    head = found.get(lineage.classifier)
    if head is None:
        raise CheckpointError(
            f"the checkpoint has no classifier ({lineage.classifier} by our names)",
            hint="save the whole model.state_dict(), its last layer too",
        )
    return int(head.shape[0])


def _check_same_kind(model: SegmentationNetwork, lineage: Lineage, settings: Mapping[str, str], classes: int) -> None:
    wanted = (network_class(lineage.network).NAME, *settings.values(), classes)
    given = (model.NAME, *model.settings.values(), model.num_classes)
    if wanted != given:
        texts = ["{}({})".format(kind[0], ", ".join(map(repr, kind[1:]))) for kind in (wanted, given)]
        raise CheckpointError(
            f"the checkpoint is a {texts[0]}, the model a {texts[1]}",
            hint="pass model=None to have the right one built",
        )


def _refuse_skipped_norm(found: Mapping[str, Tensor]) -> None:
    """The code RTDA grew from has the same names but never runs the attention's batch norm.

    Its counter then stays 0 while others moved; run here, that norm would change the attention.
    """
    counters = {key: int(t) for key, t in found.items() if key.endswith("num_batches_tracked")}
    skipped = [key for key, n in counters.items() if key.startswith("context_path.arm") and n == 0]
    if skipped and any(counters.values()):
        raise CheckpointError(
            "this checkpoint's attention batch norms never ran in training: it is of ooooverflow's BiSeNet, "
            "which skips them, and would give other results here",
            hint="train it again with variant rtda",
        )
