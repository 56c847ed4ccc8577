"""What an .onnx says of itself, read without the onnx package."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any, Optional

import pytest
from export.tensorrt_standins import FLOAT16, NETWORK, QUANTIZED, field, kept, onnx_bytes, spec, write_onnx

from rtda_deploy.errors import ExportError, SpecError
from rtda_deploy.onnx_file import read_onnx_facts


def test_a_real_export_is_read_as_the_onnx_package_reads_it(one_onnx: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(one_onnx))
    facts = read_onnx_facts(one_onnx)
    assert dict(facts.metadata) == {entry.key: entry.value for entry in model.metadata_props}
    assert (facts.opset, facts.ir_version) == (model.opset_import[0].version, model.ir_version)
    assert [(node.name, node.operator, node.output) for node in facts.nodes] == [
        (node.name, node.op_type, node.output[0]) for node in model.graph.node
    ]
    for found, values in ((facts.inputs, model.graph.input), (facts.outputs, model.graph.output)):
        assert [(value.name, value.dtype, value.shape) for value in found] == [
            (value.name, "float32", tuple(side.dim_value for side in value.type.tensor_type.shape.dim))
            for value in values
        ]
    assert facts.spec is not None and facts.spec.size_hw == facts.size_hw
    assert not facts.float16 and not facts.quantized and facts.keep_fp32 == ()


def test_a_typed_float16_file_of_ours_is_known_by_its_weights(one_onnx: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from rtda_export.graph.nodes import named
    from rtda_export.precision.fp16_graph import fp16_onnx

    model = onnx.load(str(one_onnx))
    names = [node.name for node in named(model).graph.node]
    convolution = next(node.name for node in named(model).graph.node if node.op_type == "Conv")
    path = tmp_path / "best.fp16.onnx"
    path.write_bytes(fp16_onnx(model, keep_fp32=[convolution]).SerializeToString())
    facts = read_onnx_facts(path)
    assert facts.float16 and facts.keep_fp32 == (convolution,)
    assert facts.spec == read_onnx_facts(one_onnx).spec
    assert list(read_onnx_facts(one_onnx).node_names) == names
    assert facts.inputs[0].dtype == facts.outputs[0].dtype == "float32"


def test_a_file_written_by_hand_is_read_back(tmp_path: Path) -> None:
    facts = read_onnx_facts(write_onnx(tmp_path, metadata=kept(["/head/Conv"]), opset=13))
    assert (facts.opset, facts.size_hw, facts.spec, facts.keep_fp32) == (13, (64, 128), spec(), ("/head/Conv",))
    assert [(node.name, node.operator) for node in facts.nodes] == list(NETWORK)
    assert [value.name for value in facts.inputs] == ["image"], "w is a weight"
    assert read_onnx_facts(write_onnx(tmp_path, nodes=QUANTIZED)).quantized
    assert read_onnx_facts(write_onnx(tmp_path, weight_type=FLOAT16)).float16


def test_float16_in_a_constant_counts_too(tmp_path: Path) -> None:
    tensor = field(2, FLOAT16) + field(9, b"\0\0")
    node = field(2, "c") + field(4, "Constant") + field(5, field(1, "value") + field(5, tensor))
    path = tmp_path / "a.onnx"
    path.write_bytes(field(1, 8) + field(7, field(1, node)) + field(8, field(2, 17)))
    assert read_onnx_facts(path).float16


def test_a_file_cut_anywhere_is_refused_in_words(tmp_path: Path) -> None:
    content = onnx_bytes(metadata={})
    path = tmp_path / "cut.onnx"
    for length in range(1, len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ExportError, match=r"cut\.onnx is no whole ONNX file") as caught:
            read_onnx_facts(path)
        assert caught.value.why and "copied" in caught.value.hint


def test_damaged_bytes_are_refused_or_read_but_never_crash(tmp_path: Path) -> None:
    rng = random.Random(0)
    content = onnx_bytes()
    path = tmp_path / "odd.onnx"
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(bytes(damaged))
        try:
            facts = read_onnx_facts(path)
            _ = (facts.spec, facts.size_hw, facts.keep_fp32)
        except (ExportError, SpecError):
            pass


@pytest.mark.parametrize(
    "content, reason",
    [
        (field(7, b""), "opset"),
        (field(8, field(2, 17)), "graph"),
        (field(7, 5) + field(8, field(2, 17)), "a number where a message"),
        (field(1, "x") + field(7, b"") + field(8, field(2, 17)), "a message where a number"),
    ],
)
def test_what_is_no_onnx_is_said(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    with pytest.raises(ExportError) as caught:
        read_onnx_facts(path)
    assert re.search(reason, caught.value.why), caught.value.why


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    weight = field(2, 1) + field(8, "w") + field(14, 1)
    path = tmp_path / "a.onnx"
    path.write_bytes(field(1, 8) + field(7, field(5, weight)) + field(8, field(2, 17)))
    with pytest.raises(ExportError, match="weights in another file"):
        read_onnx_facts(path)


@pytest.mark.parametrize("shape", [("N", 3, 64, 128), (1, 3, "H", "W"), (1, 3, 0, 128), (1, 3), ()])
def test_a_size_that_is_not_fixed_is_refused(tmp_path: Path, shape: Any) -> None:
    facts = read_onnx_facts(write_onnx(tmp_path, shape=shape))
    with pytest.raises(ExportError, match=r"best\.onnx") as caught:
        _ = facts.size_hw
    assert "rtda-deploy export ckpt.pth --to onnx" in caught.value.hint


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"keep_fp32": "a"}', '{"keep_fp32": [1]}', '{"keep_fp32": null}'])
def test_broken_metadata_of_ours_is_refused(tmp_path: Path, text: str) -> None:
    facts = read_onnx_facts(write_onnx(tmp_path, metadata={"rtda.precision": text}))
    with pytest.raises(ExportError, match=r"rtda\.precision"):
        _ = facts.keep_fp32


@pytest.mark.parametrize("metadata, expected", [(None, ()), ({"rtda.precision": "{}"}, ()), ({}, ())])
def test_nothing_is_kept_where_nothing_is_said(tmp_path: Path, metadata: Optional[Any], expected: Any) -> None:
    assert read_onnx_facts(write_onnx(tmp_path, metadata=metadata)).keep_fp32 == expected
