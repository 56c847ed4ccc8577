"""A file that takes a camera's own bytes goes wherever one that takes normalised planes does, with the same masks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest
from cli.commandline import assert_refused, invoke
from conftest import write_pictures
from runtime.models import tiny_spec, write_model

from rtda_deploy.spec import ModelSpec

pytest.importorskip("torch", reason="makes a checkpoint")
pytest.importorskip("onnx")

KINDS = {"nhwc": (), "nchw": ("--layout", "nchw"), "mask": ("--output", "mask")}


@pytest.fixture(scope="module")
def files(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Path]:
    """The tiny network, as ever and by what it takes; not to be written to."""
    folder = tmp_path_factory.mktemp("pixels")
    made = {}
    for name, words in {"float32": (), **{kind: ("--input", "uint8", *more) for kind, more in KINDS.items()}}.items():
        outcome = invoke("export", tiny_checkpoint, "--to", "onnx", *words, "--out", folder / name)
        assert outcome.code == 0, outcome.err
        made[name] = folder / name / "last.onnx"
        assert outcome.out.strip() == str(made[name])
    return made


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_command_that_reads_an_onnx_reads_this_one(
    here: Path, files: Dict[str, Path], tiny_data: Path, kind: str
) -> None:
    data, bytes_in, usual = f"folder:{tiny_data}", files[kind], files["float32"]
    told = [invoke("eval", path, "--data", data, "--json", "--out", "e").json for path in (usual, bytes_in)]
    # A mask is enlarged by whole pixels of the network's input, logits between them.
    assert told[0]["miou"] == pytest.approx(told[1]["miou"], abs=1.0 if kind == "mask" else 1e-9)
    alike = invoke("verify", usual, bytes_in, "--frames", tiny_data / "images", "--json").json
    assert alike["agreement"] == 1.0
    ran = invoke("run", bytes_in, "--camera", tiny_data / "images", "--compare", usual, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out.splitlines()[-1])["frames"] == 6
    assert invoke("bench", bytes_in, "--duration", "0.1", "--json").code == 0
    found = invoke("inspect", bytes_in)
    assert "in the graph: rgb, (pixel" in found.out and "bgr uint8" in found.out
    assert invoke("estimate", bytes_in, "--device", "xavier-agx").code == 0
    write_pictures(here / "frames", 9)
    ranked = invoke("rank", bytes_in, usual, "--footage", "folder:frames", "--max-frames", "8", "--json")
    assert ranked.code == 0, ranked.err


def test_a_spec_written_from_such_a_file_leads_back_to_planes(
    here: Path, files: Dict[str, Path], tiny_checkpoint: Path
) -> None:
    spec = invoke("inspect", files["mask"], "--json").json["spec"]
    assert (spec["input"], spec["layout"], spec["output"]) == ("uint8", "nhwc", "mask")
    Path("spec.json").write_text(json.dumps(spec))
    verify = ("--verify", tiny_checkpoint.parent / "verify")
    outcome = invoke("export", tiny_checkpoint, "--to", "onnx", "--spec", "spec.json", "--out", "o", *verify, "--json")
    assert outcome.code == 0, outcome.err
    assert "input" not in outcome.json["spec"] and outcome.json["spec"]["output"] == "logits"


def test_precisions_come_before_the_pixels(here: Path, files: Dict[str, Path], tiny_checkpoint: Path) -> None:
    shutil.copytree(tiny_checkpoint.parent, "t")
    words = ("--to", "onnx", "--input", "uint8", "--output", "mask", "--json")
    outcome = invoke("export", "t/last.pth", "--precision", "fp16", *words)
    assert outcome.code == 0, outcome.err
    half = outcome.json["hops"][1]
    assert half["path"] == "t/last.fp16.onnx" and half["parity"]["passed"]
    assert invoke("inspect", half["path"], "--json").json["spec"]["input"] == "uint8"
    refused = invoke("export", files["nhwc"], "--to", "onnx", "--precision", "fp16", "--out", "o")
    assert_refused(refused, 2, "takes uint8: no fp16 file is made of it", "ckpt.pth --input uint8 --precision fp16")
    frames = ("--calibrate", tiny_checkpoint.parent / "verify", "--precision", "int8")
    assert_refused(invoke("export", files["nhwc"], "--to", "onnx", *frames), 2, "no int8 file", "--precision int8")


def test_an_input_is_part_of_an_onnx(files: Dict[str, Path]) -> None:
    for words in (("--input", "uint8"), ("--layout", "nhwc")):
        assert_refused(invoke("export", files["float32"], *words), 2, ".", ".")


@pytest.mark.parametrize(
    ("words", "error", "fix"),
    [
        (("--input", "rgb"), "unknown input 'rgb'", "float32, uint8, pixels"),
        (("--input", "uint8", "--layout", "hwc"), "unknown layout 'hwc'", "nhwc, nchw"),
        (("--layout", "nhwc"), "float32 input is laid out nchw", "--input uint8 --layout nhwc"),
    ],
)
def test_what_makes_no_sense_is_refused(here: Path, tiny_checkpoint: Path, words: Any, error: str, fix: str) -> None:
    assert_refused(invoke("export", tiny_checkpoint, "--to", "onnx", "--out", "o", *words), 2, error, fix)


def test_a_letterboxed_checkpoint_keeps_its_float_input(here: Path, tiny_checkpoint: Path) -> None:
    shutil.copytree(tiny_checkpoint.parent, "t")
    spec = invoke("inspect", "t/last.pth", "--json").json["spec"]
    ModelSpec.from_dict({**spec, "resize": "letterbox"}).save("spec.json")
    words = ("export", "t/last.pth", "--to", "onnx", "--spec", "spec.json")
    refused = invoke(*words, "--input", "uint8")
    assert_refused(refused, 2, "letterboxed network cannot have the input uint8", "--input float32")
    assert not list(Path("t").glob("*.onnx"))
    assert invoke(*words).code == 0


def test_somebody_elses_file_of_bytes_gets_a_template_that_says_so(here: Path) -> None:
    from rtda_runtime import Segmenter

    write_model(Path("theirs.onnx"), tiny_spec(input="uint8", layout="nhwc"), with_spec=False)
    outcome = invoke("inspect", "theirs.onnx", "--spec-template")
    values = json.loads(outcome.out)
    assert (values["size_hw"], values["input"], values["layout"]) == ([64, 96], "uint8", "nhwc")
    Path("spec.json").write_text(outcome.out)
    assert invoke("export", "theirs.onnx", "--spec", "spec.json", "--out", "mine").code == 0
    with Segmenter.open("mine/theirs.onnx", "cpu") as segmenter:
        assert segmenter.segment(np.zeros((64, 96, 3), np.uint8)).mask.shape == (64, 96)
