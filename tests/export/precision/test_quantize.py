"""INT8: what each kind of engine finds in the file, calibration, and layers left in float because the masks need it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from export.graph.test_graph import TENSORRT_8_5  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from runtime.deadly import write_pooled, write_pyramid  # noqa: E402

from rtda_deploy.errors import ConfigError, ExportError  # noqa: E402
from rtda_deploy.optional import available  # noqa: E402
from rtda_export.graph.nodes import named, replace_nodes  # noqa: E402
from rtda_export.graph.norms import norms_as_convolutions  # noqa: E402
from rtda_export.graph.pools import padded_pools_as_convolutions  # noqa: E402
from rtda_export.precision import INT8  # noqa: E402
from rtda_export.precision.activations import answers, open_session, signal_to_noise  # noqa: E402
from rtda_export.precision.calibration import METHODS, calibrate  # noqa: E402
from rtda_export.precision.metadata import precision_of, with_precision  # noqa: E402
from rtda_export.precision.quantize import int8_onnx  # noqa: E402
from rtda_export.precision.speedup import Speedup, speedup  # noqa: E402
from rtda_runtime.engines.trial import trials  # noqa: E402

PICTURE = (1, 3, 16, 16)


def network(opset: int = 17) -> Any:
    """A residual block with a gate, as in a BiSeNet, and a head: named nodes, 16 channels, 16x16."""
    make, rng = helper.make_node, np.random.default_rng(0)
    nodes = [
        make("Conv", ["image", "w0", "b0"], ["stem"], name="stem", pads=[1, 1, 1, 1]),
        make("Relu", ["stem"], ["stem_relu"], name="stem_relu"),
        make("Conv", ["image", "w1", "b1"], ["side"], name="side", pads=[1, 1, 1, 1]),
        make("Conv", ["stem_relu", "w2", "b2"], ["first"], name="first", pads=[1, 1, 1, 1]),
        make("Relu", ["first"], ["first_relu"], name="first_relu"),
        make("Conv", ["first_relu", "w3", "b3"], ["second"], name="second", pads=[1, 1, 1, 1]),
        make("Add", ["second", "stem_relu"], ["sum"], name="sum"),
        make("Relu", ["sum"], ["sum_relu"], name="sum_relu"),
        make("GlobalAveragePool", ["sum_relu"], ["mean"], name="mean"),
        make("Conv", ["mean", "w4", "b4"], ["gate"], name="gate"),
        make("Sigmoid", ["gate"], ["gated"], name="sigmoid"),
        make("Mul", ["sum_relu", "gated"], ["product"], name="mul"),
        make("Concat", ["product", "side"], ["both"], name="concat", axis=1),
        make("Conv", ["both", "w5", "b5"], ["fused"], name="fused", pads=[1, 1, 1, 1]),
        make("Conv", ["fused", "w6", "b6"], ["logits"], name="head"),
    ]
    shapes = [(16, 3, 3), (16, 3, 3), (16, 16, 3), (16, 16, 3), (16, 16, 1), (16, 32, 3), (5, 16, 1)]
    weights = []
    for index, (out, into, side) in enumerate(shapes):
        values = rng.standard_normal((out, into, side, side)) / np.sqrt(into * side * side)
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{index}"))
        weights.append(numpy_helper.from_array(rng.standard_normal(out).astype(np.float32) / 4, f"b{index}"))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, PICTURE)
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 5, 16, 16))
    graph = helper.make_graph(nodes, "small", [image], [logits], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, {"rtda.spec": "{}"})
    return model


def save(model: Any, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as a file; not to be written to."""
    return save(network(), tmp_path_factory.mktemp("small") / "small.onnx")


def pictures(count: int = 3, shape: tuple[int, ...] = PICTURE) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.standard_normal(shape, dtype=np.float32) for _ in range(count)]


class Lazy(Sequence[np.ndarray]):
    """Frames made when asked for."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: Any) -> Any:
        return pictures()[index]


@pytest.fixture(scope="module", params=INT8.targets)
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def made(target: str, small: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """INT8 of the small network, nothing searched for; not to be written to."""
    return int8_onnx(small, pictures(), tmp_path_factory.mktemp(target) / "m.onnx", target=target, limit=0.01)


def opened(made: Any) -> tuple[Any, dict[str, np.ndarray], dict[str, Any]]:
    """The model, its weights, and the producer of each tensor."""
    model = onnx.load(str(made.path))
    weights = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    return model, weights, {name: node for node in model.graph.node for name in node.output}


def test_every_network_becomes_int8_that_answers_alike(
    exported: Path, variant: str, target: str, tmp_path: Path
) -> None:
    images = pictures(1, (1, 3, 64, 64))
    made = int8_onnx(exported, images, tmp_path / "m.onnx", target=target, limit=0.01, method="minmax", threads=1)
    reference, found = (answers(str(path), images, threads=1) for path in (exported, made.path))
    assert 10 * np.log10(signal_to_noise(reference, found)) > 15  # random weights; trained ones give 28 to 35
    assert made.quantised > (10 if variant == "fcn8s" else 25)
    operators = {node.op_type for node in onnx.load(str(made.path)).graph.node}
    assert (
        {"QuantizeLinear", "DequantizeLinear", "Conv"}
        <= operators
        <= TENSORRT_8_5 | {"DequantizeLinear", "QuantizeLinear"}
    )
    if target == "cpu":
        assert made.path.stat().st_size < 0.5 * exported.stat().st_size  # a quarter, and what the layers' names take
        assert "Clip" not in operators  # ReLU6 is where the integers end
    if variant == "rtda":
        assert set(made.kept_float) >= {"/head/Conv", "/context_path/arm16/conv/Conv", "/fusion/squeeze/Conv"}


def test_the_file_holds_plain_operators_and_float32_at_its_border(made: Any) -> None:
    model, _, _ = opened(made)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} == {""}
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    session = open_session(str(made.path), 1)
    assert (session.get_inputs()[0].type, session.get_outputs()[0].type) == ("tensor(float)", "tensor(float)")


def test_tensorrt_gets_symmetric_pairs_float_biases_and_one_free_branch_of_each_sum(
    small: Path, tmp_path: Path
) -> None:
    model, weights, producers = opened(int8_onnx(small, pictures(), tmp_path / "m.onnx", target="tensorrt", limit=0.01))
    readers = [name for node in model.graph.node for name in node.input]
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            assert weights[node.input[2]].dtype == np.int8 and not weights[node.input[2]].any()
            assert readers.count(node.output[0]) == 1  # TensorRT wants Q and DQ in pairs of their own
    assert not any(value.dtype == np.int32 for value in weights.values())
    for name in ("stem", "side", "first", "second", "fused"):
        node = producers[name]
        quantize = producers[producers[node.input[1]].input[0]]
        assert weights[quantize.input[0]].dtype == np.float32  # not int8: 8.5 takes no constants there
        assert weights[quantize.input[1]].shape == (16,)
        assert weights[node.input[2]].dtype == np.float32
        assert producers[node.input[0]].op_type == "DequantizeLinear"
    assert [producers[name].op_type for name in producers["sum"].input] == ["Conv", "DequantizeLinear"]


def test_a_cpu_gets_unsigned_activations_int8_weights_per_channel_and_int32_biases(small: Path, tmp_path: Path) -> None:
    model, weights, _ = opened(int8_onnx(small, pictures(), tmp_path / "m.onnx", target="cpu", limit=0.01))
    activations = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert {weights[node.input[2]].dtype for node in activations} == {np.dtype(np.uint8)}
    assert weights["w2_quantized"].dtype == np.int8 and weights["w2_scale"].shape == (16,)
    assert weights["b2_quantized"].dtype == np.int32


def test_the_last_convolution_and_single_pixels_stay_float_without_a_search(made: Any) -> None:
    assert set(made.kept_float) >= {"gate", "head"}
    assert made.reasons["gate"] == "works on a single pixel"
    assert "straight into the masks" in made.reasons["head"]
    _, _, producers = opened(made)
    assert list(producers["logits"].input[1:]) == ["w6", "b6"]


def test_what_was_measured_travels_in_the_metadata(made: Any, target: str) -> None:
    model, _, _ = opened(made)
    facts = precision_of(model)
    assert (facts["precision"], facts["target"], facts["keep_fp32"]) == ("int8", target, [])
    assert facts["keep_float"] == list(made.kept_float)
    assert facts["calibration"] == made.calibration
    assert facts["calibration"]["frames"] == 3
    noise = facts["calibration"]["signal_to_noise_db"]
    assert set(noise) == set(METHODS) and max(noise, key=noise.get) == facts["calibration"]["method"]
    assert {entry.key for entry in model.metadata_props} == {"rtda.spec", "rtda.precision"}


def test_the_same_frames_give_the_same_bytes_also_when_made_one_by_one(
    made: Any, target: str, small: Path, tmp_path: Path
) -> None:
    again = int8_onnx(small, Lazy(), tmp_path / "again.onnx", target=target, limit=0.01)
    assert again.path.read_bytes() == made.path.read_bytes()


def test_nodes_that_float16_would_spoil_are_handed_on_from_the_float32_file(tmp_path: Path) -> None:
    model = with_precision(network(), {"precision": "fp32", "keep_fp32": ["head"], "why": {"head": "it overflows"}})
    made = int8_onnx(save(model, tmp_path / "noted.onnx"), pictures(1), tmp_path / "m.onnx", limit=0.01)
    assert precision_of(onnx.load(str(made.path)))["keep_fp32"] == ["head"]


def test_a_sensitive_layer_is_found_left_in_float_and_named(tmp_path: Path) -> None:
    model = network()
    tensors = {weight.name: weight for weight in model.graph.initializer}
    for name, index, factor in (("w2", 0, 3e3), ("b2", 0, 3e3), ("w3", (slice(None), 0), 1 / 3e3)):
        values = numpy_helper.to_array(tensors[name]).copy()
        values[index] *= factor  # one channel now takes nearly all of the 256 steps of the map
        tensors[name].CopyFrom(numpy_helper.from_array(values, name))
    path = save(model, tmp_path / "sensitive.onnx")
    steps: list[str] = []
    options: dict[str, Any] = {"method": "minmax", "progress": lambda step, *_: steps.append(step)}
    made = int8_onnx(path, pictures(), tmp_path / "m.onnx", limit=0.95, **options)
    assert made.agreement_before < 0.95 <= made.agreement_after
    assert [name for name in made.kept_float if made.reasons[name].startswith("alone in int8")] == ["second"]
    assert made.report[-1].startswith("second: alone in int8 it moves the logits by")
    assert {"calibrate", "compare", "rank"} <= set(steps)
    given_up = int8_onnx(path, pictures(), tmp_path / "m.onnx", limit=0.95, max_float=0.0, **options)
    assert given_up.agreement_after == given_up.agreement_before == made.agreement_before


def test_a_node_kept_by_name_reads_and_gives_float(small: Path, tmp_path: Path) -> None:
    made = int8_onnx(small, pictures(1), tmp_path / "m.onnx", keep_float=["side"], limit=0.01)
    assert made.reasons["side"] == "asked for"
    _, _, producers = opened(made)
    assert list(producers["side"].input) == ["image", "w1", "b1"]
    assert producers["stem"].input[0] != "image"
    with pytest.raises(ConfigError, match="no node nowhere"):
        int8_onnx(small, pictures(1), tmp_path / "m.onnx", keep_float=["nowhere"])


def test_what_cannot_be_quantised_is_refused_and_nothing_is_written(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    with pytest.raises(ConfigError, match="unknown target 'dla'"):
        int8_onnx(small, pictures(1), out, target="dla")
    with pytest.raises(ConfigError, match="unknown calibration method"):
        int8_onnx(small, pictures(1), out, method="entropy")
    with pytest.raises(ConfigError, match="limit"):
        int8_onnx(small, pictures(1), out, limit=98)
    with pytest.raises(ExportError, match="no picture"):
        int8_onnx(small, [], out)
    with pytest.raises(ExportError, match="opset 12") as caught:
        int8_onnx(save(network(12), tmp_path / "old.onnx"), pictures(1), out)
    assert "--opset 17" in caught.value.hint
    with pytest.raises(ExportError, match="NaN or infinite"):
        int8_onnx(small, [np.full(PICTURE, np.nan, np.float32)], out)
    assert not out.exists()


def test_a_quantised_file_is_not_quantised_again(made: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="quantised already"):
        int8_onnx(made.path, pictures(1), tmp_path / "m.onnx")


def test_ranges_are_those_of_all_values_of_all_frames_however_they_grow() -> None:
    border = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 100, 100]) for name in ("image", "logits")]
    graph = helper.make_graph([helper.make_node("Neg", ["image"], ["logits"])], "negate", border[:1], border[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    rng = np.random.default_rng(0)
    frames = [(rng.standard_normal((1, 1, 100, 100)) * size).astype(np.float32) for size in (1e-3, 1, 100, 0)]
    found = calibrate(model, frames, ["logits"])
    values = np.concatenate([frame.ravel() for frame in frames])
    assert found.ranges("minmax")["image"] == (values.min(), values.max())
    assert found.ranges("minmax")["logits"] == (-values.max(), -values.min())
    low, high = found.ranges("percentile-99.99")["image"]
    assert low == pytest.approx(np.quantile(values, 0.00005), abs=1)  # two bins of 512/4096, and few values there
    assert high == pytest.approx(np.quantile(values, 0.99995), abs=1)
    assert low > values.min() and high < values.max()


def test_a_range_always_holds_zero_and_a_dead_map_has_one_too() -> None:
    border = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 4, 4]) for name in ("image", "logits")]
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["logits"])], "dead", border[:1], border[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = calibrate(model, [np.full((1, 1, 4, 4), -5, np.float32)], ["logits"])
    for method in METHODS:
        low, high = found.ranges(method)["image"]
        assert (low, high) == (pytest.approx(-5, abs=0.01), 0.0)
        low, high = found.ranges(method)["logits"]
        assert low <= 0.0 <= high and high - low < 1e-6


def test_two_files_are_timed_against_each_other(made: Any, small: Path) -> None:
    found = speedup(small, made.path)
    assert 0 < found.ratio_low <= found.ratio <= found.ratio_high and found.library.startswith("onnxruntime ")


def test_a_gain_that_the_spread_swallows_does_not_pay() -> None:
    gain = Speedup.of("onnxruntime 1.31.1, 1 thread(s)", [1.2, 1.2, 1.3, 1.6, 1.6])
    assert gain.sentence("int8") == "int8 pays here: 1.3x (1.2 to 1.6; onnxruntime 1.31.1, 1 thread(s))"
    assert Speedup("x", 1.3, 1.0, 1.6).sentence("int8").startswith("int8 does not pay here: 1.3x (1.0 to 1.6")


def test_a_sum_of_two_convolutions_keeps_what_a_third_reads(tmp_path: Path) -> None:
    """Between a MobileNet's blocks no activation stands: a convolution and a sum read what a convolution gave."""
    model = network()
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "stem_relu":
                node.input[index] = "stem"
    for node in model.graph.node:
        if node.name == "stem_relu":
            model.graph.node.remove(node)
            break
    path = save(model, tmp_path / "linear.onnx")
    for keep in ((), ("sum",), ("sum", "second"), ("first",)):
        made = int8_onnx(path, pictures(2), tmp_path / "int8.onnx", keep_float=keep, limit=0.01)
        written = onnx.load(str(made.path))
        onnx.checker.check_model(written, full_check=True)
        reads = {node.name: list(node.input) for node in written.graph.node}
        assert "first" in keep or "stem" not in reads["first"], "in int8 it reads rounded values"


def test_a_batch_norm_that_stands_alone_is_quantised_and_kills_no_library(tmp_path: Path) -> None:
    plain, out = write_pyramid(tmp_path / "pyramid.onnx"), tmp_path / "pyramid.int8.onnx"
    shape = tuple(side.dim_value for side in onnx.load(str(plain)).graph.input[0].type.tensor_type.shape.dim)
    frames = pictures(4, shape)
    made = int8_onnx(plain, frames, out, target="cpu", limit=0.9)
    nodes = onnx.load(str(out)).graph.node
    assert "BatchNormalization" not in {node.op_type for node in nodes} and made.agreement_after > 0.9
    assert [trial.error for trial in trials(out)] == [""] * (1 + available("openvino"))
    int8_onnx(plain, frames, out, target="tensorrt", limit=0.9)
    assert "BatchNormalization" in {node.op_type for node in onnx.load(str(out)).graph.node}  # a scale there


def test_a_padded_pool_after_a_sum_misleads_no_library(tmp_path: Path) -> None:
    plain, out = write_pooled(tmp_path / "pooled.onnx"), tmp_path / "pooled.int8.onnx"
    shape = tuple(side.dim_value for side in onnx.load(str(plain)).graph.input[0].type.tensor_type.shape.dim)
    assert int8_onnx(plain, pictures(4, shape), out, target="cpu", limit=0.9).agreement_after > 0.9
    assert [trial.error for trial in trials(out)] == [""] * (1 + available("openvino"))


def test_a_padded_pool_is_the_same_as_a_convolution_and_others_stay(tmp_path: Path) -> None:
    model = onnx.shape_inference.infer_shapes(named(onnx.load(str(write_pooled(tmp_path / "pooled.onnx")))))
    shape = tuple(side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim)
    pool = next(node for node in model.graph.node if node.op_type == "AveragePool")
    for key, value in (("count_include_pad", 0), ("pads", [0] * 4)):  # their zeros do not count, or are none
        other = onnx.ModelProto.FromString(model.SerializeToString())
        node = next(node for node in other.graph.node if node.name == pool.name)
        next(entry for entry in node.attribute if entry.name == key).CopyFrom(helper.make_attribute(key, value))
        assert padded_pools_as_convolutions(other) == 0
    before = answers(model, pictures(2, shape))
    assert padded_pools_as_convolutions(model) == 1 and padded_pools_as_convolutions(model) == 0
    onnx.checker.check_model(model, full_check=True)
    for found, wanted in zip(answers(model, pictures(2, shape)), before):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_batch_norm_is_the_same_as_a_convolution(tmp_path: Path) -> None:
    model = onnx.shape_inference.infer_shapes(named(onnx.load(str(write_pyramid(tmp_path / "pyramid.onnx")))))
    shape = tuple(side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim)
    before = answers(model, pictures(2, shape))
    assert norms_as_convolutions(model) == 1 and norms_as_convolutions(model) == 0
    onnx.checker.check_model(model, full_check=True)
    for found, wanted in zip(answers(model, pictures(2, shape)), before):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_graph_that_computes_how_it_splits_a_tensor_is_quantised(tmp_path: Path) -> None:
    """As ``torch.tensor_split`` is exported (RegSeg): shapes of nothing, whole numbers and a sequence among floats."""
    model = network()
    make, from_array = helper.make_node, numpy_helper.from_array
    nodes = [
        make("Tile", ["size", "none"], ["nothing"], name="tile"),
        make("Concat", ["nothing", "halves"], ["sizes"], name="sizes", axis=0),
        make("SplitToSequence", ["first_relu", "sizes"], ["parts"], name="split", axis=1),
        make("SequenceAt", ["parts", "at0"], ["upper"], name="upper"),
        make("SequenceAt", ["parts", "at1"], ["lower"], name="lower"),
        make("Concat", ["lower", "upper"], ["swapped"], name="swap", axis=1),
    ]
    values = {"size": [8], "none": [0], "halves": [8, 8]}
    scalars = {"at0": 0, "at1": 1}
    model.graph.initializer.extend(from_array(np.array(value, np.int64), name) for name, value in values.items())
    model.graph.initializer.extend(from_array(np.array(value, np.int64), name) for name, value in scalars.items())
    kept = list(model.graph.node)
    place = next(index for index, node in enumerate(kept) if node.name == "second")
    kept[place].input[0] = "swapped"
    replace_nodes(model.graph, [*kept[:place], *nodes, *kept[place:]])
    made = int8_onnx(save(model, tmp_path / "split.onnx"), pictures(), tmp_path / "int8.onnx", target="cpu", limit=0.9)
    assert made.quantised > 5 and made.agreement_after > 0.9
