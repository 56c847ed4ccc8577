"""Recipes: strict keys, typed values, stages, overrides."""

import pytest

from rtda_deploy.errors import ConfigError, FileAccessError
from rtda_training.models import network_class
from rtda_training.plan import load_plan, plan_from_table, recipe_names

SETTABLE = {"steps": "7", "batch_size": "3", "size": "64x32", "seed": "5"}


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_round_trips_and_takes_the_common_keys(name):
    plan = load_plan(name)
    assert plan_from_table(plan.to_dict()) == plan and plan.description
    known = network_class(plan.network).known_settings()
    backbone, variant = known["backbone"][-1], known.get("variant", ("rtda",))[-1]
    words = {**SETTABLE, "backbone": backbone, "variant": variant, "device": "cpu"}
    changed = load_plan(name, [f"{key}={value}" for key, value in words.items()])
    assert {stage.steps for stage in changed.stages} == {7}
    assert (changed.size_hw, changed.batch_size, changed.seed) == ((32, 64), 3, 5)
    assert (changed.backbone, changed.variant, changed.device) == (backbone, variant, "cpu")


def test_the_recipes_of_the_design_are_there():
    wanted = {"source-only", "target-only", "rtda-fcd", "rtda-fcd-light", "rtda-light-thin", "toytown-demo"}
    assert wanted <= set(recipe_names())
    assert load_plan("rtda-fcd").stages[0].settings["adversarial"].discriminator == "fcd"
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
    demo = load_plan("rtda-after-source", ["adapted.steps=9", "adapted.adversarial.weight=0.5"])
    assert demo.stages[0].steps != 9 and demo.stages[1].steps == 9
    assert demo.stages[1].settings["adversarial"].weight == 0.5


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
        ("adversarial.weight=0.1", "no stage uses it"),
        ("objectives=['supervised', 'adversarail']", "did you mean adversarial?"),
        ("objectives=['supervised', 'pseudo']", "needs a labeler"),
        ("labeler=ema", "nothing uses it"),
        ("mixer=classmix", "needs a labeler"),
        ("start=warm-up", "no earlier one"),
        ("style=fda", "needs a target"),
        ("fda.beta=0.05", "no stage uses it"),
    ],
)
def test_a_bad_setting_names_what_would_work(text, words):
    with pytest.raises(ConfigError) as caught:
        plan = load_plan("source-only", [text])
        assert plan.size_hw
    assert words in f"{caught.value.message} {caught.value.hint}"


def test_a_components_settings_are_checked_and_inherited():
    with pytest.raises(ConfigError, match=r"between 0 and 0.5, got 0.7"):
        load_plan("rtda-after-source", ["adapted.fda.beta=0.7"])
    with pytest.raises(ConfigError, match="bett") as caught:
        load_plan("rtda-after-source", ["adapted.fda.bett=0.1"])
    assert "did you mean beta?" in caught.value.hint
    with pytest.raises(ConfigError, match="does not use it"):
        load_plan("rtda-after-source", ["source-only.fda.beta=0.1"])
    table = {
        "target": "toytown:target",
        "fda": {"beta": 0.05},
        "stages": [{"name": "a"}, {"name": "b", "style": "fda"}],
    }
    plan = plan_from_table(table)
    assert "fda" not in plan.stages[0].settings and plan.stages[1].settings["fda"].beta == 0.05


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("m-1-0.translator.stage=m-0", "needs a translation stage, and 'm-0' is a segmentation"),
        ("m-1-0.start=f-1", "needs a segmentation stage, and 'f-1' is a translation"),
    ],
)
def test_a_stage_cannot_use_one_of_another_kind(override, words):
    with pytest.raises(ConfigError, match=words):
        load_plan("bdl-1x1", [override])


def test_unknown_recipes_and_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="rtda-fdc") as caught:
        load_plan("rtda-fdc")
    assert "did you mean rtda-fcd?" in caught.value.hint
    with pytest.raises(FileAccessError, match=r"none\.toml"):
        load_plan(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("steps = ")
    with pytest.raises(ConfigError, match="TOML"):
        load_plan(str(tmp_path / "bad.toml"))


@pytest.mark.parametrize("name", ["../../../escaped", "..", "a/b", "a\\b", " "])
def test_names_that_become_files_lead_to_no_other_folder(tmp_path, name):
    import json

    from rtda_training.grids.grid import load_grid

    written = json.dumps(name)
    stage = tmp_path / "stage.toml"
    stage.write_text(f'base = "source-only"\n[[stages]]\nname = {written}\n')
    grid = tmp_path / "grid.toml"
    rows = '[[rows]]\nlabel = "a"\nrecipe = "source-only"\n'
    grid.write_text(f'name = {written}\nsource = "toytown:source"\ntarget = "toytown:target"\n{rows}')
    for load, what in (
        (lambda: load_plan(str(stage)), "a stage's name"),
        (lambda: load_plan("source-only", [f"name={written}"]), "a recipe's name"),
        (lambda: load_grid(str(grid)), "a grid's name"),
    ):
        with pytest.raises(ConfigError, match=what) as caught:
            load()
        assert repr(name) in caught.value.message


def test_a_mistyped_stage_is_told_the_nearest_and_a_list_whose_quotes_the_shell_took_how_to_keep_them():
    with pytest.raises(ConfigError, match="warmup is unknown") as caught:
        load_plan("recommended", ["warmup.steps=3"])
    assert "did you mean warm-up?" in caught.value.hint
    with pytest.raises(ConfigError, match="must be a list") as caught:
        load_plan("source-only", ["objectives=[supervised,entropy]"])
    assert '["a", "b"]' in caught.value.hint and "single quotes" in caught.value.hint


@pytest.mark.parametrize(("recipe", "weights"), [("source-only", ""), ("classmix", ""), ("recommended", "stdc1.pth")])
def test_a_typed_network_has_its_own_backbone_and_variant_unless_they_are_typed_too(recipe, weights):
    for network, own in (("gcnet", "gcnet"), ("ppliteseg", "stdc1")):
        plan = load_plan(recipe, [f"network={network}"], backbone_weights=weights)
        assert plan.network_settings()["backbone"] == own
    typed = load_plan(recipe, ["backbone=stdc2", "network=ppliteseg", "variant=b"], backbone_weights=weights)
    assert typed.network_settings() == {"backbone": "stdc2", "variant": "b"}
    assert load_plan("recommended", ["network=bisenet"]).network_settings()["variant"] == "paper"
