"""What a network computes inside, and how alike two of its versions answer: run in ONNX Runtime on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from rtda_deploy.errors import ExportError
from rtda_deploy.optional import require

__all__ = [
    "agreement",
    "answers",
    "check_images",
    "check_rounding",
    "mask_of",
    "open_session",
    "reference_answers",
    "signal_to_noise",
    "tensors",
]

CHUNK_BYTES = 256 << 20  # of intermediate tensors held at a time


def open_session(model: Any, threads: int = 0) -> Any:
    """An ``onnxruntime.InferenceSession`` of a model on the CPU.

    Args:
        model: ``onnx.ModelProto``, or its bytes, or a path.
        threads: 0: as many as there are cores.

    Raises:
        ExportError: If ONNX Runtime does not take it.
    """
    ort: Any = require("onnxruntime", extra="export", purpose="to run the network")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # fatal only; what fails is raised
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    content = model.SerializeToString() if hasattr(model, "SerializeToString") else model
    try:
        return ort.InferenceSession(content, sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as err:  # ONNX Runtime's errors share no base
        raise ExportError(
            "ONNX Runtime does not run this network",
            why=str(err).strip().splitlines()[0][:200],
            hint="pip install --upgrade onnxruntime",
        ) from err


def answers(model: Any, images: Sequence[np.ndarray], *, threads: int = 0) -> list[np.ndarray]:
    """The network's one output for each image: logits float32 (C, h, w), or a mask uint8 (H, W).

    Args:
        model: As for :func:`open_session`.
        images: Preprocessed, float32 (1, 3, H, W).
        threads: 0: as many as there are cores.
    """
    session = open_session(model, threads)
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    return [np.asarray(session.run([output], {name: image})[0][0]) for image in images]


def reference_answers(model: Any, images: Sequence[np.ndarray], *, threads: int = 0) -> list[np.ndarray]:
    """As :func:`answers`, of a float32 model that others are measured against.

    Raises:
        ExportError: If it answers NaN or infinity itself.
    """
    found = answers(model, images, threads=threads)
    bad = [index for index, answer in enumerate(found) if not np.isfinite(answer).all()]
    if bad:
        raise ExportError(
            f"the network gives NaN or infinity on image {bad[0]} in float32 already",
            hint="look for NaN in its weights (did the training diverge?)",
        )
    return found


def tensors(
    model: Any,
    images: Sequence[np.ndarray],
    names: Collection[str],
    *,
    max_bytes: int = CHUNK_BYTES,
    threads: int = 0,
) -> Iterator[tuple[int, str, np.ndarray]]:
    """Intermediate tensors, as (index of the image, name, values), a few at a time.

    The network runs once per image and chunk, so that no more than about ``max_bytes`` are held, however large it is.

    Args:
        model: ``onnx.ModelProto`` with fixed shapes; not modified.
        images: Preprocessed, float32 (1, 3, H, W).
        names: Tensors wanted; outputs of nodes.
        max_bytes: Of one chunk; a tensor that is larger alone is a chunk of its own.
        threads: 0: as many as there are cores.

    Raises:
        ExportError: If a tensor's shape is not known.
    """
    onnx = require("onnx", extra="export")
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    wanted = set(names)
    values = {value.name: value for value in [*graph.value_info, *graph.output] if value.name in wanted}
    if wanted - values.keys():
        raise ExportError(
            f"the shape of {min(wanted - values.keys())} is not known",
            hint="export the network with a fixed size: rtda-deploy export ckpt.pth --size 1024x512",
        )
    inputs = model.graph.input[0].name
    for chunk in _chunks(values, max_bytes):
        opened = onnx.ModelProto()
        opened.CopyFrom(model)
        del opened.graph.output[:]
        opened.graph.output.extend(values[name] for name in chunk)
        session = open_session(opened, threads)
        for index, image in enumerate(images):
            yield from ((index, name, value) for name, value in zip(chunk, session.run(chunk, {inputs: image})))


def mask_of(answer: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """The mask uint8 (H, W) of an answer, at the size of the network's input."""
    from rtda_runtime.mask.upsample import upsample_argmax

    return answer if answer.ndim == 2 else upsample_argmax(np.ascontiguousarray(answer, np.float32), size_hw)


def agreement(reference: Sequence[np.ndarray], other: Sequence[np.ndarray], size_hw: tuple[int, int]) -> list[float]:
    """Share of pixels with the same class, 0..1, of each pair of answers; 0 where one is NaN or infinite."""
    shares = []
    for a, b in zip(reference, other):
        finite = bool(np.isfinite(a).all() and np.isfinite(b).all())
        shares.append(float((mask_of(a, size_hw) == mask_of(b, size_hw)).mean()) if finite else 0.0)
    return shares


def signal_to_noise(reference: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """Power of the reference over power of the difference, as a plain ratio; 0 where the other is not finite."""
    signal = sum(float(np.square(a, dtype=np.float64).sum()) for a in reference)
    noise = sum(float(np.square(np.subtract(a, b, dtype=np.float64)).sum()) for a, b in zip(reference, other))
    if not np.isfinite(noise):
        return 0.0
    return signal / noise if noise > 0 else float("inf")


def check_images(model: Any, images: Sequence[np.ndarray]) -> tuple[int, int]:
    """Height and width of the network's input, if the images fit it.

    Raises:
        ExportError: If there is none, or one has another shape or type.
    """
    if len(images) == 0:
        raise ExportError(
            "there is no picture to run the network on", hint="give what the robot sees: --calibrate PATH"
        )
    shape = tuple(side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim)
    first = images[0]
    if first.shape != shape or first.dtype != np.float32:
        raise ExportError(
            f"the images are {first.dtype} {first.shape}, the network takes float32 {shape}",
            hint="preprocess them with the model's own spec: rtda_runtime.mask.preprocess",
        )
    return shape[2], shape[3]


@functools.lru_cache(maxsize=1)
def check_rounding() -> None:
    """Make sure that this ONNX Runtime rounds to float16 where ``rounding_onnx`` asks for it.

    Raises:
        ExportError: If an overflow that is there does not show.
    """
    onnx = require("onnx", extra="export")
    from rtda_export.precision.fp16_graph import fp16_onnx, rounding_onnx

    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    weights = [
        onnx.numpy_helper.from_array(np.full((8, 8, 1, 1), value, np.float32), f"w{value}") for value in (6e4, 1e-4)
    ]
    nodes = [
        helper.make_node("Conv", ["image", weights[0].name], ["large"]),
        helper.make_node("Conv", ["large", weights[1].name], ["logits"]),
    ]
    border = [helper.make_tensor_value_info(name, floats, [1, 8, 4, 4]) for name in ("image", "logits")]
    graph = helper.make_graph(nodes, "probe", border[:1], border[1:], weights)
    probe = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if np.isfinite(answers(rounding_onnx(fp16_onnx(probe)), [np.ones((1, 8, 4, 4), np.float32)])[0]).any():
        version = require("onnxruntime", extra="export").__version__
        raise ExportError(
            f"ONNX Runtime {version} does not round to float16, so an overflow could not be seen",
            hint="known to work: pip install onnxruntime==1.31.1",
        )


def _chunks(values: dict[str, Any], max_bytes: int) -> list[list[str]]:
    chunks: list[list[str]] = []
    held = 0
    for name, value in values.items():
        size = 4 * int(np.prod([max(1, side.dim_value) for side in value.type.tensor_type.shape.dim]))
        if not chunks or held + size > max_bytes:
            chunks.append([])
            held = 0
        chunks[-1].append(name)
        held += size
    return chunks
