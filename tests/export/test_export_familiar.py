"""``export --monitor --footage``: each file is calibrated on its own signals; what does not serve is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
cv2 = pytest.importorskip("cv2")

from rtda_deploy.errors import ConfigError, ExportError  # noqa: E402
from rtda_deploy.familiar import familiar_from_json  # noqa: E402
from rtda_deploy.onnx_file import read_onnx_facts  # noqa: E402
from rtda_export import export_model  # noqa: E402


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures whose colours wander: a minute."""
    folder = tmp_path_factory.mktemp("drive")
    random = np.random.default_rng(0)
    for index in range(60):
        small = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        assert cv2.imwrite(str(folder / f"{index:03}.png"), cv2.resize(small, (80, 48)))
    return folder


@pytest.fixture
def run_folder(one_checkpoint: Path, tmp_path: Path) -> Path:
    shutil.copytree(one_checkpoint.parent / "verify", tmp_path / "run" / "verify")
    os.link(one_checkpoint, tmp_path / "run" / "best.pth")
    return tmp_path / "run"


def test_each_file_has_blocks_of_its_own_beside_the_card_of_labels(run_folder: Path, drive: Path) -> None:
    told: list[Any] = []
    result = export_model(
        run_folder / "best.pth", to=("onnx",), precision="fp16", monitor=True, footage=drive, on_step=told.append
    )
    full, half = (familiar_from_json(read_onnx_facts(path).card) for path in (result.onnx, result.best))
    assert full is not None and half is not None
    assert full.blocks == half.blocks == 20 and full.robot and full.data == str(drive) and full.stretches == (20,)
    assert '"pictures":9' in read_onnx_facts(result.best).card, "what was measured on labels stays"
    assert [event.path for event in told if event.name == "familiar" and event.state == "done"] == [
        run_folder / "best.onnx",
        run_folder / "best.fp16.onnx",
    ]


def test_a_finished_model_gets_other_blocks_in_another_folder(run_folder: Path, drive: Path, tmp_path: Path) -> None:
    made = export_model(run_folder / "best.pth", to=("onnx",), monitor=True).onnx
    assert familiar_from_json(read_onnx_facts(made).card) is None
    again = export_model(made, to=("onnx",), footage=drive, out_dir=tmp_path / "robot").onnx
    assert again == tmp_path / "robot" / "best.onnx" and familiar_from_json(read_onnx_facts(again).card) is not None
    with pytest.raises(ConfigError, match="would be written into"):
        export_model(made, to=("onnx",), footage=drive)


def test_a_card_without_footage_is_told_with_what_to_type(run_folder: Path, drive: Path, tmp_path: Path) -> None:
    def said(result: Any) -> list[str]:
        return [note for note in result.notes if "run --shift will be refused" in note]

    model = run_folder / "best.pth"
    plain = export_model(model, to=("onnx",), monitor=True)
    assert said(plain) == [
        "the card of best.onnx has no blocks of footage: run --shift will be refused. With minutes of what the robot"
        f" sees: rtda-deploy export {model} --monitor --footage PATH --to onnx"
    ]
    (note,) = said(export_model(plain.onnx, to=("onnx",)))
    assert f"rtda-deploy export {plain.onnx} --footage PATH --out FOLDER --to onnx" in note
    assert not said(export_model(plain.onnx, to=("onnx",), footage=drive, out_dir=tmp_path / "robot"))
    assert not said(export_model(model, to=("onnx",), out_dir=tmp_path / "without"))
    assert not said(export_model(model, to=("onnx",), monitor=True, footage=drive, out_dir=tmp_path / "with"))


def test_a_video_is_taken_a_frame_a_second(run_folder: Path, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "drive.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 2.0, (80, 48))
    for index in range(80):  # 40 s at 2 Hz
        writer.write(np.full((48, 80, 3), 3 * index, np.uint8))
    writer.release()
    made = export_model(run_folder / "best.pth", to=("onnx",), monitor=True, footage=tmp_path / "drive.avi")
    found = familiar_from_json(read_onnx_facts(made.onnx).card)
    assert found is not None and found.blocks == 13
    (note,) = [note for note in made.notes if "run --shift will be refused" in note]
    assert "has 13 blocks of" in note and "too few or too alike" in note


def test_footage_that_does_not_serve_is_refused(run_folder: Path, drive: Path, tmp_path: Path, workshop: Any) -> None:
    few = workshop.store_frames(tmp_path / "few", 5)
    for footage, said in ((few, "5 frames a second apart, too few"), ("test://bars", "is a camera")):
        with pytest.raises((ConfigError, ExportError), match=said) as caught:
            export_model(run_folder / "best.pth", to=("onnx",), monitor=True, footage=footage)
        assert "--footage PATH" in caught.value.hint
        assert not (run_folder / "best.onnx").exists()


def test_footage_without_monitor_is_refused(run_folder: Path, drive: Path, one_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is exported for it") as caught:
        export_model(run_folder / "best.pth", to=("onnx",), footage=drive)
    assert caught.value.hint == "--monitor --footage PATH"
    plain = Path(shutil.copyfile(one_onnx, tmp_path / "plain.onnx"))
    with pytest.raises(ConfigError, match="gives no signals"):
        export_model(plain, to=("onnx",), footage=drive, out_dir=tmp_path / "out")
    assert not (tmp_path / "out" / "plain.onnx").exists()
    with pytest.raises(ConfigError, match="'s own card"):
        export_model(plain, to=("onnx",), precision="fp16", footage=drive, out_dir=tmp_path / "out")
    with pytest.raises(ConfigError, match="--monitor cannot be changed"):
        export_model(plain, to=("onnx",), monitor=True)
