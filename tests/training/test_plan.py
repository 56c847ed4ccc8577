"""Recipes: strict keys, typed values, stages, overrides."""

import pytest

from rtda_deploy.errors import ConfigError, FileAccessError
from rtda_training.plan import load_plan, plan_from_table, recipe_names

SETTABLE = {"steps": "7", "batch_size": "3", "size": "64x32", "seed": "5", "backbone": "resnet101", "variant": "paper"}


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_round_trips_and_takes_the_common_keys(name):
    plan = load_plan(name)
    assert plan_from_table(plan.to_dict()) == plan and plan.description
    changed = load_plan(name, [f"{key}={value}" for key, value in SETTABLE.items()] + ["device=cpu"])
    assert {stage.steps for stage in changed.stages} == {7}
    assert (changed.size_hw, changed.batch_size, changed.seed) == ((32, 64), 3, 5)
    assert (changed.backbone, changed.variant, changed.device) == ("resnet101", "paper", "cpu")


def test_the_recipes_of_the_design_are_there():
    wanted = {"source-only", "target-only", "rtda-fcd", "rtda-fcd-light", "rtda-light-thin", "toytown-demo"}
    assert wanted <= set(recipe_names())
    assert load_plan("rtda-fcd").stages[0].adversarial.discriminator == "fcd"
    assert load_plan("target-only").stages[0].labelled == "target"


def test_a_stage_inherits_what_stands_at_the_top_and_a_typed_key_wins_everywhere():
    table = {
        "target": "toytown:target",
        "steps": 100,
        "optimizer": {"learning_rate": 0.5, "kind": "adamw"},
        "stages": [{"name": "a"}, {"name": "b", "steps": 7, "optimizer": {"learning_rate": 0.1}}],
    }
    plan = plan_from_table(table)
    assert [stage.steps for stage in plan.stages] == [100, 7]
    assert [stage.optimizer.learning_rate for stage in plan.stages] == [0.5, 0.1]
    assert plan.stages[1].optimizer.kind == "adamw"


def test_a_dotted_key_reaches_one_stage(tmp_path):
    demo = load_plan("toytown-demo", ["adapted.steps=9", "adapted.adversarial.weight=0.5"])
    assert demo.stages[0].steps != 9 and demo.stages[1].steps == 9
    assert demo.stages[1].adversarial.weight == 0.5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stepz=3", "steps"),
        ("steps=many", "int"),
        ("steps=0", "positive"),
        ("optimizer.learning_rat=1", "learning_rate"),
        ("optimizer.kind=adam", "adamw"),
        ("style=gan", "fda"),
        ("objectives=['adversarial']", "supervised"),
        ("nonsense", "key=value"),
        ("size=12by6", "WIDTHxHEIGHT"),
    ],
)
def test_a_bad_setting_names_what_would_work(text, words):
    with pytest.raises(ConfigError) as caught:
        plan = load_plan("source-only", [text])
        assert plan.size_hw
    assert words in f"{caught.value.message} {caught.value.hint}"


def test_unknown_recipes_and_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="rtda-fdc") as caught:
        load_plan("rtda-fdc")
    assert "did you mean rtda-fcd?" in caught.value.hint
    with pytest.raises(FileAccessError, match=r"none\.toml"):
        load_plan(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("steps = ")
    with pytest.raises(ConfigError, match="TOML"):
        load_plan(str(tmp_path / "bad.toml"))


def test_a_stage_that_needs_a_target_says_so():
    with pytest.raises(ConfigError, match="target"):
        plan_from_table({"objectives": ["supervised", "adversarial"]})
