"""FP16 rescue: planted overflows, sums and cancellations are found and named; a healthy network is left alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from rtda_deploy.errors import ConfigError, ExportError  # noqa: E402
from rtda_export.precision.activations import answers, tensors  # noqa: E402
from rtda_export.precision.fp16_exceptions import rescue_fp16  # noqa: E402
from rtda_export.precision.fp16_graph import fp16_onnx, rounding_onnx  # noqa: E402
from rtda_export.precision.metadata import precision_of  # noqa: E402
from rtda_export.precision.sensitivity import Sensitivity  # noqa: E402

HW = (64, 64)


def pictures(count: int = 2, shape: tuple[int, ...] = (1, 3, *HW)) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.standard_normal(shape, dtype=np.float32) for _ in range(count)]


def scale_weight(model: Any, name: str, factor: float) -> None:
    weight = next(weight for weight in model.graph.initializer if weight.name == name)
    values = numpy_helper.to_array(weight) * np.float32(factor)
    weight.CopyFrom(numpy_helper.from_array(values, name))


def with_planted_overflow(path: Path, factor: float = 1e5) -> tuple[Any, list[str]]:
    """A trained-like network in which one convolution gives ``factor`` times too much and the next undoes it."""
    model = onnx.load(str(path))
    scale_weight(model, "spatial_path.0.conv.weight", factor)
    scale_weight(model, "spatial_path.0.conv.bias", factor)
    scale_weight(model, "spatial_path.1.conv.weight", 1 / factor)
    parts = ("spatial_path.0/conv/Conv", "spatial_path.0/relu/Relu", "spatial_path.1/conv/Conv")
    return model, [f"/spatial_path/{part}" for part in parts]


def small_model(nodes: list[Any], weights: dict[str, np.ndarray], shape: tuple[int, ...] = (1, 4, 8, 8)) -> Any:
    border = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name in ("image", "logits")]
    graph = helper.make_graph(
        nodes,
        "small",
        border[:1],
        border[1:],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def diagonal(value: float) -> np.ndarray:
    return (np.eye(4) * value).astype(np.float32)[:, :, None, None]


def test_a_planted_overflow_is_found_named_and_survived(one_onnx: Path) -> None:
    model, culprits = with_planted_overflow(one_onnx)
    images = pictures()
    steps: list[tuple[str, int, int]] = []
    rescue = rescue_fp16(model, images, threads=1, progress=lambda *step: steps.append(step))
    assert list(rescue.keep_fp32) == culprits
    assert "its output reaches" in rescue.reasons[culprits[0]]
    assert "its input reaches" in rescue.reasons[culprits[2]]
    assert rescue.overflows[0].largest > 65504
    assert rescue.agreement_before == 0.0
    assert rescue.agreement_after >= 0.995
    assert f"3 of {rescue.nodes} nodes stay in float32" in rescue.report[1]
    assert steps[-1][0] == "ranges" and steps[-1][1] == steps[-1][2]
    # the plain file is infinite in truth, and the rescued one is the float32 network's equal
    reference = answers(model, images)
    weight = next(node.name for node in model.graph.node if node.name == culprits[0])  # beyond float16 itself
    broken = answers(rounding_onnx(fp16_onnx(model, keep_fp32=[weight])), images)
    assert not np.isfinite(broken[0]).all()
    for a, b in zip(reference, answers(rounding_onnx(rescue.model), images)):
        assert np.abs(a - b).max() < 0.01 * np.ptp(a)


def chain(factor: float) -> Any:
    """A convolution that gives ``factor`` times too much, and one that undoes it."""
    nodes = [
        helper.make_node("Conv", ["image", "up"], ["a"], name="up"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "down"], ["c"], name="down"),
        helper.make_node("Conv", ["c", "mix"], ["logits"], name="last"),
    ]
    mix = np.random.default_rng(0).standard_normal((4, 4, 1, 1)).astype(np.float32)
    model = small_model(nodes, {"up": diagonal(factor), "down": diagonal(1 / factor), "mix": mix})
    helper.set_model_props(model, {"rtda.spec": "{}"})
    return model


def test_what_was_found_travels_in_the_metadata() -> None:
    rescue = rescue_fp16(chain(6e4), pictures(1, (1, 4, 8, 8)))
    facts = precision_of(rescue.model)
    assert facts["precision"] == "fp16"
    assert facts["keep_fp32"] == ["up", "relu", "down"]
    assert set(facts["why"]) == {"up", "relu", "down"}
    assert facts["overflows"][0]["node"] == "up"
    assert facts == json.loads(json.dumps({"precision": "fp16", **rescue.to_dict()}))
    assert "rtda.spec" in {entry.key for entry in rescue.model.metadata_props}


def test_an_overflow_within_the_headroom_of_unseen_frames_is_kept_too() -> None:
    images = pictures(1, (1, 4, 8, 8))
    model = chain(50000 / float(np.abs(images[0]).max()))
    careful = rescue_fp16(model, images)
    assert careful.keep_fp32 == ("up", "relu", "down")
    assert careful.agreement_before > 0.9  # nothing overflowed on these frames
    assert rescue_fp16(model, images, limit=0.9, headroom=1).keep_fp32 == ()


def test_a_healthy_network_is_left_alone(one_onnx: Path) -> None:
    model = onnx.load(str(one_onnx))
    rescue = rescue_fp16(model, pictures(), limit=0.97, threads=1)
    assert (rescue.keep_fp32, rescue.overflows, rescue.reasons) == ((), (), {})
    assert rescue.agreement_after == rescue.agreement_before >= 0.97
    assert len(rescue.report) == 1
    assert rescue.frames == 2


def test_a_sum_that_overflows_inside_a_reduction_is_kept_although_nothing_shows() -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"], name="pool"),
        helper.make_node("Sub", ["image", "mean"], ["logits"], name="sub"),
    ]
    image = np.random.default_rng(0).uniform(90, 110, (1, 4, 64, 64)).astype(np.float32)  # sums of 4096 * 100
    rescue = rescue_fp16(small_model(nodes, {}, (1, 4, 64, 64)), [image], limit=0.5)
    assert rescue.keep_fp32 == ("pool",)
    assert rescue.reasons["pool"].startswith("sums inside reach 4.1")


@pytest.mark.parametrize("operator, attributes", [("ReduceMean", {"axes": [2, 3]}), ("ReduceL2", {"axes": [-1, -2]})])
def test_other_reductions_are_looked_into_too(operator: str, attributes: dict[str, Any]) -> None:
    nodes = [
        helper.make_node(operator, ["image"], ["r"], name="reduce", **attributes),
        helper.make_node("Sub", ["image", "r"], ["logits"], name="sub"),
    ]
    image = np.random.default_rng(0).uniform(90, 110, (1, 4, 64, 64)).astype(np.float32)
    rescue = rescue_fp16(small_model(nodes, {}, (1, 4, 64, 64)), [image], limit=0.01)
    assert rescue.keep_fp32 == ("reduce",)


def test_rounding_that_changes_the_masks_is_searched_for_and_found() -> None:
    offset = np.full(4, 20000, np.float32)  # float16 steps by 16 there, float32 by 0.002
    nodes = [
        helper.make_node("Conv", ["image", "one"], ["a"], name="before"),
        helper.make_node("Conv", ["a", "one", "plus"], ["b"], name="up"),
        helper.make_node("Conv", ["b", "one", "minus"], ["c"], name="down"),
        helper.make_node("Relu", ["c"], ["d"], name="relu"),
        helper.make_node("Conv", ["d", "one"], ["logits"], name="after"),
    ]
    model = small_model(nodes, {"one": diagonal(1), "plus": offset, "minus": -offset})
    rescue = rescue_fp16(model, pictures(2, (1, 4, 8, 8)))
    assert rescue.keep_fp32 == ("up", "down")
    assert rescue.overflows == ()
    assert rescue.agreement_before < 0.9
    assert rescue.agreement_after >= 0.995
    assert rescue.reasons["up"].startswith("alone in float16 it moves the logits by")


def test_a_weight_beyond_float16_is_kept() -> None:
    nodes = [
        helper.make_node("Conv", ["image", "tiny"], ["a"], name="first"),
        helper.make_node("Conv", ["a", "huge"], ["logits"], name="second"),
    ]
    rescue = rescue_fp16(small_model(nodes, {"tiny": diagonal(1e-3), "huge": diagonal(1e5)}), pictures(1, (1, 4, 8, 8)))
    assert rescue.keep_fp32 == ("second",)
    assert rescue.reasons["second"].startswith("its weight reaches 1e+05")
    assert rescue.agreement_before == 0.0


def test_large_maps_are_looked_at_a_few_at_a_time_with_the_same_result() -> None:
    images = pictures(2, (1, 4, 8, 8))
    names = ["a", "b", "c", "logits"]
    whole, parts = (
        {(index, name): values for index, name, values in tensors(chain(2), images, names, max_bytes=size)}
        for size in (1 << 20, 1)  # all in one run of the network, and one run for each
    )
    assert list(whole) == [(index, name) for index in (0, 1) for name in names]
    assert list(parts) == [(index, name) for name in names for index in (0, 1)]
    assert all(np.allclose(whole[key], parts[key], atol=1e-5) for key in whole)
    with pytest.raises(ExportError, match="shape of nowhere is not known"):
        list(tensors(chain(2), images, ["nowhere"]))


def test_what_cannot_be_rescued_is_an_error(one_onnx: Path) -> None:
    model = onnx.load(str(one_onnx))
    with pytest.raises(ExportError, match="no picture"):
        rescue_fp16(model, [])
    with pytest.raises(ExportError, match="the network takes float32"):
        rescue_fp16(model, [np.zeros((1, 3, 32, 32), np.float32)])
    with pytest.raises(ConfigError, match="limit"):
        rescue_fp16(model, pictures(1), limit=99.5)
    scale_weight(model, "head.weight", np.nan)
    with pytest.raises(ExportError, match="NaN or infinity on image 0 in float32 already"):
        rescue_fp16(model, pictures(1))


def test_a_node_that_proves_not_to_be_needed_is_given_back() -> None:
    reference = np.stack([np.ones((8, 8)), np.zeros((8, 8))]).astype(np.float32)

    def respond(keep: frozenset[str], frames: Sequence[int]) -> list[np.ndarray]:
        answer = reference.copy()
        answer += 100 * ("loud" not in keep)  # moves every logit and no mask
        answer[1] += 2 * ("harmful" not in keep)
        return [answer for _ in frames]

    names, silent = ["quiet", "loud", "other", "harmful"], (lambda step, done, total: None)
    search = Sensitivity(names, respond, [reference] * 2, (8, 8), limit=1.0, score=min, tell=silent)
    assert list(search.needed(frozenset(), most=4)) == ["harmful"]
    assert list(search.needed(frozenset(), most=1)) == ["loud"]  # given up before the limit was met
    assert search.needed(frozenset({"harmful"}), most=4) == {}
