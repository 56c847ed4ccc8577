"""Somebody else's model: what it takes and gives is shown, and a spec to fill in leads to masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from cli.commandline import assert_refused, invoke
from runtime.models import tiny_logits, tiny_spec, write_model

from rtda_deploy.spec import ModelSpec

pytest.importorskip("onnx", reason="the models are written with onnx")


def graph(path: Path, nodes: List[Any], inputs: List[Any], outputs: List[Any]) -> Path:
    """An ``.onnx`` of any nodes with one weight, ``w``: four classes, 8x8 pixels a logit."""
    import onnx
    from onnx import helper, numpy_helper

    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32), "w")
    made = helper.make_graph(nodes, "foreign", inputs, outputs, [weight])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


def wide_mask(path: Path, offset: int = 0, keepdims: int = 1, kind: str = "INT64") -> Path:
    """Argmax over the channels of the picture, plus ``offset``, as whole numbers of 32 or 64 bits."""
    from onnx import TensorProto, helper

    shape = [1, 1, 16, 24] if keepdims else [1, 16, 24]
    code = getattr(TensorProto, kind)
    value = helper.make_tensor("value", TensorProto.INT64, [], [offset])
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["unused"], strides=[8, 8]),
        helper.make_node("ArgMax", ["x"], ["index"], axis=1, keepdims=keepdims),
        helper.make_node("Constant", [], ["offset"], value=value),
        helper.make_node("Add", ["index", "offset"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["mask"], to=code),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 24])]
    return graph(path, nodes, inputs, [helper.make_tensor_value_info("mask", code, shape)])


MASK_SPEC = ModelSpec(
    (16, 24),
    ("r", "g", "b"),
    ((255, 0, 0), (0, 255, 0), (0, 0, 255)),
    output="mask",
    output_stride=1,
    pixel_scale=1.0,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize(("keepdims", "kind"), [(1, "INT64"), (0, "INT64"), (0, "INT32")])
def test_masks_of_wide_numbers_are_taken_as_they_are(tmp_path: Path, provider: str, keepdims: int, kind: str) -> None:
    from rtda_runtime import Segmenter

    pytest.importorskip("openvino" if provider == "openvino" else "onnxruntime")
    frame = np.random.default_rng(1).integers(0, 256, (16, 24, 3), np.uint8)
    path = wide_mask(tmp_path / "m.onnx", keepdims=keepdims, kind=kind)
    with Segmenter.open(path, provider, spec=MASK_SPEC) as segmenter:
        mask = segmenter.segment(frame).mask
        again = segmenter.segment(frame[::-1]).mask
    expected = frame[:, :, ::-1].argmax(axis=2)
    assert mask.dtype == np.uint8 and np.array_equal(mask, expected) and np.array_equal(again, expected[::-1])


@pytest.mark.parametrize(("offset", "number"), [(300, "302"), (-1, "-1")])
def test_a_mask_that_holds_no_class_is_refused_not_cut_to_a_byte(tmp_path: Path, offset: int, number: str) -> None:
    from rtda_deploy.errors import EngineError
    from rtda_runtime import Segmenter

    frame = np.zeros((16, 24, 3), np.uint8)
    frame[0, 0], frame[5, 5] = (0, 0, 9), (9, 0, 0)
    path = wide_mask(tmp_path / "m.onnx", offset)
    refused = pytest.raises(EngineError, match=f"its mask holds {number}")
    with Segmenter.open(path, "cpu", spec=MASK_SPEC) as segmenter, refused as caught:
        segmenter.segment(frame)
    assert caught.value.hint


def test_a_foreign_onnx_shows_its_inputs_outputs_and_shapes(here: Path) -> None:
    write_model(Path("net.onnx"), with_spec=False)
    outcome = invoke("inspect", "net.onnx")
    assert outcome.code == 0
    assert "frame  1x3x64x96  float32" in outcome.out and "logits  1x5x8x12  float32" in outcome.out
    assert "inspect net.onnx --spec-template > spec.json" in outcome.err
    found = invoke("inspect", "net.onnx", "--json").json
    assert found["spec"] is None
    assert found["inputs"] == [{"name": "frame", "dtype": "float32", "shape": [1, 3, 64, 96]}]
    assert found["outputs"] == [{"name": "logits", "dtype": "float32", "shape": [1, 5, 8, 12]}]


def test_the_template_filled_in_leads_to_the_right_mask(here: Path) -> None:
    from rtda_runtime import Segmenter, upsample_argmax

    write_model(Path("net.onnx"), with_spec=False)
    outcome = invoke("inspect", "net.onnx", "--spec-template")
    values: Dict[str, Any] = json.loads(outcome.out)
    assert (values["size_hw"], values["output"], values["output_stride"]) == ([64, 96], "logits", 8)
    assert len(values["class_names"]) == len({tuple(colour) for colour in values["palette"]}) == 5
    assert all(field in outcome.err for field in ("class_names", "mean", "std"))
    names = tiny_spec().class_names
    Path("spec.json").write_text(json.dumps({**values, "class_names": names}))
    assert invoke("export", "net.onnx", "--spec", "spec.json", "--out", "with-spec").code == 0
    frame = np.random.default_rng(2).integers(0, 256, (64, 96, 3), np.uint8)
    with Segmenter.open("with-spec/net.onnx", "cpu") as segmenter:
        assert segmenter.spec.class_names == names
        mask = segmenter.segment(frame).mask
    spec = segmenter.spec
    picture = (frame[:, :, ::-1] / 255.0 - spec.mean) / spec.std
    expected = upsample_argmax(tiny_logits(picture.transpose(2, 0, 1)[None]).astype(np.float32), (64, 96))
    assert (mask == expected).mean() > 0.999  # float32 here, float64 there: a tie may fall either way


def test_a_template_of_a_mask_and_of_a_checkpoint_says_what_is_known(here: Path, tiny_checkpoint: Path) -> None:
    wide_mask(Path("mask.onnx"))
    found = json.loads(invoke("inspect", "mask.onnx", "--spec-template").out)
    assert (found["size_hw"], found["output"], found["output_stride"]) == ([16, 24], "mask", 1)
    own = json.loads(invoke("inspect", tiny_checkpoint, "--spec-template").out)
    assert ModelSpec.from_dict(own) == ModelSpec.from_dict(invoke("inspect", tiny_checkpoint, "--json").json["spec"])


def test_an_onnx_without_input_or_output_is_one_error_in_every_verb(here: Path) -> None:
    graph(Path("none.onnx"), [], [], [])
    MASK_SPEC.save("spec.json")
    assert invoke("inspect", "none.onnx").code == 0
    assert_refused(invoke("inspect", "none.onnx", "--spec-template"), 1, "takes nothing", "picture as|such an input")
    assert_refused(invoke("export", "none.onnx", "--spec", "spec.json", "--out", "with-spec"), 1, "none.onnx", ".")


def test_two_checkpoints_are_no_matter_for_verify_which_says_what_compares_them(
    here: Path, tiny_checkpoint: Path
) -> None:
    (here / "a.pth").symlink_to(tiny_checkpoint)
    (here / "b b.pth.tar").symlink_to(tiny_checkpoint)
    (here / "frames").symlink_to(tiny_checkpoint.parent / "verify")
    outcome = invoke("verify", "a.pth", "b b.pth.tar", "--frames", "frames")
    assert_refused(outcome, 2, "both checkpoints", r"rtda-deploy eval a\.pth --data DATA.*'b b\.pth\.tar'")
    assert invoke("verify", "a.pth", "b b.pth.tar", "--frames", "frames", "--force", "--out", ".").code == 0


def test_a_network_of_one_class_is_exported_with_a_word_about_its_mask(here: Path) -> None:
    one = tiny_spec(class_names=("lane",), palette=((255, 255, 255),))
    write_model(Path("lane.onnx"), one, classes=1, with_spec=False)
    one.save("spec.json")
    outcome = invoke("export", "lane.onnx", "--spec", "spec.json", "--out", "with-spec", "--json")
    assert outcome.code == 0 and "lane is the only class" in outcome.err
    assert any("background and lane" in note for note in outcome.json["notes"])
