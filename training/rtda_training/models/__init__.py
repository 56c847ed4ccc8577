"""Networks: BiSeNet, DeepLab-v2 and FCN-8s, the papers' discriminators and translators, and what they weigh.

Key names of a state dict: ``backbone`` (torchvision's names below it), ``head``, ``aux_heads``; a BiSeNet's also
``spatial_path``, ``context_path``, ``fusion``.
"""

from .backbone_weights import BackboneReport, load_backbone_weights
from .bisenet import SIZE_MULTIPLE, VARIANTS, BiSeNet
from .complexity import OperationCount, count_macs, count_operations, count_parameters
from .deeplab import DeepLabV2
from .discriminators import DISCRIMINATORS, Discriminator, build_discriminator
from .factory import NETWORKS, NetworkKind, build_network, network_kind
from .fcn8s import FCN8s
from .foreign import ForeignCheckpoint, Preprocessing, detect_lineage, load_foreign
from .network import OUTPUT_STRIDE, DeployView, SegmentationNetwork
from .output import SegOutput
from .resnet import BACKBONES, ResNet
from .state_dicts import read_weights
from .translation import Generator, PatchDiscriminator
from .vgg import VGG16

__all__ = [
    "BACKBONES",
    "DISCRIMINATORS",
    "NETWORKS",
    "OUTPUT_STRIDE",
    "SIZE_MULTIPLE",
    "VARIANTS",
    "VGG16",
    "BackboneReport",
    "BiSeNet",
    "DeepLabV2",
    "DeployView",
    "Discriminator",
    "FCN8s",
    "ForeignCheckpoint",
    "Generator",
    "NetworkKind",
    "OperationCount",
    "PatchDiscriminator",
    "Preprocessing",
    "ResNet",
    "SegOutput",
    "SegmentationNetwork",
    "build_discriminator",
    "build_network",
    "count_macs",
    "count_operations",
    "count_parameters",
    "detect_lineage",
    "load_backbone_weights",
    "load_foreign",
    "network_kind",
    "read_weights",
]
