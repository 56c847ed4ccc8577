"""Networks that differ in their batch norms: which a few labelled frames choose, and what shifted ones are made of."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from training.settings import make_pictures, to_input, write_domains

from rtda_deploy.spec import ModelSpec
from rtda_training.checkpoint import Checkpoint, model_from_checkpoint, read_checkpoint, write_checkpoint
from rtda_training.loop.norm_candidates import MIXES, norm_shifts, other_norms
from rtda_training.models import build_network
from rtda_training.readers import LabelledSet, open_labelled
from rtda_training.stages.norm_shift import NormInputs, norm_inputs, shifted_statistics

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> LabelledSet:
    return open_labelled(f"folder:{write_domains(tmp_path_factory.mktemp('data'), 4, 6, 32) / 'source'}")


@pytest.fixture(scope="module")
def checkpoint(labelled: LabelledSet) -> Checkpoint:
    torch.manual_seed(0)
    network = build_network("bisenet", "", "rtda", 4).eval()
    spec = ModelSpec(
        (64, 64), labelled.classes.names, labelled.classes.palette, provenance={"architecture": network.architecture}
    )
    return Checkpoint(spec, dict(network.state_dict()))


def batches(seed: int = 3) -> list[torch.Tensor]:
    frames = [torch.from_numpy(frame) for frame in make_pictures(4, seed=seed).frames]
    return [to_input(torch.stack(frames))]


def test_shifted_ones_lie_between_the_network_and_what_shifted_statistics_says_and_are_measured_once(
    checkpoint: Checkpoint,
) -> None:
    network = model_from_checkpoint(checkpoint)
    source, asked = norm_inputs(network, batches()), []

    def measured(of: Checkpoint) -> NormInputs:
        asked.append(of)
        return source

    half, whole = (one.open() for one in norm_shifts(lambda: checkpoint, measured, lambda: batches(8), CPU))
    assert len(asked) == 1 and (half.spec.provenance["batch_norms_shifted"], whole.card) == (0.5, "")
    wanted = shifted_statistics(network, source, batches(8))
    for key, value in wanted.items():
        torch.testing.assert_close(whole.weights[key], value)
        torch.testing.assert_close(half.weights[key], (value + checkpoint.weights[key]) / 2)
    assert all(torch.equal(whole.weights[key], value) for key, value in checkpoint.weights.items() if key not in wanted)


def test_a_network_without_batch_norms_to_move_is_measured_once_and_stays_as_it_is(checkpoint: Checkpoint) -> None:
    asked: list[Checkpoint] = []

    def none(of: Checkpoint) -> NormInputs:
        asked.append(of)
        return {}

    found = [one.open() for one in norm_shifts(lambda: checkpoint, none, batches, CPU)]
    assert len(found) == 2 and len(asked) == 1
    assert all(torch.equal(one.weights[key], value) for one in found for key, value in checkpoint.weights.items())


def test_a_checkpoint_of_halves_is_mixed_as_its_network_is(checkpoint: Checkpoint) -> None:
    halves = {key: value.half() if value.is_floating_point() else value for key, value in checkpoint.weights.items()}
    moved = other_norms(lambda: dataclasses.replace(checkpoint, weights=halves), batches, CPU, shares=(1.0,))[0].open()
    wanted = other_norms(lambda: checkpoint, batches, CPU, shares=(1.0,))[0].open()
    for key, value in model_from_checkpoint(moved).state_dict().items():
        torch.testing.assert_close(value, wanted.weights[key], rtol=0.02, atol=0.02)


def test_without_figures_of_the_source_norms_are_mixed_alone(checkpoint: Checkpoint) -> None:
    plain = other_norms(lambda: checkpoint, batches, CPU)
    both = other_norms(lambda: checkpoint, batches, CPU, lambda given: given.norm_inputs)
    assert len(plain) == len(MIXES)
    assert [one.name for one in both[len(MIXES) :]] == ["batch norms shifted 50 %", "batch norms shifted 100 %"]


def test_figures_of_the_source_travel_in_the_checkpoint_and_broken_ones_are_left_out(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    source = norm_inputs(model_from_checkpoint(checkpoint), batches())
    path = write_checkpoint(tmp_path / "a.pth", dataclasses.replace(checkpoint, norm_inputs=source))
    found = read_checkpoint(path).norm_inputs
    assert found.keys() == source.keys() and all(torch.equal(found[key], source[key]) for key in source)
    name = next(iter(source))
    for broken in (
        {**source, name: source[name][:, :-1]},
        {**source, "no.such.norm": source[name]},
        {**source, name: source[name] * torch.nan},
        {name: "text"},
        "text",
    ):
        write_checkpoint(path, checkpoint)
        content = torch.load(path, weights_only=True)
        torch.save({**content, "norm_inputs": broken}, path)
        assert read_checkpoint(path).norm_inputs == {}
