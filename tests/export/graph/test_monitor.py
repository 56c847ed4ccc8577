"""The second output for the shift alarm: the checkpoint's own numbers, in every network, precision and library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from export.conftest import Workshop  # noqa: E402
from export.graph.test_graph import TENSORRT_8_5  # noqa: E402
from export.graph.test_light_networks import POOLING_AND_NORMS  # noqa: E402

from rtda_deploy.errors import ConfigError, ExportError  # noqa: E402
from rtda_deploy.familiar import cells_step  # noqa: E402
from rtda_deploy.onnx_file import onnx_spec  # noqa: E402
from rtda_export.graph.monitor import with_monitor  # noqa: E402
from rtda_export.precision.fp16_graph import fp16_onnx  # noqa: E402
from rtda_export.precision.quantize import int8_onnx  # noqa: E402
from rtda_runtime.engines import open_engine  # noqa: E402

_MONITOR = {"GlobalAveragePool", "Slice", "Flatten", "Transpose", "Softmax", "ReduceMean", "ReduceMax", "Concat"}


def _image(size_hw: tuple[int, int], seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(1, 3, *size_hw)).astype(np.float32)


def _signals(model: Any, image: Any) -> Any:
    """float32 (D,) of a network in torch."""
    with torch.no_grad():
        output = model(torch.from_numpy(image))
    eighth, deepest = (output.features[place].mean(dim=(2, 3))[0] for place in (1, 3))
    sure = output.coarse.softmax(dim=1)[0]
    pooled = np.concatenate([part[:: -(-len(part) // most)] for part, most in ((eighth, 64), (deepest, 128))])
    return np.concatenate([pooled, sure.mean(dim=(1, 2)), [sure.amax(dim=0).mean()]]).astype(np.float32)


def _run(path: Path, image: Any, provider: str = "cpu") -> tuple[Any, Any]:
    with open_engine(path, provider) as engine:
        np.copyto(engine.input_buffer, image)
        logits = engine.infer().copy()
        assert engine.monitor is not None
        return logits, engine.monitor.copy()


@pytest.mark.parametrize("name", ["rtda", "lite0", "fcn8s", "ddrnet", "ppliteseg"])
def test_a_monitored_file_gives_the_network_s_own_numbers_and_the_same_logits(
    name: str, workshop: Any, tmp_path: Path
) -> None:
    size_hw = Workshop.light.get(name, (64, 64))
    checkpoint = workshop.checkpoint(tmp_path, name, size_hw=size_hw)
    plain = workshop.onnx(checkpoint, tmp_path / "plain.onnx")
    monitored = workshop.onnx(checkpoint, tmp_path / "monitored.onnx", monitor=True)
    image = _image(size_hw)
    logits, signals = _run(monitored, image)
    expected = _signals(workshop.model(name), image)
    assert signals == pytest.approx(expected, abs=2e-5 * max(1.0, float(np.abs(expected).max())))
    with open_engine(plain, "cpu") as engine:
        np.copyto(engine.input_buffer, image)
        assert engine.monitor is None and np.array_equal(engine.infer(), logits)
    graph = onnx.load(str(monitored)).graph
    assert {node.op_type for node in graph.node} <= TENSORRT_8_5 | POOLING_AND_NORMS | _MONITOR
    added = len(graph.node) - len(onnx.load(str(plain)).graph.node)
    assert added <= 13, "the backbone runs once"


def test_the_metadata_says_what_the_numbers_are(workshop: Any, one_checkpoint: Path, tmp_path: Path) -> None:
    path = workshop.onnx(one_checkpoint, tmp_path / "m.onnx", monitor=True)
    widths = onnx_spec(path).provenance["export"]["monitor"]
    [output] = [value for value in onnx.load(str(path)).graph.output if value.name == "monitor"]
    assert list(widths) == ["appearance", "features", "classes", "confidence"] and widths["classes"] == len(
        workshop.classes
    )
    assert output.type.tensor_type.shape.dim[1].dim_value == sum(widths.values())
    plain = workshop.onnx(one_checkpoint, tmp_path / "p.onnx", spec=onnx_spec(path))
    assert "monitor" not in onnx_spec(plain).provenance["export"], "of the file that the spec came from"


def test_wide_networks_give_evenly_spaced_channels(workshop: Any, one_checkpoint: Path) -> None:
    shapes = {"logits": [1, 5, 8, 8], "rtda.eighth": [1, 80, 8, 8], "rtda.deepest": [1, 300, 2, 2]}
    values = {name: onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()}
    given = [onnx.helper.make_tensor_value_info(f"{name}.in", 1, shape) for name, shape in shapes.items()]
    nodes = [onnx.helper.make_node("Identity", [f"{name}.in"], [name]) for name in shapes]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "wide", given, list(values.values())),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    spec = with_monitor(model, workshop.spec())
    onnx.checker.check_model(model, full_check=True)
    widths = {"appearance": 40, "features": 100, "classes": 5, "confidence": 1}
    assert spec.provenance["export"]["monitor"] == widths
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    fed = {f"{name}.in": random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    fed["logits.in"][:] = 0.0
    found = session.run(["monitor"], fed)[0][0]
    assert found[:40] == pytest.approx(fed["rtda.eighth.in"].mean(axis=(2, 3))[0, ::2], abs=1e-6)
    assert found[40:140] == pytest.approx(fed["rtda.deepest.in"].mean(axis=(2, 3))[0, ::3], abs=1e-6)
    assert found[140:] == pytest.approx([0.2] * 6, abs=1e-6)


def test_of_many_cells_every_second_row_and_column_is_looked_at(workshop: Any, tmp_path: Path) -> None:
    checkpoint = workshop.checkpoint(tmp_path, "lite0", size_hw=(512, 512))
    image = _image((512, 512))
    _, found = _run(workshop.onnx(checkpoint, tmp_path / "m.onnx", monitor=True), image)
    with torch.no_grad():
        cells = workshop.model("lite0")(torch.from_numpy(image)).coarse[0]
    sure = cells[:, ::2, ::2].softmax(dim=0)
    assert cells.shape[1:] == (64, 64) and sure.shape[1:] == (32, 32)
    assert found[-1] == pytest.approx(float(sure.amax(dim=0).mean()), abs=1e-5)
    assert found[-1 - len(sure) : -1] == pytest.approx(sure.mean(dim=(1, 2)).numpy(), abs=1e-5)


@pytest.mark.parametrize("size_hw, step", [((12, 16), 1), ((32, 64), 1), ((33, 64), 2), ((64, 128), 2), ((1, 5000), 3)])
def test_as_many_cells_as_are_wanted_are_left(size_hw: tuple[int, int], step: int) -> None:
    assert cells_step(size_hw) == step


@pytest.mark.parametrize("opset", [11])
def test_old_opsets_give_the_same_numbers(workshop: Any, one_checkpoint: Path, tmp_path: Path, opset: int) -> None:
    image = _image((64, 64))
    _, new = _run(workshop.onnx(one_checkpoint, tmp_path / "new.onnx", monitor=True), image)
    _, old = _run(workshop.onnx(one_checkpoint, tmp_path / "old.onnx", monitor=True, opset=opset), image)
    assert old == pytest.approx(new, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "precision"), [("lite0", "fp16"), ("rtda", "int8 for tensorrt"), ("rtda", "int8 for cpu")]
)
def test_lower_precisions_keep_the_numbers(name: str, precision: str, workshop: Any, tmp_path: Path) -> None:
    size_hw = Workshop.light.get(name, (64, 64))
    full = workshop.onnx(workshop.checkpoint(tmp_path, name, size_hw=size_hw), tmp_path / "m.onnx", monitor=True)
    images, made = [_image(size_hw, seed) for seed in range(2)], tmp_path / "made.onnx"
    if precision == "fp16":
        onnx.save(fp16_onnx(onnx.load(str(full))), str(made))
    else:
        int8_onnx(full, images, made, target=precision.rpartition(" ")[2], limit=0.5, method="minmax")
        graph = onnx.load(str(made)).graph
        [shares] = [node for node in graph.node if node.name == "rtda.sure"]
        assert shares.op_type == "Softmax" and "QuantizeLinear" in {node.op_type for node in graph.node}
    _, expected = _run(full, images[0])
    _, signals = _run(made, images[0])
    loose = 0.02 if precision == "fp16" else 0.3  # of the largest: INT8 of random weights is far off, and not broken
    assert signals == pytest.approx(expected, abs=loose * max(1.0, float(np.abs(expected).max())))


def test_openvino_gives_them_too(workshop: Any, one_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = workshop.onnx(one_checkpoint, tmp_path / "m.onnx", monitor=True)
    image = _image((64, 64))
    logits, signals = _run(path, image)
    theirs, found = _run(path, image, "openvino")
    assert theirs == pytest.approx(logits, abs=1e-3) and found == pytest.approx(signals, abs=1e-4)


@pytest.mark.parametrize("options", [{"output": "mask"}, {"output": "probabilities"}, {"batch": 2}])
def test_other_programs_files_have_no_monitor(one_checkpoint: Path, tmp_path: Path, options: Any) -> None:
    from rtda_export import onnx_from_checkpoint

    with pytest.raises(ConfigError, match="--monitor goes with logits"):
        onnx_from_checkpoint(one_checkpoint, tmp_path / "m.onnx", monitor=True, **options)


def test_a_graph_with_other_outputs_is_refused(one_onnx: Path, workshop: Any) -> None:
    with pytest.raises(ExportError, match="maps of the backbone"):
        with_monitor(onnx.load(str(one_onnx)), workshop.spec())
