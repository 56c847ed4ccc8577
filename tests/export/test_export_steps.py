"""The steps after the ONNX: FP16, INT8 and the engine, each from the right file, verified, or not there at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from test_boundaries import MODULES, ROBOT  # noqa: E402

from export import tensorrt_standins as standins  # noqa: E402
from rtda_deploy.engine_file import read_sidecar  # noqa: E402
from rtda_deploy.errors import ConfigError, ParityError, RtdaError  # noqa: E402
from rtda_deploy.onnx_file import CARD_KEY, read_onnx_metadata  # noqa: E402
from rtda_deploy.optional import available  # noqa: E402
from rtda_export import export_model, verify  # noqa: E402
from rtda_export.options import EngineOptions  # noqa: E402
from rtda_export.precision import INT8, Work  # noqa: E402
from rtda_export.precision.metadata import precision_of  # noqa: E402

FLOAT16 = onnx.TensorProto.FLOAT16


@pytest.fixture
def run_folder(one_checkpoint: Path, tmp_path: Path) -> Path:
    shutil.copytree(one_checkpoint.parent / "verify", tmp_path / "run" / "verify")
    os.link(one_checkpoint, tmp_path / "run" / "best.pth")
    return tmp_path / "run"


def plant(model: Any) -> None:
    """An overflow: float32 does not mind, float16 has no 1e6."""
    model.spatial_path[0].bn.weight.mul_(1e6)
    model.spatial_path[0].bn.bias.mul_(1e6)
    model.spatial_path[1].conv.weight.mul_(1e-6)


def weight_types(path: Path) -> set[int]:
    return {weight.data_type for weight in onnx.load(str(path)).graph.initializer if len(weight.dims) == 4}


def card_of(path: Path) -> str:
    return read_onnx_metadata(path)[CARD_KEY]


def test_fp16_is_a_file_of_its_own_beside_the_fp32_one(run_folder: Path, workshop: Any) -> None:
    result = export_model(run_folder / "best.pth", to=("onnx",), precision="fp16")
    assert [step.name for step in result.steps] == ["onnx", "fp16"]
    assert result.best == run_folder / "best.fp16.onnx" and result.onnx == run_folder / "best.onnx"
    assert weight_types(result.best) == {FLOAT16} and FLOAT16 not in weight_types(result.onnx)
    assert card_of(result.onnx) == card_of(result.best) == workshop.card
    assert result.steps[1].spec.provenance["export"]["precision"] == "fp16"
    found = result.steps[1].parity
    assert found.limit.name == "fp16" and found.agreement >= 0.995
    assert found.relative is not None and found.relative > 1e-5, "ONNX Runtime computed it in float32"
    assert {path.name for path in result.files} == {
        "best.onnx",
        "best.fp16.onnx",
        "verify.html",
        "verify.fp16.onnx.html",
    }
    values = json.loads(json.dumps(result.to_dict()))
    assert values["hops"][1]["kept_fp32"] == {} and values["hops"][1]["miou"] is None


def test_layers_that_overflow_stay_in_fp32_and_both_files_name_them(tmp_path: Path, workshop: Any) -> None:
    checkpoint = workshop.checkpoint(tmp_path, change=plant)
    workshop.store_frames(tmp_path / "verify")
    told: list[Any] = []
    result = export_model(checkpoint, to=("onnx",), precision="fp16", on_step=told.append)
    fp16 = result.steps[1]
    assert fp16.parity.passed
    assert any("spatial_path.0" in name for name in fp16.kept_fp32), fp16.kept_fp32
    for path in (result.onnx, fp16.path):  # TensorRT 8 builds FP16 from the fp32 file
        assert precision_of(onnx.load(str(path)))["keep_fp32"] == list(fp16.kept_fp32)
    assert any(step.name == "info" and "spatial_path.0" in step.text for step in told)


def test_a_mask_is_put_on_after_the_precision(run_folder: Path) -> None:
    result = export_model(run_folder / "best.pth", to=("onnx",), precision="fp16", output="mask")
    for path in (result.onnx, result.best):
        assert [output.name for output in onnx.load(str(path)).graph.output] == ["mask"]
    assert result.steps[1].parity.agreement >= 0.995


def test_an_onnx_is_reduced_too(one_onnx: Path, tmp_path: Path, workshop: Any) -> None:
    mine = Path(shutil.copyfile(one_onnx, tmp_path / "mine.onnx"))
    pictures = workshop.store_frames(tmp_path / "frames")
    result = export_model(mine, to=("onnx",), precision="fp16", verify_path=pictures)
    assert result.best == tmp_path / "mine.fp16.onnx" and result.onnx == mine
    assert [step.name for step in result.steps] == ["fp16"] and result.parity is None


@pytest.fixture
def certain_run(tmp_path: Path, workshop: Any) -> Path:
    """A run folder whose network gives one class everywhere: another one of random weights loses much in INT8."""
    workshop.checkpoint(tmp_path, change=lambda model: model.head.bias[0].fill_(1000.0))
    workshop.store_frames(tmp_path / "verify")
    return tmp_path


@pytest.mark.parametrize("target", ["tensorrt", "cpu"])
def test_int8_is_calibrated_and_says_what_it_left_in_float(certain_run: Path, workshop: Any, target: str) -> None:
    seen = workshop.store_frames(certain_run / "seen", 4)
    result = export_model(certain_run / "best.pth", to=("onnx",), precision="int8", calibrate=seen, int8_target=target)
    graph = onnx.load(str(result.best))
    assert "QuantizeLinear" in {node.op_type for node in graph.graph.node}
    assert precision_of(graph)["precision"] == "int8" and card_of(result.best) == workshop.card
    step = result.steps[1]
    assert step.parity.limit.name == "int8" and any("4 frames" in note for note in step.notes)
    assert any("convolutions in 8 bits" in note for note in step.notes) == available("openvino")
    libraries = precision_of(graph)["libraries"]  # each tried in a process of its own
    known = {"onnxruntime", *["openvino"] * available("openvino")}
    assert {name: entry["error"] for name, entry in libraries.items()} == dict.fromkeys(known, "")
    assert any("pays here" in note or "does not pay here" in note for note in step.notes) == (target == "cpu")


def test_pixels_are_put_before_a_quantised_network_and_are_not_quantised(certain_run: Path, workshop: Any) -> None:
    seen = workshop.store_frames(certain_run / "seen", 4)
    result = export_model(
        certain_run / "best.pth", to=("onnx",), precision="int8", calibrate=seen, input="uint8", output="mask"
    )
    graph = onnx.load(str(result.best)).graph
    ways = [node.op_type for node in graph.node[:6]]
    assert ways[:5] == ["Cast", "Transpose", "Gather", "Sub", "Mul"] and ways[5] == "QuantizeLinear"
    assert result.steps[1].parity.passed and result.steps[1].spec.input == "uint8"


def test_a_quantised_file_for_a_cpu_takes_bytes_as_they_are(certain_run: Path, workshop: Any) -> None:
    seen = workshop.store_frames(certain_run / "seen", 4)
    words = {"precision": "int8", "calibrate": seen, "int8_target": "cpu"}
    result = export_model(certain_run / "best.pth", to=("onnx",), input="uint8", output="mask", **words)
    graph = onnx.load(str(result.best)).graph
    assert [node.op_type for node in graph.node[:2]] == ["DequantizeLinear", "Transpose"]
    step, usual = result.steps[1], result.steps[0].spec
    assert step.parity.passed and (step.spec.input, step.spec.layout) == ("uint8", "nhwc")
    # What the graph does to the picture is told as of every file, wherever it does it.
    assert (step.spec.channel_order, step.spec.mean, step.spec.std) == (usual.channel_order, usual.mean, usual.std)


@pytest.mark.parametrize(("after", "asked"), [([49.0, 49.6], 0.99), ([49.0, 49.2, 49.4], 0.995)], ids=str)
def test_int8_that_scores_too_low_is_made_again_with_more_in_float(
    certain_run: Path, workshop: Any, after: list[float], asked: float
) -> None:
    parent = workshop.onnx(certain_run / "best.pth", certain_run / "best.onnx")
    image = np.zeros((1, 3, 64, 64), np.float32)
    left = list(after)
    assert INT8.make is not None
    made = INT8.make(
        Work(
            reference=parent,
            out=certain_run / "best.int8.onnx",
            spec=workshop.spec(),
            images=[image],
            calibration=[image],
            target="tensorrt",
            progress=lambda step, done, total: None,
            score=lambda: (50.0, left.pop(0)),
        )
    )
    assert left == [] and made.miou == (50.0, after[-1])
    assert precision_of(onnx.load(str(certain_run / "best.int8.onnx")))["limit"] == asked


# ---- engines, on stand-ins of TensorRT ----


class Robot:
    """TensorRT's stand-ins and a GPU that runs what they build."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
        self._monkeypatch = monkeypatch
        self.source, self.wrong = source, False

    def __call__(self, generation: str) -> standins.World:
        def opened(file: Path, **_: Any) -> standins.EngineThatAnswers:
            return standins.EngineThatAnswers(file, self.source, wrong=self.wrong)

        self._monkeypatch.setattr("rtda_runtime.engines.tensorrt.open_tensorrt", opened)
        return standins.install(generation, self._monkeypatch.setitem, self._monkeypatch.setattr)


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, one_onnx: Path) -> Robot:
    monkeypatch.setenv("RTDA_CACHE", str(tmp_path / "cache"))
    return Robot(monkeypatch, one_onnx)


def test_where_tensorrt_works_an_fp16_engine_is_made_by_itself(run_folder: Path, tensorrt: Robot) -> None:
    world = tensorrt("8.5")
    told: list[Any] = []
    result = export_model(run_folder / "best.pth", on_step=told.append)
    assert result.engine == result.best == run_folder / "best.fp16.engine"
    assert [step.name for step in result.steps] == ["onnx", "fp16", "engine"] and world.flags() == ["FP16"]
    sidecar = read_sidecar(result.engine)
    assert sidecar.built.onnx == "best.onnx" and sidecar.built.gpu == "Xavier"
    assert {path.name for path in result.files} >= {"best.fp16.engine", "best.fp16.engine.json", "best.onnx"}
    assert "engine fp16 (TensorRT 8.5.2.2, Xavier)" in told[0].text
    assert result.steps[2].parity.limit.name == "fp16" and result.notes == ()

    again = export_model(run_folder / "best.onnx", to=("engine",))
    assert world.builds == 1 and again.engine == result.engine, "the same engine is not built again"


def test_tensorrt_11_gets_its_fp16_from_a_file(run_folder: Path, tensorrt: Robot) -> None:
    tensorrt("11")
    result = export_model(run_folder / "best.pth", to=("engine",))
    assert [step.name for step in result.steps] == ["onnx", "fp16", "engine"]
    assert result.engine is not None and read_sidecar(result.engine).built.onnx == "best.fp16.onnx"
    assert result.engine.name == "best.fp16.engine"


def test_an_engine_that_answers_otherwise_does_not_get_its_name(run_folder: Path, tensorrt: Robot) -> None:
    tensorrt("8.5")
    tensorrt.wrong = True
    (run_folder / "best.fp16.engine").write_bytes(b"older")
    with pytest.raises(ParityError, match=r"best\.fp16\.engine does not answer as best\.onnx"):
        export_model(run_folder / "best.pth", to=("onnx", "engine"))
    assert (run_folder / "best.fp16.engine").read_bytes() == b"older"
    assert not (run_folder / "best.fp16.engine.json").exists() and (run_folder / "best.onnx").exists()
    assert not list(run_folder.glob(".export-*"))


def test_several_pictures_at_a_time_make_no_engine(run_folder: Path, tensorrt: Robot) -> None:
    world = tensorrt("8.5")
    result = export_model(run_folder / "best.pth", batch=2)
    assert result.engine is None and world.builds == 0 and "2 pictures at a time" in result.notes[0]
    with pytest.raises(ConfigError, match="an engine for 2 pictures"):
        export_model(run_folder / "best.pth", batch=2, to=("engine",))


# ---- what an FP16 file is compared with ----


def test_verify_rounds_an_fp16_file_as_a_gpu_would(run_folder: Path, workshop: Any) -> None:
    result = export_model(run_folder / "best.pth", to=("onnx",), precision="fp16")
    rounded = verify(result.onnx, result.best, workshop.frames(1), limit="fp16")
    float32 = verify(result.onnx, result.best, workshop.frames(1), limit="fp16", providers=("", "cpu"))
    assert rounded.max_abs is not None and float32.max_abs is not None
    assert rounded.max_abs > 1.5 * float32.max_abs  # only the weights are float16 there


# ---- files that are given, and their names ----


def test_a_reduced_file_that_is_given_is_checked_and_overwrites_nothing(run_folder: Path) -> None:
    made = export_model(run_folder / "best.pth", to=("onnx",), precision="fp16")
    before = made.onnx.read_bytes()
    again = export_model(made.best, to=("onnx",), verify_path=run_folder / "verify")
    assert again.onnx == made.best and again.files == () and made.onnx.read_bytes() == before
    moved = export_model(made.best, to=("onnx",), out_dir=run_folder / "out")
    assert moved.onnx.name == "best.fp16.onnx"
    for options in ({"precision": "fp32"}, {"precision": "int8", "calibrate": run_folder / "verify"}):
        with pytest.raises(ConfigError, match=r"best\.fp16\.onnx is fp16 already") as caught:
            export_model(made.best, to=("onnx",), **options)
        assert "export best.onnx" in caught.value.hint


ON_A_ROBOT = """
import json, sys
sys.modules["onnx"] = sys.modules["torch"] = None
import rtda_runtime.engines.tensorrt as tensorrt
from export import tensorrt_standins as standins
from rtda_deploy.engine_file import read_sidecar, rebuild_command
from rtda_export import export_model

world = standins.install("8.5")
tensorrt.open_tensorrt = lambda file, **_: standins.EngineThatAnswers(file, sys.argv[1])
result = export_model(sys.argv[1], to=("engine",), precision="fp16")
print(json.dumps({
    "steps": [step.name for step in result.steps],
    "builds": world.builds,
    "again": rebuild_command(read_sidecar(result.best), result.best),
    "ours": [name for name in sys.modules if name.startswith("rtda_")],
}))
"""


def test_an_engine_is_built_by_modules_that_run_on_a_robot(run_folder: Path, one_onnx: Path) -> None:
    shutil.copyfile(one_onnx, run_folder / "best.onnx")
    done = subprocess.run(
        [sys.executable, "-c", ON_A_ROBOT, str(run_folder / "best.onnx")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RTDA_CACHE": str(run_folder / "cache")},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["steps"] == ["engine"] and told["builds"] == 1 and "--precision fp16" in told["again"]
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}  # loaded on the way to a module
    assert set(told["ours"]) - packages <= set(ROBOT)


def test_layers_found_by_rescue_are_bound_in_the_engine(tmp_path: Path, workshop: Any, tensorrt: Robot) -> None:
    tensorrt("8.5")
    checkpoint = workshop.checkpoint(tmp_path, change=plant)
    workshop.store_frames(tmp_path / "verify")
    parent = workshop.onnx(checkpoint, tmp_path / "mine.onnx")
    tensorrt.source = parent
    result = export_model(parent, to=("onnx", "engine"), precision="fp16")
    assert [step.name for step in result.steps] == ["fp16", "engine"]
    assert set(read_sidecar(result.best).built.kept_fp32) == set(result.steps[0].kept_fp32) != set()


def test_an_int8_file_becomes_an_int8_engine_by_itself(certain_run: Path, tensorrt: Robot, workshop: Any) -> None:
    run_folder = certain_run
    tensorrt("8.5")
    options: dict[str, Any] = {"precision": "int8", "calibrate": run_folder / "verify"}
    made = export_model(run_folder / "best.pth", to=("onnx",), **options)
    tensorrt.source = made.onnx
    result = export_model(made.best, to=("engine",))
    assert result.best == run_folder / "best.int8.engine"
    assert read_sidecar(result.best).card == workshop.card
    with pytest.raises(ConfigError, match="an INT8 file for a CPU makes no engine"):
        export_model(run_folder / "best.pth", to=("engine",), int8_target="cpu", **options)
    cpu = export_model(run_folder / "best.pth", int8_target="cpu", **options)
    assert cpu.best.name == "best.cpu.int8.onnx" and cpu.engine is None


def test_an_engine_for_a_dla_has_a_name_of_its_own(run_folder: Path, tensorrt: Robot) -> None:
    tensorrt("8.5").dla_cores = 2
    gpu = export_model(run_folder / "best.pth", to=("engine",))
    dla = export_model(run_folder / "best.onnx", to=("engine",), engine=EngineOptions(dla_core=0))
    assert dla.best.name == "best.fp16.dla0.engine" and gpu.best.exists()
    assert any("DLA 0 (experimental)" in note for note in dla.notes)


# ---- a spec that is given ----


@pytest.mark.parametrize("options", [{"size_hw": (64, 128)}, {"output": "mask"}, {"precision": "fp16"}])
def test_a_spec_that_is_given_goes_with_every_option(run_folder: Path, workshop: Any, options: dict[str, Any]) -> None:
    spec = workshop.spec(channel_order="bgr", output="mask", provenance={})  # written by hand, or of a mask file
    result = export_model(
        run_folder / "best.pth", to=("onnx",), spec_path=spec.save(run_folder / "spec.json"), **options
    )
    assert result.spec.channel_order == "bgr" and result.spec.output == options.get("output", "logits")
    assert all(step.parity.passed for step in result.steps)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "fp16", "opset": 11}, "fp16 needs opset 13"),
        ({"output": "mask", "confidence": True, "opset": 12}, "a mask output needs opset 13"),
        ({"output": "mask", "opset": 11}, "a mask output needs opset 13"),
        ({"engine": EngineOptions(workspace_mib=64)}, "go with an engine"),
        ({"data": "anything"}, "--data scores"),
    ],
)
def test_what_cannot_be_done_is_said_first(run_folder: Path, options: dict[str, Any], said: str) -> None:
    told: list[Any] = []
    with pytest.raises(ConfigError, match=said):
        export_model(run_folder / "best.pth", to=("onnx",), on_step=told.append, **options)
    assert told == [] and not (run_folder / "best.onnx").exists()


def test_pictures_to_calibrate_on_are_looked_for_first(run_folder: Path) -> None:
    with pytest.raises(RtdaError, match="nowhere"):
        export_model(run_folder / "best.pth", to=("onnx",), precision="int8", calibrate=run_folder / "nowhere")
    assert not (run_folder / "best.onnx").exists()


def test_several_pictures_at_a_time_are_not_reduced(one_checkpoint: Path, workshop: Any, tmp_path: Path) -> None:
    path = workshop.onnx(one_checkpoint, tmp_path / "two.onnx", batch=2)
    with pytest.raises(ConfigError, match="takes 2 pictures at a time"):
        export_model(path, to=("onnx",), precision="fp16", verify_path=one_checkpoint.parent / "verify")


def test_a_checkpoint_is_compared_at_the_size_of_its_onnx(one_checkpoint: Path, workshop: Any, tmp_path: Path) -> None:
    path = workshop.onnx(one_checkpoint, tmp_path / "wide.onnx", size_hw=(64, 128))
    for pair in ((one_checkpoint, path), (path, one_checkpoint)):
        assert verify(*pair, workshop.frames(1)).agreement == 1.0
