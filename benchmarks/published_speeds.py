"""Speeds that others published, and the networks they are of: what ``estimate_fit.py`` holds the estimate against.

Every figure was read in the text whose address stands with it. Left out: those whose board, size, precision or program
is not told, batches of more than one, and times with reading, preprocessing or drawing in them.
"""

from __future__ import annotations

from typing import NamedTuple, Tuple

import torch
from torch import Tensor, nn

from rtda_export.roofline.devices import device_named
from rtda_training.models import BiSeNet, build_backbone, build_network
from rtda_training.models.backbones.resnet import Bottleneck


class Source(NamedTuple):
    """Where a figure was read, and what is told of its measurement."""

    name: str
    address: str
    told: str

    @property
    def text(self) -> str:
        return f"{self.name}: {self.told}"


class Figure(NamedTuple):
    """A published speed: of the network alone, batch 1."""

    network: str  # a key of NETWORKS
    size: str  # WIDTHxHEIGHT
    device: str
    precision: str
    fps: float
    source: Source

    @property
    def text(self) -> str:
        return f"{self.network} {self.size} {self.precision} on {device_named(self.device).title}"


def _of_ms(network: str, size: str, device: str, precision: str, ms: float, source: Source) -> Figure:
    return Figure(network, size, device, precision, 1e3 / ms, source)


_GITHUB = "https://github.com"
_BISENET = f"{_GITHUB}/CoinCheung/BiSeNet"
_OLD_BISENET = f"{_BISENET}/tree/b5fa169d522cf8d9e6219559e26d2f9c618fa4fd"
_T4_TRT8 = Source("CoinCheung/BiSeNet", _OLD_BISENET, "README of 2022, TensorRT 8.2")
_V100_TRT8 = Source("CoinCheung/BiSeNet", f"{_OLD_BISENET}/tensorrt", "README of 2022, TensorRT 8.2")
_A40_TRT10 = Source("CoinCheung/BiSeNet", _BISENET, "README, TensorRT 10.3")
_DUSTY = Source(
    "dusty-nv/jetson-inference",
    f"{_GITHUB}/dusty-nv/jetson-inference/blob/master/docs/segnet-console-2.md",
    "JetPack 4.2.1, MAXN",
)
_MMDEPLOY = Source(
    "mmdeploy",
    f"{_GITHUB}/open-mmlab/mmdeploy/blob/main/docs/en/03-benchmark/benchmark.md",
    "TensorRT 7.2, a wait behind each picture",
)
_BRENNAN = Source(
    "W. Brennan, TensorRT Shootout",
    "https://willbrennan.github.io/blog/2024/05/04/backbone-benchmark.html",
    "trtexec 10.0.1 without copies, one engine for all sizes",
)
_NANOSAM = Source("NVIDIA-AI-IOT/nanosam", f"{_GITHUB}/NVIDIA-AI-IOT/nanosam", "README, 2023; power mode not told")
_PADDLE = Source(
    "PaddlePaddle/models",
    f"{_GITHUB}/PaddlePaddle/models/blob/release/2.4/modelcenter/PP-LiteSeg/benchmark_en.md",
    "TensorRT 5 or 7, by PaddleSeg's infer_onnx_trt.py",
)
_LPSNET = Source(
    "YihengZhang-CV/LPS-Net, issue 3",
    f"{_GITHUB}/YihengZhang-CV/LPS-Net/issues/3",
    "TensorRT; full size and enlargement are assumed",
)
_GCNET = Source("gyyang23/GCNet", f"{_GITHUB}/gyyang23/GCNet", "README and torch_speed.py, PyTorch 1.12")
_TRIANGLENET = Source(
    "nailperry-zd/paddleseg-trianglenet",
    f"{_GITHUB}/nailperry-zd/paddleseg-trianglenet",
    "README, Paddle Inference; precision and which A100 are not told",
)
_TORCH2TRT = Source("NVIDIA-AI-IOT/torch2trt", f"{_GITHUB}/NVIDIA-AI-IOT/torch2trt", "README; power mode not told")
_TF_QUANTIZATION = Source(
    "NVIDIA TensorFlow Quantization Toolkit",
    "https://docs.nvidia.com/deeplearning/tensorrt/tensorflow-quantization-toolkit/docs/docs/model_zoo.html",
    "TensorRT 8.4, ResNet v1; which A100 is not told",
)


def _mlperf(version: str, system: str, told: str) -> Source:
    """NVIDIA's ResNet-50 in the scenario of one picture after another; mean latency of the log."""
    folder = f"closed/NVIDIA/results/{system}/resnet50/SingleStream/performance/run_1"
    repository = f"mlcommons/inference_results_{version}"
    return Source(f"MLPerf Inference {version}", f"{_GITHUB}/{repository}/tree/main/{folder}", told)


# Determine the shares. The rule: fp16 engines on pictures of at least half a megapixel; of sources with many sizes of a
# network, those nearest to two megapixels, and the 1024x512 that Cityscapes' networks are run at.
FITTED = (
    Figure("BiSeNetV1", "2048x1024", "t4", "fp16", 78, _T4_TRT8),
    Figure("BiSeNetV1", "2048x1024", "v100", "fp16", 186, _V100_TRT8),
    Figure("BiSeNetV1", "2048x1024", "a40", "fp16", 239, _A40_TRT10),
    Figure("FCN-ResNet18", "1024x512", "xavier-agx", "fp16", 175, _DUSTY),
    Figure("FCN-ResNet18", "2048x1024", "xavier-agx", "fp16", 47, _DUSTY),
    _of_ms("FCN-ResNet50-D8", "1024x512", "t4", "fp16", 23.97, _MMDEPLOY),
    _of_ms("NanoSAM-ResNet18", "1024x1024", "orin-agx-64gb", "fp16", 4.2, _NANOSAM),
    _of_ms("ResNet-18", "1920x1056", "rtx-3090", "fp16", 2.20, _BRENNAN),
    _of_ms("ResNet-50", "1920x1056", "rtx-3090", "fp16", 5.68, _BRENNAN),
)

_BRENNAN_MS = {
    "ResNet-18": {
        "640x480": (1.85, 0.67, 0.44),
        "1024x768": (2.91, 1.07, 0.58),
        "1920x1056": (6.16, 2.20, 1.13),
        "3840x2144": (22.64, 7.53, 3.41),
    },
    "ResNet-50": {
        "640x480": (4.77, 1.60, 1.05),
        "1024x768": (7.34, 2.80, 1.55),
        "1920x1056": (14.55, 5.68, 3.01),
        "3840x2144": (53.57, 19.15, 9.52),
    },
}
FURTHER = (
    Figure("BiSeNetV1", "2048x1024", "t4", "fp32", 25, _T4_TRT8),
    Figure("BiSeNetV1", "2048x1024", "a40", "fp32", 112, _A40_TRT10),
    Figure("BiSeNetV1", "2048x1024", "t4", "int8", 141, _T4_TRT8),
    Figure("BiSeNetV1", "2048x1024", "v100", "int8", 187, _V100_TRT8),
    Figure("BiSeNetV1", "2048x1024", "a40", "int8", 435, _A40_TRT10),
    _of_ms("FCN-ResNet50-D8", "1024x512", "t4", "fp32", 128.42, _MMDEPLOY),
    _of_ms("FCN-ResNet50-D8", "1024x512", "t4", "int8", 18.13, _MMDEPLOY),
    Figure("PP-LiteSeg-T", "1024x512", "gtx-1080-ti", "fp32", 273.6, _PADDLE),
    Figure("PP-LiteSeg-T", "1536x768", "gtx-1080-ti", "fp32", 143.6, _PADDLE),
    Figure("PP-LiteSeg-B", "1024x512", "gtx-1080-ti", "fp32", 195.3, _PADDLE),
    Figure("PP-LiteSeg-B", "1536x768", "gtx-1080-ti", "fp32", 102.6, _PADDLE),
    Figure("DDRNet-23-slim", "2048x1024", "gtx-1080-ti", "fp32", 115.2, _LPSNET),
    *(
        Figure("FCN-ResNet18", size, "xavier-agx", "fp16", fps, _DUSTY)
        for size, fps in (
            ("864x480", 190),
            ("640x512", 224),
            ("640x360", 325),
            ("512x400", 340),
            ("576x320", 360),
            ("512x320", 372),  # published twice, 370 and 375
            ("512x256", 480),
            ("320x320", 508),
        )
    ),
    *(
        _of_ms(network, size, "rtx-3090", precision, ms, _BRENNAN)
        for network, sizes in _BRENNAN_MS.items()
        for size, times in sizes.items()
        for precision, ms in zip(("fp32", "fp16", "int8"), times)
        if (size, precision) != ("1920x1056", "fp16")  # fitted
    ),
)

# Sources that joined when the shares had been fitted to the first five figures: what those shares said of them is a
# check on speeds that nothing had been chosen by.
LATER = (_MMDEPLOY, _NANOSAM, _BRENNAN, _PADDLE, _LPSNET)

# A classifier's 224x224: a twentieth of a megapixel. What an engine does there says little of a segmentation network.
SMALL = (
    _of_ms("ResNet-50", "224x224", "t4", "fp32", 2.97, _MMDEPLOY),
    _of_ms("ResNet-50", "224x224", "t4", "fp16", 1.26, _MMDEPLOY),
    _of_ms("ResNet-50", "224x224", "t4", "int8", 1.21, _MMDEPLOY),
    _of_ms("ResNet-50", "224x224", "t4", "int8", 1.000, _mlperf("v0.7", "T4x1_TRT", "TensorRT 7.2")),
    _of_ms("ResNet-50", "224x224", "a100", "int8", 0.505, _mlperf("v0.7", "DGX-A100_A100-SXM4x1_TRT", "TensorRT 7.2")),
    _of_ms("ResNet-50", "224x224", "a100", "int8", 0.46, _TF_QUANTIZATION),
    _of_ms("ResNet-50", "224x224", "xavier-agx", "int8", 1.820, _mlperf("v1.1", "AGX_Xavier_TRT", "TensorRT 8.0")),
    _of_ms("ResNet-50", "224x224", "xavier-nx", "int8", 2.456, _mlperf("v2.0", "Xavier_NX_TRT", "TensorRT 8")),
    _of_ms("ResNet-50", "224x224", "orin-agx-64gb", "int8", 0.636, _mlperf("v3.1", "Orin_TRT", "TensorRT 8.5")),
    _of_ms("ResNet-50", "224x224", "orin-nx-16gb", "int8", 1.079, _mlperf("v3.1", "Orin_NX_TRT", "TensorRT 8.5")),
    Figure("ResNet-18", "224x224", "xavier-agx", "fp16", 712, _TORCH2TRT),
    Figure("ResNet-50", "224x224", "xavier-agx", "fp16", 312, _TORCH2TRT),
)

# PyTorch's and Paddle's own runtimes.
NO_ENGINES = (
    Figure("BiSeNetV1", "2048x1024", "a100", "fp32", 116.8, _GCNET),
    Figure("DDRNet-23-slim", "2048x1024", "a100", "fp32", 166.4, _GCNET),
    Figure("GCNet-S", "2048x1024", "a100", "fp32", 193.3, _GCNET),
    Figure("BiSeNetV1", "1536x768", "a100", "fp32", 83.9, _TRIANGLENET),
    Figure("PP-LiteSeg-T", "1024x512", "a100", "fp32", 219.4, _TRIANGLENET),
    Figure("PP-LiteSeg-B", "1024x512", "a100", "fp32", 184.3, _TRIANGLENET),
    Figure("PP-LiteSeg-T", "1536x768", "a100", "fp32", 141.2, _TRIANGLENET),
    Figure("PP-LiteSeg-B", "1536x768", "a100", "fp32", 118.4, _TRIANGLENET),
)


class FullSize(nn.Module):
    """Coarse logits enlarged eight times, as most published engines give them."""

    def __init__(self, view: nn.Module) -> None:
        super().__init__()
        self.view = view

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.interpolate(self.view(image), scale_factor=8.0, mode="bilinear", align_corners=False)


class Classes(nn.Module):
    """The class of each pixel, as mmdeploy's engines give it."""

    def __init__(self, view: nn.Module) -> None:
        super().__init__()
        self.view = view

    def forward(self, image: Tensor) -> Tensor:
        classes: Tensor = self.view(image).argmax(1, keepdim=True)
        return classes


class FcnResNet18(nn.Module):
    """ResNet-18 of stride 32 and torchvision's FCN head, its coarse grid not enlarged, as jetson-inference runs it."""

    def __init__(self, num_classes: int = 21) -> None:
        super().__init__()
        self.backbone = build_backbone("resnet18")
        self.head = nn.Sequential(
            nn.Conv2d(512, 128, 3, padding=1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, num_classes, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(image)[3])
        return logits


class Classifier(nn.Module):
    """A backbone's last map, averaged, and one matrix: a network of ImageNet's 1000 classes."""

    def __init__(self, last_map: nn.Module, channels: int) -> None:
        super().__init__()
        self.last_map = last_map
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, 1000)

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.fc(self.pool(self.last_map(image)).flatten(1))
        return scores


class LastMap(nn.Module):
    """The coarsest map of a backbone of ours."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.backbone = build_backbone(name)

    def forward(self, image: Tensor) -> Tensor:
        last: Tensor = self.backbone(image)[3]
        return last


def _stem(deep: bool) -> nn.Sequential:
    """A 7x7 convolution of stride 2, or, in mmsegmentation's ResNetV1c, three of 3x3; then the pooling."""
    layers = [(3, 32, 3, 2), (32, 32, 3, 1), (32, 64, 3, 1)] if deep else [(3, 64, 7, 2)]
    parts = [
        part
        for i, o, kernel, stride in layers
        for part in (nn.Conv2d(i, o, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(o), nn.ReLU())
    ]
    return nn.Sequential(*parts, nn.MaxPool2d(3, 2, 1))


def resnet50(deep_stem: bool = False, dilated: bool = False) -> nn.Sequential:
    """ResNet-50's convolutions, at stride 32; ``dilated``: at stride 8, with dilations 2 and 4 in the last stages."""
    steps = ((1, 1), (2, 1), (1, 2), (1, 4)) if dilated else ((1, 1), (2, 1), (2, 1), (2, 1))
    blocks, channels = [], 64
    for width, depth, (stride, dilation) in zip((64, 128, 256, 512), (3, 4, 6, 3), steps):
        for place in range(depth):
            blocks.append(Bottleneck(channels, width, 1 if place else stride, dilation))
            channels = 4 * width
    return nn.Sequential(_stem(deep_stem), *blocks)


class FcnResNet50D8(nn.Module):
    """mmsegmentation's FCN: a dilated ResNetV1c-50, two convolutions, a third on both their ends side by side."""

    def __init__(self, num_classes: int = 19) -> None:
        super().__init__()
        self.backbone = resnet50(deep_stem=True, dilated=True)
        self.convs = nn.Sequential(_conv_norm_relu(2048, 512), _conv_norm_relu(512, 512))
        self.conv_cat = _conv_norm_relu(2048 + 512, 512)
        self.classifier = nn.Conv2d(512, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        last = self.backbone(image)
        logits: Tensor = self.classifier(self.conv_cat(torch.cat([last, self.convs(last)], 1)))
        return logits


def _conv_norm_relu(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())


class NanoSam(nn.Module):
    """NanoSAM's image encoder: ResNet-18 and a neck that gives 256 channels at 1/16 of 1024x1024."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = LastMap("resnet18")
        narrow = [nn.Conv2d(512, 256, 3, padding=1), nn.GELU()]
        same = [part for _ in range(2) for part in (nn.Conv2d(256, 256, 3, padding=1), nn.GELU())]
        wider = [nn.ConvTranspose2d(256, 256, 3, 2, 1, 1), nn.GELU()]
        last = [nn.Conv2d(256, 256, 3, padding=1), nn.GELU(), nn.Conv2d(256, 256, 1)]
        self.neck = nn.Sequential(*narrow, *same, *wider, *last)
        self.position = nn.Parameter(torch.zeros(1, 256, 64, 64))

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.neck(self.backbone(image)) + self.position
        return features


NETWORKS = {
    "BiSeNetV1": lambda: FullSize(BiSeNet("resnet18", "paper").deploy_view()),
    "FCN-ResNet18": FcnResNet18,
    "FCN-ResNet50-D8": lambda: Classes(FullSize(FcnResNet50D8())),
    "NanoSAM-ResNet18": NanoSam,
    "ResNet-18": lambda: Classifier(LastMap("resnet18"), 512),
    "ResNet-50": lambda: Classifier(resnet50(), 2048),
    "PP-LiteSeg-T": lambda: FullSize(build_network("ppliteseg", variant="t").deploy_view()),
    "PP-LiteSeg-B": lambda: FullSize(build_network("ppliteseg", variant="b").deploy_view()),
    "DDRNet-23-slim": lambda: FullSize(build_network("ddrnet").deploy_view()),
    "GCNet-S": lambda: FullSize(build_network("gcnet", variant="s").deploy_view()),
    "BiSeNet R18": lambda: BiSeNet("resnet18", "rtda").deploy_view(),
    "BiSeNet R101": lambda: BiSeNet("resnet101", "rtda").deploy_view(),
}
# Sizes of maps are numbers in their graphs: they are traced at the size that is asked for.
OF_ONE_SIZE: Tuple[str, ...] = ("DDRNet-23-slim", "GCNet-S", "PP-LiteSeg-T", "PP-LiteSeg-B", "NanoSAM-ResNet18")
