"""export_model: plan, file, proof - or a refusal before the work, and nothing left under the final name."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from rtda_deploy.errors import (  # noqa: E402
    ConfigError,
    DeviceError,
    EngineError,
    ExportError,
    FileAccessError,
    ParityError,
    SpecError,
)
from rtda_export import export_model  # noqa: E402
from rtda_export.export import ExportOptions  # noqa: E402
from rtda_export.graph import from_torch as graph_module  # noqa: E402
from rtda_export.graph.from_torch import read_onnx, stamped  # noqa: E402


@pytest.fixture
def run_folder(one_checkpoint: Path, tmp_path: Path) -> Path:
    """A run folder of its own: best.pth (the shared file itself, not to be written to) and verify/."""
    shutil.copytree(one_checkpoint.parent / "verify", tmp_path / "run" / "verify")
    os.link(one_checkpoint, tmp_path / "run" / "best.pth")
    return tmp_path / "run"


def without_spec(source: Path, target: Path) -> Path:
    model = onnx.load(str(source))
    del model.metadata_props[:]
    onnx.save(model, str(target))
    return target


def test_a_checkpoint_becomes_a_verified_onnx_beside_it(run_folder: Path) -> None:
    steps: list[Any] = []
    result = export_model(run_folder / "best.pth", on_step=steps.append)
    assert result.onnx == run_folder / "best.onnx"
    assert result.files == (run_folder / "best.onnx", run_folder / "verify.html")
    assert all(path.is_file() for path in result.files)
    assert result.parity is not None and result.parity.passed and result.parity.agreement == 1.0
    assert [frame.name for frame in result.parity.frames] == ["0.png", "1.png"]
    assert (result.parity.a, result.parity.b) == ("best.pth", "best.onnx")
    assert sorted(path.name for path in run_folder.iterdir()) == ["best.onnx", "best.pth", "verify", "verify.html"]

    told = [(step.name, step.state) for step in steps]
    assert told == [
        ("plan", "done"),
        ("note", "done"),
        ("onnx", "start"),
        ("onnx", "done"),
        ("verify", "start"),
        ("verify", "done"),
        ("spec", "done"),
    ]
    written = steps[3]
    assert written.path == result.onnx and written.size_bytes == result.onnx.stat().st_size and written.seconds > 0
    assert steps[5].parity == result.parity
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert set(values) == {"model", "onnx", "engine", "spec", "parity", "hops", "notes", "files"}
    assert values["engine"] is None and [hop["name"] for hop in values["hops"]] == ["onnx"]
    assert result.best == result.onnx


def test_without_to_it_says_first_why_there_is_no_engine(run_folder: Path) -> None:
    steps: list[Any] = []
    result = export_model(run_folder / "best.pth", on_step=steps.append)
    assert len(result.notes) == 1
    assert "no engine" in result.notes[0] and "rtda-deploy export best.onnx --to engine" in result.notes[0]
    assert [step.text for step in steps if step.name == "note"] == list(result.notes)
    assert export_model(run_folder / "best.pth", to=("onnx",)).notes == ()


def test_other_folder_and_pictures(run_folder: Path, tmp_path: Path, workshop: Any) -> None:
    pictures = workshop.store_frames(tmp_path / "robot", 3)
    shutil.rmtree(run_folder / "verify")
    result = export_model(run_folder / "best.pth", verify_path=pictures, out_dir=tmp_path / "out")
    assert result.onnx == tmp_path / "out" / "best.onnx"
    assert result.parity is not None and len(result.parity.frames) == 3
    assert not (run_folder / "best.onnx").exists()


def test_another_size_is_verified_at_that_size(run_folder: Path) -> None:
    told: list[Any] = []
    result = export_model(run_folder / "best.pth", size_hw=(32, 64), on_step=told.append)
    assert result.spec.size_hw == (32, 64)
    before = [event.text for event in told[: [event.name for event in told].index("onnx")]]
    assert any("exported at 64x32" in text for text in before), "told before the work, not after it"
    assert [note for note in result.notes if "exported at 64x32" in note and "--set size=64x32" in note]
    assert not [note for note in export_model(run_folder / "best.pth").notes if "exported at" in note]
    assert result.parity is not None and result.parity.passed


def test_options_are_one_object_that_keywords_change(run_folder: Path, tmp_path: Path) -> None:
    options = ExportOptions(to=("onnx",), out_dir=tmp_path / "out")
    assert export_model(run_folder / "best.pth", options, name="robot").onnx == tmp_path / "out" / "robot.onnx"
    with pytest.raises(TypeError, match="prescision"):
        export_model(run_folder / "best.pth", options, prescision="fp16")


@pytest.fixture
def broken_export(one_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter with a bug: one class's bias is off by one."""
    np = pytest.importorskip("numpy")
    model = onnx.load(str(one_onnx))
    bias = next(weight for weight in model.graph.initializer if weight.name == "head.bias")
    values = onnx.numpy_helper.to_array(bias) + np.array([0, 1, 0, 0, 0], np.float32)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, "head.bias"))

    def broken(checkpoint_path: Path, out_path: Path, **_: Any) -> Path:
        out_path.write_bytes(model.SerializeToString())
        return out_path

    monkeypatch.setattr(graph_module, "onnx_from_checkpoint", broken)


@pytest.mark.usefixtures("broken_export")
def test_a_file_past_its_limit_does_not_get_its_name(run_folder: Path) -> None:
    with pytest.raises(ParityError, match=r"best\.onnx does not answer as best\.pth") as caught:
        export_model(run_folder / "best.pth")
    assert "--force" in caught.value.hint
    assert sorted(path.name for path in run_folder.iterdir()) == ["best.pth", "verify", "verify.html"]


@pytest.mark.usefixtures("broken_export")
def test_an_older_good_file_survives_a_failed_export(run_folder: Path) -> None:
    (run_folder / "best.onnx").write_bytes(b"older")
    with pytest.raises(ParityError):
        export_model(run_folder / "best.pth")
    assert (run_folder / "best.onnx").read_bytes() == b"older"


@pytest.mark.usefixtures("broken_export")
def test_force_keeps_it_and_says_so(run_folder: Path) -> None:
    result = export_model(run_folder / "best.pth", force=True, to=("onnx",))
    assert result.onnx.is_file()
    assert result.parity is not None and not result.parity.passed
    assert "kept by --force" in result.notes[0]


def test_weights_that_are_no_numbers_fail_even_with_force(tmp_path: Path, workshop: Any) -> None:
    def poison(model: Any) -> None:
        model.head.weight[0].fill_(3e38)  # finite, and past float32 once it is multiplied: a checkpoint may hold it

    path = workshop.checkpoint(tmp_path, change=poison)
    pictures = workshop.store_frames(tmp_path / "verify")
    with pytest.raises(ParityError, match=r"best\.pth gives .* NaN"):
        export_model(path, verify_path=pictures, force=True)
    assert not (tmp_path / "best.onnx").exists()


def test_missing_pictures_are_refused_before_the_work(run_folder: Path) -> None:
    shutil.rmtree(run_folder / "verify")
    with pytest.raises(ExportError, match="nothing to verify") as caught:
        export_model(run_folder / "best.pth")
    assert "--verify PATH" in caught.value.hint
    assert [path.name for path in run_folder.iterdir()] == ["best.pth"]


@pytest.mark.parametrize("to", [("engine",), ("onnx", "engine")])
def test_an_engine_asked_for_is_a_matter_of_the_device(run_folder: Path, to: tuple[str, ...]) -> None:
    with pytest.raises(DeviceError, match="no engine can be built") as caught:
        export_model(run_folder / "best.pth", to=to)
    assert caught.value.exit_code == 3
    assert "rtda-deploy export best.onnx --to engine" in caught.value.hint
    assert not (run_folder / "best.onnx").exists()


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        ({"precision": "int8"}, "needs pictures to calibrate on", "--calibrate PATH"),
        ({"precision": "fp16", "calibrate": "frames"}, "goes with INT8 only", "--precision int8"),
        ({"precision": "int8", "calibrate": "frames", "opset": 12}, "needs opset 13", "--opset 17"),
        ({"precision": "int8", "calibrate": "frames", "int8_target": "tpu"}, "unknown target 'tpu'", "tensorrt, cpu"),
        ({"output": "boxes"}, "unknown output", "logits, mask"),
        ({"confidence": True}, "goes with a mask only", "--output mask"),
        ({"batch": 4, "to": ("engine",)}, "an engine for 4 pictures", "--to onnx"),
        ({"precision": "fp8"}, "unknown precision", "fp32"),
        ({"to": ("tflite",)}, "unknown --to tflite", "onnx"),
        ({"to": ()}, "unknown --to", "onnx"),
        ({"opset": 18}, "opset 18", "--opset 17"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(run_folder: Path, options: dict[str, Any], said: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        export_model(run_folder / "best.pth", **options)
    assert hint in caught.value.hint
    assert not (run_folder / "best.onnx").exists()


def test_a_size_or_place_that_does_not_work_is_refused_first(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="100x64") as caught:
        export_model(run_folder / "best.pth", size_hw=(64, 100))
    assert "--size 96x64" in caught.value.hint
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileAccessError, match="cannot write to"):
        export_model(run_folder / "best.pth", out_dir=tmp_path / "file")
    with pytest.raises(FileAccessError, match="No such file"):
        export_model(run_folder / "gone.pth")
    (run_folder / "model.h5").write_bytes(b"x")
    with pytest.raises(ExportError, match=r"model\.h5 is no model that can be exported"):
        export_model(run_folder / "model.h5")


def test_an_onnx_without_a_spec_gets_one(one_onnx: Path, tmp_path: Path, workshop: Any) -> None:
    bare = without_spec(one_onnx, tmp_path / "bare.onnx")
    with pytest.raises(SpecError, match="says nothing about its classes") as caught:
        export_model(bare)
    assert "--spec" in caught.value.hint

    spec_path = workshop.spec().save(tmp_path / "spec.json")
    result = export_model(bare, spec_path=spec_path, out_dir=tmp_path / "out")
    assert result.onnx == tmp_path / "out" / "bare.onnx" and result.parity is None
    assert export_model(result.onnx).spec == workshop.spec()
    assert not read_onnx(bare).metadata_props  # the original is left as it was


def test_a_spec_of_another_network_is_refused(one_onnx: Path, tmp_path: Path, workshop: Any) -> None:
    spec_path = workshop.spec(size_hw=(64, 96)).save(tmp_path / "spec.json")
    with pytest.raises(EngineError, match="its spec says"):
        export_model(one_onnx, spec_path=spec_path, out_dir=tmp_path / "out")
    assert not (tmp_path / "out" / "best.onnx").exists()


def test_an_onnx_is_checked_and_left_alone(one_onnx: Path, tmp_path: Path, workshop: Any) -> None:
    mine = Path(shutil.copyfile(one_onnx, tmp_path / "mine.onnx"))
    before = mine.read_bytes()
    result = export_model(mine, verify_path=workshop.store_frames(tmp_path / "frames"))
    assert result.files == () and result.onnx == mine
    assert mine.read_bytes() == before


@pytest.mark.parametrize(
    "options",
    [{"size_hw": (64, 64)}, {"opset": 17}, {"output": "mask"}, {"output": "mask", "confidence": True}, {"batch": 2}],
)
def test_what_an_onnx_has_built_in_cannot_be_changed(one_onnx: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"cannot be changed in best\.onnx"):
        export_model(one_onnx, **options)


def test_an_onnx_with_nan_inside_is_refused(one_onnx: Path, tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    model = onnx.load(str(one_onnx))
    bias = next(weight for weight in model.graph.initializer if weight.name == "head.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(5, np.nan, np.float32), "head.bias"))
    onnx.save(model, str(tmp_path / "nan.onnx"))
    with pytest.raises(ExportError, match=r"nan\.onnx gives NaN"):
        export_model(tmp_path / "nan.onnx")


def test_an_onnx_too_new_for_a_jetson_is_pointed_out(one_onnx: Path, tmp_path: Path, workshop: Any) -> None:
    model = read_onnx(one_onnx)
    model.ir_version = 9
    (tmp_path / "new.onnx").write_bytes(stamped(model, workshop.spec()))
    notes = export_model(tmp_path / "new.onnx", to=("onnx",)).notes
    assert len(notes) == 1 and "ir_version 9" in notes[0]


def test_a_mask_for_several_pictures_is_written_and_verified(run_folder: Path) -> None:
    result = export_model(run_folder / "best.pth", to=("onnx",), output="mask", confidence=True, batch=2)
    graph = onnx.load(str(result.onnx)).graph
    assert [output.name for output in graph.output] == ["mask", "confidence"]
    assert [side.dim_value for side in graph.output[0].type.tensor_type.shape.dim] == [2, 64, 64]
    assert result.spec.output == "mask"
    assert result.parity is not None and result.parity.agreement == 1.0 and result.parity.max_abs is None


def test_what_a_killed_export_left_is_removed_and_a_running_ones_is_not(run_folder: Path) -> None:
    dead, alive = run_folder / ".export-dead", run_folder / ".export-alive"
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "lock").touch()
        (folder / "reference.onnx").write_bytes(b"half")
    with (alive / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        export_model(run_folder / "best.pth", to=("onnx",))
    assert not dead.exists() and alive.exists()
