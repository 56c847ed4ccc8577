"""Stages that another run trained: what is taken over is the training itself, to the bit, and nothing else is."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch

from rtda_training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from rtda_training.grids.grid import Grid, GridRow
from rtda_training.grids.runner import train_grid
from rtda_training.plan import control_of, load_plan
from rtda_training.run import train_plan
from rtda_training.run_folder import read_rows
from rtda_training.taken_stages import same_stages, take_stages

TWO = """
size = "64x64"
batch_size = 2
precision = "fp32"
val_every = 0
val_pictures = 1
[[stages]]
name = "source-only"
steps = 2
[[stages]]
name = "adapted"
steps = 2
objectives = ["supervised", "adversarial"]
style = "fda"
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "two.toml"
    path.write_text(TWO)
    return str(path)


@pytest.fixture(scope="module")
def plan(recipe, tiny_data):
    address = f"folder:{tiny_data}"
    return load_plan(recipe, source=address, target=address, val=address)


@pytest.fixture(scope="module")
def trained(plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train_plan(plan, folder, report=False)
    return folder


def weights(folder):
    return read_checkpoint(folder / "last.pth").weights


def test_the_control_goes_on_from_the_shared_stage_as_if_it_had_trained_it(plan, trained, tmp_path):
    control = control_of(plan).plan
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    train_plan(control, whole, report=False)
    assert take_stages(control, shared, trained) == 1
    told = []
    result = train_plan(control, shared, resume=True, report=False, on_event=lambda event: told.append(event))
    assert {event.stage for event in told if event.kind == "step"} == {"adapted"}, "the first is not trained again"
    ours, theirs = weights(shared), weights(whole)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not all(torch.equal(ours[key], value) for key, value in weights(trained).items()), "the method tells nothing"
    steps = [(row["stage"], row["step"], row.get("val_miou")) for row in read_rows(whole)]
    assert [(row["stage"], row["step"], row.get("val_miou")) for row in read_rows(shared)] == steps
    best = read_checkpoint(whole / "last.pth").training["best"]
    assert (
        read_checkpoint(shared / "last.pth").training["best"]
        == best
        == {"miou": result.best_miou, "at": result.best_at}
    )
    assert torch.equal(*(next(iter(read_checkpoint(f / "best.pth").weights.values())) for f in (whole, shared)))


def test_only_stages_that_are_trained_the_same_are_taken(plan):
    first, second = plan.stages
    other = dataclasses.replace(plan, name="other", stages=(first, dataclasses.replace(second, steps=9)))
    assert same_stages(plan, other) == 1 and same_stages(plan, plan) == 2
    assert same_stages(plan, dataclasses.replace(plan, seed=1)) == 0
    assert same_stages(plan, dataclasses.replace(plan, stages=(dataclasses.replace(first, steps=9), second))) == 0


def test_nothing_is_taken_that_is_not_whole(plan, trained, tmp_path):
    control = control_of(plan).plan
    assert take_stages(control, tmp_path, tmp_path / "missing") == 0
    started = tmp_path / "started"
    shutil.copytree(trained, started)
    assert take_stages(control, started, trained) == 0, "it has a last.pth of its own"
    lacking = tmp_path / "lacking"
    shutil.copytree(trained, lacking)
    (lacking / "stage-source-only.pth").unlink()
    assert take_stages(control, tmp_path / "new", lacking) == 0
    older = tmp_path / "older"
    shutil.copytree(trained, older)
    found = read_checkpoint(older / "last.pth")
    provenance = {**found.spec.provenance, "versions": {"rtda-deploy": "0.0.1", "torch": "1.13"}}
    spec = found.spec.replace(provenance=provenance)
    write_checkpoint(older / "last.pth", Checkpoint(spec, found.weights, found.training))
    assert take_stages(control, tmp_path / "new", older) == 0
    assert not (tmp_path / "new").exists()


def test_a_grid_trains_a_shared_stage_once_a_seed(recipe, tiny_data, tmp_path):
    address, told = f"folder:{tiny_data}", []

    class Scored:
        confusion = torch.zeros(2, 2).numpy()

        def to_dict(self):
            return {"miou": 50.0, "pixel_accuracy": 60.0, "iou": {}}

    grid = Grid("two", address, address, (GridRow("Method", recipe),), val=address, test=address)
    train_grid(grid, tmp_path, score=lambda path, test: Scored(), on_event=lambda event: told.append(event.stage))
    assert sum("source-only: as trained for Method" in text for text in told) == 1
