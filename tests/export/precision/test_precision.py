"""Typed FP16: what the file holds, which nodes may stay in float32, and that an overflow can be seen on a CPU."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from rtda_deploy.errors import ConfigError, ExportError  # noqa: E402
from rtda_deploy.onnx_file import PRECISION_KEY  # noqa: E402
from rtda_deploy.spec import ModelSpec  # noqa: E402
from rtda_export.graph.nodes import named  # noqa: E402
from rtda_export.precision.activations import agreement, answers, check_rounding, open_session  # noqa: E402
from rtda_export.precision.fp16_graph import fp16_onnx, rounding_onnx  # noqa: E402
from rtda_export.precision.metadata import precision_of, with_precision  # noqa: E402

IMAGE = np.random.default_rng(5).standard_normal((1, 3, 64, 64), dtype=np.float32)


def small_model(nodes: list[Any], weights: dict[str, Any], channels: int = 2) -> Any:
    """``image`` (1, C, 8, 8) to ``logits``, float32, of hand-made nodes."""
    border = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 8, 8]) for name in ("image", "logits")
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "small", border[:1], border[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def scaled(value: float, channels: int = 2) -> np.ndarray:
    """Weights of a 1x1 convolution that multiplies every channel."""
    return (np.eye(channels) * value).astype(np.float32)[:, :, None, None]


def conv(name: str, source: str, weight: str, target: str) -> Any:
    return helper.make_node("Conv", [source, weight], [target], name=name)


def types(model: Any) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return {**found, **{weight.name: weight.data_type for weight in graph.initializer}}


def casts(model: Any) -> list[tuple[str, str]]:
    return [(node.input[0], node.output[0]) for node in model.graph.node if node.op_type == "Cast"]


def test_every_network_becomes_a_typed_file_of_half_the_size_that_answers_alike(exported: Path, variant: str) -> None:
    model = onnx.load(str(exported))
    half = fp16_onnx(model)
    session = open_session(half, 1)
    assert [(entry.name, entry.type) for entry in session.get_inputs()] == [("image", "tensor(float)")]
    assert [(entry.name, entry.type) for entry in session.get_outputs()] == [("logits", "tensor(float)")]
    assert half.ByteSize() < 0.52 * model.ByteSize()
    assert (half.ir_version, half.opset_import[0].version) == (8, 17)
    reference, found = answers(model, [IMAGE], threads=1), answers(rounding_onnx(half), [IMAGE], threads=1)
    assert agreement(reference, found, (64, 64))[0] > 0.97  # random weights: many pixels are nearly undecided
    assert np.abs(reference[0] - found[0]).max() < 0.01 * np.ptp(reference[0])


def test_casts_stand_only_at_the_border_and_only_the_scales_of_a_resize_stay_float32(exported: Path) -> None:
    half = fp16_onnx(onnx.load(str(exported)))
    assert casts(half) == [("image", "image_fp16"), ("logits_fp16", "logits")]
    scales = {node.input[2] for node in half.graph.node if node.op_type == "Resize"}
    floats = {name for name, kind in types(half).items() if kind == TensorProto.FLOAT}
    assert floats == {"image", "logits"} | scales
    assert scales <= {weight.name for weight in half.graph.initializer}  # TensorRT 8.5 wants them constant


def test_the_spec_travels_and_the_metadata_names_what_was_kept_and_why(one_onnx: Path) -> None:
    model = onnx.load(str(one_onnx))
    kept = [node.name for node in model.graph.node if node.op_type == "Conv"][:2]
    half = fp16_onnx(model, keep_fp32=kept, why={kept[0]: "it overflows", "another": "not kept"})
    metadata = {entry.key: entry.value for entry in half.metadata_props}
    assert ModelSpec.from_json(metadata["rtda.spec"]).size_hw == (64, 64)
    assert precision_of(half) == {"precision": "fp16", "keep_fp32": kept, "why": {kept[0]: "it overflows"}}
    assert precision_of(model) == {"precision": "fp32"}


def test_the_same_model_gives_the_same_bytes_and_is_not_modified(one_onnx: Path) -> None:
    model = onnx.load(str(one_onnx))
    before = model.SerializeToString(deterministic=True)
    first, second = (fp16_onnx(model).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
    assert model.SerializeToString(deterministic=True) == before


def test_between_two_kept_nodes_a_tensor_never_becomes_float16() -> None:
    nodes = [
        conv("up", "image", "large", "a"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        conv("down", "b", "tiny", "c"),
        conv("last", "c", "one", "logits"),
    ]
    model = small_model(nodes, {"large": scaled(6e4), "tiny": scaled(1 / 6e4), "one": scaled(1)})
    half = fp16_onnx(model, keep_fp32=["up", "relu", "down"])
    assert casts(half) == [("c", "c_fp16"), ("logits_fp16", "logits")]
    image = np.full((1, 2, 8, 8), 3, np.float32)
    assert not np.isfinite(answers(rounding_onnx(fp16_onnx(model)), [image])[0]).any()
    np.testing.assert_allclose(answers(rounding_onnx(half), [image])[0], 3, rtol=1e-3)


def test_a_tensor_read_by_several_kept_nodes_is_cast_once() -> None:
    nodes = [
        conv("first", "image", "one", "a"),
        conv("left", "a", "one", "b"),
        conv("right", "a", "one", "c"),
        helper.make_node("Add", ["b", "c"], ["logits"], name="sum"),
    ]
    half = fp16_onnx(small_model(nodes, {"one": scaled(1.001)}), keep_fp32=["left", "right"])
    assert Counter(source for source, _ in casts(half)) == {"image": 1, "a": 1, "b": 1, "c": 1, "logits_fp16": 1}
    # the weight is there in both types, so that the kept nodes lose nothing
    kept = numpy_helper.to_array(next(weight for weight in half.graph.initializer if weight.name == "one_fp32"))
    assert kept[0, 0, 0, 0] == np.float32(1.001)


def test_an_output_that_other_nodes_read_too_keeps_its_name_and_type() -> None:
    nodes = [conv("first", "image", "one", "logits"), conv("unused", "logits", "one", "b")]
    half = fp16_onnx(small_model(nodes, {"one": scaled(1)}), keep_fp32=["unused"])
    assert types(half)["logits"] == TensorProto.FLOAT
    assert next(node for node in half.graph.node if node.name == "unused").input[0] == "logits"


def test_a_network_that_is_kept_whole_has_no_cast_and_the_same_logits(one_onnx: Path) -> None:
    model = onnx.load(str(one_onnx))
    kept = fp16_onnx(model, keep_fp32=[node.name for node in model.graph.node])
    assert casts(kept) == []
    np.testing.assert_array_equal(answers(kept, [IMAGE])[0], answers(model, [IMAGE])[0])


def test_foreign_graphs_with_constants_casts_and_nameless_nodes_are_converted() -> None:
    nodes = [
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Constant", [], ["shape"], value_ints=[1, 2, 8, 8]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Cast", ["shape"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["numbers"], ["eight"], keepdims=0),
        helper.make_node("Mul", ["image", "two"], ["a"]),
        helper.make_node("Add", ["a", "zeros"], ["b"]),
        helper.make_node("Div", ["b", "eight"], ["logits"]),
    ]
    half = fp16_onnx(small_model(nodes, {}))
    image = np.full((1, 2, 8, 8), 4, np.float32)
    np.testing.assert_allclose(answers(rounding_onnx(half), [image])[0], 1)
    assert {types(half)[name] for name in ("zeros", "numbers", "b", "two")} == {TensorProto.FLOAT16}


def test_a_mask_in_the_graph_stays_uint8() -> None:
    nodes = [
        helper.make_node("ArgMax", ["image"], ["index"], axis=1, keepdims=0),
        helper.make_node("Cast", ["index"], ["mask"], to=TensorProto.UINT8),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 2, 8, 8])
    mask = helper.make_tensor_value_info("mask", TensorProto.UINT8, [1, 8, 8])
    graph = helper.make_graph(nodes, "small", [image], [mask])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    half = fp16_onnx(model)
    picture = np.random.default_rng(0).standard_normal((1, 2, 8, 8), dtype=np.float32)
    assert answers(half, [picture])[0].dtype == np.uint8
    np.testing.assert_array_equal(answers(rounding_onnx(half), [picture])[0], answers(model, [picture])[0])


def test_a_weight_beyond_float16_is_refused_with_its_node_and_taken_where_it_is_kept() -> None:
    model = small_model([conv("big", "image", "w", "logits")], {"w": scaled(7e4)})
    with pytest.raises(ExportError, match=r"w of big holds 7e\+04") as caught:
        fp16_onnx(model)
    assert "keep big in float32" in caught.value.hint
    assert fp16_onnx(model, keep_fp32=["big"]) is not None


def test_a_node_that_is_not_there_is_a_usage_error(one_onnx: Path) -> None:
    with pytest.raises(ConfigError, match="no node nowhere"):
        fp16_onnx(onnx.load(str(one_onnx)), keep_fp32=["nowhere"])


def test_what_is_no_plain_float32_network_is_refused(one_onnx: Path) -> None:
    with pytest.raises(ExportError, match="float16 weights already"):
        fp16_onnx(fp16_onnx(onnx.load(str(one_onnx))))
    scale = {"s": np.float32(0.1), "z": np.int8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["logits"]),
    ]
    with pytest.raises(ExportError, match="quantised"):
        fp16_onnx(small_model(nodes, scale))
    with pytest.raises(ExportError, match="RandomNormalLike"):
        fp16_onnx(small_model([helper.make_node("RandomNormalLike", ["image"], ["logits"])], {}))


def test_nodes_without_a_name_of_their_own_get_one() -> None:
    model = small_model(
        [conv("", "image", "w", "a"), conv("x", "a", "w", "b"), conv("x", "b", "w", "logits")], {"w": scaled(1)}
    )
    assert [node.name for node in named(model).graph.node] == ["Conv_0", "x", "x_2"]
    assert [node.name for node in model.graph.node] == ["", "x", "x"]


def test_this_onnx_runtime_shows_an_overflow_where_every_tensor_is_rounded() -> None:
    check_rounding()


def test_broken_metadata_is_an_error() -> None:
    model = small_model([conv("c", "image", "w", "logits")], {"w": scaled(1)})
    assert precision_of(with_precision(model, {"precision": "fp16", "why": {"ü": "ja"}}))["why"] == {"ü": "ja"}
    for text in ("{", json.dumps([1])):
        helper.set_model_props(model, {PRECISION_KEY: text})
        with pytest.raises(ExportError, match=PRECISION_KEY):
            precision_of(model)
