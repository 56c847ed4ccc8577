"""The published lineages whose checkpoints load here, one table of name prefixes each.

What a table does not explain is refused, with the keys that differ (``foreign``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypedDict

from torch import Tensor

from rtda_deploy.errors import CheckpointError
from rtda_training.models.backbones import ddrnet, gcnet

__all__ = ["LINEAGES", "Lineage", "Preprocessing"]


class Preprocessing(TypedDict):
    """The fields of a ``ModelSpec`` that a lineage decides: ``(pixel * pixel_scale - mean) / std``, pixels 0..255."""

    channel_order: str
    pixel_scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str


@dataclasses.dataclass(frozen=True)
class Lineage:
    """One family of checkpoints.

    Attributes:
        network: A key of ``NETWORKS``.
        settings: From the weights by our names to the network's settings.
        preprocessing: What its weights expect of pictures.
        names: Its prefixes of names, each with ours; the longest that fits wins.
        classifier: The tensor, by our name, whose rows are the classes.
        duplicate: Prefix under which the backbone is stored a second time; empty: it is not.
        endings: Its endings of names, each with ours.
        ones: Endings of names whose tensors are left out where they are 1, and refused where they are not.
        zeros: Tensors, by our names, that its files may leave away because they are 0 there.
        fused: Part of a name that only a file of fused blocks has; empty: there are no such files.
    """

    network: str
    settings: Callable[[Mapping[str, Tensor]], dict[str, str]]
    preprocessing: Preprocessing
    names: Mapping[str, str]
    classifier: str
    duplicate: str = ""
    endings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ones: tuple[str, ...] = ()
    zeros: tuple[str, ...] = ()
    fused: str = ""


def _bisenet(variant: str) -> Callable[[Mapping[str, Tensor]], dict[str, str]]:
    def settings(weights: Mapping[str, Tensor]) -> dict[str, str]:
        deep = "backbone.layer1.0.conv3.weight" in weights
        return {"backbone": "resnet101" if deep else "resnet18", "variant": variant}

    return settings


def _by_width(
    network: str, known: Mapping[int, tuple[str, Mapping[str, str]]]
) -> Callable[[Mapping[str, Tensor]], dict[str, str]]:
    """Settings by the channels of the first convolution; each width has a word for people."""

    def settings(weights: Mapping[str, Tensor]) -> dict[str, str]:
        first = weights.get("backbone.stem.0.0.conv.weight")
        width = 0 if first is None else int(first.shape[0])
        if width not in known:
            words = ", ".join(f"{count} ({word})" for count, (word, _) in known.items())
            raise CheckpointError(f"it is a {network} of width {width or 'unknown'}", hint=f"known widths: {words}")
        return dict(known[width][1])

    return settings


_GCNETS = {width: (name, {"backbone": "gcnet", "variant": name}) for width, name in ((32, "s"), (24, "w24"))}
_DDRNETS = {32: ("23-slim", {"backbone": "ddrnet23-slim"})}


# RGB, ImageNet's mean and deviation, as mmsegmentation and the authors of DDRNet prepare pictures.
_IMAGENET = Preprocessing(
    channel_order="rgb",
    pixel_scale=1.0 / 255.0,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    interpolation="linear",
)


def _behind(prefix: str, names: Mapping[str, str]) -> dict[str, str]:
    """A backbone's layout as part of a whole network's."""
    return {prefix + theirs: f"backbone.{ours}" for theirs, ours in names.items()}


def _two_branches(network: str, names: Mapping[str, str], fused: str = "") -> Lineage:
    """A lineage of DDRNets or GCNets."""
    ddr = network == "ddrnet"
    return Lineage(
        network=network,
        settings=_by_width("DDRNet", _DDRNETS) if ddr else _by_width("GCNet", _GCNETS),
        preprocessing=_IMAGENET,
        names=names,
        classifier="head.classifier.conv.weight",
        zeros=tuple(f"backbone.{name}" for name in ddrnet.STEM_BIASES) if ddr else (),
        fused=fused,
    )


def _pyramid_of_authors() -> dict[str, str]:
    """DDRNet's DAPPM: batch norm, ReLU and convolution in a row, of a scale that pools behind its pooling."""
    parts = {"scale0": ("scales.0", 0), "compression": ("compression", 0), "shortcut": ("shortcut", 0)}
    parts.update({f"scale{n}": (f"scales.{n}", 1) for n in range(1, 5)})
    parts.update({f"process{n}": (f"processes.{n - 1}", 0) for n in range(1, 5)})
    found = {f"spp.{theirs}.{first}.": f"pyramid.{ours}.bn." for theirs, (ours, first) in parts.items()}
    return {**found, **{f"spp.{theirs}.{n + 2}.": f"pyramid.{ours}.conv." for theirs, (ours, n) in parts.items()}}


def _head_of_authors(theirs: str, ours: str) -> dict[str, str]:
    layers = {"bn1.": "block.bn.", "conv1.": "block.conv.", "bn2.": "classifier.bn.", "conv2.": "classifier.conv."}
    return {f"{theirs}.{layer}": f"{ours}.{place}" for layer, place in layers.items()}


# Of a GCNet's head: a batch norm, a ReLU, then a module of convolution and batch norm. Of a DDRNet's: a module of batch
# norm, ReLU and convolution, then a batch norm.
_GCNET_HEAD = {"0.": "block.bn.", "2.conv.": "block.conv.", "2.bn.": "classifier.bn."}
_DDRNET_HEAD = {"0.bn.": "block.bn.", "0.conv.": "block.conv.", "1.": "classifier.bn."}


def _mmseg_head(theirs: str, ours: str, layers: Mapping[str, str], *classifiers: str) -> dict[str, str]:
    """A head's layers, and its classifier under any of its names."""
    found = {f"decode_head.{theirs}.{layer}": f"{ours}.{place}" for layer, place in layers.items()}
    return {**found, **{f"decode_head.{name}.": f"{ours}.classifier.conv." for name in classifiers}}


def _ppliteseg(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """By the blocks of its backbone, of which STDC-2 has twelve."""
    large = any(name.startswith("backbone.features.13.") for name in weights)
    return {"backbone": "stdc2" if large else "stdc1", "variant": "b" if large else "t"}


def _paddle() -> dict[str, str]:
    """PaddleSeg's prefixes: a module of convolution and batch norm has them as _conv and _batch_norm."""
    modules = {f"ppseg_head.cm.stages.{n}.1": f"pyramid.stages.{n}" for n in range(3)}
    modules["ppseg_head.cm.conv_out"] = "pyramid.out"
    names: dict[str, str] = {}
    for n, head in enumerate(("head", "aux_heads.0", "aux_heads.1")):
        arm, fusion = f"ppseg_head.arm_list.{n}", f"fusions.{n}"
        modules.update({f"{arm}.conv_x": f"{fusion}.fine", f"{arm}.conv_out": f"{fusion}.out"})
        modules.update({f"{arm}.conv_xy_atten.{k}": f"{fusion}.attention.{k}" for k in (0, 1)})
        modules[f"seg_heads.{n}.conv"] = f"{head}.block"
        names[f"seg_heads.{n}.conv_out."] = f"{head}.classifier."
    for theirs, ours in modules.items():
        names.update({f"{theirs}._conv.": f"{ours}.conv.", f"{theirs}._batch_norm.": f"{ours}.bn."})
    return {"backbone.features.": "backbone.features.", **names}


# mmsegmentation's DAPPM: of a scale that pools, the pooling is module 0.
_MMSEG_PYRAMID = {
    "backbone.spp.scales.0.": "pyramid.scales.0.",
    **{f"backbone.spp.scales.{n}.1.": f"pyramid.scales.{n}." for n in range(1, 5)},
    "backbone.spp.": "pyramid.",
}

LINEAGES: dict[str, Lineage] = {
    "rtda": Lineage(
        network="bisenet",
        settings=_bisenet("rtda"),
        # BGR, 0..255, minus the Caffe mean, no deviation.
        preprocessing={
            "channel_order": "bgr",
            "pixel_scale": 1.0,
            "mean": (104.007, 116.669, 122.679),
            "std": (1.0, 1.0, 1.0),
            "interpolation": "cubic",
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
        classifier="head.weight",
        duplicate="context_path.features.",
    ),
    "coincheung": Lineage(
        network="bisenet",
        settings=_bisenet("paper"),
        preprocessing={
            "channel_order": "rgb",
            "pixel_scale": 1.0 / 255.0,
            "mean": (0.3257, 0.3690, 0.3223),
            "std": (0.2112, 0.2148, 0.2115),
            "interpolation": "linear",
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
        classifier="head.classifier.weight",
    ),
    "gcnet": _two_branches(
        "gcnet",
        {
            **_behind("backbone.", gcnet.LAYOUTS[0]),
            **_MMSEG_PYRAMID,
            # cls_seg is what the code calls its classifier, conv_seg the name it is stored under in mmsegmentation.
            **_mmseg_head("head", "head", _GCNET_HEAD, "conv_seg", "cls_seg"),
            **_mmseg_head("aux_head_c4", "aux_heads.0", _GCNET_HEAD, "aux_cls_seg_c4"),
        },
        gcnet.FUSED_KEY,
    ),
    "ddrnet": _two_branches(
        "ddrnet",
        {
            **_behind("", ddrnet.AUTHORS),
            **_pyramid_of_authors(),
            **_head_of_authors("final_layer", "head"),
            **_head_of_authors("seghead_extra", "aux_heads.0"),
        },
    ),
    "ddrnet-mmseg": _two_branches(
        "ddrnet",
        {
            **_behind("backbone.", ddrnet.MMSEG),
            **_MMSEG_PYRAMID,
            **_mmseg_head("head", "head", _DDRNET_HEAD, "conv_seg", "cls_seg"),
            **_mmseg_head("aux_head", "aux_heads.0", _DDRNET_HEAD, "aux_cls_seg"),
        },
    ),
    "ppliteseg": Lineage(
        network="ppliteseg",
        settings=_ppliteseg,
        preprocessing={
            "channel_order": "rgb",
            "pixel_scale": 1.0 / 255.0,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "interpolation": "linear",
        },
        names=_paddle(),
        classifier="head.classifier.weight",
        endings={"._mean": ".running_mean", "._variance": ".running_var"},
        ones=("._scale",),
    ),
}
