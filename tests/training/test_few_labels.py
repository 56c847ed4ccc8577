"""``--labelled-target``: a few labelled frames of the target, learned from beside whatever the recipe does."""

from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("torch", reason="training needs torch (Python >= 3.10)")
import cv2
import numpy as np
import torch
from interrupting import at_step, interrupt
from training.settings import make_context, make_stage, write_domains

from rtda_deploy.errors import ConfigError, DataError
from rtda_training.adapt.objectives.target_labels import TargetLabels, TargetLabelsConfig, labelled_batch_size
from rtda_training.checkpoint import read_checkpoint
from rtda_training.grids.grid import load_grid
from rtda_training.plan import changed_plan, control_of, differing_keys, load_plan, plan_from_table
from rtda_training.readers import open_labelled
from rtda_training.run import evaluate, train
from rtda_training.trainer import Trainer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """``source``, ``target``, and ``few``: two target frames of its train split with labels, of two of the classes."""
    base = write_domains(tmp_path_factory.mktemp("data"), 4, 6, 32, target_val=True)
    few = base / "few"
    for name in ("images", "labels"):
        (few / "train" / name).mkdir(parents=True)
    for index in range(2):
        shutil.copy(base / "target" / "train" / "images" / f"{index}.png", few / "train" / "images")
        frame = cv2.imread(str(few / "train" / "images" / f"{index}.png"))
        cv2.imwrite(str(few / "train" / "labels" / f"{index}.png"), (frame[..., 0] > 120).astype(np.uint8))
    shutil.copy(base / "source" / "classes.json", few)
    return base


def plan(folders, *overrides, recipe="source-only", few="few"):
    common = ["size=64x64", "batch_size=2", "device=cpu", "val_every=0", "save_every=2", "optimizer.warmup_steps=0"]
    return load_plan(
        recipe,
        [*common, *overrides],
        source=f"folder:{folders / 'source'}",
        target=f"folder:{folders / 'target'}",
        labelled_target=f"folder:{folders / few}" if few else "",
    )


def weights(folder):
    return read_checkpoint(folder / "last.pth").weights


def same(one, other, names=None):
    return all(torch.equal(one[name], other[name]) for name in names or one)


@pytest.mark.parametrize(
    "recipe", ["source-only", "recommended", "classmix", "rtda-light-thin", "ssl-1", "target-only"]
)
def test_any_recipe_takes_labelled_target_frames_and_says_so_in_its_plan(folders, recipe):
    found = plan(folders, recipe=recipe)
    plain = plan(folders, recipe=recipe, few="")
    for stage, before in zip(found.stages, plain.stages, strict=True):
        assert stage.objectives == (*before.objectives, "target-labels")
    assert plan_from_table(found.to_dict()) == found
    assert not any("target-labels" in stage.objectives for stage in plain.stages)


def test_stages_that_train_no_network_and_those_that_a_recipe_leaves_out_have_none(folders, tmp_path):
    both = plan(folders, recipe="bdl-1x1")
    kinds = {stage.kind: stage.trains_on_target_labels for stage in both.stages}
    assert kinds == {"translation": False, "segmentation": True}
    own = tmp_path / "own.toml"
    own.write_text(
        'base = "source-only"\n[[stages]]\nname = "a"\n[[stages]]\nname = "b"\n'
        'objectives = ["supervised", "target-labels"]\n[stages.target-labels]\nweight = 2.5\n'
    )
    found = plan(folders, recipe=str(own))
    assert [stage.trains_on_target_labels for stage in found.stages] == [False, True]
    assert found.stages[1].settings["target-labels"].weight == 2.5


def test_labels_and_the_objective_that_learns_from_them_go_together(folders):
    with pytest.raises(ConfigError, match="learns from labelled target frames, and none are given") as caught:
        plan(folders, 'objectives=["supervised", "target-labels"]', few="")
    assert "--labelled-target" in caught.value.hint
    with pytest.raises(ConfigError, match="no stage uses it"):
        plan(folders, "target-labels.weight=2", few="")


def test_a_step_sees_as_many_as_the_share_says_and_every_process_the_same_number():
    assert labelled_batch_size(0.5, 8, 1) == 4
    assert labelled_batch_size(0.01, 8, 1) == 2, "batch norms need two"
    assert labelled_batch_size(0.5, 8, 4) == 8 and labelled_batch_size(1.0, 8, 2) == 8


def test_the_term_is_the_cross_entropy_of_the_labelled_frames_and_nothing_else():
    stage = make_stage()
    frames = torch.from_numpy(np.stack([stage.source.frame(index) for index in (4, 5)])).float()
    label = torch.from_numpy(np.stack([stage.source.label(index) for index in (4, 5)])).long()
    label[:, :32] = 255
    context = make_context(stage, labelled_frames=frames, labelled_label=label)
    loss = TargetLabels(TargetLabelsConfig(weight=3.0, aux_weight=0.0), stage).network_loss(context)
    logits = stage.network(stage.normalise(frames)).logits
    expected = torch.nn.functional.cross_entropy(logits, label, ignore_index=255)
    assert torch.allclose(loss, 3.0 * expected, rtol=1e-5)
    with pytest.raises(RuntimeError, match="no labelled target frames"):
        TargetLabels(TargetLabelsConfig(), stage).network_loss(make_context(stage))


def test_the_network_learns_what_only_the_labelled_frames_say(folders, tmp_path):
    """They call bright blocks class 1, which the source calls class 2 or 3: one that hears only it has 0.12 right."""
    settings = ("steps=20", "optimizer.learning_rate=3e-3", "augment.scale_max=1.0", "target-labels.weight=5")
    Trainer(plan(folders, *settings), tmp_path).run()
    assert evaluate(tmp_path / "last.pth", f"folder:{folders / 'few'}?split=train").pixel_accuracy > 0.5


def test_weight_0_leaves_the_weights_of_the_recipe_without_labels_and_moves_its_batch_norms(folders, tmp_path):
    settings = ("steps=2", "precision=fp32")
    silent = plan(folders, *settings, "target-labels.weight=0")
    control = control_of(plan(folders, *settings)).plan
    assert control.stages == silent.stages and control.labelled_target == silent.labelled_target
    Trainer(silent, tmp_path / "silent").run()
    Trainer(plan(folders, *settings, few=""), tmp_path / "plain").run()
    one, other = weights(tmp_path / "silent"), weights(tmp_path / "plain")
    norms = [name for name in one if "running_" in name or "num_batches" in name]
    assert same(one, other, set(one) - set(norms)), "the frames teach nothing"
    assert not same(one, other, norms), "they are seen"


def test_a_resumed_run_ends_with_identical_weights(folders, tmp_path):
    found = plan(folders, "steps=5", "target-labels.share=1.5", recipe="classmix")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Trainer(found, whole).run()
    with at_step(3, interrupt), pytest.raises(KeyboardInterrupt):
        Trainer(found, parts).run()
    Trainer(found, parts).run(read_checkpoint(parts / "last.pth"))
    assert same(weights(whole), weights(parts))


def test_a_run_of_before_is_resumed_and_one_with_other_labels_is_not(folders):
    saved = plan(folders, few="").to_dict()
    del saved["labelled_target"]
    assert differing_keys(saved, plan(folders, few="")) == []
    assert differing_keys(saved, plan(folders)) == ["labelled_target", "stages"]
    assert changed_plan(plan(folders), labelled_target=f"folder:{folders / 'few'}") == plan(folders)


def test_classes_that_few_frames_lack_are_told_and_stop_nothing(folders, tmp_path):
    told = []
    Trainer(plan(folders, "steps=1"), tmp_path, lambda event: told.append((event.kind, event.stage)))
    address = f"folder:{folders / 'few'}"
    assert ("note", f"labelled target: 2 frames of {address}?split=train; no pixel of building, wall") in told or (
        "note",
        f"labelled target: 2 frames of {address}; no pixel of building, wall",
    ) in told


def test_validating_on_the_labelled_frames_is_warned_of(folders, tmp_path):
    told = []
    found = changed_plan(plan(folders, "steps=1"), val=f"folder:{folders / 'few'}?split=train")
    Trainer(found, tmp_path, lambda event: told.append((event.kind, event.stage)))
    assert ("warning", "2 of the 2 pictures it validates on are trained on: name others with --val DATA") in told


def test_frames_without_labels_and_other_classes_are_refused(folders, tmp_path):
    with pytest.raises(DataError, match="label"):
        Trainer(plan(folders, "steps=1", few="target"), tmp_path)
    other = tmp_path / "other"
    shutil.copytree(folders / "few", other)
    (other / "classes.json").write_text('{"names": ["tree", "path"], "palette": [[0, 1, 0], [2, 2, 2]]}')
    found = changed_plan(plan(folders, "steps=1"), labelled_target=f"folder:{other}")
    with pytest.raises(
        DataError, match=r"has other classes than .*: without road, sidewalk, .*; with tree, path"
    ) as caught:
        Trainer(found, tmp_path / "run")
    assert f"say in {other / 'classes.json'} which class each id is" in caught.value.hint


@pytest.mark.parametrize("kept", [slice(0, 2), slice(None, None, -1)])
def test_fewer_classes_and_another_order_are_told_with_the_line_that_mends_them(folders, tmp_path, kept):
    few = tmp_path / "few"
    shutil.copytree(folders / "few", few)
    names = json.loads((few / "classes.json").read_text())["names"]
    (few / "classes.json").write_text(json.dumps({"names": names[kept]}))
    found = changed_plan(plan(folders, "steps=1"), labelled_target=f"folder:{few}")
    with pytest.raises(DataError, match=r"without|the same in another order") as caught:
        Trainer(found, tmp_path / "run")
    start, line = caught.value.hint.split(": ", 1)
    assert start == f"write into {few / 'classes.json'}"
    (few / "classes.json").write_text(line)
    Trainer(found, tmp_path / "run")
    label = open_labelled(f"folder:{few}").label(0)
    stored = cv2.imread(str(few / "train" / "labels" / "0.png"), cv2.IMREAD_UNCHANGED)
    assert (label == np.array([names.index(name) for name in names[kept]])[stored]).all()


def test_a_frame_without_a_labelled_pixel_is_warned_of(folders, tmp_path):
    few, told = tmp_path / "few", []
    shutil.copytree(folders / "few", few)
    cv2.imwrite(str(few / "train" / "labels" / "1.png"), np.full((64, 64), 255, np.uint8))
    found = changed_plan(plan(folders, "steps=1"), labelled_target=f"folder:{few}")
    Trainer(found, tmp_path / "run", lambda event: told.append((event.kind, event.stage)))
    (text,) = [text for kind, text in told if kind == "warning" and "teach nothing" in text]
    assert text.startswith("1 of 2 frames of ") and text.endswith("1.png")


def test_a_copy_of_the_labelled_frames_judges_no_better_than_they_do(folders, tmp_path):
    few, told = tmp_path / "few", []
    shutil.copytree(folders / "few", few)
    found = changed_plan(plan(folders, "steps=1"), val=f"folder:{few}?split=train")
    Trainer(found, tmp_path / "run", lambda event: told.append((event.kind, event.stage)))
    assert ("warning", "2 of the 2 pictures it validates on are trained on: name others with --val DATA") in told


def test_frames_whose_labels_are_all_255_are_to_be_labelled_and_no_table_of_ids_is_offered(folders, tmp_path):
    few = tmp_path / "few"
    shutil.copytree(folders / "few", few)
    for path in few.rglob("labels/*.png"):
        cv2.imwrite(str(path), np.full_like(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), 255))
    found = changed_plan(plan(folders, "steps=1"), labelled_target=f"folder:{few}")
    with pytest.raises(DataError, match="its labels hold 255 alone, which means not labelled") as caught:
        Trainer(found, tmp_path / "run")
    wanted = "give each pixel the number of its class (0 road, 1 sidewalk, 2 building, …), 255 where it has none"
    assert caught.value.hint == wanted


def test_python_takes_them_and_nothing_that_is_read_is_written_over(folders, tmp_path):
    few = tmp_path / "few"
    shutil.copytree(folders / "few", few)
    names = tmp_path / "run" / "results.csv"
    names.parent.mkdir()
    names.write_text("0.png\n1.png\n")
    asked = {
        "source": f"folder:{folders / 'source'}",
        "target": f"folder:{folders / 'target'}",
        "out": tmp_path / "run",
        "overrides": ["size=64x64", "batch_size=2", "steps=1", "optimizer.warmup_steps=0", "backbone=resnet18"],
    }
    with pytest.raises(ConfigError, match="--labelled-target"):
        train("source-only", labelled_target=f"folder:{few}?list={names}", **asked)
    names.unlink()
    train("source-only", labelled_target=f"folder:{few}", **asked)
    assert f'labelled_target = "folder:{few}"' in (tmp_path / "run" / "config.toml").read_text()


def test_a_grid_gives_them_to_every_row_and_takes_the_flag(tmp_path):
    grid = tmp_path / "grid.toml"
    grid.write_text(
        'source = "toytown:source"\ntarget = "toytown:target"\nlabelled_target = "folder:a"\n'
        '[[rows]]\nlabel = "few"\nrecipe = "source-only"\n'
        '[[rows]]\nlabel = "none"\nrecipe = "source-only"\nset = ["labelled_target="]\n'
    )
    found = {run.row.label: run.plan for run in load_grid(str(grid)).runs()}
    assert found["few"].labelled_target == "folder:a" and found["none"].labelled_target == ""
    typed = load_grid(str(grid), labelled_target="folder:b")
    assert {run.plan.labelled_target for run in typed.runs()} == {"folder:b", ""}
