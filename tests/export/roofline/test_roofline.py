"""The estimate: operations and bytes counted by hand, layers fused as engines fuse, published speeds met."""

from __future__ import annotations

import dataclasses
import importlib
import math
import re
import sys
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from rtda_deploy.errors import ConfigError, ExportError, FileAccessError  # noqa: E402
from rtda_export.precision import PRECISIONS  # noqa: E402
from rtda_export.roofline.devices import Achieved, achieved, device_named, known_devices  # noqa: E402
from rtda_export.roofline.estimator import Estimate, LayerTime, PrecisionEstimate, estimate, estimate_layers  # noqa: E402
from rtda_export.roofline.layers import fused_layers  # noqa: E402

ROOT = Path(__file__).parents[3]
PEAKS = Achieved(compute=1.0, bandwidth=1.0, floor_us=0.0, error_factor=1.0, source="")


@pytest.fixture(scope="module")
def estimate_fit() -> Any:
    """``benchmarks/estimate_fit.py`` as a module."""
    torch.set_num_threads(1)
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)  # as where it is run: it imports its neighbour
    try:
        return importlib.import_module("estimate_fit")
    finally:
        sys.path.remove(folder)


@pytest.fixture()
def fit(estimate_fit: Any, published_width: None) -> Any:
    """The module, and the networks as they are: it is about their counts."""
    return estimate_fit


def network(
    nodes: Sequence[Any],
    weights: Optional[Dict[str, Sequence[int]]] = None,
    shape: Sequence[Any] = (1, 8, 16, 16),
    outputs: Iterable[str] = ("out",),
    output_type: int = TensorProto.FLOAT,
) -> Any:
    """An ``onnx.ModelProto`` of these nodes from ``x`` to ``outputs``, its weights zero."""
    initializers = [numpy_helper.from_array(np.zeros(size, np.float32), name) for name, size in (weights or {}).items()]
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, output_type, None) for name in outputs],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save(model: Any, path: Path) -> None:
    """As a file, which has to state the shapes of its outputs."""
    onnx.save(onnx.shape_inference.infer_shapes(model), str(path))


def conv(x: str, weight: str, out: str, **attributes: Any) -> Any:
    return helper.make_node("Conv", [x, *weight.split()], [out], **{"pads": [1, 1, 1, 1], **attributes})


def operators(model: Any) -> List[str]:
    return ["+".join(layer.operators) for layer in fused_layers(model)]


# counting


def test_a_convolution_is_what_one_counts_by_hand() -> None:
    nodes = [conv("x", "w b", "y", strides=[2, 2]), helper.make_node("Relu", ["y"], ["out"])]
    (layer,) = fused_layers(network(nodes, {"w": (32, 8, 3, 3), "b": (32,)}))
    assert layer.output_shape == (1, 32, 8, 8)
    assert layer.macs == 8 * 8 * 32 * 8 * 9
    assert layer.weights == 32 * 8 * 9 + 32
    border = 4 * (8 * 16 * 16 + 32 * 8 * 8)  # float32 in and out, whatever the engine computes in
    assert (layer.activations, layer.border_bytes) == (0, border)
    assert layer.bytes_moved(2) == 2 * (32 * 8 * 9 + 32) + border


def test_a_map_inside_is_written_and_read_at_the_engines_precision() -> None:
    nodes = [conv("x", "w", "y"), conv("y", "v", "out")]
    first, second = fused_layers(network(nodes, {"w": (4, 8, 3, 3), "v": (2, 4, 3, 3)}))
    assert first.activations == second.activations == 4 * 16 * 16
    assert second.bytes_moved(1) == 2 * 4 * 9 + 4 * 16 * 16 + 4 * 2 * 16 * 16


def test_grouped_transposed_and_matrix_products_are_counted() -> None:
    weights = {"w": (8, 1, 3, 3), "t": (8, 5, 2, 2), "m": (16, 7), "g": (6, 512)}
    flat = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "g"], ["out"], transB=1)]
    (gemm,) = fused_layers(network(flat, weights, shape=(1, 8, 8, 8)))
    assert (gemm.kind, gemm.macs) == ("matmul", 6 * 512)
    (depthwise,) = fused_layers(network([conv("x", "w", "out", group=8)], weights))
    assert (depthwise.kind, depthwise.macs) == ("depthwise", 8 * 9 * 16 * 16)
    transposed = helper.make_node("ConvTranspose", ["x", "t"], ["out"], strides=[2, 2])
    assert fused_layers(network([transposed], weights))[0].macs == 8 * 5 * 4 * 16 * 16
    product = helper.make_node("MatMul", ["x", "m"], ["out"])
    assert fused_layers(network([product], weights))[0].macs == 8 * 16 * 7 * 16


def test_the_graph_has_the_multiply_adds_that_count_macs_counts(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from rtda_training.models import BiSeNet
    from rtda_training.models.complexity import count_operations

    class Published(torch.nn.Module):
        """The order of operations that the papers count."""

        def __init__(self) -> None:
            super().__init__()
            self.network = BiSeNet("resnet18", "rtda")

        def forward(self, image: Any) -> Any:
            return self.network.published_logits(image)

    monkeypatch.setitem(fit.NETWORKS, "published", Published)
    macs = sum(layer.macs for layer in fit.layers_of("published", "1024x512"))
    counted = count_operations(BiSeNet("resnet18", "rtda"), (512, 1024))
    assert macs == counted.macs + counted.pooled_macs
    assert round(counted.macs / 1e9, 2) == 25.63
    view = count_operations(BiSeNet("resnet18", "rtda").deploy_view(), (512, 1024))
    assert sum(layer.macs for layer in fit.layers_of("BiSeNet R18", "1024x512")) == view.macs + view.pooled_macs


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("DDRNet-23-slim", {"network": "ddrnet"}),
        ("GCNet-S", {"network": "gcnet", "variant": "s"}),
        ("PP-LiteSeg-T", {"network": "ppliteseg", "variant": "t"}),
        ("PP-LiteSeg-B", {"network": "ppliteseg", "variant": "b"}),
    ],
)
def test_light_networks_are_counted_at_their_own_size(fit: Any, name: str, settings: Dict[str, str]) -> None:
    from rtda_training.models import build_network
    from rtda_training.models.complexity import count_operations

    view = count_operations(build_network(**settings).deploy_view(), (128, 256))
    assert sum(layer.macs for layer in fit.layers_of(name, "256x128")) == view.macs + view.pooled_macs


def test_networks_of_published_speeds_have_the_published_counts(fit: Any) -> None:
    def weights(name: str) -> float:
        with torch.device("meta"):
            return sum(weight.numel() for weight in fit.NETWORKS[name]().parameters()) / 1e6

    assert round(sum(layer.macs for layer in fit.layers_of("ResNet-18", "224x224")) / 1e9, 2) == 1.81
    assert round(sum(layer.macs for layer in fit.layers_of("ResNet-50", "224x224")) / 1e9, 2) == 4.09
    resnet18 = (11_689_512 - 513_000) / 1e6  # torchvision's, without its last layer
    neck = (512 + 4 * 256) * 256 * 9 + 256 * 256 + 6 * 256
    position = 256 * 64 * 64
    assert weights("NanoSAM-ResNet18") == pytest.approx(resnet18 + (neck + position) / 1e6)
    auxiliary_head = 1024 * 256 * 9 / 1e6
    assert int(weights("FCN-ResNet50-D8") + auxiliary_head) == 49, "million, as EasyCV's model zoo has it"


def test_every_published_speed_has_an_address_and_stands_once(fit: Any) -> None:
    figures = [*fit.FITTED, *fit.FURTHER, *fit.SMALL, *fit.NO_ENGINES]
    assert len(set(figures)) == len(figures)
    for figure in figures:
        assert figure.source.address.startswith("https://") and figure.source.told, figure.text
        assert figure.network in fit.NETWORKS and device_named(figure.device).name == figure.device


# fusing


def test_a_residual_block_is_two_convolutions() -> None:
    nodes = [
        conv("x", "w", "a"),
        helper.make_node("BatchNormalization", ["a", "s", "s", "s", "s"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        conv("c", "w", "d"),
        helper.make_node("Add", ["d", "x"], ["e"]),
        helper.make_node("Relu", ["e"], ["out"]),
    ]
    model = network(nodes, {"w": (8, 8, 3, 3), "s": (8,)})
    assert operators(model) == ["Conv+BatchNormalization+Relu", "Conv+Add+Relu"]
    second = fused_layers(model)[1]
    assert second.activations == 8 * 16 * 16
    assert second.border_bytes == 4 * (8 * 16 * 16 + 8 * 16 * 16), "the residual is the network's input, read once more"


def test_what_two_readers_need_is_written() -> None:
    nodes = [
        conv("x", "w", "a"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["out"]),
    ]
    assert operators(network(nodes, {"w": (8, 8, 3, 3)})) == ["Conv", "Relu+Add"]


def test_a_network_output_is_never_kept_in_registers() -> None:
    nodes = [conv("x", "w", "a"), helper.make_node("Relu", ["a"], ["out"])]
    assert operators(network(nodes, {"w": (8, 8, 3, 3)}, outputs=("a", "out"))) == ["Conv", "Relu"]


def test_after_its_activation_a_convolution_takes_nothing_more() -> None:
    nodes = [
        conv("x", "w", "a"),
        helper.make_node("Sigmoid", ["a"], ["b"]),
        helper.make_node("Add", ["b", "one"], ["c"]),
        helper.make_node("Mul", ["c", "x"], ["out"]),
    ]
    assert operators(network(nodes, {"w": (8, 8, 3, 3), "one": (1,)})) == ["Conv+Sigmoid", "Add+Mul"]


def test_a_convolution_takes_one_residual_and_one_activation_and_no_product() -> None:
    first, weights = conv("x", "w", "a"), {"w": (8, 8, 3, 3)}
    twice = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Sigmoid", ["b"], ["out"])]
    assert operators(network([first, *twice], weights)) == ["Conv+Relu", "Sigmoid"]
    added = [helper.make_node("Add", ["a", "x"], ["b"]), helper.make_node("Add", ["b", "x"], ["out"])]
    assert operators(network([first, *added], weights)) == ["Conv+Add", "Add"]
    product = [conv("x", "w", "b"), helper.make_node("Mul", ["a", "b"], ["out"])]
    assert operators(network([first, *product], weights)) == ["Conv", "Conv", "Mul"]
    late = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Add", ["b", "x"], ["out"])]
    assert operators(network([first, *late], weights)) == ["Conv+Relu", "Add"]


def test_attention_over_a_pooled_map_is_not_fused_into_the_map() -> None:
    nodes = [
        conv("x", "w", "a"),
        helper.make_node("GlobalAveragePool", ["a"], ["p"]),
        helper.make_node("Mul", ["a", "p"], ["out"]),
    ]
    assert operators(network(nodes, {"w": (8, 8, 3, 3)})) == ["Conv", "GlobalAveragePool", "Mul"]


def test_views_and_concatenations_cost_nothing_and_resizing_stays_alone() -> None:
    nodes = [
        conv("x", "w", "a"),
        helper.make_node("Cast", ["a"], ["b"], to=TensorProto.FLOAT),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Concat", ["c", "x"], ["d"], axis=1),
        helper.make_node("Resize", ["d", "", "scales"], ["e"], mode="linear"),
        helper.make_node("Relu", ["e"], ["out"]),
    ]
    model = network(nodes, {"w": (8, 8, 3, 3)})
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
    assert operators(model) == ["Conv+Relu", "Resize", "Relu"]
    resize = fused_layers(model)[1]
    assert (resize.kind, resize.weights, resize.activations) == ("resize", 0, 16 * 16 * 16 + 16 * 32 * 32)


def test_what_constants_make_is_a_constant() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Mul", ["u", "u"], ["w"]),
        conv("x", "w", "a"),
        helper.make_node("Reshape", ["a", "s"], ["out"]),
    ]
    model = network(nodes, {"u": (8, 8, 3, 3)})
    assert operators(model) == ["Conv"]
    assert fused_layers(model)[0].weights == 8 * 8 * 9


def test_quantisation_pairs_are_looked_through() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
        conv("d", "w", "a"),
        helper.make_node("QuantizeLinear", ["a", "s"], ["q2"]),
        helper.make_node("DequantizeLinear", ["q2", "s"], ["d2"]),
        helper.make_node("Relu", ["d2"], ["out"]),
    ]
    model = network(nodes, {"w": (8, 8, 3, 3)})
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1), "s"))
    (layer,) = fused_layers(model)
    assert layer.operators == ("Conv", "Relu")
    assert layer.border_bytes == 4 * 2 * 8 * 16 * 16


def test_an_output_counts_in_its_own_type() -> None:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["i"], axis=1, keepdims=0),
        helper.make_node("Cast", ["i"], ["out"], to=TensorProto.UINT8),
    ]
    (layer,) = fused_layers(network(nodes, output_type=TensorProto.UINT8))
    assert layer.kind == "reduce"
    assert layer.border_bytes == 4 * 8 * 16 * 16 + 16 * 16


def test_every_output_that_is_read_is_written() -> None:
    nodes = [
        conv("x", "w", "a"),
        helper.make_node("Split", ["a", "sizes"], ["b", "c", "d"], axis=1),
        helper.make_node("Add", ["b", "c"], ["out"]),
    ]
    model = network(nodes, {"w": (9, 8, 3, 3)})
    model.graph.initializer.append(numpy_helper.from_array(np.array([3, 3, 3]), "sizes"))
    split = fused_layers(model)[1]
    assert (split.kind, split.weights) == ("copy", 0)
    assert split.activations == 9 * 16 * 16 + 2 * 3 * 16 * 16, "nobody reads the third part"


def test_layers_have_names_that_a_person_finds_in_the_network(fit: Any) -> None:
    labels = [layer.label for layer in fit.layers_of("BiSeNet R18", "64x64")]
    assert labels[0] == "backbone.conv1"
    assert {"backbone.layer1.0.conv1", "backbone.layer4.1.conv2", "fusion.block.conv", "head"} <= set(labels)


# shapes


def test_an_open_batch_is_one_picture_and_an_open_side_is_refused() -> None:
    nodes, weights = [conv("x", "w", "out")], {"w": (8, 8, 3, 3)}
    assert fused_layers(network(nodes, weights, shape=("n", 8, 16, 16)))[0].output_shape == (1, 8, 16, 16)
    with pytest.raises(ExportError, match="the shape of 'out' is not fixed") as caught:
        fused_layers(network(nodes, weights, shape=(1, 8, "h", "w")))
    assert "fixed height and width" in caught.value.hint


def test_shapes_that_contradict_each_other_are_an_error_of_the_file() -> None:
    with pytest.raises(ExportError, match="contradict"):
        fused_layers(network([helper.make_node("Add", ["x", "w"], ["out"])], {"w": (3, 5)}))


# times


def test_the_time_of_a_layer_is_the_longer_of_its_operations_and_its_bytes() -> None:
    nodes = [conv("x", "w", "y"), helper.make_node("MaxPool", ["y"], ["out"], kernel_shape=[2, 2], strides=[2, 2])]
    layers = fused_layers(network(nodes, {"w": (256, 8, 3, 3)}, shape=(1, 8, 512, 512)))
    device = device_named("xavier-agx")
    found = estimate_layers(layers, device, "fp16", PEAKS)
    operations, moved = 2 * 256 * 8 * 9 * 512 * 512, 2 * (256 * 8 * 9 + 256 * 512 * 512) + 4 * 8 * 512 * 512
    slow, pool = found.layers
    assert slow.bytes_moved == moved
    assert slow.expected_ms == pytest.approx(1e3 * max(operations / 11.3e12, moved / 136.5e9))
    assert (slow.limit, pool.limit) == ("memory", "memory")
    assert found.expected_ms == pytest.approx(found.bound_ms), "with the whole peaks and no floor they are the same"

    shares = Achieved(compute=0.05, bandwidth=0.5, floor_us=100.0, error_factor=1.4, source="")
    found = estimate_layers(layers, device, "fp16", shares, batch=2)
    slow, pool = found.layers
    assert slow.expected_ms == pytest.approx(1e3 * operations / (0.05 * 11.3e12) + 0.1)
    assert (slow.limit, slow.bound_ms) == ("compute", pytest.approx(1e3 * moved / 136.5e9))
    assert found.expected_fps == pytest.approx(2e3 / found.expected_ms), "pictures a second, not batches"
    assert found.range_fps == pytest.approx((found.expected_fps / 1.4, found.expected_fps * 1.4))
    assert found.slowest(1) == (max(found.layers, key=lambda entry: entry.expected_ms),)
    assert sum(found.share(limit) for limit in ("compute", "memory", "floor")) == pytest.approx(1)


def test_depthwise_convolutions_run_on_cuda_cores() -> None:
    layers = fused_layers(network([conv("x", "w", "out", group=8)], {"w": (8, 1, 3, 3)}))
    device = device_named("xavier-agx")
    entry = estimate_layers(layers, device, "fp16", Achieved(1e-6, 1.0, 0.0, 1.0, "")).layers[0]
    assert entry.expected_ms == pytest.approx(1e3 * 2 * 8 * 9 * 16 * 16 / (1e-6 * 1.41e12))


def test_the_range_ends_at_the_bound() -> None:
    layers = fused_layers(network([conv("x", "w", "out")], {"w": (8, 8, 3, 3)}))
    found = estimate_layers(layers, device_named("t4"), "fp16", Achieved(0.9, 0.9, 0.0, 1.5, ""))
    assert found.range_fps[1] == found.bound_fps


@pytest.mark.parametrize("device", [device.name for device in known_devices()])
def test_a_larger_picture_is_slower_and_a_lower_precision_no_slower(fit: Any, device: str) -> None:
    shares, target = achieved(), device_named(device)
    for precision in ("fp32", "fp16", "int8"):
        speeds = [
            estimate_layers(fit.layers_of("BiSeNet R18", size), target, precision, shares)
            for size in ("512x256", "1024x512", "2048x1024")
        ]
        assert speeds[0].expected_fps > speeds[1].expected_fps > speeds[2].expected_fps
        assert all(found.expected_fps < found.bound_fps for found in speeds)
    by_precision = [
        estimate_layers(fit.layers_of("BiSeNet R18", "1024x512"), target, precision, shares).expected_fps
        for precision in ("fp32", "fp16", "int8")
    ]
    assert by_precision == sorted(by_precision)


# devices


def test_an_unknown_device_is_answered_with_the_nearest_first() -> None:
    with pytest.raises(ConfigError, match="unknown device 'agx orin'") as caught:
        device_named("agx orin")
    assert caught.value.hint.startswith("known, the nearest first: orin-agx-64gb, ")
    with pytest.raises(ConfigError) as caught:
        device_named("rtx4080")
    assert "rtx-4090" in caught.value.hint.split(", ")[1:4]
    for device in known_devices():
        assert device.name in caught.value.hint


def test_a_device_is_found_however_it_is_spelled() -> None:
    assert device_named("Xavier_AGX").name == device_named(" xavier agx ").name == "xavier-agx"


@pytest.mark.parametrize("device", known_devices(), ids=lambda device: str(device.name))
def test_the_figures_of_a_device_fit_together_and_have_a_source(device: Any) -> None:
    assert len(device.source) > 15 and device.power_mode and device.title
    half = device.fp16 or 2 * device.fp32  # of one without tensor cores: two of fp16 would go where one of fp32 goes
    assert device.fp32 <= (device.tf32 or half) <= half
    if device.int8 is not None:  # dense tensor cores do twice as many
        assert device.int8 == pytest.approx(2 * half, rel=0.03)
    assert 20 < 1e3 * half / device.bandwidth < 400, "operations a byte: a slip of a thousand would show"


def test_what_an_engine_computes_in_is_said(one_onnx: Path) -> None:
    v100, a40 = device_named("v100"), device_named("a40")
    assert [v100.arithmetic(name) for name in ("fp32", "fp16", "int8")] == ["fp32", "fp16", "fp16"]
    assert [a40.arithmetic(name) for name in ("fp32", "fp16", "int8")] == ["tf32", "fp16", "int8"]
    found = estimate(one_onnx, "v100", precision=("fp16", "int8"))
    assert found.precisions[0].expected_ms == found.precisions[1].expected_ms
    assert found.notes == ("Tesla V100 SXM2 has no fast int8: an engine computes in fp16 instead",)
    assert "TF32" in estimate(one_onnx, "a40", precision="fp32").notes[0]
    found = estimate(one_onnx, "gtx-1080-ti")
    assert [entry.arithmetic for entry in found.precisions] == ["fp32", "fp32", "int8"]
    assert found.notes[0] == "GeForce GTX 1080 Ti has no fast fp16: an engine computes in fp32 instead"
    plain = dataclasses.replace(device_named("gtx-1080-ti"), fp16=None, int8=None)
    assert {plain.arithmetic(entry.precision) for entry in found.precisions} == {"fp32"}, "every device has that"


# files


def test_a_checkpoint_is_estimated_as_the_onnx_it_becomes(one_checkpoint: Path, one_onnx: Path, workshop: Any) -> None:
    from_onnx, from_pth = estimate(one_onnx, "xavier-nx"), estimate(one_checkpoint, "xavier-nx")
    assert from_pth.to_dict()["precisions"] == from_onnx.to_dict()["precisions"]
    assert [entry.precision for entry in from_pth.precisions] == [row.name for row in PRECISIONS]
    wider = estimate(one_checkpoint, "xavier-nx", precision="fp16", size_hw=(64, 128))
    assert wider.input_shape == (1, 3, 64, 128)
    assert wider.macs > 1.9 * from_onnx.macs


def test_what_makes_no_sense_is_refused(one_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown precision 'fp8'") as caught:
        estimate(one_onnx, "t4", precision="fp8")
    assert "fp16" in caught.value.hint
    with pytest.raises(ConfigError, match="no precision"):
        estimate(one_onnx, "t4", precision=())
    with pytest.raises(ConfigError, match="built in"):
        estimate(one_onnx, "t4", size_hw=(64, 64))
    with pytest.raises(FileAccessError):
        estimate(tmp_path / "none.onnx", "t4")
    (tmp_path / "model.engine").write_bytes(b"x")
    with pytest.raises(ConfigError, match="no kind"):
        estimate(tmp_path / "model.engine", "t4")
    flat = tmp_path / "flat.onnx"
    save(network([helper.make_node("Relu", ["x"], ["out"])], shape=(1, 8)), flat)
    with pytest.raises(ExportError, match="expected one picture"):
        estimate(flat, "t4")


def test_operators_that_are_not_understood_are_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.onnx"
    nodes = [helper.make_node("Softmax", ["x"], ["y"], axis=1), helper.make_node("TopK", ["y", "k"], ["out", "i"])]
    model = network(nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.array([3]), "k"))
    save(model, path)
    assert "counted by their bytes alone: TopK" in estimate(path, "t4", precision="fp16").notes


@pytest.mark.parametrize("kind", [Estimate, PrecisionEstimate, LayerTime])
def test_every_key_of_the_json_is_documented(kind: Any, one_onnx: Path) -> None:
    found = estimate(one_onnx, "t4")
    values = {Estimate: found, PrecisionEstimate: found.precisions[0], LayerTime: found.precisions[0].layers[0]}[kind]
    documented = set(re.findall(r"``(\w+)``", kind.to_dict.__doc__))
    assert set(values.to_dict()) <= documented
    if kind is Estimate:
        assert set(values.to_dict()["device"]) | set(values.to_dict()["achieved"]) <= documented


def test_the_picture_shows_the_estimate(one_onnx: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    from rtda_export.roofline.picture import save_picture

    pixels = imread(str(save_picture(estimate(one_onnx, "t4"), tmp_path / "e.png", precision="int8")))
    assert pixels.shape[1] > 1000
    blue, grey = np.array([0x1D, 0x4E, 0xD8]) / 255, np.array([0x6B, 0x72, 0x80]) / 255
    assert any(np.all(np.abs(pixels[..., :3] - colour) < 0.01, axis=-1).sum() > 500 for colour in (blue, grey))
    assert [path.name for path in tmp_path.iterdir()] == ["e.png"]


# the fit


def test_the_constants_in_use_are_those_of_the_fit(fit: Any) -> None:
    given, used = fit.constants(), achieved()
    for name in ("compute", "bandwidth", "floor_us", "error_factor"):  # the last digit is up to the maths library
        assert getattr(used, name) == pytest.approx(getattr(given, name), abs=1.5e-3), name
    page = (ROOT / "docs" / "results" / "estimate.md").read_text(encoding="utf-8")
    for name in ("compute", "bandwidth", "floor_us", "error_factor"):
        written = re.search(rf"^{name} = ([\d.]+) ", page, re.MULTILINE)
        assert written is not None and float(written.group(1)) == getattr(used, name), "run it again with --write"


def test_every_published_speed_is_met_within_one_and_a_half_when_left_out(fit: Any) -> None:
    for figure, _, ratio in fit.left_out():
        assert max(ratio, 1 / ratio) < 1.5, figure.text
    used = achieved()
    for figure in (*fit.FITTED, *fit.FURTHER):
        assert abs(math.log(fit.ratio(figure, used))) < math.log(used.error_factor), figure.text
