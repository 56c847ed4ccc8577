"""A configuration of DeepStream's ``nvinfer`` for semantic segmentation.

``nvinfer`` feeds float planes, ``net-scale-factor * (pixel - offset)``, with one factor for all channels, so that an
ImageNet std cannot be said in it. The graph therefore takes the pixels themselves (``input`` pixels), and factor and
offsets are 1 and 0. Its parser gives a pixel the class of the largest value above ``segmentation-threshold``, which may
not be negative: of probabilities at the input's size with the threshold 0 that is our mask.

Source: DeepStream's plugin guide, "Gst-nvinfer", and the constants of ``gstnvinfer_property_parser.h``,
``nvdsinfer_context.h`` and ``nvbufsurftransform.h``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

from rtda_export.programs.base import Program, Served, class_comments

__all__ = ["DEEPSTREAM"]

_MODES = {"fp32": 0, "fp16": 2}  # NvDsInferNetworkMode


def _write(served: Served) -> Tuple[Path, ...]:
    """``<name of the .onnx>.nvinfer.txt`` beside it; paths in it are relative to its own folder."""
    from rtda_deploy.files import write_text

    return (write_text(served.onnx.with_name(f"{served.onnx.stem}.nvinfer.txt"), _config(served)),)


def _config(served: Served) -> str:
    height, width = served.spec.size_hw
    values = {
        "onnx-file": served.onnx.name,
        "batch-size": served.batch,
        "network-mode": _MODES[served.precision],
        "network-type": 2,  # NvDsInferNetworkType_Segmentation
        "infer-dims": f"3;{height};{width}",
        "network-input-order": 0,  # NCHW
        "model-color-format": 1,  # BGR
        "net-scale-factor": 1.0,
        "offsets": "0.0;0.0;0.0",
        "maintain-aspect-ratio": 0,
        "scaling-filter": 1,  # NvBufSurfTransformInter_Bilinear
        "output-blob-names": "probabilities",
        "num-detected-classes": served.spec.num_classes,
        "segmentation-output-order": 0,  # NCHW
        "segmentation-threshold": 0.0,
        "gie-unique-id": 1,
        "process-mode": 1,  # whole frames
    }
    lines = "".join(f"{key}={value}\n" for key, value in values.items())
    return (
        "# Written by rtda-deploy export --for deepstream, which writes it anew each time.\n"
        "# Channel order, scale, mean and std are in the graph: factor 1 and offsets 0 are as they should be.\n"
        f"# Classes of the map in NvDsInferSegmentationMeta:\n{class_comments(served.spec)}"
        f"[property]\n{lines}"
    )


DEEPSTREAM = Program(
    name="deepstream",
    title="DeepStream's nvinfer",
    input="pixels",
    layouts=("nchw",),
    output="probabilities",
    precisions=("fp32", "fp16"),
    refused="nvinfer reads ranges of INT8 from a table of its own, and what it makes of those in a file was not tried",
    copy=None,
    write=_write,
)
