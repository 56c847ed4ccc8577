"""The loop: it learns, it resumes bit by bit, it stops loudly, and it never opens a target label."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from interrupting import at_step, interrupt
from torch import nn
from training.settings import class_names, write_domains

from rtda_deploy.errors import CheckpointError, ConfigError, DataError, DeviceError, ModelError, TrainingError
from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint
from rtda_training.loop.hardware import build_fabric
from rtda_training.loop.runlog import RunLog
from rtda_training.models import build_backbone
from rtda_training.plan import load_plan
from rtda_training.run_folder import progress_in
from rtda_training.stages.segmentation import mix_statistics, reestimate
from rtda_training.trainer import Trainer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A source with labels and a target without any: four classes told apart by brightness."""
    return write_domains(tmp_path_factory.mktemp("data"), 4, 6, 32)


def plan(folders, *overrides, recipe="rtda-light-thin"):
    settings = ["size=64x64", "batch_size=2", "device=cpu", "val_every=0", "save_every=2", "optimizer.warmup_steps=0"]
    return load_plan(
        recipe, [*settings, *overrides], source=f"folder:{folders / 'source'}", target=f"folder:{folders / 'target'}"
    )


def weights(path):
    return read_checkpoint(path).weights


def test_source_only_learns(folders, tmp_path):
    result = Trainer(plan(folders, "steps=40", "augment.scale_max=1.0", recipe="source-only"), tmp_path).run()
    assert result.best_miou > 0.25  # four equally frequent classes: chance is below 0.15


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_ends_with_identical_weights_discriminator_and_log(folders, tmp_path, precision):
    recipe = plan(folders, "steps=5", "style=fda", "bn_statistics=target", f"precision={precision}")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Trainer(recipe, whole).run()
    with at_step(3, interrupt), pytest.raises(KeyboardInterrupt):
        Trainer(recipe, parts).run()
    state = read_checkpoint(parts / "last.pth")
    assert state.training["step"] == 2 and not state.training["done"]
    Trainer(recipe, parts).run(state)
    expected, found = read_checkpoint(whole / "last.pth"), read_checkpoint(parts / "last.pth")
    assert all(torch.equal(expected.weights[key], found.weights[key]) for key in expected.weights)
    theirs = expected.training["run"]["parts"]["adversarial"]["discriminator"]
    ours = found.training["run"]["parts"]["adversarial"]["discriminator"]
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)
    rows = [json.loads(line) for line in (parts / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5]


def test_a_run_that_dies_between_its_first_best_and_its_first_last_checkpoint_goes_on(folders, tmp_path):
    recipe = plan(folders, "steps=2", "val_every=1", "save_every=0")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Trainer(recipe, whole).run()

    def die(event):
        if event.kind == "validation":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(recipe, parts, die).run()
    state = read_checkpoint(parts / "last.pth")
    assert (parts / "best.pth").exists() and state.training["step"] == 0
    assert "miou" not in state.spec.provenance["metrics"]
    Trainer(recipe, parts).run(state)
    for name in ("best.pth", "last.pth"):
        expected, found = weights(whole / name), weights(parts / name)
        assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_run_that_made_no_step_has_nothing_to_lose(folders, tmp_path):
    kept = tmp_path / "kept.pth"

    def die(event):
        if event.kind == "step":
            shutil.copy(tmp_path / "last.pth", kept)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(plan(folders, "steps=2"), tmp_path, die).run()
    assert not (tmp_path / "last.pth").exists()
    kept.rename(tmp_path / "last.pth")  # so a folder looks whose process was killed
    assert "last.pth" not in progress_in(tmp_path)
    (tmp_path / "last.pth").write_bytes(b"broken")
    assert progress_in(tmp_path) == "last.pth"


def test_a_plan_goes_from_stage_to_stage_and_leaves_its_files(folders, tmp_path):
    events = []
    demo = load_plan(
        "rtda-after-source",
        ["size=64x64", "batch_size=2", "steps=2", "device=cpu"],
        source=f"folder:{folders / 'source'}",
        target=f"folder:{folders / 'target'}",
    )
    Trainer(demo, tmp_path, events.append).run()
    assert [event.stage for event in events if event.kind == "stage"] == ["source-only", "adapted"]
    names = {path.name for path in tmp_path.iterdir()}
    assert {"last.pth", "best.pth", "stage-source-only.pth", "stage-adapted.pth", "results.csv"} <= names
    assert sorted(path.name for path in (tmp_path / "verify").iterdir()) == [f"{k}.png" for k in range(6)]
    first, last = weights(tmp_path / "stage-source-only.pth"), weights(tmp_path / "last.pth")
    assert any(not torch.equal(first[key], last[key]) for key in first)
    assert read_checkpoint(tmp_path / "stage-adapted.pth").training == {}
    spec = read_checkpoint(tmp_path / "last.pth").spec
    assert spec.class_names == class_names(4).names and spec.size_hw == (64, 64)
    assert spec.provenance["domains"]["target"].startswith("folder:")
    model_from_checkpoint(read_checkpoint(tmp_path / "best.pth"))


def test_batch_norm_statistics_of_the_target_change_nothing_but_the_statistics(folders, tmp_path):
    Trainer(plan(folders, "steps=2"), tmp_path / "a").run()
    Trainer(plan(folders, "steps=2", "bn_statistics=target"), tmp_path / "b").run()
    a, b = weights(tmp_path / "a" / "last.pth"), weights(tmp_path / "b" / "last.pth")
    changed = {key.rpartition(".")[2] for key in a if not torch.equal(a[key], b[key])}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}


def test_nan_stops_loudly_and_leaves_the_last_good_checkpoint(folders, tmp_path):
    sgd = ["optimizer.kind=sgd", "optimizer.learning_rate=1e30"]
    with pytest.raises(TrainingError, match=r"step [23]") as caught:
        Trainer(plan(folders, "steps=6", "save_every=1", *sgd, recipe="source-only"), tmp_path).run()
    assert "learning_rate" in caught.value.hint
    assert all(torch.isfinite(t).all() for t in weights(tmp_path / "last.pth").values())


def test_another_plan_is_not_resumed_by_mistake(folders, tmp_path):
    Trainer(plan(folders, "steps=2"), tmp_path).run()
    state = read_checkpoint(tmp_path / "last.pth")
    with pytest.raises(CheckpointError, match="these differ: seed"):
        Trainer(plan(folders, "steps=2", "seed=1"), tmp_path).run(state)


def test_starting_from_a_checkpoint_names_its_parent(folders, tmp_path):
    Trainer(plan(folders, "steps=1"), tmp_path / "a").run()
    start = tmp_path / "a" / "last.pth"
    still = ["optimizer.kind=sgd", "optimizer.learning_rate=0", "optimizer.weight_decay=0"]
    Trainer(plan(folders, "steps=1", f"init='{start}'", *still), tmp_path / "b").run()
    assert torch.equal(weights(tmp_path / "b" / "last.pth")["head.weight"], weights(start)["head.weight"])
    assert len(read_checkpoint(tmp_path / "b" / "last.pth").spec.provenance["parent_sha256"]) == 64
    with pytest.raises(CheckpointError, match="another network"):
        Trainer(plan(folders, f"init='{start}'", "variant=paper"), tmp_path / "c")


def test_bad_requests_are_refused_before_training(folders, tmp_path):
    with pytest.raises(ConfigError, match="100x64") as caught:
        Trainer(plan(folders, "size=100x64"), tmp_path)
    assert "96x64" in caught.value.hint
    with pytest.raises(ConfigError, match="device"):
        Trainer(plan(folders, "device=tpu"), tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="cuda"):
            build_fabric("cuda", "auto")
    with pytest.raises(ModelError, match="at least 2"):
        Trainer(plan(folders, "batch_size=1", "steps=1"), tmp_path).run()


def test_the_log_drops_rows_past_the_resumed_step(tmp_path):
    log = RunLog(tmp_path)
    for step in (1, 2, 3):
        log.add({"stage": "s", "stage_index": 0, "step": step, "seg": 0.5})
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"stage": "s", "st')  # killed while writing
    RunLog(tmp_path, (0, 2)).close()
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0] == "stage,step,seg,learning_rate,pictures_per_s,val_miou,val_pixel_accuracy"
    assert [line.split(",")[1] for line in lines[1:]] == ["1", "2"]


def test_a_training_says_what_it_leaves_out_and_that_it_measures_on_its_own_pictures(folders, tmp_path):
    source = shutil.copytree(folders / "source" / "train", tmp_path / "source")
    shutil.copy(folders / "source" / "classes.json", source)
    (source / "images" / ".ipynb_checkpoints").mkdir()
    events = []
    Trainer(load_plan("source-only", ["size=64x64"], source=f"folder:{source}"), tmp_path / "run", events.append)
    told = [(event.kind, event.stage) for event in events if event.kind in ("note", "warning")]
    assert ("note", f"left out of folder:{source}: hidden or system folders and files: 1") in told
    assert [text for kind, text in told if kind == "warning" and "6 of the 6 pictures it validates on" in text]
    events.clear()
    Trainer(plan(folders), tmp_path / "other", events.append)
    assert not [event for event in events if event.kind == "warning"]


@pytest.mark.parametrize("domain", ["source", "val"])
def test_a_set_that_teaches_nothing_stops_the_training_before_it_starts(folders, tmp_path, domain):
    bad = shutil.copytree(folders / "source", tmp_path / "bad")
    for path in bad.rglob("labels/*.png"):
        cv2.imwrite(str(path), np.full((64, 64), 255, np.uint8))
    fields = {"source": f"folder:{folders / 'source'}", domain: f"folder:{bad}"}
    with pytest.raises(DataError, match=r"no pixel of folder:.*bad.* is labelled") as caught:
        Trainer(load_plan("source-only", ["size=64x64"], **fields), tmp_path / "run")
    assert "the number of its class" in caught.value.hint


def test_a_validation_without_a_labelled_pixel_is_no_score(folders, tmp_path):
    val = shutil.copytree(folders / "source", tmp_path / "val")
    cv2.imwrite(str(val / "val" / "labels" / "0.png"), np.full((64, 64), 255, np.uint8))
    settings = ["size=64x64", "batch_size=2", "device=cpu", "steps=1", "val_pictures=1"]
    recipe = load_plan("source-only", settings, source=f"folder:{folders / 'source'}", val=f"folder:{val}")
    with pytest.raises(DataError, match="none of the 1 pictures") as caught:
        Trainer(recipe, tmp_path / "run").run()
    assert "val_pictures=0" in caught.value.hint


# batch-norm statistics of the target


def test_statistics_become_the_average_over_the_given_batches():
    norm = nn.BatchNorm2d(3)
    model = nn.Sequential(norm).eval()
    norm.running_mean.fill_(7.0)
    batches = [torch.randn(4, 3, 5, 5) * (k + 1) + k for k in range(3)]
    assert reestimate(model, batches) == 3
    means = torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0)
    variances = torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)


def test_weights_momentum_and_mode_stay():
    norm = nn.BatchNorm2d(2, momentum=0.3)
    model = nn.Sequential(nn.Conv2d(3, 2, 1), norm).eval()
    before = {name: p.clone() for name, p in model.named_parameters()}
    reestimate(model, [torch.randn(2, 3, 4, 4)])
    assert norm.momentum == 0.3 and not model.training
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.grad is None


def test_mixed_statistics_lie_between_the_networks_own_and_the_batches():
    norm = nn.BatchNorm2d(3)
    norm.running_mean.fill_(7.0)
    norm.running_var.fill_(2.0)
    batch = torch.randn(4, 3, 5, 5)
    mean, var = batch.mean((0, 2, 3)), batch.var((0, 2, 3))
    for share in (0.25, 1.0, 0.0):  # from the statistics that the last one left
        before = norm.running_mean.clone(), norm.running_var.clone()
        assert mix_statistics(nn.Sequential(norm), [batch], share) == 1
        torch.testing.assert_close(norm.running_mean, (1 - share) * before[0] + share * mean)
        torch.testing.assert_close(norm.running_var, (1 - share) * before[1] + share * var)


def test_a_stage_may_leave_mixed_statistics(folders, tmp_path):
    for name in ("running", "target", "mixed"):
        Trainer(plan(folders, "steps=2", f"bn_statistics={name}", "bn_share=0.25"), tmp_path / name).run()
    own, target, mixed = (weights(tmp_path / name / "last.pth") for name in ("running", "target", "mixed"))
    for key in own:
        if "running_" in key:
            torch.testing.assert_close(mixed[key], 0.75 * own[key] + 0.25 * target[key])


@pytest.mark.parametrize(("norms", "measured"), [("auto", True), ("file", False), ("source", True)])
def test_batch_norms_of_an_npz_are_measured_on_the_source_before_the_first_step(folders, tmp_path, norms, measured):
    torch.manual_seed(9)
    made_up = {key: tensor.numpy() for key, tensor in build_backbone("resnet18").state_dict().items()}
    made_up["bn1.running_mean"][:] = 100.0
    np.savez(tmp_path / "folded.npz", **{key: array for key, array in made_up.items() if "layer4" not in key})
    told, starts = [], []

    def listen(event):
        told.append(event.stage)
        if event.kind == "step" and not starts:
            starts.append(trainer._model.backbone.bn1.running_mean.clone())

    settings = [f"backbone_weights={tmp_path / 'folded.npz'}", "backbone_stages=3", f"backbone_norms={norms}"]
    frozen = plan(folders, *settings, "steps=1", "batch_norm=fixed", recipe="source-only")
    trainer = Trainer(frozen, tmp_path / "run", listen)
    trainer.run()
    assert any(text.endswith("25 start at random: layer4") for text in told if text)
    assert any("measured on 6 pictures of the source" in text for text in told if text) == measured
    assert (float(starts[0].abs().max()) < 10.0) == measured


def test_a_checkpoint_to_start_from_keeps_its_own_statistics(folders, tmp_path):
    Trainer(plan(folders, "steps=1", recipe="source-only"), tmp_path / "first").run()
    told = []
    again = plan(folders, "steps=1", f"init={tmp_path / 'first' / 'last.pth'}", "backbone_norms=source")
    Trainer(again, tmp_path / "second", lambda event: told.append(event.stage)).run()
    assert not any("measured on" in text for text in told if text)
