"""Every recipe trains: two steps of each stage on tiny pictures, and what it leaves is a network."""

import json
import math

import pytest
from training.settings import write_domains

from rtda_deploy.errors import ConfigError
from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint
from rtda_training.plan import control_of, load_plan, recipe_names
from rtda_training.taken_stages import same_stages
from rtda_training.trainer import Trainer

# bdl-1x1 has every kind of stage that these have, paper-pfr trains their DeepLab, the contract suite runs the FCN8s.
TOO_LONG = {"bdl", "bdl-deeplab", "bdl-fcn8s"}
NO_SOURCE = {"adapt"}  # source_free/test_plan_without_source.py
SMALL = ["size=64x64", "batch_size=2", "steps=2", "device=cpu", "precision=fp32", "val_every=0", "save_every=0"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Cityscapes' classes by brightness; the target is tinted and has no labels."""
    return write_domains(tmp_path_factory.mktemp("data"), 19, 4, 16, target_val=True)


@pytest.mark.parametrize("name", sorted(set(recipe_names()) - TOO_LONG - NO_SOURCE - {"target-only"}))
def test_a_recipe_trains(name, folders, tmp_path, monkeypatch):
    monkeypatch.setenv("RTDA_CACHE", str(tmp_path / "cache"))
    overrides = list(SMALL)
    if name.startswith(("paper-", "bdl-deeplab")):
        overrides.append("backbone=resnet18")
    if name in ("recommended", "toytown-demo", "few-labels"):
        overrides.append("backbone_weights=")  # of the published shape; the networks of tests are narrow
    if "translation" in {stage.kind for stage in load_plan(name).stages}:
        overrides += ["translation.width=4", "translation.blocks=1", "translation.crop="]
    source = f"folder:{folders / 'source'}"
    if name == "bdl-folder":
        source += f"?pictures={folders / 'source' / 'train' / 'images'}"
    target = f"folder:{folders / 'target'}"
    labelled = f"{target}?split=val" if name == "few-labels" else ""
    plan = load_plan(
        name, overrides, source=source, target=target, val=f"folder:{folders / 'source'}", labelled_target=labelled
    )
    result = Trainer(plan, tmp_path / "run").run()
    assert 0.0 <= result.best_miou <= 1.0
    last = read_checkpoint(tmp_path / "run" / "last.pth")
    assert last.training["done"] and last.training["stage_index"] == len(plan.stages) - 1
    model_from_checkpoint(last)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {stage.name for stage in plan.stages}
    assert all(math.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_recipe_of_any_editor_is_read(tmp_path, encoding):
    (tmp_path / "mine.toml").write_bytes('base = "source-only"\r\nseed = 7\r\n'.encode(encoding))
    assert load_plan(str(tmp_path / "mine.toml")).seed == 7


def test_the_demo_is_the_recommended_recipe_with_fewer_steps():
    demo, whole = (load_plan(name).to_dict() for name in ("toytown-demo", "recommended"))
    shorter = {"steps", "name", "size", "batch_size", "val_every", "save_every", "rank", "description", "stages"}
    assert {key: value for key, value in demo.items() if key not in shorter} == {
        key: value for key, value in whole.items() if key not in shorter
    }
    # The control takes over the demo's first stage, so the target's colours come with the teacher.
    assert demo["stages"][0].pop("style") == "none"
    for key in ("style", "lab"):
        whole["stages"][0].pop(key)
    for ours, theirs in zip(demo["stages"], whole["stages"], strict=True):
        assert ours["steps"] < theirs["steps"]
        assert {**ours, "steps": 0, "name": ""} == {**theirs, "steps": 0, "name": ""}


def test_labelled_frames_of_another_target_are_refused():
    with pytest.raises(ConfigError, match="--labelled-target was not: the recipe's own is toytown:target"):
        load_plan("few-labels", source="folder:a", target="folder:b")
    with pytest.raises(ConfigError, match="--source was typed, --labelled-target was not"):
        load_plan("few-labels", source="folder:a")
    assert load_plan("few-labels", source="folder:a", labelled_target="folder:c").target == ""
    typed = load_plan("few-labels", source="folder:a", target="folder:b", labelled_target="folder:c")
    assert typed.labelled_target == "folder:c"
    typed = load_plan("few-labels", ["labelled_target=folder:d"], source="folder:a", target="folder:b")
    assert typed.labelled_target == "folder:d"


def test_few_labels_is_the_recommended_network_and_its_first_stage():
    few, whole = (load_plan(name).to_dict() for name in ("few-labels", "recommended"))
    own = {"name", "description", "stages", "target", "labelled_target", "val_every"}
    assert few["val_every"] == 0, "the source's val pictures choose no step, so best.pth is the last network"
    assert {key: value for key, value in few.items() if key not in own} == {
        key: value for key, value in whole.items() if key not in own
    }
    (ours,), first = few["stages"], whole["stages"][0]
    assert ours["steps"] == sum(stage["steps"] for stage in whole["stages"])
    assert [*first["objectives"], "target-labels"] == ours["objectives"]
    assert ours["supervised"] == first["supervised"] and ours["optimizer"] == first["optimizer"]


def test_the_control_of_the_demo_takes_over_its_first_stage():
    plan = load_plan("toytown-demo")
    control = control_of(plan).plan
    assert control is not None and same_stages(control, plan) == len(plan.stages) - 1
