"""What was made is kept: finished runs, other models' files, the pictures that are read, somebody's labels."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any, List

import numpy as np
import pytest
from cli.commandline import assert_refused, files_below, invoke
from cli.conftest import Journey
from interrupting import at_step

from rtda_deploy.run_folders import folder_lock

pytest.importorskip("torch", reason="training needs torch (Python >= 3.10)")


@pytest.fixture()
def run(journey: Journey, here: Path) -> Path:
    """A finished run of one's own, as ``run``."""
    shutil.copytree(journey.run, here / "run")
    return Path("run")


def last_lines(err: str) -> str:
    return "\n".join(line for line in err.splitlines() if not line.startswith("train   ")) + "\n"


def assert_refused_late(outcome: Any, code: int, error: str, fix: str) -> None:
    assert_refused(outcome._replace(err=last_lines(outcome.err)), code, error, fix)


def contents(folder: Path) -> List[bytes]:
    return [(folder / name).read_bytes() for name in files_below(folder)]


# train


def test_a_finished_run_is_not_trained_over(journey: Journey, run: Path) -> None:
    before = contents(run)
    outcome = invoke(*journey.words("source-only", "--out", "run"))
    assert_refused_late(outcome, 2, r"run holds a run \(last\.pth\)", r"train --resume auto --out run .*--force")
    assert contents(run) == before


def test_force_throws_the_earlier_run_away_once_the_new_one_can_start(journey: Journey, run: Path) -> None:
    before = contents(run)
    wrong = invoke(*journey.words("source-only", "--out", "run", "--force", "--init", "nowhere.pth"))
    assert wrong.code == 1 and contents(run) == before
    outcome = invoke(*journey.words("source-only", "--set", "steps=1", "--out", "run", "--force"))
    assert outcome.code == 0, outcome.err
    assert 'name = "source-only"' in (run / "config.toml").read_text()
    assert (run / "last.onnx").exists(), "an export is no part of the run"


def test_force_does_not_write_over_what_is_read(journey: Journey, run: Path) -> None:
    words = journey.words("source-only", "--out", "run", "--force")
    outcome = invoke(*words, "--init", "run/last.pth")
    assert_refused_late(outcome, 2, r"write over run/last\.pth, which is --init", "another name")
    shutil.copytree(run, "set")
    os.symlink(Path("set").resolve() / "verify", "linked")
    outcome = invoke(*words[:2], *words[2:], "--source", "folder:linked", "--out", "set")
    assert_refused_late(outcome, 2, r"set/verify/\d\.png .*which is --source", "another name")


def test_two_at_once_are_one_too_many(journey: Journey, here: Path) -> None:
    with folder_lock("run"):
        outcome = invoke(*journey.words("source-only", "--out", "run"))
        assert_refused_late(outcome, 1, f"another process writes to run now process {os.getpid()}", "another folder")
        assert files_below(Path("run")) == [".lock"]


def test_a_refused_training_leaves_no_folder(journey: Journey, here: Path) -> None:
    assert invoke(*journey.words("source-only", "--set", "size=63x64")).code == 2
    assert invoke(*journey.words("source-only", "--init", "nowhere.pth", "--out", "a/b")).code == 1
    assert list(here.iterdir()) == []


def test_resume_needs_no_flag_typed_again_and_refuses_one_that_says_otherwise(journey: Journey, run: Path) -> None:
    for words in (["--out", "run"], ["rtda-light-thin", "--set", "seed=3", "--out", "run"]):
        outcome = invoke("train", *words, "--resume", "auto")
        assert outcome.code == 0 and "resumed at step 4, its last" in outcome.err
        assert f"{journey.data} -> {journey.data}" in outcome.err and "seed 3" in outcome.err
    for words, told in (
        (["source-only"], "recipe source-only, not rtda-light-thin"),
        (["--set", "seed=9"], "seed 9, not 3"),
        (["--source", "toytown:source"], 'source "toytown:source", not "folder:'),
        (["--set", "adversarial.weight=0.5"], "adversarial.weight 0.5, not 0.001"),
    ):
        outcome = invoke("train", *words, "--out", "run", "--resume", "auto")
        assert_refused_late(outcome, 1, told, r"leave these away.*run/config\.toml")


def test_a_run_without_a_checkpoint_starts_its_own_plan_again(journey: Journey, run: Path) -> None:
    (run / "last.pth").unlink()
    outcome = invoke("train", "--resume", "auto", "--out", "run")
    assert_refused_late(outcome, 2, "holds best.pth but no last.pth", "--init run/best.pth")
    for name in ("best.pth", "results.csv"):  # the log stays: so a run looks whose power was cut before it saved
        (run / name).unlink()
    before = (run / "config.toml").read_bytes()
    outcome = invoke("train", "rtda-light-thin", "--out", "run", "--resume", "auto", "--json")
    assert outcome.code == 0, outcome.err
    assert "its own plan starts again, from step 0" in outcome.err and journey.data in outcome.err
    assert (run / "config.toml").read_bytes() == before and (run / "last.pth").exists()


def test_nothing_to_resume_is_said(here: Path) -> None:
    outcome = invoke("train", "--resume", "auto", "--out", "nowhere")
    assert_refused_late(outcome, 2, "no run to resume in nowhere", "--list")
    assert_refused(invoke("train"), 2, "no recipe was named", "--source DATA --target DATA takes recommended.*--list")


def test_two_domains_without_a_recipe_take_the_recommended_one(here: Path) -> None:
    outcome = invoke("train", "--source", "folder:nowhere", "--target", "folder:nowhere")
    assert outcome.code == 1 and "train   recommended: loading torch" in outcome.err
    outcome = invoke("train", "--source", "folder:a", "--target", "folder:b", "--labelled-target", "folder:c")
    assert outcome.code == 1 and "train   few-labels: loading torch" in outcome.err
    outcome = invoke("train", "--source", "folder:a", "--labelled-target", "folder:c")
    assert outcome.code == 1 and "train   few-labels: loading torch" in outcome.err
    outcome = invoke("train", "--source", "folder:nowhere")  # one domain alone does not say what is wanted
    assert_refused(outcome, 2, "no recipe was named", "takes recommended")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_before_save_every_and_says_how_to_go_on(
    journey: Journey, here: Path, number: signal.Signals, code: int
) -> None:
    from rtda_training.checkpoint import read_checkpoint

    with at_step(2, lambda: os.kill(os.getpid(), number)):
        outcome = invoke(*journey.words("rtda-light-thin", "--set", "save_every=0", "--out", "a run"))
    assert outcome.code == code, outcome.err
    assert read_checkpoint("a run/last.pth").training["step"] == 3
    assert "saved   a run/last.pth at step 3 of train" in outcome.err
    assert "next    rtda-deploy train --resume auto --out 'a run'" in outcome.err
    resumed = invoke("train", "--resume", "auto", "--out", "a run")
    assert resumed.code == 0 and "resumed at step 3" in resumed.err, resumed.err
    theirs = read_checkpoint(journey.run / "last.pth").weights
    ours = read_checkpoint("a run/last.pth").weights
    assert all(bool((ours[key] == theirs[key]).all()) for key in theirs), "bit by bit as one that was not stopped"
    assert "its last: more steps are a new run" not in resumed.err
    again = invoke("train", "--resume", "auto", "--out", "a run")
    assert again.code == 0 and "its last: more steps are a new run from its weights" in again.err


def test_list_names_every_recipe_with_the_sentence_of_its_file() -> None:
    from rtda_training.plan import recipe_names

    told = invoke("train", "--list", "--json").json["recipes"]
    assert list(told) == recipe_names() and all(told.values())
    shown = invoke("train", "--list").out
    assert "fda-light" in shown and told["source-only"].split(":")[0] in shown


# export


def test_export_makes_the_same_models_files_anew_and_keeps_another_ones(journey: Journey, run: Path) -> None:
    assert invoke("export", "run/last.pth", "--to", "onnx", "--size", "96x64").code == 0, "other settings, same model"
    assert invoke("inspect", "run/last.onnx", "--json").json["spec"]["size_hw"] == [64, 96]
    words = ["--set", "steps=1", "--set", "seed=8", "--out", "other"]
    assert invoke(*journey.words("source-only", *words)).code == 0
    before = (run / "last.onnx").read_bytes()
    outcome = invoke("export", "other/last.pth", "--to", "onnx", "--out", "run", "--verify", "run/verify")
    assert_refused(outcome, 2, r"run/last\.onnx is there already.*another model", "--out")
    assert (run / "last.onnx").read_bytes() == before
    (run / ".last.0a1b2c3d.part.onnx").write_bytes(b"of a killed export")
    outcome = invoke("export", "other/last.pth", "--to", "onnx", "--out", "run", "--verify", "run/verify", "--force")
    assert outcome.code == 0 and (run / "last.onnx").read_bytes() != before
    assert not list(run.glob(".*")), "what a killed export left is cleared"


def test_a_spec_goes_into_a_copy(run: Path) -> None:
    before = (run / "last.onnx").read_bytes()
    from rtda_deploy.onnx_file import read_onnx_metadata

    Path("spec.json").write_text(read_onnx_metadata("run/last.onnx")["rtda.spec"])
    outcome = invoke("export", "run/last.onnx", "--spec", "spec.json")
    assert_refused(outcome, 2, "into run/last.onnx itself", "--out")
    assert (run / "last.onnx").read_bytes() == before
    assert invoke("export", "run/last.onnx", "--spec", "spec.json", "--out", "copy").code == 0


# run, bench, eval, data translate


@pytest.fixture()
def pictures(here: Path) -> Path:
    """``seq/000000.png`` and ``seq/000007.png``."""
    import cv2

    Path("seq").mkdir()
    for number in (0, 7):
        cv2.imwrite(f"seq/{number:06d}.png", np.full((64, 96, 3), 20 * number, np.uint8))
    return Path("seq")


@pytest.mark.parametrize("camera", ["seq", "seq/%06d.png", "seq/000007.png", "linked", "./seq/../seq"])
@pytest.mark.parametrize("masks", ["seq", "linked", "hard"])
def test_the_pictures_of_the_source_are_never_masks(tiny_onnx: Path, pictures: Path, camera: str, masks: str) -> None:
    os.symlink("seq", "linked")
    Path("hard").mkdir()
    os.link("seq/000007.png", "hard/000000.png")
    before = contents(pictures)
    outcome = invoke("run", tiny_onnx, "--camera", camera, "--masks", masks)
    assert_refused(outcome, 2, "which is the source|the source's pictures lie in", "another")
    assert contents(pictures) == before


def test_masks_are_called_after_the_pictures_of_a_folder(tiny_onnx: Path, pictures: Path) -> None:
    for camera, masks in (("seq", "a"), ("seq/%06d.png", "b")):
        assert invoke("run", tiny_onnx, "--camera", camera, "--masks", masks).code == 0
        assert files_below(Path(masks)) == ["000000.png", "000007.png"]
    shutil.copy("seq/000000.png", "seq/000000.bmp")
    assert invoke("run", tiny_onnx, "--camera", "seq", "--masks", "both", "--confidence").code == 0
    assert {"000000.png.png", "000000.bmp.png", "000007.png.confidence.png"} <= set(files_below(Path("both")))


def test_somebodys_labels_are_not_replaced_and_old_masks_are_told(tiny_onnx: Path, pictures: Path) -> None:
    shutil.copytree(pictures, "labels")
    outcome = invoke("run", tiny_onnx, "--camera", "seq", "--masks", "labels")
    assert_refused(outcome, 2, r"labels holds 2 pictures that are no masks of run, such as 000000\.png", "--force")
    assert contents(Path("labels")) == contents(pictures)
    assert invoke("run", tiny_onnx, "--camera", "seq", "--masks", "masks").code == 0
    again = invoke("run", tiny_onnx, "--camera", "test://bars?fps=0&frames=1&size=96x64", "--masks", "masks")
    assert again.code == 0 and "masks holds 2 masks of earlier runs" in again.err


def test_no_output_of_any_verb_is_a_model_or_a_film(tiny_onnx: Path, journey: Journey, run: Path) -> None:
    shutil.copy(tiny_onnx, "m.onnx")
    os.link("m.onnx", "m.mp4")
    shutil.copy("m.onnx", "times.json")
    before = Path("m.onnx").read_bytes()
    bars = "test://bars?fps=0&frames=1&size=96x64"
    for words in (
        ["run", "m.onnx", "--camera", bars, "--save", "m.mp4"],
        ["run", "m.onnx", "--camera", bars, "--publish", "mcap:m.onnx"],
        ["run", "run/last.onnx", "--compare", "m.onnx", "--camera", "file://m.mp4", "--publish", "mcap:m.onnx"],
        ["bench", "m.onnx", "--duration", "0.1", "--save", "m.onnx", "--force"],
        ["bench", "times.json", "--duration", "0.1", "--out", ".", "--force"],
        ["data", "translate", "m.onnx", "--data", "folder:run", "--out", "."],
    ):
        outcome = invoke(*words)
        assert_refused(outcome, 2, "write over .*, which is (m.onnx|times.json|--data|the source)", "another name")
    assert Path("m.onnx").read_bytes() == before
    outcome = invoke("eval", "m.onnx", "--data", journey.data, "--out", "run")
    assert_refused(outcome, 2, r"run/report\.html is there already", "another --out")


def test_results_of_a_bench_are_kept(tiny_onnx: Path, here: Path) -> None:
    words = ["bench", tiny_onnx, "--duration", "0.1", "--warmup", "0", "--window", "0.05", "--out", "o"]
    assert invoke(*words).code == 0
    assert_refused(invoke(*words), 2, r"o/times\.json is there already", "--force")
    assert invoke(*words, "--force").code == 0
    with folder_lock("o"):
        assert "another process writes to o now" in invoke(*words, "--force").err


def test_a_demo_goes_on_in_its_folder_until_its_summary_is_there(here: Path) -> None:
    from rtda_deploy.cli.demo.parts import EarlierDemo, make_room
    from rtda_deploy.errors import ConfigError

    folder = Path("x")
    folder.mkdir()
    unfinished, trained = EarlierDemo(folder, False), EarlierDemo(folder, True)
    assert unfinished.goes_on(None) and not trained.goes_on(None)
    assert trained.goes_on(folder), "trained, but stopped before its export or its film"
    (folder / "summary.json").write_text("{}")
    assert not trained.goes_on(folder) and not trained.goes_on(Path("y"))
    with pytest.raises(ConfigError, match=r"x holds an earlier run \(summary\.json\)"):
        make_room(folder, force=False)
    make_room(folder, force=True)
    assert not list(folder.iterdir())
