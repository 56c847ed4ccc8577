"""Exact rewrites: the same logits from fewer multiply-adds, and nothing touched that does not qualify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="rewriting graphs needs onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from rtda_export.graph.rewrite import rewrite  # noqa: E402


def _model(nodes: list[Any], weights: dict[str, np.ndarray], inputs: dict[str, tuple[int, ...]], outputs: Any) -> Any:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return onnx.shape_inference.infer_shapes(model)


def _fusion(kernel: int, *, bias: bool = True, coordinates: str = "half_pixel", **conv: Any) -> Any:
    """A small map, one enlarged twice and one enlarged four times, joined and convolved."""
    rng = np.random.default_rng(kernel)
    weights = {
        "two": np.array([1, 1, 2, 2], np.float32),
        "four": np.array([1, 1, 4, 4], np.float32),
        "w": rng.standard_normal((5, 3 + 16 + 32, kernel, kernel)).astype(np.float32),
        **({"b": rng.standard_normal(5).astype(np.float32)} if bias else {}),
    }
    linear = {"mode": "linear", "coordinate_transformation_mode": coordinates}
    settings = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, **conv}
    nodes = [
        helper.make_node("Resize", ["b16", "", "two"], ["up16"], name="up16", **linear),
        helper.make_node("Resize", ["c32", "", "four"], ["up32"], name="up32", **linear),
        helper.make_node("Concat", ["a8", "up16", "up32"], ["joined"], name="joined", axis=1),
        helper.make_node("Conv", ["joined", "w", *(["b"] if bias else [])], ["y"], name="fuse", **settings),
    ]
    return _model(nodes, weights, {"a8": (1, 3, 12, 20), "b16": (1, 16, 6, 10), "c32": (1, 32, 3, 5)}, ["y"])


def _run(model: Any) -> np.ndarray:
    ort = pytest.importorskip("onnxruntime", reason="running graphs needs onnxruntime")
    rng = np.random.default_rng(0)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {value.name: rng.standard_normal(value.shape).astype(np.float32) for value in session.get_inputs()}
    return np.asarray(session.run(None, feed)[0])


def _kinds(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric"])
def test_a_convolution_of_enlarged_maps_moves_to_where_they_are_small(
    kernel: int, bias: bool, coordinates: str
) -> None:
    model = _fusion(kernel, bias=bias, coordinates=coordinates)
    before = _run(model)
    (change,) = rewrite(model)
    onnx.checker.check_model(model, full_check=True)
    after = _run(model)
    assert np.abs(after - before).max() < 1e-5 * np.ptp(before)
    assert change.node == "fuse" and change.macs_after < change.macs_before == 51 * 5 * kernel**2 * 240
    assert "Concat" not in _kinds(model)
    enlarged = [node for node in model.graph.node if node.op_type == "Resize"]
    shapes = onnx.shape_inference.infer_shapes(model).graph.value_info
    channels = {value.name: value.type.tensor_type.shape.dim[1].dim_value for value in shapes}
    assert {channels[node.output[0]] for node in enlarged} == {5 * kernel**2}
    names = {name for node in model.graph.node for name in node.input}
    assert {weight.name for weight in model.graph.initializer} <= names, "no weight is left that nobody reads"


def test_the_published_head_behind_the_last_enlargement_moves_before_it() -> None:
    rng = np.random.default_rng(3)
    weights = {
        "scales": np.array([1, 1, 8, 8], np.float32),
        "w": rng.standard_normal((7, 7, 1, 1)).astype(np.float32),
        "b": rng.standard_normal(7).astype(np.float32),
    }
    nodes = [
        helper.make_node("Resize", ["x", "", "scales"], ["up"], name="up", mode="linear"),
        helper.make_node("Conv", ["up", "w", "b"], ["y"], name="head", kernel_shape=[1, 1]),
    ]
    model = _model(nodes, weights, {"x": (2, 7, 4, 6)}, ["y"])
    before = _run(model)
    (change,) = rewrite(model)
    assert _kinds(model) == ["Conv", "Resize"]
    assert change.macs_before == 64 * change.macs_after
    assert np.abs(_run(model) - before).max() < 1e-5 * np.ptp(before)


@pytest.mark.parametrize(
    "change",
    [
        {"strides": [2, 2]},
        {"dilations": [2, 2]},
        {"pads": [0, 0, 0, 0]},
        {"auto_pad": "SAME_UPPER", "pads": None},
    ],
    ids=str,
)
def test_a_convolution_that_does_more_is_left_alone(change: dict[str, Any]) -> None:
    settings = {key: value for key, value in change.items() if value is not None}
    model = _fusion(3, **settings)
    if "pads" in change and change["pads"] is None:
        conv = model.graph.node[-1]
        conv.attribute.remove(next(entry for entry in conv.attribute if entry.name == "pads"))
    content = model.SerializeToString()
    assert rewrite(model) == () and model.SerializeToString() == content


def test_what_others_read_too_is_left_alone() -> None:
    model = _fusion(3)
    model.graph.output.append(helper.make_tensor_value_info("joined", TensorProto.FLOAT, None))
    assert rewrite(model) == ()
    model = _fusion(3)
    for name in ("up16", "up32"):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    assert rewrite(model) == (), "each enlarged map is still needed as it is"


def _with_resize(name: str, value: bytes) -> Any:
    model = _fusion(3)
    for node in model.graph.node[:2]:
        next(entry for entry in node.attribute if entry.name == name).s = value
    return model


def test_enlarging_to_the_nearest_is_no_different() -> None:
    model = _with_resize("mode", b"nearest")
    before = _run(model)
    assert len(rewrite(model)) == 1
    assert np.abs(_run(model) - before).max() < 1e-5 * np.ptp(before)


@pytest.mark.parametrize(
    ("name", "value"), [("mode", b"cubic"), ("coordinate_transformation_mode", b"tf_crop_and_resize")]
)
def test_other_enlargements_are_left_alone(name: str, value: bytes) -> None:
    assert rewrite(_with_resize(name, value)) == ()


def test_a_small_gain_is_not_taken() -> None:
    """One enlarged channel of many: the shifts would cost more than it saves."""
    rng = np.random.default_rng(5)
    weights = {"two": np.array([1, 1, 2, 2], np.float32), "w": rng.standard_normal((5, 65, 3, 3)).astype(np.float32)}
    nodes = [
        helper.make_node("Resize", ["x", "", "two"], ["up"], name="up", mode="linear"),
        helper.make_node("Concat", ["a", "up"], ["joined"], name="joined", axis=1),
        helper.make_node("Conv", ["joined", "w"], ["y"], name="fuse", kernel_shape=[3, 3], pads=[1] * 4),
    ]
    assert rewrite(_model(nodes, weights, {"a": (1, 64, 8, 8), "x": (1, 1, 4, 4)}, ["y"])) == ()


@pytest.mark.parametrize(("backbone", "opset", "width"), [("resnet18", 11, "published"), ("resnet101", 17, "narrow")])
def test_the_network_of_the_papers_keeps_its_answer(
    backbone: str, opset: int, width: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if width == "published":
        request.getfixturevalue("published_width")
    torch = pytest.importorskip("torch", reason="checkpoints need torch (Python >= 3.10)")
    from rtda_deploy.spec import ModelSpec
    from rtda_export import onnx_from_checkpoint
    from rtda_training.checkpoint import Checkpoint, write_checkpoint
    from rtda_training.labels import CITYSCAPES
    from rtda_training.models import BiSeNet

    torch.manual_seed(3)
    model = BiSeNet(backbone, "rtda", 19).eval()
    provenance = {"architecture": {"name": "BiSeNet", "backbone": backbone, "variant": "rtda"}}
    names, palette = CITYSCAPES.names, CITYSCAPES.palette
    spec = ModelSpec(size_hw=(64, 96), class_names=names, palette=palette, provenance=provenance)
    checkpoint = write_checkpoint(tmp_path / "last.pth", Checkpoint(spec, model.state_dict()))
    files = [
        onnx_from_checkpoint(checkpoint, tmp_path / f"{rewritten}.onnx", opset=opset, rewritten=rewritten)
        for rewritten in (False, True)
    ]
    plain, changed = (onnx.load(str(file)) for file in files)
    before, after = _run(plain), _run(changed)
    assert "Concat" in _kinds(plain) and "Concat" not in _kinds(changed)
    assert np.abs(after - before).max() <= 1e-5 * np.ptp(before)
    stored = [ModelSpec.from_json(model.metadata_props[0].value) for model in (plain, changed)]
    listed = [found.provenance["export"]["rewritten"] for found in stored]
    assert listed[0] == {} and list(listed[1]) == ["/fusion/block/conv/Conv"]
