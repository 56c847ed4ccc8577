"""A network that comes to say the same of everything: told from the log, in the stage where it happens."""

import pytest
import torch
from training.settings import TinyNetwork, make_stage

from rtda_training.loop.collapse_watch import CollapseWatch, TargetGlance
from rtda_training.loop.diagnostics import Diagnostics
from rtda_training.plan import load_plan

STAGES = load_plan("adapt").stages


def row(step, shares, entropy, stage="labels", index=0):
    return {"stage": stage, "stage_index": index, "step": step, "target_shares": shares, "target_entropy": entropy}


def test_a_class_that_vanishes_and_an_entropy_that_falls_are_told_once_with_their_figures():
    diagnostics = Diagnostics(STAGES[0], (), ("sky", "pole", "car"))
    assert diagnostics.see(row(0, [0.5, 0.1, 0.4], 0.8)) == []
    assert diagnostics.see(row(20, [0.5, 0.021, 0.479], 0.69)) == [], "a fifth and 85 % are still there"
    found = diagnostics.see(row(40, [0.5, 0.019, 0.481], 0.67))
    assert [finding.kind for finding in found] == ["vanished pole", "few-classes"]
    assert "pole vanishes: 1.9 % of the target's pixels, 10.0 % at first" in found[0].text
    assert "from 0.80 to 0.67" in found[1].text and "optimizer.learning_rate (now 0.0001)" in found[1].text
    assert diagnostics.see(row(60, [0.5, 0.0, 0.5], 0.6)) == []


def test_what_was_hardly_there_cannot_vanish():
    watch = CollapseWatch(STAGES[0], ("sky", "pole"))
    watch.see(row(0, [0.991, 0.009], 0.5))
    assert watch.see(row(20, [1.0, 0.0], 0.5)) == {}


def test_a_later_stage_is_held_against_the_start_of_the_first():
    before = [row(0, [0.6, 0.4], 0.9), row(20, [0.9, 0.1], 0.9)]
    diagnostics = Diagnostics(STAGES[1], before, ("sky", "car"))
    found = diagnostics.see(row(20, [0.95, 0.05], 0.9, "teacher", 1))
    assert [finding.kind for finding in found] == ["vanished car"]


def test_a_glance_is_the_entropy_of_the_mean_and_the_shares_of_the_classes():
    plan = load_plan("adapt", ["size=64x64"])
    stage = make_stage(3, network=TinyNetwork(3))
    glance = TargetGlance(stage.target, plan, stage.fabric)
    torch.nn.init.zeros_(stage.network.head.weight)
    for bias, entropy, shares in (([0, 0, 0], 1.0, [1, 0, 0]), ([0, 9, 0], 0.0, [0, 1, 0])):
        stage.network.head.bias.data = torch.tensor(bias).float() * 10
        found = glance.of(stage.network)
        assert found["target_entropy"] == pytest.approx(entropy, abs=1e-3) and found["target_shares"] == shares
    assert stage.network.training
