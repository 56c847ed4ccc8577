"""Checkpoints of the two published lineages, translated into ours: RTDA's and CoinCheung's BiSeNetV1.

Each lineage is one table of name prefixes. Whatever a table does not explain is refused, with the keys that differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from rtda_deploy.errors import CheckpointError
from rtda_training.models.bisenet import BiSeNet
from rtda_training.models.state_dicts import difference, unwrapped

__all__ = ["ForeignCheckpoint", "Preprocessing", "detect_lineage", "load_foreign"]


class Preprocessing(TypedDict):
    """The fields of a ``ModelSpec`` that a lineage decides: ``(pixel * pixel_scale - mean) / std``, pixels 0..255."""

    channel_order: str
    pixel_scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class _Lineage:
    """One family of checkpoints: our variant, its pre-processing, and its names.

    ``names`` pairs their prefixes with ours; the longest that fits wins. ``duplicate`` is a prefix under which the
    backbone is stored a second time.
    """

    variant: str
    preprocessing: Preprocessing
    names: dict[str, str]
    duplicate: str = ""


@dataclass(frozen=True)
class ForeignCheckpoint:
    """A translated checkpoint.

    Attributes:
        model: The network with the weights in it, in the mode it was in.
        lineage: ``"rtda"`` or ``"coincheung"``.
        preprocessing: How pictures must be prepared for these weights, as fields of a ``ModelSpec``.
        ignored: Names in the checkpoint that carry nothing of ours: duplicates and an unused classifier.
        aux_loaded: False where the checkpoint has no auxiliary heads; those of ``model`` are then untrained.
    """

    model: BiSeNet
    lineage: str
    preprocessing: Preprocessing
    ignored: tuple[str, ...]
    aux_loaded: bool


_LINEAGES = {
    "rtda": _Lineage(
        variant="rtda",
        # BGR, 0..255, minus the Caffe mean, no deviation.
        preprocessing={
            "channel_order": "bgr",
            "pixel_scale": 1.0,
            "mean": (104.007, 116.669, 122.679),
            "std": (1.0, 1.0, 1.0),
        },
        names={
            "saptial_path.convblock1.conv1.": "spatial_path.0.conv.",
            "saptial_path.convblock1.bn.": "spatial_path.0.bn.",
            "saptial_path.convblock2.conv1.": "spatial_path.1.conv.",
            "saptial_path.convblock2.bn.": "spatial_path.1.bn.",
            "saptial_path.convblock3.conv1.": "spatial_path.2.conv.",
            "saptial_path.convblock3.bn.": "spatial_path.2.bn.",
            "context_path.": "backbone.",
            "attention_refinement_module1.": "context_path.arm16.",
            "attention_refinement_module2.": "context_path.arm32.",
            "feature_fusion_module.convblock.conv1.": "fusion.block.conv.",
            "feature_fusion_module.convblock.bn.": "fusion.block.bn.",
            "feature_fusion_module.conv1.": "fusion.squeeze.",
            "feature_fusion_module.conv2.": "fusion.excite.",
            "conv.": "head.",
            "supervision1.": "aux_heads.0.",
            "supervision2.": "aux_heads.1.",
        },
        duplicate="context_path.features.",
    ),
    "coincheung": _Lineage(
        variant="paper",
        preprocessing={
            "channel_order": "rgb",
            "pixel_scale": 1.0 / 255.0,
            "mean": (0.3257, 0.3690, 0.3223),
            "std": (0.2112, 0.2148, 0.2115),
        },
        names={
            "sp.conv1.": "spatial_path.0.",
            "sp.conv2.": "spatial_path.1.",
            "sp.conv3.": "spatial_path.2.",
            "sp.conv_out.": "spatial_path.3.",
            "cp.resnet.": "backbone.",
            "cp.arm16.conv.": "context_path.arm16.block.",
            "cp.arm16.conv_atten.": "context_path.arm16.attention.",
            "cp.arm16.bn_atten.": "context_path.arm16.bn.",
            "cp.arm32.conv.": "context_path.arm32.block.",
            "cp.arm32.conv_atten.": "context_path.arm32.attention.",
            "cp.arm32.bn_atten.": "context_path.arm32.bn.",
            "cp.conv_avg.": "context_path.global_context.",
            "cp.conv_head16.": "context_path.merge16.",
            "cp.conv_head32.": "context_path.merge32.",
            "ffm.convblk.": "fusion.block.",
            "ffm.conv.": "fusion.attention.",
            "ffm.bn.": "fusion.bn.",
            "conv_out.conv.": "head.block.",
            "conv_out.conv_out.": "head.classifier.",
            "conv_out16.conv.": "aux_heads.0.block.",
            "conv_out16.conv_out.": "aux_heads.0.classifier.",
            "conv_out32.conv.": "aux_heads.1.block.",
            "conv_out32.conv_out.": "aux_heads.1.classifier.",
        },
    ),
}
_HEADS = {"rtda": "head.weight", "paper": "head.classifier.weight"}  # by variant: whose rows are the classes
_AUX = "aux_heads."


def detect_lineage(state_dict: Mapping[str, object]) -> str:
    """``"rtda"`` or ``"coincheung"``, by the names alone; wrappers are looked through.

    Raises:
        CheckpointError: If the names belong to neither.
    """
    return _detected(unwrapped(state_dict))


def load_foreign(model: BiSeNet | None, state_dict: Mapping[str, object]) -> ForeignCheckpoint:
    """Load a checkpoint of one of the papers' lineages, exactly or not at all.

    Args:
        model: The network to fill; None: one is built, its backbone and classes read off the checkpoint's shapes.
        state_dict: As ``torch.load(path, weights_only=True)`` gives it; wrappers and ``module.`` are looked through.

    Raises:
        CheckpointError: If it is of neither lineage, does not fit ``model``, or differs from its lineage; the
            message names the first five keys of each kind.
    """
    tensors = unwrapped(state_dict)
    name = _detected(tensors)
    lineage = _LINEAGES[name]
    translated, ignored = _translated(tensors, lineage)
    fits = _model_like(translated, lineage.variant) if model is None else _same_kind(model, translated, lineage.variant)
    aux_loaded = any(key.startswith(_AUX) for key in translated)
    expected = {key: t for key, t in fits.state_dict().items() if aux_loaded or not key.startswith(_AUX)}
    problem = difference(expected, translated)
    if problem:
        raise CheckpointError(
            f"this looks like a {name} checkpoint but differs (our names): {problem}",
            hint="other revisions of that code have other layers; convert it with the revision it was trained with",
        )
    if name == "rtda":
        _refuse_skipped_norm(translated)
    fits.load_state_dict(translated, strict=False)
    return ForeignCheckpoint(fits, name, lineage.preprocessing, ignored, aux_loaded)


def _detected(tensors: Mapping[str, Tensor]) -> str:
    explained = {
        name: sum(key.startswith(tuple(lineage.names)) for key in tensors) for name, lineage in _LINEAGES.items()
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
    unknown = [key for key in tensors if not key.startswith(tuple(_LINEAGES[best].names))]
    raise CheckpointError(
        f"unknown checkpoint: {len(unknown)} of {len(tensors)} names are neither RTDA's nor CoinCheung's BiSeNetV1, "
        f"such as {', '.join(key if key.isprintable() else repr(key) for key in unknown[:5])}",
        hint=f"known lineages: {', '.join(_LINEAGES)}",
    )


def _translated(tensors: Mapping[str, Tensor], lineage: _Lineage) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors under our names, and the names left out. Names the table does not know stay as they are."""
    prefixes = sorted(lineage.names, key=len, reverse=True)
    translated: dict[str, Tensor] = {}
    ignored: list[str] = []
    copies: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if lineage.duplicate and key.startswith(lineage.duplicate):
            ignored.append(key)
            copies["backbone." + key[len(lineage.duplicate) :]] = tensor
            continue
        prefix = next((p for p in prefixes if key.startswith(p)), "")
        translated[lineage.names.get(prefix, "") + key[len(prefix) :]] = tensor
    _add_copies(translated, copies)
    return translated, tuple(ignored)


def _add_copies(translated: dict[str, Tensor], copies: Mapping[str, Tensor]) -> None:
    """Use the second copy of the backbone where a saver that drops shared tensors kept only that one."""
    for key, tensor in copies.items():
        if key.startswith("backbone.fc."):
            continue
        if key in translated and not torch.equal(translated[key], tensor):
            raise CheckpointError(
                f"the checkpoint holds {key} twice with different values, so neither can be trusted",
                hint="save it again with torch.save(model.state_dict(), path) by the code that trained it",
            )
        translated.setdefault(key, tensor)


def _kind(translated: Mapping[str, Tensor], variant: str) -> tuple[str, str, int]:
    head = translated.get(_HEADS[variant])
    if head is None:
        raise CheckpointError(
            f"the checkpoint has no classifier ({_HEADS[variant]} by our names)",
            hint="save the whole model.state_dict(), its last layer too",
        )
    backbone = "resnet101" if "backbone.layer1.0.conv3.weight" in translated else "resnet18"
    return backbone, variant, int(head.shape[0])


def _model_like(translated: Mapping[str, Tensor], variant: str) -> BiSeNet:
    backbone, variant, num_classes = _kind(translated, variant)
    return BiSeNet(backbone, variant, num_classes)


def _same_kind(model: BiSeNet, translated: Mapping[str, Tensor], variant: str) -> BiSeNet:
    wanted = _kind(translated, variant)
    given = (model.backbone.name, model.variant, model.num_classes)
    if wanted != given:
        raise CheckpointError(
            "the checkpoint is a BiSeNet({!r}, {!r}, {}), the model a BiSeNet({!r}, {!r}, {})".format(*wanted, *given),
            hint="pass model=None to have the right one built",
        )
    return model


def _refuse_skipped_norm(translated: Mapping[str, Tensor]) -> None:
    """The code RTDA grew from has the same names but never runs the attention's batch norm.

    Its counter then stays 0 while others moved; run here, that norm would change the attention.
    """
    counters = {key: int(t) for key, t in translated.items() if key.endswith("num_batches_tracked")}
    skipped = [key for key, n in counters.items() if key.startswith("context_path.arm") and n == 0]
    if skipped and any(counters.values()):
        raise CheckpointError(
            "this checkpoint's attention batch norms never ran in training: it is of ooooverflow's BiSeNet, "
            "which skips them, and would give other results here",
            hint="train it again with variant rtda",
        )
