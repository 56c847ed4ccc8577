"""``rtda-deploy data check``, and ``eval`` where a model and its data have other classes."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Tuple

import numpy as np
import pytest
from cli.commandline import arguments, assert_refused, environment, invoke, run_command

cv2 = pytest.importorskip("cv2", reason="pictures need OpenCV")


def test_check_prints_a_table_and_keeps_the_index(tiny_data: Path) -> None:
    outcome = invoke("data", "check", f"folder:{tiny_data}")
    assert outcome.code == 0, outcome.err
    assert "6 pictures, 96x64 (6)" in outcome.out
    rows = {line.rsplit(None, 2)[0]: line.split()[-2:] for line in outcome.out.splitlines()[2:-1]}
    assert rows["sky"][1] == "6" and float(rows["road"][0]) > 20 and rows["bus"] == ["0.00", "0"]
    assert "no fault" in outcome.err and "wrote" in outcome.err


def test_check_as_json_is_one_object(tiny_data: Path) -> None:
    values = invoke("data", "check", f"folder:{tiny_data}", "--json").json
    assert values["pictures"] == values["labels"] == 6 and values["fault_count"] == 0
    assert values["sizes"] == {"96x64": 6} and Path(values["index"]).is_file()
    assert sum(row["percent"] for row in values["classes"]) == pytest.approx(100, abs=0.01)
    assert set(values["faults"]) > {"unreadable", "turned", "no_label", "unknown_ids", "size_mismatch", "same_name"}
    assert not any(values["faults"].values())


def test_check_ends_with_1_at_a_fault_and_says_the_fix(tiny_data: Path, tmp_path: Path) -> None:
    bad = copied(tiny_data, tmp_path / "bad")
    (bad / "labels" / "00.png").unlink()
    assert cv2.imwrite(str(bad / "labels" / "01.png"), np.full((64, 96), 34, np.uint8))
    outcome = invoke("data", "check", f"folder:{bad}")
    assert outcome.code == 1 and "Traceback" not in outcome.err
    assert "pictures without a label: 1" in outcome.err and "images/00.png" in outcome.err
    assert "labels with unknown ids: 1" in outcome.err and "34" in outcome.err and "fix: " in outcome.err
    found = invoke("data", "check", f"folder:{bad}", "--json")
    assert found.code == 1 and found.json["fault_count"] == 2 and found.json["index"] is None
    assert found.json["faults"]["no_label"] == [str(bad / "images" / "00.png")]


def test_a_set_without_labels_is_checked_as_a_target(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 9, 3), np.uint8))
    outcome = invoke("data", "check", f"folder:{tmp_path}")
    assert outcome.code == 1
    typed = outcome.err.split("next", 1)[1].splitlines()[0].strip()
    again = invoke(*shlex.split(typed)[1:])
    assert again.code == 0 and "1 pictures, 9x8 (1)" in again.out, again.err


def test_the_split_is_typed_once(tiny_data: Path) -> None:
    assert_refused(invoke("data", "check", f"folder:{tiny_data}?split=val", "--split", "test"), 2, "split already")
    assert_refused(invoke("data", "check", f"folder:{tiny_data}", "--split", "dev"), 2, "'dev'", "train, val")
    assert invoke("data", "check", f"folder:{tiny_data}", "--split", "val").code == 0
    assert_refused(invoke("data", "check", "nothing:x"), 2, "'nothing'", "gta5")
    assert_refused(invoke("data", "check", "gta5:/nowhere"), 1, "/nowhere is no folder", "images/")


def test_the_example_in_the_help_runs() -> None:
    shown = invoke("data", "check", "--help")
    line = next(line for line in shown.out.splitlines() if "Example:" in line)
    words = shlex.split(line.split("Example:")[1].strip(" │"))
    assert words[:3] == ["rtda-deploy", "data", "check"]
    assert invoke(*words[1:]).code == 0


def test_ctrl_c_ends_the_check_in_order(tiny_data: Path, tmp_path: Path) -> None:
    big = tmp_path / "big"
    for name in ("images", "labels"):
        (big / name).mkdir(parents=True)
    content = cv2.imencode(".png", np.random.default_rng(0).integers(0, 19, (1024, 2048), np.uint8))[1].tobytes()
    (tmp_path / "one.png").write_bytes(content)
    for number in range(600):  # half a minute of work and more, one file on the disk
        for name in ("images", "labels"):
            (big / name / f"{number}.png").symlink_to(tmp_path / "one.png")
    words = [*arguments(), "data", "check", f"folder:{big}"]
    env = environment(RTDA_CACHE=str(tmp_path / "cache"))
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)
    assert process.stderr is not None
    while "read" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130 and out == "" and "Traceback" not in err and "stopped" in err
    assert not (tmp_path / "cache" / "index").exists()


def test_help_of_data_lists_check() -> None:
    shown = run_command("data", "--help")
    assert shown.code == 0 and "check" in shown.out


def copied(source: Path, into: Path) -> Path:
    import shutil

    shutil.copytree(source, into)
    return into


# eval where the classes differ


@pytest.fixture()
def camvid(tmp_path: Path) -> Path:
    """Two CamVid pictures: sky above, road below, a car."""
    rng = np.random.default_rng(3)
    for number in range(2):
        label = np.zeros((48, 64), np.uint8)
        label[24:], label[30:36, 10:20], label[40:, :4] = 3, 8, 11
        for folder, picture in (("test", rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)), ("testannot", label)):
            (tmp_path / "camvid" / folder).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(tmp_path / "camvid" / folder / f"{number}.png"), picture)
    return tmp_path / "camvid"


def test_masks_of_19_classes_are_scored_in_camvids_11(
    camvid: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rtda_deploy.spec import ModelSpec
    from rtda_export.parity import scoring
    from rtda_export.parity.networks import Network
    from rtda_runtime.mask.upsample import upsample_argmax
    from rtda_training.labels import CAMVID, CITYSCAPES, join_classes
    from rtda_training.readers import open_labelled

    logits = np.random.default_rng(8).normal(size=(19, 8, 8)).astype(np.float32)
    logits[:, 4:] += 2.0 * np.eye(19, dtype=np.float32)[13][:, None, None]  # mostly car below

    class Noise(Network):
        """Predicts all 19 classes."""

        def answer(self, image: np.ndarray) -> np.ndarray:
            return logits

    spec = ModelSpec(size_hw=(64, 64), class_names=CITYSCAPES.names, palette=CITYSCAPES.palette)
    monkeypatch.setattr(scoring, "open_network", lambda *_, **__: Noise("noise", spec))
    values = invoke("eval", "noise.onnx", "--data", f"camvid:{camvid}", "--json").json
    assert values["joined"]["what"] == "masks" and "19 -> 11 classes" in values["joined"]["how"]
    assert tuple(values["iou"]) == CAMVID.names
    data, table = open_labelled(f"camvid:{camvid}?split=test"), join_classes(CITYSCAPES, CAMVID)
    mask = table[upsample_argmax(logits, (48, 64))]
    pairs = [(data.label(index), mask) for index in range(2)]
    assert values["iou"]["Car"] > 0 and values["iou"]["Sky"] > 0 and values["iou"]["Fence"] is None
    for number, name in enumerate(CAMVID.names):
        assert values["iou"][name] == iou(number, pairs), name


def iou(number: int, pairs: list[Tuple[np.ndarray, np.ndarray]]) -> float | None:
    """Of one class over the pictures, in percent; by definition, not by confusion matrix."""
    label, mask = (np.stack([pair[place] for pair in pairs]) for place in (0, 1))
    valid = label != 255
    if not (label == number).any():
        return None
    both = (label == number) & (mask == number)
    either = ((label == number) | (mask == number)) & valid
    return round(100 * both.sum() / either.sum(), 2)


def test_eval_says_which_join_it_made_and_none_where_classes_are_equal(
    tiny_onnx: Path, camvid: Path, tiny_data: Path, here: Path
) -> None:
    told = invoke("eval", tiny_onnx, "--data", f"camvid:{camvid}", "--out", "e")
    assert "masks joined: 19 -> 11 classes" in told.out
    assert "masks were joined" in Path("e/report.html").read_text()
    assert invoke("eval", tiny_onnx, "--data", f"folder:{tiny_data}", "--json").json["joined"] is None
    coarse = invoke("eval", tiny_onnx, "--data", f"folder:{tiny_data}?classes=camvid", "--json").json
    assert coarse["joined"]["what"] == "masks" and "Road" in coarse["iou"]


def test_labels_are_joined_where_the_model_is_the_coarser(camvid: Path, tiny_data: Path) -> None:
    from rtda_deploy.spec import ModelSpec
    from rtda_export.parity.scoring import JoinedClasses
    from rtda_training.labels import CAMVID, CITYSCAPES, join_classes
    from rtda_training.readers import open_labelled

    spec = ModelSpec(size_hw=(64, 64), class_names=CAMVID.names, palette=CAMVID.palette)
    classes = JoinedClasses(spec, open_labelled(f"folder:{tiny_data}"), "m.onnx")
    assert classes.scored == CAMVID and classes.of_mask is None
    assert classes.joined is not None and classes.joined[0] == "labels"
    assert (classes.of_label == join_classes(CITYSCAPES, CAMVID)).all()


def test_pseudo_labels_are_measured_against_true_ones(tiny_data: Path, tmp_path: Path) -> None:
    """The upper half of every true label, with the sky called building: half of the pixels said, part of them right."""
    pytest.importorskip("torch", reason="training tools need torch")
    pseudo = tmp_path / "pseudo"
    pseudo.mkdir()
    right = said = known = 0
    for path in sorted((tiny_data / "labels").iterdir()):
        truth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        label = np.full_like(truth, 255)
        label[:32] = truth[:32]
        label[:32][truth[:32] == 10] = 2
        assert cv2.imwrite(str(pseudo / path.name), label)
        known += int((truth != 255).sum())
        said += int(((label != 255) & (truth != 255)).sum())
        right += int(((label == truth) & (truth != 255)).sum())
    found = invoke("data", "labels", str(pseudo), "--data", f"folder:{tiny_data}", "--json").json
    assert found["coverage"] == pytest.approx(said / known) and found["accuracy"] == pytest.approx(right / said)
    assert found["classes"]["sky"]["recall"] == 0 and found["classes"]["building"]["recall"] > 0
    shown = invoke("data", "labels", str(pseudo), "--data", f"folder:{tiny_data}")
    assert f"accuracy {100 * right / said:.2f} %" in shown.out and shown.code == 0
    (pseudo / "03.png").unlink()
    assert_refused(invoke("data", "labels", str(pseudo), "--data", f"folder:{tiny_data}"), 1, "03", "label")


def test_pictures_are_translated_once_and_read_by_a_recipe(tiny_data: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="translating needs torch")
    from rtda_training.models import Generator
    from rtda_training.readers import open_labelled
    from rtda_training.translator import Translator, write_translator

    torch.manual_seed(0)
    ways = [Generator(4, 1).state_dict() for _ in range(2)]
    path = write_translator(tmp_path / "translator-f.pth", Translator(4, 1, "bgr", (64, 96), *ways))
    words = ["data", "translate", str(path), "--data", f"folder:{tiny_data}", "--out", str(tmp_path / "out")]
    first = invoke(*words)
    assert first.code == 0 and "6 pictures written, 0 were there" in first.err, first.err
    assert "0 pictures written, 6 were there" in invoke(*words).err
    translated = open_labelled(f"folder:{tiny_data}?pictures={tmp_path / 'out'}")
    frame, label = translated.pair(0)
    assert frame.shape == (64, 96, 3) and label.shape == (64, 96)
    assert not np.array_equal(frame, open_labelled(f"folder:{tiny_data}").frame(0))
    assert_refused(invoke(*words, "--size", "wide"), 2, "WIDTHxHEIGHT")
    missing = invoke("data", "translate", "none.pth", "--data", f"folder:{tiny_data}", "--out", str(tmp_path / "y"))
    assert_refused(missing, 1, "none.pth")


# what a score is a score of


@pytest.fixture()
def half_known(tmp_path: Path) -> Path:
    """Pictures whose labels are road (a quarter), sky (a quarter) and "water" (half), which no model knows."""
    root = tmp_path / "half"
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    label = np.full((64, 96), 2, np.uint8)
    label[:16], label[16:32] = 0, 1
    for number in range(2):
        assert cv2.imwrite(str(root / "images" / f"{number}.png"), np.full((64, 96, 3), 90 + number, np.uint8))
        assert cv2.imwrite(str(root / "labels" / f"{number}.png"), label)
    classes = {"names": ["road", "sky", "water"], "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}
    (root / "classes.json").write_text(json.dumps(classes))
    return root


def test_eval_says_how_much_of_the_labels_it_scored_and_names_what_has_no_partner(
    tiny_onnx: Path, half_known: Path, tiny_data: Path, here: Path
) -> None:
    told = invoke("eval", tiny_onnx, "--data", f"folder:{half_known}", "--out", "e")
    assert "scored 50.00 % of the labelled pixels" in told.out
    assert "classes of the data that the model does not have: water" in told.out
    assert re.search(r"classes of the model that the data does not have: sidewalk, .*bicycle$", told.out, re.MULTILINE)
    assert "only 50.00 % of the labelled pixels were scored" in told.err
    assert "Scored 50.00 % of the labelled pixels" in Path("e/report.html").read_text()
    values = invoke("eval", tiny_onnx, "--data", f"folder:{half_known}", "--json").json
    assert values["scored_percent"] == 50 and values["labelled_pixels"] == 2 * 64 * 96
    assert values["without_partner"]["data"] == ["water"] and "car" in values["without_partner"]["model"]
    whole = invoke("eval", tiny_onnx, "--data", f"folder:{tiny_data}")
    assert "scored 100.00 % of the labelled pixels" in whole.out and "only" not in whole.err
    assert "taken for Cityscapes' 19 classes" in whole.err


def test_pixels_that_the_address_joins_away_are_not_scored_either(
    tiny_onnx: Path, half_known: Path, here: Path
) -> None:
    values = invoke("eval", tiny_onnx, "--data", f"folder:{half_known}?classes=cityscapes", "--json").json
    assert values["scored_percent"] == 50 and values["without_partner"]["data"] == ["water"]


def test_a_set_without_a_labelled_pixel_is_not_scored(tiny_onnx: Path, half_known: Path, here: Path) -> None:
    for path in (half_known / "labels").iterdir():
        assert cv2.imwrite(str(path), np.full((64, 96), 255, np.uint8))
    refused = invoke("eval", tiny_onnx, "--data", f"folder:{half_known}")
    assert_refused(refused, 1, "no pixel of 2 pictures .* is labelled", "data check")
    checked = invoke(*shlex.split(refused.said["fix"])[1:])
    assert checked.code == 1 and "sets without a labelled pixel: 1" in checked.err
    for path in (half_known / "labels").iterdir():
        assert cv2.imwrite(str(path), np.full((64, 96), 2, np.uint8))
    assert_refused(invoke("eval", tiny_onnx, "--data", f"folder:{half_known}"), 1, "none of the labelled", "water")
