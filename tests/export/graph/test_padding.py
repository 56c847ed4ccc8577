"""Zeros around a map become the convolution's padding: the same answer, and nothing touched that does not qualify."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="changing graphs needs onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from rtda_export.graph.padding import pads_into_convolutions  # noqa: E402

TENSORFLOW = (0, 0, 0, 0, 0, 0, 1, 1)  # of a 3x3 kernel at stride 2: N, C, H, W before the map, then after it


def padded(
    sides: tuple[int, ...] = TENSORFLOW,
    *,
    value: float | None = 0.0,
    mode: str = "constant",
    read_twice: bool = False,
    **conv: Any,
) -> Any:
    """image -> Pad -> Conv of stride 2, the sides computed from two constants."""
    rng = np.random.default_rng(0)
    weights = {
        "half": np.array(sides[:4], np.int64),
        "rest": np.array(sides[4:], np.int64),
        "w": rng.standard_normal((4, 3 + sides[1], 3, 3)).astype(np.float32),
        **({} if value is None else {"value": np.array(value, np.float32)}),
    }
    nodes = [
        helper.make_node("Concat", ["half", "rest"], ["sides"], name="sides", axis=0),
        helper.make_node(
            "Pad", ["image", "sides", *([] if value is None else ["value"])], ["p"], name="pad", mode=mode
        ),
        helper.make_node("Conv", ["p", "w"], ["y"], name="conv", kernel_shape=[3, 3], strides=[2, 2], **conv),
        *([helper.make_node("Relu", ["p"], ["z"], name="other")] if read_twice else []),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 8, 10))
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in ("y", "z")[: 1 + read_twice]
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "test", [image], outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answer(model: Any) -> np.ndarray:
    ort = pytest.importorskip("onnxruntime", reason="running graphs needs onnxruntime")
    picture = np.random.default_rng(1).standard_normal((1, 3, 8, 10)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"image": picture})[0])


@pytest.mark.parametrize("value", [0.0, None])
@pytest.mark.parametrize(
    ("sides", "conv", "pads"),
    [
        (TENSORFLOW, {}, [0, 0, 1, 1]),
        ((0, 0, 1, 1, 0, 0, 2, 2), {}, [1, 1, 2, 2]),
        ((0, 0, 1, 0, 0, 0, 0, 2), {"pads": [1, 1, 1, 1]}, [2, 1, 1, 3]),
    ],
)
def test_zeros_become_padding(
    sides: tuple[int, ...], conv: dict[str, Any], pads: list[int], value: float | None
) -> None:
    model = padded(sides, value=value, **conv)
    before = answer(model)
    assert pads_into_convolutions(model) == 1
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Conv"], "what made the sides is gone too"
    assert {entry.name: helper.get_attribute_value(entry) for entry in model.graph.node[0].attribute}["pads"] == pads
    assert [weight.name for weight in model.graph.initializer] == ["w"]
    assert np.abs(answer(model) - before).max() < 1e-5  # the same sums, perhaps in another order


def of_the_picture() -> Any:
    """Sides that are known with the picture only."""
    model = padded()
    model.graph.node[1].input[1] = "given"
    model.graph.input.append(helper.make_tensor_value_info("given", TensorProto.INT64, (8,)))
    return model


@pytest.mark.parametrize(
    "model",
    [
        padded(value=1.0),
        padded((0, 0, 1, 1, 0, 0, 1, 1), mode="reflect"),
        padded((0, 0, 0, 0, 0, 0, -1, 1)),
        padded((0, 1, 0, 0, 0, 0, 0, 0)),
        padded(auto_pad="SAME_UPPER"),
        padded(read_twice=True),
        of_the_picture(),
    ],
    ids=["ones", "reflected", "cut", "channels", "own-rule", "read-twice", "open"],
)
def test_what_is_no_padding_of_one_convolution_stays(model: Any) -> None:
    before = model.SerializeToString(deterministic=True)
    assert pads_into_convolutions(model) == 0
    assert model.SerializeToString(deterministic=True) == before
