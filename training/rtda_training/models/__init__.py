"""Networks: BiSeNet in two variants, the papers' discriminators, and what they weigh.

Key names of a BiSeNet's state dict: ``backbone`` (torchvision's names below it), ``spatial_path``, ``context_path``,
``fusion``, ``head``, ``aux_heads``.
"""

from .backbone_weights import BackboneReport, load_backbone_weights
from .bisenet import OUTPUT_STRIDE, SIZE_MULTIPLE, VARIANTS, BiSeNet, DeployView
from .complexity import OperationCount, count_macs, count_operations, count_parameters
from .discriminators import DISCRIMINATORS, Discriminator, build_discriminator
from .foreign import ForeignCheckpoint, Preprocessing, detect_lineage, load_foreign
from .output import SegOutput
from .resnet import BACKBONES, ResNet
from .state_dicts import read_weights

__all__ = [
    "BACKBONES",
    "DISCRIMINATORS",
    "OUTPUT_STRIDE",
    "SIZE_MULTIPLE",
    "VARIANTS",
    "BackboneReport",
    "BiSeNet",
    "DeployView",
    "Discriminator",
    "ForeignCheckpoint",
    "OperationCount",
    "Preprocessing",
    "ResNet",
    "SegOutput",
    "build_discriminator",
    "count_macs",
    "count_operations",
    "count_parameters",
    "detect_lineage",
    "load_backbone_weights",
    "load_foreign",
    "read_weights",
]
