"""The two published lineages whose checkpoints load here: RTDA's and CoinCheung's BiSeNetV1.

Each is one table of name prefixes. What a table does not explain is refused, with the keys that differ (``foreign``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

__all__ = ["LINEAGES", "Lineage", "Preprocessing"]


class Preprocessing(TypedDict):
    """The fields of a ``ModelSpec`` that a lineage decides: ``(pixel * pixel_scale - mean) / std``, pixels 0..255."""

    channel_order: str
    pixel_scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str


@dataclass(frozen=True)
class Lineage:
    """One family of checkpoints.

    Attributes:
        variant: Of our BiSeNet.
        preprocessing: What its weights expect of pictures.
        names: Its prefixes of names, each with ours; the longest that fits wins.
        classifier: The tensor, by our name, whose rows are the classes.
        duplicate: Prefix under which the backbone is stored a second time; empty: it is not.
    """

    variant: str
    preprocessing: Preprocessing
    names: dict[str, str]
    classifier: str
    duplicate: str = ""


LINEAGES = {
    "rtda": Lineage(
        variant="rtda",
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
        variant="paper",
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
}
