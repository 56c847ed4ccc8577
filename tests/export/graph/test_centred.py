"""A graph of centred pixels answers as one of normalised planes; an INT8 file of it takes the camera's bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from rtda_deploy.spec import ModelSpec  # noqa: E402
from rtda_export.graph.centred import centred_range, with_centred_input  # noqa: E402
from rtda_export.graph.inputs import with_pixel_input  # noqa: E402
from rtda_export.precision.quantize import int8_onnx  # noqa: E402
from rtda_runtime.mask.preprocess import network_input, preprocess  # noqa: E402

SIZE_HW = (16, 24)
RTDA = {"channel_order": "bgr", "pixel_scale": 1.0, "mean": (104.007, 116.669, 122.679), "std": (1.0, 1.0, 1.0)}
HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # PP-LiteSeg's
CONTRACTS: dict[str, Any] = {"imagenet": {}, "bgr": {"channel_order": "bgr"}, "rtda": RTDA, "halves": HALVES}


def contract(**fields: Any) -> ModelSpec:
    palette = ((0, 0, 0), (1, 1, 1), (2, 2, 2))
    return ModelSpec(SIZE_HW, ("road", "car", "sky"), palette, output_stride=1, **fields)


def network(spec: ModelSpec, first: str = "Conv") -> Any:
    """Two convolutions that read the picture, one with a bias and one without, and a head over both."""
    make, rng = helper.make_node, np.random.default_rng(0)
    nodes = [
        make(first, ["image", "w0", "b0"] if first == "Conv" else ["image"], ["left"], name="left", **_pads(first)),
        make("Conv", ["image", "w1"], ["right"], name="right", pads=[1, 1, 1, 1]),
        make("Concat", ["left", "right"], ["both"], name="both", axis=1),
        make("Relu", ["both"], ["relu"], name="relu"),
        make("Conv", ["relu", "w2"], ["mixed"], name="mixed", pads=[1, 1, 1, 1]),
        make("Conv", ["mixed", "w3"], ["logits"], name="head"),
    ]
    wide = 16 if first == "Conv" else 11
    shapes = {"w0": (8, 3, 3, 3), "b0": (8,), "w1": (8, 3, 3, 3), "w2": (8, wide, 3, 3), "w3": (3, 8, 1, 1)}
    scale = min(spec.std)
    weights = [
        numpy_helper.from_array((rng.standard_normal(shape) * (scale if name == "w1" else 1)).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, spec.input_shape)
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 3, *SIZE_HW))
    graph = helper.make_graph(nodes, "small", [image], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _pads(first: str) -> dict[str, Any]:
    return {"pads": [1, 1, 1, 1]} if first == "Conv" else {}


def answer(model: Any, image: np.ndarray) -> np.ndarray:
    """Computed node by node as the graph says: which of them are one kernel does not count here."""
    options = ort.SessionOptions()
    options.graph_optimization_level, options.intra_op_num_threads = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": image})[0])


def seen(spec: ModelSpec, seed: int = 0) -> np.ndarray:
    image = network_input(spec)
    preprocess(np.random.default_rng(seed).integers(0, 256, (*SIZE_HW, 3), np.uint8), spec, image)
    return image


@pytest.mark.parametrize("name", list(CONTRACTS))
def test_centred_pixels_are_answered_as_normalised_planes(name: str) -> None:
    spec = contract(**CONTRACTS[name])
    model = network(spec)
    expected = answer(model, seen(spec))
    made = with_centred_input(model, spec)
    assert made is not None and made.mean[0] == (128 if name == "halves" else 114)
    onnx.checker.check_model(model, full_check=True)
    given = answer(model, seen(made))
    inside = np.s_[:, :, 2:-2, 2:-2]  # two convolutions from the border, where the padding is another grey
    np.testing.assert_allclose(given[inside], expected[inside], rtol=0, atol=2e-5 * np.ptp(expected))
    if name == "halves":  # the grey of the padding is half a level from the mean
        np.testing.assert_allclose(given, expected, rtol=0, atol=0.02 * np.ptp(expected))


@pytest.mark.parametrize(
    "fields", [{"resize": "letterbox"}, {"input": "pixels"}, {"input": "uint8", "layout": "nhwc"}], ids=str
)
def test_other_inputs_stay_as_they_are(fields: dict[str, Any]) -> None:
    model = network(contract())
    before = model.SerializeToString()
    assert with_centred_input(model, contract(**fields)) is None
    assert model.SerializeToString() == before


def test_a_graph_whose_picture_is_not_only_convolved_stays_as_it_is() -> None:
    model = network(contract(), first="Relu")
    before = model.SerializeToString()
    assert with_centred_input(model, contract()) is None
    assert model.SerializeToString() == before


def test_ranges_are_of_whole_centres_only() -> None:
    assert centred_range(contract()) is None and centred_range(contract(**RTDA)) is None
    plain = {**RTDA, "mean": (116.0, 116.0, 116.0)}
    assert centred_range(contract(**plain)) == (-116.0, 139.0)
    assert centred_range(contract(**{**plain, "mean": (116.5, 116.5, 116.5)})) is None
    assert centred_range(contract(**{**plain, "std": (2.0, 1.0, 1.0)})) is None
    assert centred_range(contract(**{**plain, "channel_order": "rgb"})) is None, "its colours are to be turned round"


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("kept", [(), ("left",), ("left", "right")], ids=str)
def test_a_quantised_file_reads_bytes_without_a_step_that_rounds_them(
    tmp_path: Path, layout: str, kept: tuple[str, ...]
) -> None:
    spec = contract()
    model = network(spec)
    made = with_centred_input(model, spec)
    assert made is not None
    (tmp_path / "float.onnx").write_bytes(model.SerializeToString())
    seen_dark = [np.minimum(seen(made, seed), 0.0) for seed in range(3)]  # brighter than these come later
    options: dict[str, Any] = {"target": "cpu", "input_range": centred_range(made), "keep_float": kept}
    int8_onnx(tmp_path / "float.onnx", seen_dark, tmp_path / "int8.onnx", limit=0.01, **options)
    quantised = onnx.load(str(tmp_path / "int8.onnx"))
    expected = answer(quantised, seen(made, 9))
    final = with_pixel_input(quantised, made, input="uint8", layout=layout)
    onnx.checker.check_model(quantised, full_check=True)
    (entry,) = quantised.graph.input
    assert entry.type.tensor_type.elem_type == TensorProto.UINT8
    readers = {node.op_type for node in quantised.graph.node if "image" in node.input}
    assert readers == ({"Cast"} if len(kept) == 2 else {"DequantizeLinear"})
    if len(kept) == 2:  # both convolutions read the picture in float
        first = [node.op_type for node in quantised.graph.node if node.name.startswith("rtda.")]
        assert first == ["Cast", "Sub", *["Transpose"] * (layout == "nhwc")]
    np.testing.assert_array_equal(answer(quantised, seen(final, 9)), expected)
    if len(kept) < 2:
        values = {weight.name: numpy_helper.to_array(weight) for weight in quantised.graph.initializer}
        (first,) = (node for node in quantised.graph.node if "image" in node.input)
        assert [float(values[name]) for name in first.input[1:]] == [1.0, 114.0], "a step is a level, bright ones too"
