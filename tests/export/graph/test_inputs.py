"""A graph that takes a camera's pixels: the normalisation inside is the runtime's own, pixel by pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

from export.graph.test_graph import MASK_OPERATORS, TENSORRT_8_5  # noqa: E402

from rtda_deploy.errors import ConfigError, ExportError, SpecError  # noqa: E402
from rtda_deploy.onnx_file import onnx_spec, read_onnx_facts  # noqa: E402
from rtda_deploy.spec import ModelSpec  # noqa: E402
from rtda_export import onnx_from_checkpoint, verify  # noqa: E402
from rtda_export.graph.inputs import with_pixel_input  # noqa: E402
from rtda_runtime.mask.preprocess import network_input, preprocess  # noqa: E402

INPUT_OPERATORS = {"Cast", "Gather", "Mul", "Sub", "Transpose"}  # TensorRT 8.5 parses them
RTDA = {"channel_order": "bgr", "pixel_scale": 1.0, "mean": (104.007, 116.669, 122.679), "std": (1.0, 1.0, 1.0)}
PIXELS = np.random.default_rng(0).permutation(np.repeat(np.arange(256, dtype=np.uint8), 48)).reshape(64, 64, 3)


def passing_on(spec: ModelSpec) -> Any:
    """A model that gives what the network's first layer reads."""
    from onnx import TensorProto, helper

    shape = [1, 3, *spec.size_hw]
    border = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "planes")]
    nodes = [helper.make_node("Identity", ["image"], ["planes"])]
    graph = helper.make_graph(nodes, "passing", border[:1], border[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("contract", [{}, {"channel_order": "bgr"}, RTDA, {**RTDA, "channel_order": "rgb"}], ids=str)
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("kind", ["uint8", "pixels"])
def test_every_pixel_value_becomes_what_the_runtime_makes_of_it(
    workshop: Any, contract: Any, kind: str, layout: str
) -> None:
    spec = workshop.spec(**contract)
    expected = network_input(spec)
    preprocess(PIXELS, spec, expected)
    model = passing_on(spec)
    made = with_pixel_input(model, spec, input=kind, layout=layout)
    assert made == spec.replace(input=kind, layout=layout)
    onnx.checker.check_model(model, full_check=True)
    image = network_input(made)
    preprocess(PIXELS, made, image)
    (planes,) = ort.InferenceSession(model.SerializeToString()).run(None, {"image": image})
    # A unit in the last place of a value up to 4, and of one up to 256 where nothing is scaled.
    np.testing.assert_allclose(planes, expected, rtol=0, atol=2.0**-22 if spec.pixel_scale < 1 else 2.0**-16)


def test_a_contract_that_needs_no_step_has_no_node_for_it(workshop: Any) -> None:
    model = passing_on(workshop.spec(**RTDA))
    with_pixel_input(model, workshop.spec(**RTDA), input="pixels", layout="nchw")
    assert [node.op_type for node in model.graph.node] == ["Sub", "Identity"]


@pytest.mark.parametrize("output", ["logits", "mask"])
def test_each_network_answers_pixels_as_it_answers_planes(
    checkpoint: Path, tmp_path: Path, workshop: Any, output: str
) -> None:
    path = onnx_from_checkpoint(checkpoint, tmp_path / "bytes.onnx", input="uint8", output=output)
    model = onnx.load(str(path))
    (entry,) = model.graph.input
    assert entry.name == "image" and entry.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [side.dim_value for side in entry.type.tensor_type.shape.dim] == [1, 64, 64, 3]
    assert {node.op_type for node in model.graph.node} <= TENSORRT_8_5 | MASK_OPERATORS | INPUT_OPERATORS
    readers = [node for node in model.graph.node if "image" in node.input]
    assert [node.op_type for node in readers] == ["Cast"], "TensorRT 8.5 takes UINT8 into a conversion only"
    report = verify(checkpoint, path, workshop.frames(3))
    assert report.agreement == 1.0
    assert output == "mask" or report.relative < 1e-5
    assert (onnx_spec(path).input, onnx_spec(path).layout) == ("uint8", "nhwc")
    assert read_onnx_facts(path).size_hw == (64, 64)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_several_pictures_of_pixels_are_each_answered_in_their_place(
    one_checkpoint: Path, tmp_path: Path, workshop: Any, layout: str
) -> None:
    path = onnx_from_checkpoint(one_checkpoint, tmp_path / "b.onnx", input="uint8", layout=layout, batch=3)
    assert verify(one_checkpoint, path, workshop.frames(4)).agreement == 1.0


def test_a_wide_picture_is_not_taken_for_a_tall_one(one_checkpoint: Path, tmp_path: Path) -> None:
    for layout in ("nhwc", "nchw"):
        path = onnx_from_checkpoint(one_checkpoint, tmp_path / "w.onnx", size_hw=(32, 96), input="uint8", layout=layout)
        assert read_onnx_facts(path).size_hw == (32, 96)


def test_a_letterboxed_network_keeps_its_planes(workshop: Any, tmp_path: Path) -> None:
    path = workshop.checkpoint(tmp_path, resize="letterbox")
    with pytest.raises(SpecError, match="letterboxed network cannot have the input uint8"):
        onnx_from_checkpoint(path, tmp_path / "b.onnx", input="uint8")
    assert not (tmp_path / "b.onnx").exists()


def test_a_graph_that_takes_something_else_is_refused(workshop: Any) -> None:
    spec = workshop.spec()
    model = passing_on(spec)
    bytes_in = with_pixel_input(model, spec)
    with pytest.raises(ExportError, match=r"this takes image \[1, 64, 64, 3\]"):
        with_pixel_input(model, spec)
    with pytest.raises(ExportError, match="pixels are put before one input"):
        with_pixel_input(passing_on(spec), bytes_in)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"input": "int8"}, "unknown input 'int8'"),
        ({"input": "uint8", "layout": "hwc"}, "unknown layout 'hwc'"),
        ({"layout": "nhwc"}, "a float32 input is laid out nchw"),
    ],
)
def test_inputs_that_make_no_sense_are_refused(
    one_checkpoint: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        onnx_from_checkpoint(one_checkpoint, tmp_path / "m.onnx", **options)
    assert caught.value.hint and not list(tmp_path.iterdir())
