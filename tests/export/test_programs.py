"""``export --for``: the file that another program needs, and a configuration that makes it give our mask."""

from __future__ import annotations

import configparser
import re
import shutil
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")

from runtime.models import write_model  # noqa: E402

from rtda_deploy.errors import ConfigError  # noqa: E402
from rtda_export import export_model  # noqa: E402
from rtda_runtime import Segmenter  # noqa: E402


@pytest.fixture
def run_folder(one_checkpoint: Path, tmp_path: Path) -> Path:
    shutil.copytree(one_checkpoint.parent, tmp_path / "run")
    return tmp_path / "run"


def our_mask(folder: Path, frame: np.ndarray) -> np.ndarray:
    """What the runtime makes of a plain export, for a frame of the network's size."""
    usual = export_model(folder / "best.pth", to=("onnx",), out_dir=folder / "usual").onnx
    with Segmenter.open(usual, "cpu") as segmenter:
        return np.array(segmenter.segment(frame).mask)


def test_triton_gets_a_repository_whose_model_takes_the_frame_and_gives_our_mask(
    run_folder: Path, workshop: Any
) -> None:
    result = export_model(run_folder / "best.pth", program="triton")
    config, model = run_folder / "triton/best/config.pbtxt", run_folder / "triton/best/1/model.onnx"
    assert result.config == config and {config, model} <= set(result.files)
    assert model.read_bytes() == result.best.read_bytes()
    text = re.sub(r"#.*\n", "", config.read_text())
    assert " ".join(text.split()) == (
        'name: "best" platform: "onnxruntime_onnx" max_batch_size: 0 '
        'input [ { name: "image" data_type: TYPE_UINT8 dims: [ 1, 64, 64, 3 ] } ] '
        'output [ { name: "mask" data_type: TYPE_UINT8 dims: [ 1, 64, 64 ] } ]'
    )
    assert "#   4 person\n" in config.read_text()
    frame = cv2.resize(workshop.frames(1)[0], (64, 64))
    (mask,) = ort.InferenceSession(str(model)).run(["mask"], {"image": frame[None]})
    assert mask.dtype == np.uint8 and (mask[0] == our_mask(run_folder, frame)).all()
    export_model(run_folder / "best.pth", program="triton")  # a second export of the same model writes it anew


def test_triton_takes_planes_batches_precisions_and_a_confidence_too(run_folder: Path) -> None:
    options: Dict[str, Any] = {"layout": "nchw", "batch": 2, "confidence": True, "precision": "fp16"}
    result = export_model(run_folder / "best.pth", program="triton", **options)
    text = (run_folder / "triton/best/config.pbtxt").read_text()
    assert "dims: [ 2, 3, 64, 64 ]" in text and 'name: "confidence"\n    data_type: TYPE_FP32' in text
    model = run_folder / "triton/best/1/model.onnx"
    assert result.best.name == "best.fp16.onnx" and model.read_bytes() == result.best.read_bytes()


def test_a_repository_of_another_model_is_not_written_over(run_folder: Path) -> None:
    other = run_folder / "triton/best/1/model.onnx"
    other.parent.mkdir(parents=True)
    theirs = write_model(other).read_bytes()
    with pytest.raises(ConfigError, match=r"model\.onnx is there already, and was made of another model"):
        export_model(run_folder / "best.pth", program="triton")
    assert other.read_bytes() == theirs and not (run_folder / "best.onnx").exists()


def as_nvinfer(settings: Any, onnx: Path, frame: np.ndarray) -> np.ndarray:
    """What nvinfer does by its documentation: y = net-scale-factor * (x - offset), planar; then its parser's loop."""
    offsets = np.array([float(part) for part in settings["offsets"].split(";")])[:, None, None]
    planes = frame if settings["model-color-format"] == "1" else frame[:, :, ::-1]
    planes = float(settings["net-scale-factor"]) * (planes.transpose(2, 0, 1) - offsets)
    session = ort.InferenceSession(str(onnx))
    (name,) = (entry.name for entry in session.get_inputs())
    (values,) = session.run([settings["output-blob-names"]], {name: planes[None].astype(np.float32)})
    most, classes = np.full(frame.shape[:2], -1.0), np.full(frame.shape[:2], -1)
    for index, plane in enumerate(values[0]):
        larger = (plane > most) & (plane > float(settings["segmentation-threshold"]))
        most, classes = np.where(larger, plane, most), np.where(larger, index, classes)
    return np.asarray(classes)


@pytest.mark.parametrize("precision", [None, "fp16"])
def test_what_deepstream_does_with_its_configuration_gives_our_mask(
    run_folder: Path, workshop: Any, precision: Any
) -> None:
    result = export_model(run_folder / "best.pth", program="deepstream", precision=precision)
    assert result.config == result.best.with_name(f"{result.best.stem}.nvinfer.txt")
    parser = configparser.ConfigParser()
    parser.read(result.config)
    assert parser.sections() == ["property"]
    settings = parser["property"]
    assert (result.config.parent / settings["onnx-file"]).samefile(result.best)
    assert (settings["network-type"], settings["network-mode"]) == ("2", "0" if precision is None else "2")
    assert settings["infer-dims"] == "3;64;64" and settings["num-detected-classes"] == "5"
    assert float(settings["segmentation-threshold"]) >= 0, "nvinfer refuses a negative one"
    frame = cv2.resize(workshop.frames(1)[0], (64, 64))
    mask = as_nvinfer(settings, result.onnx, frame)
    assert (mask == our_mask(run_folder, frame)).all() and result.steps[-1].parity.passed


def test_our_own_runtime_runs_probabilities_too(run_folder: Path, workshop: Any) -> None:
    made = export_model(run_folder / "best.pth", to=("onnx",), output="probabilities").onnx
    frame = cv2.resize(workshop.frames(1)[0], (64, 64))
    with Segmenter.open(made, "cpu") as segmenter:
        assert (segmenter.segment(frame).mask == our_mask(run_folder, frame)).all()
    with pytest.raises(ConfigError, match="without saying how sure"):
        Segmenter.open(made, "cpu", confidence=True)


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        ({"program": "isaac"}, "nothing is written for 'isaac'", "triton, deepstream"),
        ({"program": "triton", "input": "pixels"}, "--for triton goes with --input uint8", "leave --input out"),
        ({"program": "triton", "output": "probabilities"}, "goes with --output mask", "leave --output out"),
        ({"program": "triton", "to": ("engine",)}, "goes with --to onnx", "leave --to out"),
        ({"program": "deepstream", "layout": "nhwc"}, "goes with --layout nchw", "leave --layout out"),
        ({"program": "deepstream", "precision": "int8", "calibrate": "x"}, "no int8 file", "--precision fp32 or fp16"),
        ({"program": "deepstream", "confidence": True}, "a confidence goes with a mask only", "--output mask"),
    ],
)
def test_what_a_program_cannot_take_is_refused_before_anything_is_made(
    run_folder: Path, options: Dict[str, Any], said: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        export_model(run_folder / "best.pth", **options)
    assert hint in caught.value.hint
    left: List[str] = [path.name for path in run_folder.iterdir()]
    assert sorted(left) == ["best.pth", "verify"]


def test_a_configuration_is_not_written_for_a_file_that_is_there_already(one_onnx: Path) -> None:
    with pytest.raises(ConfigError, match=r"--for cannot be changed in best\.onnx"):
        export_model(one_onnx, program="triton")
