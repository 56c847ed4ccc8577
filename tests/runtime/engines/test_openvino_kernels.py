"""Kernels of a file's layers in OpenVINO: a convolution in 8 bits is told from one in float."""

import pytest
from cli.commandline import assert_refused, invoke
from runtime.models import write_model
from runtime.quantised import write_half_quantised

from rtda_runtime.engines.openvino_kernels import Layer, by_kernel, convolutions_sentence, layers_of

pytest.importorskip("openvino", reason="it runs the files")


def test_a_convolution_in_8_bits_is_told_from_one_in_float(tmp_path):
    found = [layer for layer in layers_of(write_half_quantised(tmp_path / "m.onnx"), runs=2) if layer.is_convolution]
    assert [(layer.name.split("/")[0], layer.in_8_bits) for layer in found] == [
        ("in_8_bits", True),
        ("logits", False),
    ]
    assert all(layer.ms > 0 for layer in found)
    sentence = convolutions_sentence(found)
    assert sentence.startswith("OpenVINO runs 1 of 2 convolutions in 8 bits; not logits")


def test_inspect_lists_them_and_refuses_what_does_not_run(tmp_path):
    done = invoke("inspect", write_half_quantised(tmp_path / "m.onnx"), "--kernels", "--json")
    assert done.code == 0
    kernels = done.json["kernels"]
    assert sum(row["share"] for row in kernels["by_kernel"]) == pytest.approx(1)
    assert sum(row["layers"] for row in kernels["by_kernel"]) == len(kernels["layers"])
    table = invoke("inspect", tmp_path / "m.onnx", "--kernels")
    assert table.code == 0 and "_I8" in table.out and "1 of 2 convolutions" in table.err
    foreign = write_model(tmp_path / "foreign.onnx", with_spec=False)
    assert_refused(invoke("inspect", foreign, "--kernels"), 2, "it has no spec", "export it first")


def test_layers_of_one_kernel_are_one_row_and_the_slowest_comes_first():
    layers = [Layer("a", "Convolution", "x_I8", 1.0), Layer("b", "Pooling", "y_f32", 5.0)]
    layers.append(Layer("c", "Convolution", "x_I8", 2.0))
    rows = by_kernel(layers)
    assert [(row["kind"], row["layers"], row["ms"]) for row in rows] == [("Pooling", 1, 5.0), ("Convolution", 2, 3.0)]
    assert convolutions_sentence(layers) == "OpenVINO runs 2 of 2 convolutions in 8 bits"
    assert convolutions_sentence(layers[1:2]) == ""
