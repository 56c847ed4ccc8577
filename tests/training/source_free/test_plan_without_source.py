"""Plans without a source: what they take, what they refuse, and that they train, resume and leave no label open."""

import pytest
import torch
from training.settings import write_domains

from rtda_deploy.errors import CheckpointError, ConfigError
from rtda_training.checkpoint import read_checkpoint
from rtda_training.loop.events import StopRequest, TrainingStopped
from rtda_training.plan import load_plan, plan_from_table
from rtda_training.plan.control import control_of
from rtda_training.run import train_plan
from rtda_training.run_folder import read_rows, saved_plan
from rtda_training.trainer import Trainer

SMALL = ["size=64x64", "batch_size=2", "steps=4", "device=cpu", "precision=fp32", "val_every=0", "save_every=2"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Two domains and ``start/last.pth``, a network of the source's four classes."""
    folder = write_domains(tmp_path_factory.mktemp("data"), 4, 6, 32, target_val=True)
    source = f"folder:{folder / 'source'}"
    Trainer(load_plan("source-only", SMALL, source=source), folder / "start").run()
    return folder


def adapting(base, *overrides, **fields):
    typed = {"init": str(base / "start" / "last.pth"), "target": f"folder:{base / 'target'}", **fields}
    return load_plan("adapt", [*SMALL, *overrides], **typed)


def test_it_trains_both_stages_without_a_source_and_names_the_checkpoints_classes(base, tmp_path):
    events = []
    plan = adapting(base)
    assert plan_from_table(plan.to_dict()) == plan and saved_plan_of(plan, tmp_path) == plan
    result = train_plan(plan, tmp_path / "run", on_event=events.append)
    assert result.best_at == "" and not (tmp_path / "run" / "best.pth").exists()
    start, last = read_checkpoint(plan.init), read_checkpoint(tmp_path / "run" / "last.pth")
    assert last.spec.class_names == start.spec.class_names and "metrics" not in last.spec.provenance
    norms = [key for key in start.weights if "running_" in key]
    assert norms and all(torch.equal(start.weights[key], last.weights[key]) for key in norms)
    assert any(not torch.equal(start.weights[key], last.weights[key]) for key in start.weights)
    rows = read_rows(tmp_path / "run")
    assert [(row["stage"], row["step"]) for row in rows] == [("labels", 0), ("labels", 4), ("teacher", 4)]
    assert rows[1].keys() >= {"pseudo", "entropy", "negative", "pseudo_share", "target_entropy"}
    assert all(sum(row["target_shares"]) == pytest.approx(1.0, abs=1e-4) for row in rows)
    assert "target_shares" not in (tmp_path / "run" / "results.csv").read_text()
    assert any("no calibration card" in event.stage for event in events if event.kind == "note")
    assert "validated on" in (tmp_path / "run" / "report.html").read_text()


def saved_plan_of(plan, folder):
    from rtda_training.run_folder import save_config

    save_config(plan, folder)
    return saved_plan(folder)


def test_a_stopped_run_ends_as_an_uninterrupted_one(base, tmp_path):
    train_plan(adapting(base), tmp_path / "whole", report=False)
    stop = StopRequest()

    def once(event):
        if event.kind == "step" and event.step == 1 and event.stage == "teacher":
            stop.ask()

    with pytest.raises(TrainingStopped):
        train_plan(adapting(base), tmp_path / "broken", report=False, on_event=once, stop=stop)
    train_plan(adapting(base), tmp_path / "broken", report=False, resume=True)
    whole, broken = (read_checkpoint(tmp_path / name / "last.pth").weights for name in ("whole", "broken"))
    assert all(torch.equal(whole[key], broken[key]) for key in whole)
    steps = [(row["stage"], row["step"]) for row in read_rows(tmp_path / "broken")]
    assert steps[0] == ("labels", 0) and len(set(steps)) == len(steps)


def test_a_typed_val_is_validated_on(base, tmp_path):
    plan = adapting(base, val=f"folder:{base / 'target'}?split=val")
    result = train_plan(plan, tmp_path, report=False)
    assert 0.0 <= result.best_miou <= 1.0 and (tmp_path / "best.pth").is_file()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            'labels.objectives=["entropy", "negative", "pseudo", "supervised"]',
            "works on source pictures, and the plan has no source: supervised",
        ),
        ("style=lab", "no source: lab"),
        ("teacher.mixer=classmix", "no source: classmix"),
        ("sampler=rare", "no source: rare"),
        ("teacher.ema.relative=true", "no source: ema"),
        ("teacher.ema.align=0.5", "no source: ema"),
        ("classes=camvid", "are those of the network"),
        ("backbone_norms=source", "needs a source"),
    ],
)
def test_what_needs_a_source_is_refused_by_its_name(base, override, told):
    with pytest.raises(ConfigError) as caught:
        adapting(base, override)
    assert told in str(caught.value) and caught.value.hint


def test_it_needs_a_network_to_start_from_and_the_source_still_needs_labels(base):
    with pytest.raises(ConfigError, match="none is named"):
        plan_from_table({"source": "", "target": "toytown:target", "objectives": ["entropy"]})
    with pytest.raises(ConfigError, match="has no objective"):
        plan_from_table({"source": "", "target": "toytown:target", "init": "a.pth", "objectives": []})
    with pytest.raises(ConfigError, match="no objective that learns from labels"):
        plan_from_table({"target": "toytown:target", "objectives": ["entropy"]})
    with pytest.raises(CheckpointError, match="another network"):
        Trainer(adapting(base, "backbone=resnet101"), base / "other")


def test_its_control_makes_the_same_forwards_and_tells_the_network_nothing(base, tmp_path):
    control = control_of(adapting(base, "optimizer.weight_decay=0")).plan
    assert control is not None and not control.source
    train_plan(control, tmp_path, report=False)
    start, last = (read_checkpoint(path).weights for path in (control.init, tmp_path / "last.pth"))
    assert all(torch.equal(start[key], last[key]) for key in start)
