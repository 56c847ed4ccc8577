"""A model repository for Triton Inference Server's ONNX Runtime backend.

Source: Triton's user guide, "Model Repository" and "Model Configuration" (layout, ``name``, ``platform``,
``max_batch_size``, ``dims``, ``data_type``), and ``model_config.proto``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Tuple

from rtda_export.programs.base import Program, Served, class_comments

__all__ = ["TRITON"]

_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}


def _copy(folder: Path, stem: str) -> Path:
    return folder / "triton" / stem / "1" / "model.onnx"  # the name that the backend looks for


def _write(served: Served) -> Tuple[Path, ...]:
    """``triton/<stem>/config.pbtxt`` and ``triton/<stem>/1/model.onnx``, a copy of the file, beside it.

    ``max_batch_size`` is 0: the number of pictures is fixed in the file, so ``dims`` are the whole shapes.
    """
    from rtda_deploy.files import atomic_path, writable_folder, write_text

    model = _copy(served.onnx.parent, served.stem)
    writable_folder(model.parent)
    with atomic_path(model) as temporary:
        shutil.copyfile(served.onnx, temporary)
    return write_text(model.parent.parent / "config.pbtxt", _config(served)), model


def _config(served: Served) -> str:
    spec, batch = served.spec, served.batch
    height, width = spec.size_hw
    taken = _tensor("image", _TYPES[spec.input_dtype], (batch, *spec.input_shape[1:]))
    given = [_tensor("mask", "TYPE_UINT8", (batch, height, width))]
    if served.confidence:
        given.append(_tensor("confidence", "TYPE_FP32", (batch, height, width)))
    joined = ",\n".join(given)
    return (
        "# Written by rtda-deploy export --for triton, which writes it anew each time.\n"
        f"# image: {width}x{height} pixels, BGR: the whole frame, resized bilinearly, and nothing else done to it.\n"
        f"# mask: the class of each pixel:\n{class_comments(spec)}"
        f"name: {json.dumps(served.stem, ensure_ascii=False)}\n"
        'platform: "onnxruntime_onnx"\n'
        "max_batch_size: 0\n"
        f"input [\n{taken}\n]\n"
        f"output [\n{joined}\n]\n"
    )


def _tensor(name: str, kind: str, dims: Tuple[int, ...]) -> str:
    return f'  {{\n    name: "{name}"\n    data_type: {kind}\n    dims: [ {", ".join(map(str, dims))} ]\n  }}'


TRITON = Program(
    name="triton",
    title="Triton Inference Server",
    input="uint8",
    layouts=("nhwc", "nchw"),
    output="mask",
    precisions=("fp32", "fp16", "int8"),
    refused="",
    copy=_copy,
    write=_write,
)
