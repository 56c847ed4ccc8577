"""Networks: those of ``NETWORKS``, the papers' discriminators and translators; counts of parameters and cost.

Key names of a state dict: ``backbone`` (torchvision's names below it), ``head``, ``aux_heads``; a BiSeNet's also
``spatial_path``, ``context_path``, ``fusion``.
"""

from rtda_training.models.backbone_weights import BackboneReport, load_backbone_weights
from rtda_training.models.backbones import BACKBONES, Backbone, BackboneKind, build_backbone
from rtda_training.models.bisenet import BiSeNet
from rtda_training.models.complexity import OperationCount, count_macs, count_operations, count_parameters
from rtda_training.models.cyclegan import Generator, PatchDiscriminator
from rtda_training.models.deeplab import DeepLabV2
from rtda_training.models.discriminators import DISCRIMINATORS, Discriminator, build_discriminator
from rtda_training.models.fcn8s import FCN8s
from rtda_training.models.foreign import ForeignCheckpoint, load_foreign
from rtda_training.models.lineages import Preprocessing
from rtda_training.models.network import OUTPUT_STRIDE, DeployView, SegmentationNetwork, SegOutput
from rtda_training.models.networks import NETWORKS, build_network, network_class, network_settings
from rtda_training.models.state_dicts import read_weights

__all__ = [
    "BACKBONES",
    "DISCRIMINATORS",
    "NETWORKS",
    "OUTPUT_STRIDE",
    "Backbone",
    "BackboneKind",
    "BackboneReport",
    "BiSeNet",
    "DeepLabV2",
    "DeployView",
    "Discriminator",
    "FCN8s",
    "ForeignCheckpoint",
    "Generator",
    "OperationCount",
    "PatchDiscriminator",
    "Preprocessing",
    "SegOutput",
    "SegmentationNetwork",
    "build_backbone",
    "build_discriminator",
    "build_network",
    "count_macs",
    "count_operations",
    "count_parameters",
    "load_backbone_weights",
    "load_foreign",
    "network_class",
    "network_settings",
    "read_weights",
]
