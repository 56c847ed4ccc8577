"""Adapting a network to footage: candidates, the verdict, what is refused, and going on after any stop."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from training.settings import PictureList, class_names, write_domains

from rtda_deploy.card import BINS, Card, card_from_json
from rtda_deploy.errors import CheckpointError, ConfigError, DataError, TrainingError
from rtda_deploy.familiar import familiar_from_json
from rtda_deploy.files import sha256_file
from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint, write_checkpoint
from rtda_training.data.address import DataAddress
from rtda_training.loop.events import StopRequest, TrainingStopped
from rtda_training.plan import load_plan
from rtda_training.readers import UnlabelledSet
from rtda_training.source_free import adapting
from rtda_training.source_free.adapting import GIVEN
from rtda_training.source_free.footage_look import doubts, refuse_few_scenes, scenes_of
from rtda_training.source_free.page import collapses, write_adapt_page
from rtda_training.source_free.request import AdaptRequest, adapt_plan, read_request, refuse_contradiction, refuse_model
from rtda_training.source_free.run import adapt, is_begun
from rtda_training.stages.norm_shift import norm_inputs
from rtda_training.trainer import Trainer

SMALL = ("batch_size=2", "device=cpu", "precision=fp32", "save_every=1", "optimizer.warmup_steps=0")
MIXES = [f"batch norms {share} % target" for share in (25, 50, 75, 100)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Two domains of ten pictures, and ``start/last.pth``, a network of the source's four classes."""
    folder = write_domains(tmp_path_factory.mktemp("data"), 4, 10, 32, target_val=True)
    settings = ["size=64x64", "steps=30", "val_every=0", "save_every=0", "augment.flip=false", *SMALL[:3]]
    Trainer(load_plan("source-only", settings, source=f"folder:{folder / 'source'}"), folder / "start").run()
    return folder


def request(base, **changes):
    fields = {"model": str(base / "start" / "last.pth"), "footage": f"folder:{base / 'target'}", "overrides": SMALL}
    return AdaptRequest(**{**fields, **changes})


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """The result of an adaptation with everything in it; not to be written to."""
    check = f"folder:{base / 'target'}?split=val"
    return adapt(request(base, steps=4, check=check), tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def norms_alone(base, tmp_path_factory):
    """The result of one to footage of the source itself, batch norms alone, and what was told; not to be written to."""
    told = []
    asked = request(base, footage=f"folder:{base / 'source'}")
    return adapt(asked, tmp_path_factory.mktemp("norms") / "run", on_event=told.append), asked, told


def names_of(ranking):
    return {entry["name"] for entry in ranking["entries"]}


# the whole of it


def test_every_network_on_the_way_is_a_candidate_and_the_page_begins_with_the_verdict(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    result = dataclasses.replace(whole, folder=folder, best=folder / "best.pth")
    assert names_of(result.ranking) == {GIVEN, *MIXES, "labels", "teacher", "teacher, averaged"}
    assert result.ranking["first"] == GIVEN and result.ranking["which"].startswith("all 10 pictures")
    assert all(entry["check_miou"] is not None for entry in result.ranking["entries"])
    assert json.loads((folder / "ranking.json").read_text())["chosen"] == result.chosen
    best = read_checkpoint(folder / "best.pth")
    assert best.training == {} and best.spec.provenance["chosen"]["name"] == result.chosen
    page = (folder / "report.html").read_text()
    assert result.verdict.split(":")[0] in page and page.index("The ranking") > page.index("What it sees")
    with open(folder / "metrics.jsonl", "a") as log:
        row = {"stage": "teacher", "stage_index": 1, "step": 2, "target_entropy": 0.1, "target_shares": [1.0, 0, 0, 0]}
        log.write(json.dumps(row) + "\n")
    assert {one.kind.split()[0] for one in collapses(folder)} == {"vanished", "few-classes"}
    assert "Noticed while it trained" in write_adapt_page(read_request(folder), result).read_text()
    assert {path.name for path in folder.iterdir()} >= {
        "MODEL_CARD.md",
        "stage-norms.pth",
        "stage-labels.pth",
        "last.pth",
        "verify",
    }
    assert sorted(path.name for path in (folder / "verify").iterdir())[0] == "0.png"


def test_with_figures_of_its_source_shifted_norms_are_candidates_where_labels_choose(base, tmp_path):
    path = tmp_path / "kept.pth"
    given = read_checkpoint(base / "start" / "last.pth")
    batches = [torch.rand(2, 3, 64, 64) for _ in range(2)]
    write_checkpoint(path, dataclasses.replace(given, norm_inputs=norm_inputs(model_from_checkpoint(given), batches)))
    asked = {"model": str(path), "check": f"folder:{base / 'target'}?split=val", "norms_only": True, "max_frames": 8}
    shifted = {"batch norms shifted 50 %", "batch norms shifted 100 %"}
    told = []
    result = adapt(request(base, **asked), tmp_path / "labels", on_event=told.append)
    assert names_of(result.ranking) == {GIVEN, *MIXES, *shifted}
    assert not any("no shifted batch norms" in event.stage for event in told)
    best = read_checkpoint(result.best)
    assert bool(best.norm_inputs) is (result.chosen == GIVEN)  # of another network they would be wrong
    plain = adapt(request(base, **{**asked, "check": ""}), tmp_path / "none")
    assert names_of(plain.ranking) == {GIVEN, *MIXES}


def test_a_model_that_lacks_figures_of_its_source_is_said_to_have_no_shifted_norms(base, tmp_path):
    check = f"folder:{base / 'target'}?split=val"
    for asked, said in (({"check": check}, True), ({}, False)):
        told = []

        def tell(event, told=told):
            told.append(event.stage)
            if event.kind == "ranking":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            adapt(request(base, norms_only=True, **asked), tmp_path / str(said), on_event=tell)
        assert any("no shifted batch norms among the candidates" in text for text in told) is said


def test_where_labels_decided_page_card_and_checkpoint_say_so(whole, norms_alone):
    ranking = whole.ranking
    assert ranking["by_labels"] and ranking["labelled"].endswith("?split=val")
    page, card = ((whole.folder / name).read_text() for name in ("report.html", "MODEL_CARD.md"))
    assert "By the mIoU on labelled frames" in page and "the place is that of the mean" not in page
    assert "without labels, and beats" not in card and "by labelled frames of the target" in card
    assert "chosen on, with labels" in card and "No labelled picture was scored" not in card
    assert "chosen by labels of a few of its frames" in card and "without labels; other places" not in card
    chosen = read_checkpoint(whole.best).spec.provenance["chosen"]
    assert chosen["by"] == "rank, by labelled frames" and chosen["on"] == ranking["labelled"]
    plain = norms_alone[0]
    assert not plain.ranking["by_labels"] and plain.ranking["labelled"] == ""
    assert "the place is that of the mean" in (plain.folder / "report.html").read_text()
    assert "chosen on" not in (plain.folder / "MODEL_CARD.md").read_text()
    assert read_checkpoint(plain.best).spec.provenance["chosen"]["by"] == "rank, without labels"


def test_a_ranking_of_an_earlier_version_is_not_said_to_be_by_labels(whole, tmp_path):
    """Its labels tested the choice and changed no place; resumed, it is gone on with as it stands."""
    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    values = {key: value for key, value in whole.ranking.items() if key not in ("by_labels", "labelled")}
    if values["check"]:
        del values["check"]["error"]
    (folder / "ranking.json").write_text(json.dumps(values))
    (folder / "best.pth").unlink()
    result = adapt(read_request(folder), folder)
    assert result.ranking == values
    assert read_checkpoint(result.best).spec.provenance["chosen"]["by"] == "rank, without labels"
    assert "the place is that of the mean" in (folder / "report.html").read_text()
    assert "chosen on, with labels" not in (folder / "MODEL_CARD.md").read_text()


def test_batch_norms_alone_train_nothing_and_the_given_model_comes_back_where_none_is_better(norms_alone):
    """To footage of the source itself nothing is to be gained."""
    result, own, told = norms_alone
    assert names_of(result.ranking) == {GIVEN, *MIXES} and not (result.folder / "last.pth").exists()
    if not result.better:  # the measures of ten frames may err; what follows from their verdict may not
        given, best = read_checkpoint(own.model), read_checkpoint(result.best)
        assert all(torch.equal(given.weights[key], best.weights[key]) for key in given.weights)
        assert card_from_json(best.card) == card_from_json(given.card) and result.verdict.startswith(
            "best.pth is the model that was given"
        )
    assert {event.kind for event in told} >= {"prepare", "ranking", "note"}
    assert any("nothing is trained" in event.stage and "--check" in event.stage for event in told)
    assert (
        AdaptRequest(own.model, own.footage, check="folder:labelled").trains
        and AdaptRequest(own.model, own.footage, steps=4).trains
    )
    assert not AdaptRequest(own.model, own.footage, check="folder:labelled", norms_only=True).trains
    card = (result.folder / "MODEL_CARD.md").read_text()
    assert f"| network: `{own.model}` | `{sha256_file(own.model)}` |" in card and f"`{own.footage}` | 10 |" in card
    assert "Nothing was trained." in card and f"`best.pth` is: {result.chosen}." in card
    assert f"| `best.pth` | `{sha256_file(str(result.best))}` |" in card and "| `last.pth` |" not in card
    assert "in training" not in card and "One seed" not in card


def test_a_chosen_mix_differs_from_the_given_in_its_statistics_alone(norms_alone, tmp_path):
    first, asked, _ = norms_alone
    shutil.copytree(first.folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "best.pth").unlink()
    (tmp_path / "ranking.json").write_text(json.dumps({**first.ranking, "chosen": MIXES[1]}))
    result = adapt(read_request(tmp_path), tmp_path)
    assert result.better and result.chosen == MIXES[1]
    given, best = (read_checkpoint(path).weights for path in (asked.model, result.best))
    changed = {key.rpartition(".")[2] for key in given if not torch.equal(given[key], best[key])}
    assert changed == {"running_mean", "running_var"} and card_from_json(read_checkpoint(result.best).card) is None
    known = familiar_from_json(read_checkpoint(result.best).card)
    assert known is not None and known.robot and known.data == asked.footage and known.blocks == 10


# broken off


def stop_at(stage, step):
    stop = StopRequest()

    def tell(event):
        if event.kind == "step" and (event.stage, event.step) == (stage, step):
            stop.ask()

    return {"on_event": tell, "stop": stop}


def interrupt_at(kind, name):
    def tell(event):
        if event.kind == kind and event.stage == name:
            raise KeyboardInterrupt

    return {"on_event": tell}


def test_a_run_broken_off_in_any_stage_goes_on(base, tmp_path):
    """In the choice of batch norms, in the training, in the ranking: one after the other, from where it was."""
    asked, told = request(base, steps=6), []
    for how in (interrupt_at("ranking", MIXES[0]), stop_at("teacher", 1), interrupt_at("ranking", "teacher")):
        with pytest.raises((KeyboardInterrupt, TrainingStopped)):
            adapt(asked, tmp_path, **how)
        assert not (tmp_path / "best.pth").exists()
        asked = read_request(tmp_path)
    result = adapt(asked, tmp_path, on_event=told.append)
    assert "step" not in {event.kind for event in told}, "the training was done"
    assert names_of(result.ranking) == {GIVEN, *MIXES, "labels", "teacher", "teacher, averaged"}


def test_a_finished_run_is_not_lost_and_another_request_is_no_resume(base, norms_alone, tmp_path):
    first, asked, _ = norms_alone
    shutil.copytree(first.folder, tmp_path, dirs_exist_ok=True)
    assert adapt(read_request(tmp_path), tmp_path).ranking == first.ranking
    with pytest.raises(ConfigError, match="holds a run") as caught:
        adapt(asked, tmp_path)
    assert "adapt --resume auto" in caught.value.hint
    with pytest.raises(CheckpointError, match="footage folder:other, not"):
        refuse_contradiction(request(base, footage="folder:other"), read_request(tmp_path), tmp_path)
    refuse_contradiction(asked, read_request(tmp_path), tmp_path)
    with pytest.raises(CheckpointError, match="no adaptation to resume"):
        read_request(tmp_path / "nowhere")


def test_a_model_that_changed_is_not_gone_on_with(base, tmp_path):
    model = tmp_path / "model.pth"
    model.write_bytes((base / "start" / "last.pth").read_bytes())
    with pytest.raises(KeyboardInterrupt):
        adapt(request(base, model=str(model)), tmp_path / "run", **interrupt_at("ranking", GIVEN))
    model.write_bytes((base / "start" / "best.pth").read_bytes())
    with pytest.raises(CheckpointError, match="is not the file that was adapted"):
        read_request(tmp_path / "run")


# what goes wrong


def test_a_candidate_of_nan_is_dropped_and_named_and_a_diverged_training_ends_nothing(whole, tmp_path, monkeypatch):
    """What an adaptation left whose training ended so."""
    shutil.copytree(whole.folder, tmp_path, dirs_exist_ok=True)
    for name in ("ranking.json", "best.pth"):
        (tmp_path / name).unlink()
    broken = read_checkpoint(tmp_path / "stage-labels.pth")
    weights = {key: value * float("nan") for key, value in broken.weights.items()}
    write_checkpoint(tmp_path / "stage-labels.pth", dataclasses.replace(broken, weights=weights))

    def diverges(plan, folder, **more):
        raise TrainingError("mixed is not a finite number at step 2", hint="lower the rate")

    monkeypatch.setattr(adapting, "train_plan", diverges)
    told = []
    result = adapt(read_request(tmp_path), tmp_path, on_event=told.append)
    assert any("ended early" in event.stage for event in told if event.kind == "warning")
    dropped = {found["name"]: found["why"] for found in result.ranking["dropped"]}
    assert "labels" in dropped and "not a finite number" in dropped["what its training ended with"]
    assert "labels" not in names_of(result.ranking) and "dropped" in (tmp_path / "report.html").read_text()


def pictures(frames):
    list_ = PictureList(frames, [], class_names(4))
    return UnlabelledSet(list_, DataAddress.parse("list:footage"))


def test_footage_of_one_scene_is_refused_with_the_count_that_is_needed():
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (6, 8, 3)).repeat(16, axis=0).repeat(16, axis=1)
    noisy = [
        np.clip(scene * light + rng.normal(0, 8, scene.shape), 0, 255).astype(np.uint8) for light in (1, 0.95) * 10
    ]
    with pytest.raises(DataError, match="shows one scene in 20 frames") as caught:
        refuse_few_scenes(pictures(noisy))
    assert "at least 8 different scenes" in caught.value.hint
    with pytest.raises(DataError, match="one scene in 1 frame:"):
        refuse_few_scenes(pictures(noisy[:1]))
    others = [rng.integers(0, 256, (6, 8, 3)).repeat(16, axis=0).repeat(16, axis=1).astype(np.uint8) for _ in range(7)]
    assert scenes_of(pictures([*noisy, *others[:6]])).scenes == 7
    refuse_few_scenes(pictures([*noisy, *others]))


def test_what_speaks_against_adapting_is_said():
    confidence = [0.0] * BINS
    confidence[18] = 1.0
    card = Card("own", 10, True, 1.0, (0.5, 0.5), (0.5, 0.5), tuple(confidence), tuple([None] * BINS))
    assert doubts(card, 0.8) == []
    assert "41 % sure of the footage on average, 92 % of its own" in doubts(card, 0.41)[0]
    assert "no calibration card" in doubts(None, 0.8)[0]


def test_what_cannot_be_adapted_or_asked_is_refused(base, tmp_path):
    with pytest.raises(ConfigError, match="folded into the convolutions") as caught:
        refuse_model("model.onnx")
    assert ".pth that it was exported from" in caught.value.hint
    for changes in ({"footage": ""}, {"steps": 4, "minutes": 1.0}, {"norms_only": True, "steps": 4}, {"steps": 1}):
        with pytest.raises(ConfigError):
            request(base, **changes)
    with pytest.raises(DataError, match="class"):
        (tmp_path / "images").mkdir()
        (tmp_path / "labels").mkdir()
        for index in range(2):
            name = f"{index}.png"
            (tmp_path / "images" / name).write_bytes((base / "target/val/images" / name).read_bytes())
            (tmp_path / "labels" / name).write_bytes((base / "target/val/labels" / name).read_bytes())
        other = {"names": ["a", "b", "c", "d"], "palette": [[0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3]]}
        (tmp_path / "classes.json").write_text(json.dumps(other))
        adapt(request(base, check=f"folder:{tmp_path}"), tmp_path / "run")
    assert not is_begun(tmp_path / "run"), "--resume auto would go on with it"


def test_the_plan_is_the_recipe_with_the_models_own_network_and_input(base):
    spec = read_checkpoint(base / "start" / "last.pth").spec.replace(channel_order="bgr", mean=(0.0, 0.0, 0.0))
    plan = adapt_plan(request(base), spec, base / "start" / "last.pth", 9)
    assert (plan.size, plan.input.channel_order, plan.input.mean) == ("64x64", "bgr", (0.0, 0.0, 0.0))
    assert [stage.steps for stage in plan.stages] == [4, 5] and plan.source == "" and plan.batch_size == 2
