"""``train --check``: a few labelled frames of the target choose ``best.pth`` among the networks of a run."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch (Python >= 3.10)")
import torch
from interrupting import at_step, interrupt
from training.settings import write_domains

from rtda_deploy.errors import ConfigError, DataError, FileAccessError
from rtda_deploy.own_masks import marked
from rtda_training.checkpoint import read_checkpoint, write_checkpoint
from rtda_training.grids.grid import load_grid
from rtda_training.loop import norm_candidates, run_ranking, source_norms
from rtda_training.loop.events import TrainEvent, TrainResult
from rtda_training.loop.run_ranking import contenders_of
from rtda_training.pages.model_card import write_model_card
from rtda_training.pages.run_page import write_run_page
from rtda_training.plan import PlanConfig, load_plan
from rtda_training.readers import open_unlabelled
from rtda_training.run import train, train_plan
from rtda_training.trainer import Trainer

_SMALL = ("size=64x64", "batch_size=2", "device=cpu", "val_every=0", "save_every=1", "optimizer.warmup_steps=0")
_RECIPE = """
batch_norm = "fixed"
[[stages]]
name = "warm-up"
steps = 3
[[stages]]
name = "adapted"
steps = 3
objectives = ["supervised", "mixed"]
labeler = "ema"
mixer = "classmix"
"""
_OTHERS = {f"batch norms {share} % target" for share in (25, 50, 75, 100)} | {
    f"batch norms shifted {share} %" for share in (50, 100)
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = write_domains(tmp_path_factory.mktemp("data"), 4, 9, 32, target_val=True)
    (base / "two.toml").write_text(_RECIPE)
    return base


def check_of(folders: Path) -> str:
    return f"folder:{folders / 'target'}?split=val"


def plan(folders: Path, *overrides: str, recipe: str = "", **fields: str) -> PlanConfig:
    sets = {name: f"folder:{folders / name}" for name in ("source", "target")}
    asked = {**sets, "check": check_of(folders), **fields}
    return load_plan(recipe or str(folders / "two.toml"), [*_SMALL, *overrides], **asked)


@pytest.fixture(scope="module")
def run(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, list[TrainEvent]]:
    told: list[TrainEvent] = []
    return Trainer(plan(folders), tmp_path_factory.mktemp("run") / "run", on_event=told.append).run(), told


def names(result: TrainResult) -> set[str]:
    assert result.ranking is not None
    return {entry["name"] for entry in result.ranking["entries"]}


def test_labels_choose_best_among_all_that_the_run_made_and_what_the_last_network_becomes(
    run: tuple[TrainResult, list[TrainEvent]], folders: Path
) -> None:
    result, told = run
    ranking: dict[str, Any] = result.ranking or {}
    assert ranking["by_labels"] and ranking["labelled"] == check_of(folders) and ranking["first"] == "last"
    earlier = {f"stage warm-up, {name}" for name in _OTHERS}
    assert names(result) == {"last", "stage warm-up", "teacher of adapted", *_OTHERS, *earlier}
    miou = {entry["name"]: entry["check_miou"] for entry in ranking["entries"]}
    if ranking["better"]:
        assert ranking["chosen"] == max(miou, key=lambda name: miou[name])
    else:
        assert ranking["chosen"] == "last"
    assert read_checkpoint(result.folder / "best.pth").spec.provenance["chosen"]["by"] == "rank, by labelled frames"
    assert "labelled frames of the target" in result.verdict and "no source-only network" not in result.verdict
    assert not any(event.kind == "warning" for event in told)


def test_the_networks_say_what_entered_their_norms_on_the_source(run: tuple[TrainResult, list[TrainEvent]]) -> None:
    last = read_checkpoint(run[0].folder / "last.pth")
    assert last.norm_inputs and all(value.shape[0] == 2 for value in last.norm_inputs.values())
    best = read_checkpoint(run[0].folder / "best.pth")
    assert best.norm_inputs.keys() == last.norm_inputs.keys()


def test_trained_norms_need_no_such_figures(folders: Path, tmp_path: Path) -> None:
    Trainer(plan(folders, "batch_norm=train", "warm-up.steps=1", "adapted.steps=1", check=""), tmp_path / "run").run()
    assert read_checkpoint(tmp_path / "run" / "last.pth").norm_inputs == {}


def test_a_network_without_batch_norms_is_not_written_again_each_time(
    run: tuple[TrainResult, list[TrainEvent]], folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_norms, "source_norms", lambda *asked: {})  # what such a network gives
    path = tmp_path / "last.pth"
    write_checkpoint(path, dataclasses.replace(read_checkpoint(run[0].folder / "last.pth"), norm_inputs={}))
    before = path.stat().st_ino
    pictures = open_unlabelled(f"folder:{folders / 'source'}")
    source_norms.add_source_norms(plan(folders), tmp_path, pictures, torch.device("cpu"))
    assert path.stat().st_ino == before


def test_without_labels_no_shifted_norms_and_none_of_earlier_stages_are_ranked(
    run: tuple[TrainResult, list[TrainEvent]], folders: Path
) -> None:
    found = {one.name for one in contenders_of(plan(folders, check=""), run[0].folder).networks}
    assert not any("shifted" in name or "stage warm-up," in name for name in found) and "stage warm-up" in found


def test_a_run_that_is_broken_off_ends_as_one_in_one_go(
    run: tuple[TrainResult, list[TrainEvent]], folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(norm_candidates, "MIXES", ())
    monkeypatch.setattr(norm_candidates, "SHIFTS", ())
    monkeypatch.setattr(run_ranking, "MIXES", ())
    with at_step(5, interrupt), pytest.raises(KeyboardInterrupt):
        Trainer(plan(folders), tmp_path / "run").run()
    state = read_checkpoint(tmp_path / "run" / "last.pth")
    result = Trainer(plan(folders), tmp_path / "run").run(state)
    ours, theirs = (read_checkpoint(place / "last.pth").weights for place in (result.folder, run[0].folder))
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert result.ranking is not None and result.ranking["by_labels"]


def test_source_only_with_footage_and_labels_chooses_among_its_batch_norms(folders: Path, tmp_path: Path) -> None:
    found = plan(folders, "steps=2", "batch_norm=fixed", recipe="source-only")
    assert found.ranks
    result = Trainer(found, tmp_path / "run").run()
    assert names(result) >= {"last", *_OTHERS}
    card = write_model_card(found, tmp_path / "run", result).read_text()
    assert "| adapted to, without labels |" in card and "chosen by labels of a few of its frames" in card


def test_labels_that_nothing_is_chosen_by_are_refused(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing to choose among.*no target"):
        load_plan("source-only", [*_SMALL], source=f"folder:{folders / 'source'}", check=check_of(folders))
    for changes in ({"recipe": "target-only"}, {"overrides": ["rank=false"]}):
        with pytest.raises(ConfigError, match="networks are not ranked"):
            plan(folders, *changes.get("overrides", ()), recipe=str(changes.get("recipe", "")))
    few = tmp_path / "few"
    for name in ("images", "labels"):
        (few / "val" / name).mkdir(parents=True)
        for index in range(2):
            shutil.copy(folders / "target" / "val" / name / f"{index}.png", few / "val" / name)
    shutil.copy(folders / "source" / "classes.json", few)
    with pytest.raises(DataError, match="has 2 labelled frames: they give no interval"):
        Trainer(plan(folders, check=f"folder:{few}?split=val"), tmp_path / "run")
    with pytest.raises(DataError, match=r"shares frames with --labelled-target"):
        Trainer(plan(folders, labelled_target=check_of(folders)), tmp_path / "run")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("unlabelled", "2 of the 4 frames .* have a labelled pixel"),
        ("empty", "no pixel of .* is labelled"),
        ("other size", "picture is 64x64, its label 32x32"),
        ("no picture", "is no picture"),
    ],
)
def test_labels_that_would_be_refused_in_the_end_are_before_the_first_step(
    folders: Path, tmp_path: Path, fault: str, told: str
) -> None:
    base = tmp_path / "set"
    for name in ("images", "labels"):
        (base / name).mkdir(parents=True)
        for index in range(4):
            shutil.copy(folders / "target" / "val" / name / f"{index}.png", base / name)
    shutil.copy(folders / "source" / "classes.json", base)
    for index in {"unlabelled": (0, 1), "empty": range(4)}.get(fault, ()):
        cv2.imwrite(str(base / "labels" / f"{index}.png"), np.full((64, 64), 255, np.uint8))
    if fault == "other size":
        cv2.imwrite(str(base / "labels" / "2.png"), np.zeros((32, 32), np.uint8))
    if fault == "no picture":
        (base / "images" / "2.png").write_text("no picture")
    with pytest.raises(DataError, match=told):
        Trainer(plan(folders, check=f"folder:{base}"), tmp_path / "run")


def test_labels_that_were_learned_from_are_refused_by_whatever_name(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="shares frames with --source"):
        Trainer(plan(folders, check=f"folder:{folders / 'source'}?split=train"), tmp_path / "run")
    (tmp_path / "link").symlink_to(folders / "target")
    with pytest.raises(DataError, match="shares frames with --labelled-target"):
        Trainer(plan(folders, labelled_target=f"folder:{tmp_path / 'link'}?split=val"), tmp_path / "run")
    shutil.copytree(folders / "target", tmp_path / "copy")
    with pytest.raises(DataError, match="shares frames with --labelled-target"):
        Trainer(plan(folders, labelled_target=f"folder:{tmp_path / 'copy'}?split=val"), tmp_path / "run")


def test_a_target_too_small_to_judge_networks_on_is_refused_before_the_first_step(
    folders: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few" / "train" / "images"
    few.mkdir(parents=True)
    for index in range(5):
        shutil.copy(folders / "target" / "train" / "images" / f"{index}.png", few)
    with pytest.raises(DataError, match="has 5 pictures: too few to judge networks on"):
        Trainer(plan(folders, target=f"folder:{tmp_path / 'few'}"), tmp_path / "run")


@pytest.fixture
def without_other_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other batch norms are no candidates, where a test is about others: they are most of what is ranked."""
    for name in ("_of_the_last", "_of_earlier"):
        monkeypatch.setattr(run_ranking, name, lambda *asked: [])


def before_the_choice(run: TrainResult, folder: Path) -> Path:
    """A finished run that has to rank still."""
    shutil.copytree(run.folder, folder)
    (folder / "ranking.json").unlink()
    (folder / "best.pth").unlink()
    return folder


def test_a_best_that_cannot_be_written_is_an_error_and_no_run_without_a_ranking(
    run: tuple[TrainResult, list[TrainEvent]], folders: Path, tmp_path: Path, without_other_norms: None
) -> None:
    folder = before_the_choice(run[0], tmp_path / "run")
    (folder / "best.pth").mkdir()  # as a full disk does: nothing can be put there
    state = read_checkpoint(folder / "last.pth")
    with pytest.raises(FileAccessError, match=r"cannot write .*best\.pth"):
        Trainer(plan(folders), folder).run(state)
    (folder / "best.pth").rmdir()
    told: list[TrainEvent] = []
    result = Trainer(plan(folders), folder, on_event=told.append).run(state)
    chosen = read_checkpoint(folder / "best.pth").spec.provenance["chosen"]["name"]
    assert result.ranking is not None and result.ranking["chosen"] == chosen
    assert "ranking" not in {event.kind for event in told}


def test_a_last_network_that_diverged_is_dropped_and_labels_choose_among_the_others(
    run: tuple[TrainResult, list[TrainEvent]],
    folders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    without_other_norms: None,
) -> None:
    """Its weights are numbers, its answers are none."""
    monkeypatch.setattr(run_ranking, "_FRAMES_BESIDE_LABELS", 8)
    folder = before_the_choice(run[0], tmp_path / "run")
    last = read_checkpoint(folder / "last.pth")
    huge = {key: value * 1e8 if value.ndim == 4 else value for key, value in last.weights.items()}
    write_checkpoint(folder / "last.pth", dataclasses.replace(last, weights=huge))
    told: list[TrainEvent] = []
    result = Trainer(plan(folders), folder, on_event=told.append).run(read_checkpoint(folder / "last.pth"))
    ranking: dict[str, Any] = dict(result.ranking or {})
    assert [found["name"] for found in ranking["dropped"]] == ["last"] and "NaN" in ranking["dropped"][0]["why"]
    assert ranking["by_labels"] and names(result) == {"stage warm-up", "teacher of adapted"}
    assert ranking["frames"] == 8, "what decides nothing beside labels is measured on few frames"
    write_run_page(plan(folders), folder, result)
    assert "decided nothing, so that few frames do" in (folder / "report.html").read_text()


def test_a_choice_that_failed_says_so_and_the_card_does_not_say_that_labels_chose(
    folders: Path, tmp_path: Path
) -> None:
    """The labelled frames vanish while it trains."""
    own, told = tmp_path / "own", list[TrainEvent]()
    shutil.copytree(folders / "target", own)

    def tell(event: TrainEvent) -> None:
        told.append(event)
        if event.kind == "step":
            shutil.rmtree(own, ignore_errors=True)

    asked = plan(folders, "steps=1", recipe="source-only", check=f"folder:{own}?split=val")
    result = train_plan(asked, tmp_path / "run", on_event=tell)
    (text,) = [event.stage for event in told if event.kind == "warning"]
    assert text.startswith("not ranked, best.pth is the best on val: ") and text.endswith("the run ranks again")
    card = (result.folder / "MODEL_CARD.md").read_text()
    assert "chosen by labels" not in card and result.ranking is None


def test_val_typed_beside_it_does_not_choose(folders: Path) -> None:
    found = plan(folders, val=f"folder:{folders / 'source'}?split=val")
    assert found.ranks and found.validation.endswith("source?split=val")
    assert not dataclasses.replace(found, check="").ranks


def test_a_grid_gives_its_labels_to_every_row_but_the_oracle(folders: Path, tmp_path: Path) -> None:
    grid = tmp_path / "own.toml"
    sets = "".join(f'{name} = "folder:{folders / name}"\n' for name in ("source", "target"))
    rows = "".join(f'[[rows]]\nlabel = "{name}"\nrecipe = "{name}"\n' for name in ("source-only", "target-only"))
    grid.write_text(f'{sets}check = "{check_of(folders)}"\ntest = "{check_of(folders)}"\n{rows}')
    found = {run.row.label: run.plan.check for run in load_grid(str(grid)).runs()}
    assert found == {"source-only": check_of(folders), "target-only": ""}


def test_the_list_of_what_chooses_is_not_written_over(folders: Path, tmp_path: Path) -> None:
    listed = tmp_path / "run" / "results.csv"
    listed.parent.mkdir()
    listed.write_text("".join(f"val/images/{n}.png val/labels/{n}.png\n" for n in range(3)))
    sets = {name: f"folder:{folders / name}" for name in ("source", "target")}
    check = f"folder:{folders / 'target'}?list={listed}"
    with pytest.raises(ConfigError, match=r"write over .*which is --check"):
        train(str(folders / "two.toml"), **sets, check=check, out=listed.parent, overrides=_SMALL, force=True)  # type: ignore[arg-type]


def test_masks_of_a_network_that_nobody_corrected_are_told(folders: Path, tmp_path: Path) -> None:
    own, told = tmp_path / "own", list[TrainEvent]()
    shutil.copytree(folders / "target", own)
    for path in (own / "val" / "labels").iterdir():
        path.write_bytes(marked(path.read_bytes()))
    Trainer(plan(folders, check=f"folder:{own}?split=val"), tmp_path / "run", on_event=told.append)
    assert any(event.kind == "warning" and "nobody changed them" in event.stage for event in told)
