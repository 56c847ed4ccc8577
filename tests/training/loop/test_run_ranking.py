"""A run that adapts ends by ranking its networks on the target; best.pth is the one that ranks first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from training.settings import write_domains

from rtda_training.checkpoint import Checkpoint, model_from_checkpoint, read_checkpoint, write_checkpoint
from rtda_training.labels import ClassList
from rtda_training.loop import run_ranking
from rtda_training.loop.events import TrainEvent, TrainResult
from rtda_training.loop.run_ranking import contenders_of
from rtda_training.loop.saving import RunCheckpoints
from rtda_training.loop.start import start_spec
from rtda_training.plan import PlanConfig, load_plan
from rtda_training.trainer import Trainer

_RECIPE = """
size = "64x64"
batch_size = 2
device = "cpu"
val_every = 0
save_every = 1
augment = {scale_max = 1.0}
optimizer = {warmup_steps = 0}
[[stages]]
name = "source-only"
steps = 3
[[stages]]
name = "adapted"
steps = 2
objectives = ["supervised", "mixed"]
labeler = "ema"
mixer = "classmix"
"""
_MIXES = [f"batch norms {share} % target" for share in (25, 50, 75, 100)]


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_domains(tmp_path_factory.mktemp("data"), 4, 9, 32, target_val=True)


def plan(domains: Path, *overrides: str, recipe: str = "", **fields: str) -> PlanConfig:
    if not recipe:
        recipe = str(domains / "two-stages.toml")
        Path(recipe).write_text(_RECIPE)
    else:
        overrides = ("size=64x64", "batch_size=2", "device=cpu", "optimizer.warmup_steps=0", *overrides)
    sets = {name: f"folder:{domains / name}" for name in ("source", "target")}
    return load_plan(recipe, list(overrides), **{**sets, **fields})


@pytest.fixture(scope="module")
def run(domains: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return Trainer(plan(domains), tmp_path_factory.mktemp("run") / "run").run()


@pytest.fixture
def without_mixes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch-norm mixes are no candidates, where a test is about others: they are most of what is ranked."""
    monkeypatch.setattr(run_ranking, "MIXES", ())


def saved(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "ranking.json").read_text())
    return found


def names(ranking: dict[str, Any]) -> set[str]:
    return {entry["name"] for entry in ranking["entries"]}


def same(one: Path, other: Path) -> bool:
    ours, theirs = read_checkpoint(one).weights, read_checkpoint(other).weights
    return all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_the_candidates_are_start_student_teacher_and_batch_norms_and_best_is_the_first(run: TrainResult) -> None:
    ranking = saved(run.folder)
    assert ranking == run.ranking
    assert names(ranking) == {"source-only", "last", "teacher of adapted", *_MIXES}
    assert ranking["first"] == "source-only" and ranking["source_only"] and ranking["frames"] == 9
    assert ranking["which"].startswith("all 9 pictures of the target")
    best = read_checkpoint(run.folder / "best.pth")
    assert best.spec.provenance["chosen"]["name"] == ranking["chosen"]
    assert set(best.spec.provenance["chosen"]["among"]) == names(ranking)
    assert best.training == {} and best.card
    assert run.proposed == run.folder / "best.pth"


def test_each_checkpoint_says_what_was_done_to_its_batch_norms(run: TrainResult, domains: Path, tmp_path: Path) -> None:
    """Those that a stage leaves alone are as they were: trained by a stage before, or by none, or it is not known."""
    written = [read_checkpoint(path) for path in run.folder.glob("*.pth")]
    assert len(written) >= 4 and all(found.spec.provenance["batch_norm"] == "train" for found in written)
    network, spec = model_from_checkpoint(written[0]), written[0].spec
    classes = ClassList(spec.class_names, spec.palette)
    for number, (overrides, init, wanted) in enumerate(
        [
            (["adapted.batch_norm=fixed"], None, ("train", "train")),
            (["batch_norm=fixed"], None, ("fixed", "fixed")),
            (["adapted.batch_norm=fixed", "adapted.start=scratch"], None, ("train", "fixed")),
            (["batch_norm=fixed"], {"batch_norm": "train"}, ("train", "train")),
            (["batch_norm=fixed"], {}, ("unknown", "unknown")),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        typed = {}
        if init is not None:
            typed["init"] = str(tmp_path / "init.pth")
            write_checkpoint(tmp_path / "init.pth", Checkpoint(spec.replace(provenance=init), dict(written[0].weights)))
        asked = plan(domains, *overrides, **typed)
        checkpoints = RunCheckpoints(asked, folder, network, start_spec(asked, classes, network), writes=True)
        for name in ("source-only", "adapted"):
            checkpoints.save_stage(name, 0.1)
            checkpoints.save_candidate(name, "teacher", network)
        checkpoints.keep_best(0.1, "adapted", 1)
        found = {path.stem: read_checkpoint(path).spec.provenance for path in folder.glob("*.pth")}
        norms = {name: values.get("batch_norm", "unknown") for name, values in found.items()}
        assert norms == {
            **dict.fromkeys(("stage-source-only", "candidate-source-only-teacher"), wanted[0]),
            **dict.fromkeys(("stage-adapted", "candidate-adapted-teacher", "best"), wanted[1]),
        }, overrides


def test_best_holds_the_weights_of_the_chosen(run: TrainResult, domains: Path, tmp_path: Path) -> None:
    for chosen, file in (("source-only", "stage-source-only.pth"), ("last", "last.pth")):
        folder = tmp_path / chosen
        shutil.copytree(run.folder, folder)
        (folder / "ranking.json").write_text(json.dumps({**saved(folder), "chosen": chosen}))
        events: list[TrainEvent] = []
        result = Trainer(plan(domains), folder, events.append).run(read_checkpoint(folder / "last.pth"))
        assert "ranking" not in {event.kind for event in events}  # a finished run does not rank twice
        assert result.ranking is not None and result.ranking["chosen"] == chosen
        assert same(folder / "best.pth", folder / file)
        assert read_checkpoint(folder / "best.pth").spec.provenance["chosen"]["name"] == chosen


def test_interrupted_while_it_ranks_a_run_goes_on_with_the_ranking_alone(
    run: TrainResult, domains: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    (folder / "ranking.json").unlink()

    def stop(event: TrainEvent) -> None:
        if event.kind == "ranking" and event.stage == "last":
            raise KeyboardInterrupt

    state = read_checkpoint(folder / "last.pth")
    with pytest.raises(KeyboardInterrupt):
        Trainer(plan(domains), folder, stop).run(state)
    assert not (folder / "ranking.json").exists()
    events: list[TrainEvent] = []
    Trainer(plan(domains), folder, events.append).run(state)
    kinds = {event.kind for event in events}
    assert "ranking" in kinds and "step" not in kinds
    found, expected = saved(folder), saved(run.folder)
    assert found["chosen"] == expected["chosen"] and found["entries"] == expected["entries"]


def test_a_run_that_goes_on_ranks_what_it_then_has(
    run: TrainResult, domains: Path, tmp_path: Path, without_mixes: None
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    (folder / "ranking.json").write_text(json.dumps({**saved(folder), "chosen": "of before"}))
    state = read_checkpoint(folder / "last.pth")
    unfinished = {**state.training, "step": 1, "done": False}
    Trainer(plan(domains), folder).run(type(state)(state.spec, state.weights, unfinished))
    assert saved(folder)["chosen"] in names(saved(folder))


def test_a_network_that_is_no_number_is_dropped_and_named(
    run: TrainResult, domains: Path, tmp_path: Path, without_mixes: None
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    (folder / "ranking.json").unlink()
    path = folder / "candidate-adapted-teacher.pth"
    content = torch.load(path, weights_only=True)
    next(value for value in content["weights"].values() if value.is_floating_point()).fill_(torch.nan)
    torch.save(content, path)
    Trainer(plan(domains), folder).run(read_checkpoint(folder / "last.pth"))
    dropped = saved(folder)["dropped"]
    assert [found["name"] for found in dropped] == ["teacher of adapted"] and "NaN" in dropped[0]["why"]


def test_a_typed_val_wins_and_so_does_rank_false(domains: Path, tmp_path: Path) -> None:
    for name, asked in (
        ("val", plan(domains, val=f"folder:{domains / 'target'}")),
        ("off", plan(domains, "rank=false")),
    ):
        told: list[str] = []
        result = Trainer(asked, tmp_path / name, lambda event, told=told: told.append(event.stage)).run()  # type: ignore[misc]
        assert [text for text in told if text.startswith("not ranked")] == [
            f"not ranked, best.pth is the best on {asked.val}: --val names labelled pictures, which choose before a"
            " ranking without labels"
        ] * (name == "val")
        assert result.ranking is None and result.proposed.name == "last.pth"
        assert not list((tmp_path / name).glob("candidate-*")) and not (tmp_path / name / "ranking.json").exists()
        best = read_checkpoint(tmp_path / name / "best.pth").spec.provenance
        assert "chosen" not in best and best["metrics"]["miou"] == pytest.approx(result.best_miou)


def test_target_statistics_on_top_of_source_training_are_compared_with_what_was_trained(
    domains: Path, tmp_path: Path
) -> None:
    result = Trainer(plan(domains, "steps=2", recipe="target-bn"), tmp_path).run()
    assert result.ranking is not None
    assert names(dict(result.ranking)) == {"source-only", "last", *_MIXES[:3]}  # 100 % is the last
    assert result.ranking["first"] == "source-only"
    before = read_checkpoint(tmp_path / "candidate-train-unmixed.pth").weights
    last = read_checkpoint(tmp_path / "last.pth").weights
    changed = {key.rpartition(".")[2] for key in last if not torch.equal(before[key], last[key])}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}


def test_without_a_source_only_network_the_others_are_compared_with_the_first_stages(
    run: TrainResult, domains: Path
) -> None:
    found = contenders_of(plan(domains, "style=fda"), run.folder)  # the target's colours from the first stage on
    assert found.networks[0].name == "source-only" and not found.source_only
    assert contenders_of(plan(domains), run.folder).source_only


def test_a_stage_whose_file_was_removed_is_no_candidate(run: TrainResult, domains: Path, tmp_path: Path) -> None:
    for name in ("last.pth", "candidate-adapted-teacher.pth"):
        shutil.copy(run.folder / name, tmp_path / name)
    found = contenders_of(plan(domains), tmp_path)
    assert [one.name for one in found.networks] == ["last", "teacher of adapted", *_MIXES] and not found.source_only


def test_the_best_on_val_is_a_candidate_where_no_stage_ended_with_it(
    run: TrainResult, domains: Path, tmp_path: Path
) -> None:
    networks = {one.name for one in contenders_of(plan(domains), run.folder).networks}
    assert "best on val" not in networks  # best.pth was chosen already
    for at, there in (("adapted @1", True), ("adapted @2", False)):
        kept = read_checkpoint(run.folder / "stage-source-only.pth")
        metrics = {"metrics": {"miou": 0.5, "at": at}}
        spec = kept.spec.replace(provenance={**kept.spec.provenance, **metrics})
        folder = tmp_path / at.replace(" ", "")
        shutil.copytree(run.folder, folder)
        write_checkpoint(folder / "best.pth", Checkpoint(spec, kept.weights))
        assert ("best on val" in {one.name for one in contenders_of(plan(domains), folder).networks}) is there


def test_footage_that_is_too_short_leaves_the_choice_to_validation(tmp_path: Path) -> None:
    few = write_domains(tmp_path / "data", 4, 4, 32)
    events: list[TrainEvent] = []
    result = Trainer(plan(few, "steps=2", recipe="target-bn"), tmp_path / "run", events.append).run()
    assert result.ranking is None and "chosen" not in read_checkpoint(tmp_path / "run/best.pth").spec.provenance
    told = [event.stage for event in events if event.kind == "note"]
    assert any("not ranked, best.pth is the best on val" in text and "4 frames" in text for text in told)
