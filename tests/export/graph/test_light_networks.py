"""The light networks as float ONNX: the checkpoint's answers, plain operators, constant sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from export.conftest import Workshop  # noqa: E402
from export.graph.test_graph import TENSORRT_8_5  # noqa: E402

from rtda_export import verify  # noqa: E402
from rtda_export.precision.fp16_graph import fp16_onnx  # noqa: E402
from rtda_export.precision.quantize import int8_onnx  # noqa: E402
from rtda_runtime.engines.trial import trials  # noqa: E402

POOLING_AND_NORMS = {"AveragePool", "BatchNormalization", "ReduceMax", "ReduceMean", "Sub"}  # TensorRT 8.5 has them too


@pytest.fixture(scope="module", params=list(Workshop.light))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pair(name: str, workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The checkpoint, and its ONNX."""
    folder = tmp_path_factory.mktemp(name)
    checkpoint = workshop.checkpoint(folder, name, size_hw=Workshop.light[name])
    return checkpoint, workshop.onnx(checkpoint, folder / "light.onnx")


def test_torch_and_onnx_runtime_give_the_same_logits(pair: tuple[Path, Path], workshop: Any) -> None:
    report = verify(*pair, workshop.frames(2))
    assert report.relative < 1e-5 and report.agreement == 1.0 and report.logit_range > 0.1


def test_the_graph_has_only_operators_that_tensorrt_8_5_parses(pair: tuple[Path, Path], name: str) -> None:
    graph = onnx.load(str(pair[1])).graph
    assert {node.op_type for node in graph.node} <= TENSORRT_8_5 | POOLING_AND_NORMS
    constants = {weight.name for weight in graph.initializer}
    constants |= {output for node in graph.node if node.op_type == "Constant" for output in node.output}
    for node in graph.node:
        if node.op_type == "Resize":
            assert node.input[-1] in constants, "no shape arithmetic, which TensorRT 8 chokes on"
    if name == "gcnet":
        assert not [weight for weight in constants if "path_" in weight], "blocks are fused"


def test_an_fp16_file_is_typed_throughout(pair: tuple[Path, Path]) -> None:
    full = onnx.load(str(pair[1]))
    half = fp16_onnx(full)
    onnx.checker.check_model(half, full_check=True)
    assert half.ByteSize() < 0.55 * full.ByteSize()
    types = {weight.data_type for weight in half.graph.initializer if len(weight.dims) == 4}
    assert types == {onnx.TensorProto.FLOAT16}


def test_sizes_whose_pooled_maps_do_not_divide_are_exported_too(workshop: Any, tmp_path: Path) -> None:
    """At 320x192 the coarsest map of two branches is 5x3, and its pooled maps 3x2 and 2x1."""
    checkpoint = workshop.checkpoint(tmp_path, "gcnet", size_hw=(192, 320))
    exported = workshop.onnx(checkpoint, tmp_path / "odd.onnx")
    operators = {node.op_type for node in onnx.load(str(exported)).graph.node}
    assert operators <= TENSORRT_8_5 | POOLING_AND_NORMS
    assert verify(checkpoint, exported, workshop.frames(1)).relative < 1e-5


def test_an_int8_file_for_a_cpu_kills_no_library(pair: tuple[Path, Path], name: str, tmp_path: Path) -> None:
    """Their pyramids begin branches with batch norms, which OpenVINO did not survive between Q and DQ nodes."""
    height, width = Workshop.light[name]
    rng = np.random.default_rng(0)
    frames = [rng.standard_normal((1, 3, height, width), dtype=np.float32) for _ in range(2)]
    quiet = {"limit": 0.01, "method": "minmax"}  # random weights agree with nothing; the file is what is looked at
    int8_onnx(pair[1], frames, tmp_path / "light.int8.onnx", target="cpu", threads=1, **quiet)
    found = trials(tmp_path / "light.int8.onnx")
    assert found and not [trial.sentence for trial in found if trial.error]
