"""Networks of a training ranked on footage: files, networks in memory, mixed batch norms, and what is dropped."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from training.data.footage.drives import drive, write_drive
from training.settings import class_names, make_pictures, to_input

from rtda_deploy.errors import DataError
from rtda_deploy.spec import ModelSpec
from rtda_training.checkpoint import Checkpoint, model_from_checkpoint, write_checkpoint
from rtda_training.data.address import DataAddress
from rtda_training.loop import choosing
from rtda_training.loop.choosing import Contender, from_file, held_back, in_memory, rank_contenders
from rtda_training.loop.norm_candidates import norm_mixes
from rtda_training.models import SegmentationNetwork, build_network
from rtda_training.readers import UnlabelledSet, open_unlabelled
from rtda_training.stages.segmentation import mix_statistics

CPU = torch.device("cpu")


def footage(count: int = 10) -> UnlabelledSet:
    return UnlabelledSet(make_pictures(count), DataAddress.parse("list:target"))


@pytest.fixture(scope="module")
def network() -> SegmentationNetwork:
    torch.manual_seed(0)
    return build_network("bisenet", "", "rtda", 5).eval()


@pytest.fixture(scope="module")
def checkpoint(network: SegmentationNetwork) -> Checkpoint:
    classes = class_names(5)
    provenance = {"architecture": network.architecture}
    return Checkpoint(
        ModelSpec((64, 64), classes.names, classes.palette, provenance=provenance), dict(network.state_dict())
    )


def batches() -> list[torch.Tensor]:
    frames = [torch.from_numpy(frame) for frame in make_pictures(4, seed=3).frames]
    return [to_input(torch.stack(frames))]


def broken(checkpoint: Checkpoint) -> Checkpoint:
    weights = {key: value.clone() for key, value in checkpoint.weights.items()}
    next(value for value in weights.values() if value.is_floating_point()).fill_(torch.nan)
    return dataclasses.replace(checkpoint, weights=weights)


def test_files_and_networks_in_memory_are_ranked_together(
    checkpoint: Checkpoint, network: SegmentationNetwork, tmp_path: Path
) -> None:
    path = write_checkpoint(tmp_path / "a.pth", checkpoint)
    mixes = norm_mixes(lambda: checkpoint, batches, CPU, shares=(0.5,))
    ranking = rank_contenders(
        [from_file("file", path), in_memory("memory", network, checkpoint.spec), *mixes], footage(), CPU
    )
    scores = {entry.name: entry.scores for entry in ranking.entries}
    assert ranking.first == "file" and set(scores) == {"file", "memory", "batch norms 50 % target"}
    assert scores["file"] == pytest.approx(scores["memory"]) and scores["file"]["norms"] is not None
    assert scores["file"] != pytest.approx(scores["batch norms 50 % target"])


def test_mixed_norms_are_those_of_mix_statistics_and_are_measured_once(checkpoint: Checkpoint) -> None:
    calls = []

    def counted() -> list[torch.Tensor]:
        calls.append(1)
        return batches()

    mixes = norm_mixes(lambda: checkpoint, counted, CPU)
    assert [mix.name for mix in mixes] == [f"batch norms {share} % target" for share in (25, 50, 75, 100)]
    expected = model_from_checkpoint(checkpoint)
    mix_statistics(expected, batches(), 0.75)
    found = mixes[2].open().weights
    mixes[0].open()
    assert calls == [1]
    for key, value in expected.state_dict().items():
        if "num_batches" not in key:
            torch.testing.assert_close(found[key], value)
    assert any(not torch.equal(found[key], checkpoint.weights[key]) for key in found if "running" in key)


def test_a_network_that_is_no_number_is_dropped_and_named_be_it_the_first(checkpoint: Checkpoint) -> None:
    nan, good = broken(checkpoint), Contender("good", lambda: checkpoint)
    ranking = rank_contenders([good, Contender("bad", lambda: nan), Contender("good too", good.open)], footage(), CPU)
    assert [found.name for found in ranking.dropped] == ["bad"] and "NaN" in ranking.dropped[0].why
    ranking = rank_contenders([Contender("bad", lambda: nan), good, Contender("good too", good.open)], footage(), CPU)
    assert [found.name for found in ranking.dropped] == ["bad"] and ranking.first == "good"
    with pytest.raises(DataError, match=r"no network can be judged: bad: .*NaN"):
        rank_contenders([Contender("bad", lambda: nan)], footage(), CPU)


def test_a_first_network_whose_answers_are_no_numbers_makes_room_for_the_next(checkpoint: Checkpoint) -> None:
    huge = {key: value * 1e8 if value.ndim == 4 else value for key, value in checkpoint.weights.items()}
    bad = Contender("bad", lambda: dataclasses.replace(checkpoint, weights=huge))
    good = [Contender(name, lambda: checkpoint) for name in ("good", "good too")]
    ranking = rank_contenders([bad, *good], footage(), CPU)
    assert ranking.first == "good" and [found.name for found in ranking.dropped] == ["bad"]
    with pytest.raises(DataError, match=r"no network can be judged: bad: .*infinity"):
        rank_contenders([bad], footage(), CPU)


def test_norms_count_where_all_checkpoints_say_that_they_were_trained_or_do_not_say(checkpoint: Checkpoint) -> None:
    def of(**provenance: str) -> Checkpoint:
        spec = checkpoint.spec.replace(provenance={**checkpoint.spec.provenance, **provenance})
        return dataclasses.replace(checkpoint, spec=spec)

    def judged(*networks: Checkpoint) -> bool:
        contenders = [Contender(f"n{place}", lambda one=one: one) for place, one in enumerate(networks)]  # type: ignore[misc]
        ranking = rank_contenders(contenders, footage(), CPU)
        assert ("norms" in ranking.left_out) is not ("norms" in ranking.entries[0].beats_first)
        return "norms" in ranking.entries[0].beats_first

    assert judged(checkpoint, of(batch_norm="train"), of(batch_norm="sync"))
    fixed = of(batch_norm="fixed")
    (mix,) = norm_mixes(lambda: fixed, batches, CPU, shares=(1.0,))
    assert not judged(checkpoint, of(batch_norm="train"), mix.open())


def test_the_last_fifth_is_held_back_where_it_is_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "LEAST_HELD_BACK", 4)
    found = held_back(footage(21))
    assert [found.pictures.name(place) for place in range(4)] == [f"picture {place}" for place in range(17, 21)]
    assert found.what == "the last 4 pictures of the target" and len(found.pictures) == 4
    assert (found.pictures.frame(0) == footage(21).frame(17)).all()
    few = held_back(footage(19))
    assert len(few.pictures) == 19
    assert few.what == "all 19 pictures of the target, because 3 held back would be fewer than 4"


def test_footage_has_a_part_of_its_own_that_is_held_back(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = open_unlabelled(f"video:{write_drive(tmp_path / 'drive.mp4', drive(40))}?count=20")
    trained = {target.key(place) for place in range(len(target))}
    monkeypatch.setattr(choosing, "LEAST_HELD_BACK", 2)
    found = held_back(target)
    names = {found.pictures.key(place) for place in range(len(found.pictures))}
    assert names and not names & trained and found.what == f"{len(names)} frames held back from the footage"
    monkeypatch.setattr(choosing, "LEAST_HELD_BACK", 100)
    every = held_back(target)
    assert len(every.pictures) == len(trained) + len(names)
    assert "fewer than 100" in every.what
