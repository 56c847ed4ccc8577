"""The public face: what ``rtda_training`` offers a script or a notebook is what the command line does."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from cli.commandline import files_below, invoke

from rtda_deploy.errors import CheckpointError, ConfigError, DataError
from rtda_deploy.run_folders import FolderBusyError, folder_lock
from rtda_training import StopRequest, TrainingStopped, evaluate, load, train
from rtda_training.pages.run_page import write_run_page
from rtda_training.readers import open_labelled
from rtda_training.run_choice import choose_run
from rtda_training.run_folder import copy_run, is_trained, saved_plan

README = Path(__file__).parents[2] / "training" / "README.md"
SMALL = {"size": "64x64", "batch_size": 2, "device": "cpu", "steps": 2, "save_every": 1}


@pytest.fixture()
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture()
def sets(tiny_data):
    return dict.fromkeys(("source", "target", "val"), f"folder:{tiny_data}")


def weights(path):
    return load(path).network.state_dict()


def test_the_lines_of_the_readme_run(here, tiny_data):
    block = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)[1]
    small = "steps=1, size='64x64', batch_size=2, device='cpu', "
    shown = {"steps=500, ": small, "toytown:source": f"folder:{tiny_data}", "toytown:target": f"folder:{tiny_data}"}
    for text, tiny in shown.items():
        assert text in block
        block = block.replace(text, tiny)
    names = {}
    exec(compile(block, str(README), "exec"), names)
    assert 0 <= names["scores"].miou() <= 1 and names["spec"].size_hw == (64, 64)
    assert {"last.pth", "best.pth", "config.toml", "results.csv", "report.html", "MODEL_CARD.md"} <= set(
        files_below(Path("runs/mine"))
    )


def test_the_page_of_a_run_says_none_where_nothing_was_validated(here, sets):
    result = train("source-only", source=sets["source"], out="run", **{**SMALL, "steps": 1})
    plan = saved_plan(Path("run"))

    def said(found):
        text = write_run_page(plan, Path("run"), found).read_text()
        return [re.search(rf"<td>{what} val mIoU, %</td>\s*<td[^>]*>(.*?)</td>", text)[1] for what in ("best", "last")]

    score = f"{100 * result.last_miou:.2f}"
    assert said(result) == [f"{score}  (train @1)", score]
    nothing = dataclasses.replace(result, best_miou=math.nan, best_at="", last_miou=math.nan)
    assert said(nothing) == ["none", "none"]


def test_python_and_the_command_line_leave_the_same_folder(here, sets):
    result = train("rtda-light-thin", **sets, out="python", optimizer={"power": 1.0}, **SMALL)
    words = [word for key, value in sets.items() for word in (f"--{key}", value)]
    words += [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    outcome = invoke("train", "rtda-light-thin", *words, "--set", "optimizer.power=1.0", "--out", "typed")
    assert outcome.code == 0, outcome.err
    names = [
        {re.sub(r"tfevents.*", "tfevents", name) for name in files_below(Path(out))} for out in ("python", "typed")
    ]
    assert names[0] == names[1]
    assert Path("python/config.toml").read_text() == Path("typed/config.toml").read_text()
    ours, theirs = weights("python/last.pth"), weights("typed/last.pth")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert result.folder == Path("python") and 0 <= result.last_miou <= result.best_miou <= 1


def test_a_run_folder_tells_whether_its_plan_was_trained_and_can_be_copied(here, sets):
    folder, copy = Path("run"), Path("copy")
    train("rtda-after-source", **sets, out=folder, **SMALL)
    plan = saved_plan(folder)
    assert is_trained(folder, plan) is True
    copy.mkdir()
    copy_run(folder, copy)
    assert is_trained(copy, plan) is True and (copy / "verify").is_dir()
    (copy / f"stage-{plan.stages[0].name}.pth").unlink()
    assert is_trained(copy, plan) is None, "the whole run, or none"
    assert is_trained(folder, dataclasses.replace(plan, seed=plan.seed + 1)) is None, "another plan"
    assert is_trained(here, plan) is None


def test_what_the_command_line_refuses_is_refused_here(here, sets):
    train("source-only", **sets, out="run", **SMALL)
    before = Path("run/last.pth").read_bytes()
    with pytest.raises(ConfigError, match=r"run holds a run \(last\.pth\)"):
        train("source-only", **sets, out="run", **SMALL)
    with pytest.raises(ConfigError, match=r"write over .*which is --init"):
        train("source-only", **sets, out="run", force=True, init="run/last.pth", **SMALL)
    with pytest.raises(CheckpointError, match="seed 5, not 0"):
        train(out="run", resume=True, seed=5)
    with folder_lock("run"), pytest.raises(FolderBusyError):
        train(out="run", resume=True)
    with pytest.raises(ConfigError, match="stepz") as caught:
        train("source-only", stepz=3)
    assert "steps" in caught.value.hint
    assert Path("run/last.pth").read_bytes() == before and [path.name for path in here.iterdir()] == ["run"]


def test_a_training_that_is_asked_to_stop_saves_and_is_resumed(here, sets):
    stop, events = StopRequest(), []

    def on_event(event):
        events.append(event.kind)
        if event.kind == "step":
            assert stop.stepping
            stop.ask()

    with pytest.raises(TrainingStopped) as caught:
        train("source-only", **sets, out="run", on_event=on_event, stop=stop, **{**SMALL, "steps": 9, "save_every": 0})
    assert caught.value.path == Path("run/last.pth") and caught.value.step == 2 and not stop.stepping
    assert events[:1] != ["step"] and {"start", "stage", "step"} <= set(events)
    resumed = []
    train(out="run", resume=True, on_event=resumed.append)
    start = next(event.values for event in resumed if event.kind == "start")
    assert (start["resumed"], start["finished"]) == (2, False)
    assert [event.step for event in resumed if event.kind == "validating"] == list(range(1, 7))


def test_a_checkpoint_a_network_and_a_function_are_scored(tiny_checkpoint, tiny_data):
    address = f"folder:{tiny_data}"
    of_file, of_network = evaluate(tiny_checkpoint, address), evaluate(load(tiny_checkpoint), address, max_pictures=6)
    assert of_file.to_dict() == of_network.to_dict() and of_file.pixels > 0
    sky = evaluate(lambda frame: np.full(frame.shape[:2], 10, np.uint8), address)
    assert 0 < sky.iou[10] == pytest.approx(sky.pixel_accuracy, abs=1e-9)
    with pytest.raises(DataError, match="other classes"):
        evaluate(tiny_checkpoint, open_labelled(f"{address}?classes=camvid"))


def test_two_domains_without_a_recipe_are_a_run_of_the_recommended_one(tmp_path):
    chosen = choose_run("", ["steps=3"], tmp_path, False, False, source="toytown:source", target="toytown:target")
    assert chosen.plan.name == "recommended" and chosen.note == "no recipe was named: recommended"
    assert [stage.steps for stage in chosen.plan.stages] == [3] * len(chosen.plan.stages)
    with pytest.raises(ConfigError, match="no recipe was named"):
        choose_run("", [], tmp_path, False, False, target="toytown:target")
