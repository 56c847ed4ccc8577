"""What a graph gives: for one picture or several; coarse logits for this runtime, or a finished mask for others.

DeepStream, Triton, Isaac ROS and others want class ids straight from the network. Bilinear enlargement and argmax are
then nodes of the graph: it costs the logits at full size, which this project's runtime never makes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtda_deploy.errors import ExportError
from rtda_deploy.spec import ModelSpec
from rtda_export.graph.allowed import check_mask_opset
from rtda_export.graph.nodes import border

__all__ = ["CONFIDENCE_NAME", "MASK_NAME", "PROBABILITIES_NAME", "with_batch", "with_mask_output", "with_probabilities"]

MASK_NAME = "mask"
CONFIDENCE_NAME = "confidence"
PROBABILITIES_NAME = "probabilities"


def with_batch(model: Any, batch: int) -> None:
    """Make a graph for one picture take ``batch`` of them; in place.

    Args:
        model: ``onnx.ModelProto`` with fixed shapes whose nodes do not depend on the number of pictures.
        batch: Pictures at a time.

    Raises:
        ExportError: If a node does depend on it.
    """
    from onnx import checker, shape_inference

    graph = model.graph
    del graph.value_info[:]
    for value in [*graph.input, *graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    try:
        checker.check_model(shape_inference.infer_shapes(model, strict_mode=True, data_prop=True), full_check=True)
    except (shape_inference.InferenceError, checker.ValidationError) as err:
        raise ExportError(
            f"this network cannot take {batch} pictures at a time",
            why=str(err).strip().splitlines()[0][:200],
            hint="--batch 1",
        ) from err


def with_mask_output(model: Any, spec: ModelSpec, *, confidence: bool = False) -> ModelSpec:
    """Turn a graph's logits into ``mask`` uint8 (N, H, W), class ids at the input's size; in place.

    The logits float32 (N, C, h, w) are enlarged bilinearly with half-pixel centres, as ``upsample_argmax`` does, and
    the largest wins. ``confidence`` float32 (N, H, W) is the winner's softmax probability, 0..1.

    The class id goes through float32 on its way to uint8, because TensorRT 8.5 makes uint8 of nothing else.

    Args:
        model: ``onnx.ModelProto`` whose only output is logits float32; opset 13 or newer.
        spec: Of the model.
        confidence: Whether to add the second output.

    Returns:
        The spec of the new graph.

    Raises:
        ExportError: If the graph's output is no float32 logits of the spec's shape.
        ConfigError: If the opset is too old.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    batch = _enlarge(model, spec)
    height, width = spec.size_hw
    graph.node.extend(
        [
            helper.make_node(
                "ArgMax", ["rtda.logits_full"], ["rtda.class_int64"], name="rtda.argmax", axis=1, keepdims=0
            ),
            helper.make_node(
                "Cast", ["rtda.class_int64"], ["rtda.class_float"], name="rtda.class_float", to=TensorProto.FLOAT
            ),
            helper.make_node("Cast", ["rtda.class_float"], [MASK_NAME], name="rtda.mask", to=TensorProto.UINT8),
        ]
    )
    outputs = [helper.make_tensor_value_info(MASK_NAME, TensorProto.UINT8, [batch, height, width])]
    if confidence:
        graph.node.extend(
            [
                helper.make_node(
                    "Softmax", ["rtda.logits_full"], ["rtda.probability"], name="rtda.probability", axis=1
                ),
                helper.make_node(
                    "ReduceMax", ["rtda.probability"], [CONFIDENCE_NAME], name="rtda.confidence", axes=[1], keepdims=0
                ),
            ]
        )
        outputs.append(helper.make_tensor_value_info(CONFIDENCE_NAME, TensorProto.FLOAT, [batch, height, width]))
    del graph.output[:]
    graph.output.extend(outputs)
    return spec.replace(output="mask")


def with_probabilities(model: Any, spec: ModelSpec) -> ModelSpec:
    """Turn a graph's logits into ``probabilities`` float32 (N, C, H, W) of each class, at the input's size; in place.

    For DeepStream's ``nvinfer``, which takes the argmax of such an output itself. Softmax of the enlarged logits, so
    that its class is the one that :func:`with_mask_output` gives.

    Args:
        model: As there.
        spec: Of the model.

    Returns:
        The spec of the new graph.

    Raises:
        ExportError: As there.
        ConfigError: If the opset is too old.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    batch = _enlarge(model, spec)
    graph.node.append(
        helper.make_node("Softmax", ["rtda.logits_full"], [PROBABILITIES_NAME], name="rtda.probability", axis=1)
    )
    del graph.output[:]
    shape = [batch, spec.num_classes, *spec.size_hw]
    graph.output.append(helper.make_tensor_value_info(PROBABILITIES_NAME, TensorProto.FLOAT, shape))
    return spec.replace(output="probabilities")


def _enlarge(model: Any, spec: ModelSpec) -> int:
    """Add ``rtda.logits_full`` float32 (N, C, H, W), the logits enlarged bilinearly, to a graph; gives N."""
    from onnx import helper, numpy_helper

    batch, name = _logits_of(model, spec)
    check_mask_opset(max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))
    scales = np.array([1, 1, spec.output_stride, spec.output_stride], np.float32)
    model.graph.initializer.append(numpy_helper.from_array(scales, "rtda.enlarge"))
    model.graph.node.append(
        helper.make_node(
            "Resize",
            [name, "", "rtda.enlarge"],
            ["rtda.logits_full"],
            name="rtda.enlarge",
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
    )
    return batch


def _logits_of(model: Any, spec: ModelSpec) -> tuple[int, str]:
    """Batch and name of the one output, checked."""
    from onnx import TensorProto

    found = border(model.graph.output)
    expected = [spec.num_classes, *spec.output_hw]
    if spec.output != "logits" or len(found) != 1 or found[0][1] != TensorProto.FLOAT or found[0][2][1:] != expected:
        given = ", ".join(f"{name} {shape}" for name, _, shape in found)
        raise ExportError(
            f"a mask is made of one output, logits float32 [N, {', '.join(map(str, expected))}]; this gives {given}",
            hint="export the checkpoint: rtda-deploy export ckpt.pth --output mask",
        )
    return found[0][2][0], found[0][0]
