"""The float32 file in bfloat16: a hop of its own where this CPU has it, written into the file, never an error."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from runtime.contest import saying  # noqa: E402
from runtime.models import write_model  # noqa: E402

from rtda_deploy.cli import main  # noqa: E402
from rtda_deploy.errors import ConfigError, ExportError  # noqa: E402
from rtda_deploy.onnx_file import precision_from_metadata, read_onnx_metadata  # noqa: E402
from rtda_deploy.optional import available  # noqa: E402
from rtda_export import export_model, verify  # noqa: E402
from rtda_export.precision.metadata import note_precision  # noqa: E402
from rtda_runtime.engines.bf16 import Verified, bf16_here, verified  # noqa: E402
from rtda_runtime.engines.openvino import installed_version  # noqa: E402
from rtda_training.readers import open_labelled  # noqa: E402

needs_bf16 = pytest.mark.skipif(
    not (available("openvino") and bf16_here()), reason="OpenVINO does not compute in bfloat16 on this processor"
)


@pytest.fixture(autouse=True)
def contest(monkeypatch: pytest.MonkeyPatch) -> None:
    """As outside the tests; in all others the export leaves bfloat16 out."""
    monkeypatch.delenv("RTDA_CONTEST", raising=False)


@pytest.fixture
def run_folder(one_checkpoint: Path, tmp_path: Path) -> Path:
    shutil.copytree(one_checkpoint.parent / "verify", tmp_path / "run" / "verify")
    os.link(one_checkpoint, tmp_path / "run" / "best.pth")
    return tmp_path / "run"


def said(path: Path) -> Dict[str, Any]:
    return precision_from_metadata(read_onnx_metadata(path))


def found_in(path: Path) -> Optional[Verified]:
    return verified(said(path))


def alike(path: Path) -> Path:
    """A network whose classes differ by less than bfloat16 keeps of a weight."""
    model = onnx.load(str(write_model(path)))
    (weights,) = model.graph.initializer
    values = onnx.numpy_helper.to_array(weights)
    weights.CopyFrom(onnx.numpy_helper.from_array(values[:1] + 1e-4 * values, weights.name))
    path.write_bytes(model.SerializeToString())
    return path


@needs_bf16
def test_a_checkpoint_s_file_says_how_it_answers_in_bfloat16(run_folder: Path) -> None:
    told: List[Any] = []
    result = export_model(run_folder / "best.pth", to=("onnx",), on_step=told.append)
    first, hop = result.steps
    assert (first.name, hop.name) == ("onnx", "bf16") and hop.path == result.onnx == result.best
    assert hop.parity.limit.name == "bf16" and 0.9 < hop.parity.agreement <= 1 and (hop.parity.relative or 0) > 1e-4
    assert (hop.parity.a, hop.parity.b) == ("best.onnx", "best.onnx in bfloat16")
    found = found_in(result.onnx)
    assert found == Verified(
        hop.parity.passed, hop.parity.agreement, hop.parity.limit.agreement, 2, installed_version()
    )
    assert result.files == (result.onnx, run_folder / "verify.html", run_folder / "verify.bf16.html")
    assert all(path.is_file() for path in result.files)
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [each["name"] for each in values["hops"]] == ["onnx", "bf16"] and values["hops"][1]["miou"] is None
    assert values["hops"][1]["notes"] == list(hop.notes) and hop.notes[0] in values["notes"]
    assert "fp32 in bfloat16 on this CPU too" in told[0].text
    assert found is not None
    again = verify(result.onnx, result.onnx, run_folder / "verify", limit="bf16", providers=("", "openvino-bf16"))
    assert again.agreement == found.agreement


@needs_bf16
def test_labelled_pictures_are_scored_before_and_after(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    data = open_labelled(f"folder:{tiny_data}")
    result = export_model(tiny_checkpoint, to=("onnx",), out_dir=tmp_path, data=data)
    hop = result.steps[1]
    assert hop.miou is not None and 0 <= hop.miou[0] <= 100 and abs(hop.miou[0] - hop.miou[1]) < 5
    found = found_in(result.onnx)
    assert found is not None and found.miou == hop.miou
    assert found.passed is (hop.parity.passed and hop.miou[0] - hop.miou[1] <= 0.5)


@needs_bf16
def test_lines_and_inspect_show_it(
    tmp_path: Path, workshop: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    path, frames, out = write_model(tmp_path / "m.onnx"), workshop.store_frames(tmp_path / "frames"), tmp_path / "out"
    assert command(monkeypatch, "export", path, "--to", "onnx", "--verify", frames, "--out", out) == 0
    lines = capsys.readouterr().err
    assert "verify   onnx = bf16" in lines and "2 pictures, limit " in lines and "bfloat16 passes" in lines
    assert command(monkeypatch, "inspect", out / "m.onnx") == 0
    assert re.search(r"fp32, in bfloat16 [\d.]+ % of pixels agree on 2 pictures ", capsys.readouterr().out)


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["rtda-deploy", *map(str, words)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@needs_bf16
def test_a_file_that_loses_too_much_is_kept_with_a_note(tmp_path: Path, workshop: Any) -> None:
    frames = workshop.store_frames(tmp_path / "frames")
    result = export_model(alike(tmp_path / "alike.onnx"), verify_path=frames, out_dir=tmp_path / "out", to=("onnx",))
    (hop,) = result.steps
    assert not hop.parity.passed and "bfloat16 does not pass" in hop.notes[0] and hop.notes[0] in result.notes
    found = found_in(result.onnx)
    assert result.onnx == tmp_path / "out" / "alike.onnx" and found is not None and not found.passed
    assert verify(tmp_path / "alike.onnx", result.onnx, frames).agreement == 1.0


@needs_bf16
def test_an_onnx_gets_the_word_in_a_copy_or_by_force_and_is_left_alone_else(tmp_path: Path, workshop: Any) -> None:
    path, frames = write_model(tmp_path / "m.onnx"), workshop.store_frames(tmp_path / "frames")
    before = path.read_bytes()
    assert export_model(path, verify_path=frames, to=("onnx",)).steps == () and path.read_bytes() == before
    assert export_model(path, to=("onnx",), out_dir=tmp_path / "blind").steps == ()  # there are no pictures
    copy = export_model(path, verify_path=frames, to=("onnx",), out_dir=tmp_path / "bf16")
    assert found_in(copy.onnx) == found_in(export_model(path, verify_path=frames, to=("onnx",), force=True).onnx)
    assert path.read_bytes() != before and found_in(path) is not None
    assert copy.files == (tmp_path / "bf16" / "m.onnx", tmp_path / "bf16" / "verify.bf16.html")


def test_a_file_of_another_precision_does_not_inherit_it(tmp_path: Path, workshop: Any) -> None:
    path, frames = saying(write_model(tmp_path / "m.onnx")), workshop.store_frames(tmp_path / "frames")
    result = export_model(path, to=("onnx",), precision="fp16", verify_path=frames)
    assert [step.name for step in result.steps] == ["fp16"] and "bf16" not in said(result.best)
    assert found_in(path) is not None


@needs_bf16
def test_a_file_that_openvino_does_not_take_is_exported_all_the_same(tmp_path: Path, workshop: Any) -> None:
    model = onnx.load(str(write_model(tmp_path / "m.onnx")))
    model.graph.node[0].output[0] = "raw"
    model.graph.node.append(onnx.helper.make_node("Binarizer", ["raw"], ["logits"], domain="ai.onnx.ml"))
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 1))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    frames = workshop.store_frames(tmp_path / "frames")
    result = export_model(tmp_path / "m.onnx", verify_path=frames, out_dir=tmp_path / "out", to=("onnx",))
    assert result.steps == () and result.onnx.is_file() and found_in(result.onnx) is None
    assert any("was not verified in bfloat16" in note and "OpenVINO" in note for note in result.notes)


@needs_bf16
def test_labelled_pictures_need_pictures_to_verify_on(tmp_path: Path, tiny_data: Path) -> None:
    data = open_labelled(f"folder:{tiny_data}")
    with pytest.raises(ExportError, match="nothing to verify"):
        export_model(write_model(tmp_path / "m.onnx"), to=("onnx",), out_dir=tmp_path / "out", data=data)


def test_without_a_contest_there_is_no_hop_and_nothing_to_score(
    run_folder: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTDA_CONTEST", "0")
    result = export_model(run_folder / "best.pth", to=("onnx",))
    assert [step.name for step in result.steps] == ["onnx"] and said(result.onnx) == {"precision": "fp32"}
    with pytest.raises(ConfigError, match="or the float32 one in bfloat16") as caught:
        export_model(run_folder / "best.pth", to=("onnx",), data=open_labelled(f"folder:{tiny_data}"))
    assert "RTDA_CONTEST" in caught.value.why


def test_bf16_is_no_file_of_its_own(run_folder: Path) -> None:
    with pytest.raises(ConfigError, match="bf16 is no file of its own"):
        export_model(run_folder / "best.pth", precision="bf16")


def test_facts_are_written_beside_what_stands_there(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx")
    note_precision(path, {"bf16": {"passed": True}})
    note_precision(path, {"keep_fp32": ["conv"]})
    assert said(path) == {"precision": "fp32", "bf16": {"passed": True}, "keep_fp32": ["conv"]}
    note_precision(path, {"bf16": None})
    assert said(path) == {"precision": "fp32", "keep_fp32": ["conv"]}
    assert "rtda.spec" in read_onnx_metadata(path)
