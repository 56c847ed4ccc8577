"""Speeds that others published: what ``estimate_fit.py`` holds the estimate against.

Every figure was read in the text whose address stands with it. Left out: those whose board, size, precision or program
is not told, batches of more than one, and times with reading, preprocessing or drawing in them.
"""

from __future__ import annotations

from typing import NamedTuple

from rtda_export.roofline.devices import device_named


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

    network: str  # a key of published_networks.NETWORKS
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
