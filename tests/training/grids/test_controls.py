"""Controls: what a grid adds to its rows, which rows share one, and that weight 0 leaves the same network."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.components import Objective
from rtda_training.adapt.slots import components
from rtda_training.checkpoint import read_checkpoint
from rtda_training.grids.grid import Grid, GridRow, load_grid
from rtda_training.grids.results import assemble
from rtda_training.grids.runner import train_grid
from rtda_training.grids.table import csv_table, gain_lines, markdown_table, notes
from rtda_training.loop.events import TrainResult
from rtda_training.plan import control_key, control_of, load_plan, plan_from_table
from rtda_training.run import train_plan


def row(label: str, recipe: str = "", *settings: str) -> GridRow:
    return GridRow(label, recipe or label, settings)


def grid(*rows: GridRow, **changed: Any) -> Grid:
    return Grid("tiny", "toytown:source", "toytown:target", rows, **changed)


def stages(recipe: str, *settings: str) -> list[tuple[str, tuple[str, ...]]]:
    plan = control_of(load_plan(recipe, settings)).plan
    assert plan is not None and plan_from_table(plan.to_dict()) == plan, "it is written into config.toml and read again"
    return [(stage.name, stage.objectives) for stage in plan.stages]


# the control of a plan


@pytest.mark.parametrize("recipe", ["rtda-fcd", "rtda-light-thin", "fda-light", "minent", "advent", "pfr"])
def test_a_method_whose_only_forward_is_the_targets_has_that_forward_left(recipe):
    plan = load_plan(recipe, ["steps=30", "batch_size=3", "augment.blur=0.5", "bn_statistics=target"])
    control = control_of(plan).plan
    assert [(s.objectives, s.style) for s in control.stages] == [(("supervised", "target-forward"), "none")]
    assert control.stages[0].bn_statistics == "target" and control.stages[0].optimizer == plan.stages[0].optimizer
    assert (control.batch_size, control.augment, control.seed) == (plan.batch_size, plan.augment, plan.seed)


def test_mixed_pictures_are_still_made_and_seen():
    control = control_of(load_plan("rare-classes", ["mixed.weight=0.7", "ema.threshold=0.5"])).plan
    (stage,) = control.stages
    assert (stage.labeler, stage.mixer, stage.sampler) == ("ema", "classmix", "rare")
    assert stage.settings["mixed"].weight == 0 and stage.settings["ema"].threshold == 0.5


@pytest.mark.parametrize("recipe", ["rtda-light-thin", "fda-light", "classmix", "minent"])
def test_with_fixed_norms_a_forward_changes_nothing_and_the_control_is_source_only(recipe):
    fixed = ["batch_norm=fixed"]
    control = control_of(load_plan(recipe, fixed)).plan
    assert control_key(control) == control_key(load_plan("source-only", fixed, target="toytown:target"))


def test_with_fixed_norms_what_is_deployed_or_all_that_is_left_stays():
    (kept,) = control_of(load_plan("classmix", ["batch_norm=fixed", "ema.deploy=true"])).plan.stages
    assert (kept.labeler, kept.objectives) == ("ema", ("supervised", "mixed"))
    assert all(objectives for _, objectives in stages("adapt")), "without a source nothing else would be left"


def test_the_stages_that_a_control_starts_from_stay_and_those_that_only_taught_it_do_not():
    assert stages("rtda-after-source") == [
        ("source-only", ("supervised",)),
        ("adapted", ("supervised", "target-forward")),
    ]
    assert stages("ssl-1") == [("train", ("supervised", "target-forward"))], "its second stage starts from scratch"
    assert stages("bdl") == stages("ssl-1"), "translators of pictures that nobody translates"


@pytest.mark.parametrize(
    ("recipe", "setting", "why"),
    [
        ("source-only", "seed=0", "no weight that could be 0"),
        ("target-bn", "seed=0", "no weight that could be 0"),
        ("target-only", "seed=0", "target's labels"),
        ("rtda-light-thin", "adversarial.weight=0", "a control itself"),
    ],
)
def test_what_has_no_control_says_why(recipe, setting, why):
    found = control_of(load_plan(recipe, [setting], target="toytown:target", source="toytown:source"))
    assert found.plan is None and why in found.why


def test_a_style_alone_has_the_plain_pictures_for_its_control():
    plan = load_plan("source-only", ["style=fda"], source="toytown:source", target="toytown:target")
    control = control_of(plan).plan
    plain = load_plan("source-only", ["seed=4"], source="toytown:source", target="toytown:target")
    assert control_key(control) == control_key(plain)


def test_every_objective_but_the_sources_own_can_be_silenced_by_what_it_says_itself():
    loud = []
    for key, found in components("objectives").items():
        assert issubclass(found, Objective)
        silent = found.silenced(found.settings())
        if silent is None:
            loud.append(key)
            continue
        name, settings = silent
        assert isinstance(settings, components()[name].settings)
        assert getattr(settings, "weight", 0.0) == 0.0
    assert loud == ["supervised", "target-forward"]


def test_an_entropy_term_that_begins_later_keeps_its_first_steps_without_the_target():
    settings = components()["entropy"].settings(start_step=5, weight=0.3)
    name, silent = components()["entropy"].silenced(settings)
    assert name == "entropy" and silent == dataclasses.replace(settings, weight=0.0)


# what a grid adds


def test_rows_of_one_control_share_its_run_which_follows_the_first_of_them():
    found = grid(row("a", "rtda-fcd"), row("b", "advent"), row("c", "source-only"), row("d", "classmix")).runs()
    assert [run.row.label for run in found] == ["a", "Control of a and 1 other", "b", "c", "d", "Control of d"]
    assert [run.control for run in found] == [
        "Control of a and 1 other",
        "",
        "Control of a and 1 other",
        "",
        "Control of d",
        "",
    ]
    assert found[3].without and found[1].without == "it is a control"


def test_each_seed_has_its_own_control():
    found = grid(row("a", "rtda-fcd"), row("b", "advent"), seeds=(0, 3)).runs()
    assert [(run.row.label[:7], run.plan.seed) for run in found] == [
        *(("a", 0), ("Control", 0), ("b", 0)),
        *(("a", 3), ("Control", 3), ("b", 3)),
    ]
    assert len({run.folder for run in found}) == 6


def test_rows_with_settings_of_their_own_have_controls_of_their_own():
    found = grid(row("a", "rtda-fcd"), row("b", "rtda-fcd", "bn_statistics=target"), row("c", "fda-light", "steps=9"))
    assert [run.row.label for run in found.runs()] == ["a", "Control of a", "b", "Control of b", "c", "Control of c"]


def test_what_the_network_does_not_hear_of_makes_no_control_of_its_own():
    settings = ("adversarial.weight=0.01", "adversarial.learning_rate=0.002", "adversarial.gan=ls")
    found = grid(row("a", "rtda-fcd"), row("b", "rtda-light-thin", *settings)).runs()
    assert len(found) == 3


def test_a_row_that_is_the_control_of_another_is_used_as_it_is():
    found = grid(row("a", "rtda-fcd"), row("mine", "source-only", 'objectives=["supervised", "target-forward"]')).runs()
    assert [(run.row.label, run.control) for run in found] == [("a", "mine"), ("mine", "")]


def test_a_control_is_found_again_when_rows_are_added_before_it():
    before = [run.folder for run in grid(row("b", "advent")).runs() if not run.control]
    after = [run.folder for run in grid(row("new", "minent"), row("b", "advent")).runs() if not run.control]
    assert before == after and before[0].startswith("control-")


def test_controls_are_there_unless_they_are_left_away(tmp_path):
    head = 'source = "toytown:source"\ntarget = "toytown:target"\n'
    rows = '[[rows]]\nlabel = "a"\nrecipe = "rtda-fcd"\n'
    path = tmp_path / "mine.toml"
    path.write_text(head + rows, encoding="utf-8")
    assert len(load_grid(str(path)).runs()) == 2
    assert len(load_grid(str(path), ["control=false"]).runs()) == 1
    path.write_text("control = 0\n" + head + rows, encoding="utf-8")
    with pytest.raises(ConfigError, match="control must be true or false, got 0"):
        load_grid(str(path))


# the table


@pytest.fixture()
def results():
    chosen = grid(
        row("Source only", "source-only"), row("FCD", "rtda-fcd"), row("ADVENT", "advent"), row("Oracle", "target-only")
    )
    miou = {"Source only": 10.0, "FCD": 14.5, "ADVENT": 13.0, "Oracle": 40.0, "Control of FCD and 1 other": 14.0}
    runs = chosen.runs()
    found = {
        run.folder: {"scores": {"miou": miou[run.row.label], "pixel_accuracy": 50.0, "iou": {"road": 50.0}}}
        for run in runs
    }
    return assemble(chosen, runs, found)


def test_the_table_tells_the_gain_over_source_only_and_over_the_control(results):
    headers, lines = gain_lines(results)
    told = {line[0]: (line[headers.index("gain")], line[headers.index("over control")]) for line in lines}
    assert told == {
        "Source only": ("–", "–"),
        "FCD": ("+4.5", "+0.5"),
        "Control of FCD and 1 other": ("+4.0", "–"),
        "ADVENT": ("+3.0", "-1.0"),
        "Oracle": ("+30.0", "–"),
    }
    text = "\n".join(notes(results))
    assert "Control of FCD and 1 other: of FCD; ADVENT." in text
    assert "no control: Oracle: it learns from the target's labels." in text
    assert "| +0.5 |" in markdown_table(results)
    header, *rows = csv_table(results)
    assert [row[header.index("over_control")] for row in rows] == ["", 0.5, "", -1.0, ""]


def test_without_controls_the_table_has_no_column_for_them():
    chosen = grid(row("Source only", "source-only"), row("FCD", "rtda-fcd"), control=False)
    found = assemble(chosen, chosen.runs(), {})
    assert "over control" not in gain_lines(found)[0] and "control" not in "\n".join(notes(found))


# as trained


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir()
        for place in range(4):
            high = 256 if name == "images" else 19
            shape = (64, 64, 3) if name == "images" else (64, 64)
            cv2.imwrite(str(folder / name / f"{place}.png"), draw.integers(0, high, shape, dtype=np.uint8))
    return f"folder:{folder}"


class Scored:
    confusion = np.eye(2, dtype=np.int64)

    def to_dict(self):
        return {"miou": 50.0, "pixel_accuracy": 60.0, "iou": {"road": 50.0}}


def test_a_finished_control_is_not_trained_again_and_serves_a_row_that_comes_later(data, tmp_path):
    made = []

    def train(run, folder, resume):
        made.append(run.row.label)
        (folder / "last.pth").touch()
        return TrainResult(folder, 0.5, "train @1", 0.5, 1.0)

    def trained(*rows):
        found = Grid("tiny", data, data, rows, test=data)
        return train_grid(found, tmp_path, score=lambda path, test: Scored(), train=train)

    trained(row("a", "rtda-fcd"))
    assert made == ["a", "Control of a"]
    found = trained(row("a", "rtda-fcd"), row("b", "minent"))
    assert made == ["a", "Control of a", "b"]
    assert [entry["over_control"] for entry in found["rows"]] == [0.0, None, 0.0]
    assert json.loads((tmp_path / "results.json").read_text()) == found


def weights(recipe, folder, data, settings, silent):
    common = ["size=64x64", "steps=3", "batch_size=2", "val_every=0", "precision=fp32", "val_pictures=1"]
    plan = load_plan(recipe, [*common, *settings], source=data, target=data)
    train_plan(control_of(plan).plan if silent else plan, folder, report=False)
    return read_checkpoint(folder / "last.pth").weights


def test_weight_0_leaves_the_same_network_as_the_forwards_alone_bit_by_bit(data, tmp_path):
    muted = weights("rtda-light-thin", tmp_path / "muted", data, ["adversarial.weight=0"], silent=False)
    control = weights("rtda-light-thin", tmp_path / "control", data, [], silent=True)
    told = weights("rtda-light-thin", tmp_path / "told", data, ["adversarial.weight=5"], silent=False)
    plain = weights("source-only", tmp_path / "plain", data, [], silent=False)
    assert all(torch.equal(control[name], value) for name, value in muted.items())
    assert not all(torch.equal(control[name], value) for name, value in told.items())
    running = [name for name in plain if name.endswith("running_mean")]
    assert not all(torch.equal(control[name], plain[name]) for name in running)
    learned = [name for name in plain if name.endswith(".weight")]
    assert all(torch.equal(control[name], plain[name]) for name in learned), "the target's forward teaches nothing"


def test_with_fixed_norms_weight_0_leaves_the_network_of_source_only_bit_by_bit(data, tmp_path):
    muted = weights("classmix", tmp_path / "muted", data, ["batch_norm=fixed", "mixed.weight=0"], silent=False)
    plain = weights("source-only", tmp_path / "plain", data, ["batch_norm=fixed"], silent=False)
    assert muted.keys() == plain.keys() and all(torch.equal(plain[name], value) for name, value in muted.items())
