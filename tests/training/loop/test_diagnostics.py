from __future__ import annotations

import json

import pytest

from rtda_training.loop.diagnostics import Diagnostics, warnings_of
from rtda_training.plan import load_plan
from rtda_training.run import train_plan
from rtda_training.run_folder import read_rows

# What `rtda-deploy train rtda-after-source --set val_every=100` logged, seed 0, one thread of a Xeon with AMX, bf16.
DEMO_DISC = {20: 0.6931, 40: 0.6930, 60: 0.6931, 80: 0.6929, 100: 0.6929, 120: 0.6925, 140: 0.6922, 160: 0.6907}
DEMO_DISC.update({180: 0.6908, 200: 0.6905, 220: 0.6909, 240: 0.6924, 250: 0.6919})
DEMO_VAL = {
    "source-only": {100: 0.2970, 200: 0.4188, 300: 0.4824, 400: 0.5182},
    "adapted": {100: 0.4816, 200: 0.5122, 250: 0.3783},  # on the source; the last with the target's batch norms
}


def stage(*overrides, recipe="rtda-light-thin"):
    return load_plan(recipe, overrides).stages[-1]


def series(key, values, every=20, start=20, name="train", index=0):
    return [
        {"stage": name, "stage_index": index, "step": start + every * place, key: value}
        for place, value in enumerate(values)
    ]


def said(diagnostics, rows):
    return [(finding.kind, finding.step) for row in rows for finding in diagnostics.see(row)]


# the discriminator


def adversary(losses, rights, **where):
    return [{**row, "disc_right": right} for row, right in zip(series("disc", losses, **where), rights, strict=True)]


def test_a_discriminator_that_stays_at_chance_is_told_once_with_its_key():
    diagnostics = Diagnostics(stage("adversarial.learning_rate=1e-5"))
    findings = [finding for row in series("disc", [0.6931, 0.6945, 0.691] * 10) for finding in diagnostics.see(row)]
    assert [(finding.kind, finding.step) for finding in findings] == [("stuck", 300)], "100 steps count for nothing"
    assert "raise adversarial.learning_rate (now 1e-05), start it with" in findings[0].text
    assert 'adversarial.init = "he", or lower adversarial.weight (now 0.001)' in findings[0].text
    assert "is not the adversary's" in findings[0].text and findings[0].stage == "train"


def test_the_warm_up_is_not_judged():
    assert said(Diagnostics(stage("optimizer.warmup_steps=0")), series("disc", [0.693] * 14)) == []
    assert said(Diagnostics(stage("optimizer.warmup_steps=400")), series("disc", [0.693] * 29)) == []
    assert said(Diagnostics(stage("optimizer.warmup_steps=400")), series("disc", [0.693] * 31)) == [("stuck", 600)]


@pytest.mark.parametrize(("steps", "told"), [(250, [("stuck", 200)]), (120, [("stuck", 100)]), (80, [])])
def test_a_short_stage_is_judged_before_it_ends(steps, told):
    settings = stage(f"steps={steps}", "optimizer.warmup_steps=20")
    assert said(Diagnostics(settings), series("disc", [0.693] * (steps // 20))) == told


@pytest.mark.parametrize("value", [0.66, 0.72])
def test_one_batch_told_apart_is_chance_too(value):
    rows = adversary([0.693] * 5 + [value] + [0.693] * 20, [0.5] * 5 + [0.65] + [0.5] * 20)
    assert said(Diagnostics(stage()), rows) == [("stuck", 300)]


def test_a_discriminator_that_learned_and_was_pushed_back_is_not_stuck():
    losses, rights = [0.69, 0.66, 0.60, 0.55, 0.6, 0.66] + [0.693] * 40, [0.5, 0.6, 0.7, 0.72, 0.7, 0.6] + [0.5] * 40
    assert said(Diagnostics(stage()), adversary(losses, rights)) == []
    assert said(Diagnostics(stage()), adversary([0.69] * 46, rights)) == [], "told by its answers alone"
    assert said(Diagnostics(stage()), adversary(losses, [0.5] * 46)) == [], "told by its loss alone"


def test_one_that_learned_before_a_resume_is_not_stuck_after_it():
    rows = adversary([0.6] * 6, [0.7] * 6)
    assert said(Diagnostics(stage(), rows), series("disc", [0.693] * 40, start=140)) == []


def test_a_control_is_not_told_to_lower_a_weight_of_0():
    diagnostics = Diagnostics(stage("adversarial.weight=0"))
    (finding,) = [finding for row in series("disc", [0.693] * 30) for finding in diagnostics.see(row)]
    assert "weight" not in finding.text and "adversarial.learning_rate" in finding.text


def test_first_weights_that_are_in_use_are_not_advised():
    diagnostics = Diagnostics(stage("adversarial.init=he"))
    (finding,) = [finding for row in series("disc", [0.693] * 30) for finding in diagnostics.see(row)]
    assert "init" not in finding.text


def test_a_discriminator_without_an_error_is_told():
    diagnostics = Diagnostics(stage())
    findings = [finding for row in series("disc", [0.5] * 5 + [0.019] * 20) for finding in diagnostics.see(row)]
    assert [(finding.kind, finding.step) for finding in findings] == [("certain", 320)]
    assert "lower adversarial.learning_rate" in findings[0].text and 'style = "fda"' in findings[0].text
    assert said(Diagnostics(stage()), series("disc", [0.021] * 40)) == []


def test_a_style_in_use_is_not_advised():
    diagnostics = Diagnostics(stage(recipe="fda-light"))
    findings = [finding for row in series("disc", [0.001] * 30) for finding in diagnostics.see(row)]
    assert len(findings) == 1 and "style" not in findings[0].text


def test_least_squares_have_their_own_chance():
    assert said(Diagnostics(stage("adversarial.gan=ls")), series("disc", [0.25] * 30)) == [("stuck", 300)]
    assert said(Diagnostics(stage("adversarial.gan=ls")), series("disc", [0.23] * 30)) == []
    assert said(Diagnostics(stage()), series("disc", [0.25] * 30)) == []


def test_advents_discriminator_is_watched_by_its_own_name():
    findings = [f for row in series("disc", [0.693] * 30) for f in Diagnostics(stage(recipe="advent")).see(row)]
    assert not findings, "a diagnostics of its own for each row has seen nothing for long"
    diagnostics = Diagnostics(stage(recipe="advent"))
    findings = [finding for row in series("disc", [0.693] * 30) for finding in diagnostics.see(row)]
    assert "advent.learning_rate" in findings[0].text


def test_a_translators_discriminator_is_none_of_ours():
    translation = load_plan("bdl-1x1").stages[1]
    assert translation.kind == "translation"
    assert said(Diagnostics(translation), series("disc", [0.25] * 30, name="f-1")) == []


# the validation


def test_a_val_miou_that_fell_to_half_of_its_best_is_told():
    diagnostics = Diagnostics(stage())
    findings = [finding for row in series("val_miou", [0.2, 0.5, 0.26, 0.25, 0.1]) for finding in diagnostics.see(row)]
    assert [(finding.kind, finding.step) for finding in findings] == [("fallen", 80)]
    assert "fell to 25.0 from 50.0" in findings[0].text and "adversarial.weight" in findings[0].text


def test_a_fall_among_first_guesses_is_none():
    assert said(Diagnostics(stage()), series("val_miou", [0.04, 0.01])) == []
    assert said(Diagnostics(stage()), series("val_miou", [float("nan"), 0.3, float("nan"), 0.2])) == []


def test_a_stage_is_compared_with_what_it_started_from():
    plan = load_plan("rtda-after-source")
    before = series("val_miou", [0.5], name="source-only")
    assert said(Diagnostics(plan.stages[1], before), series("val_miou", [0.2], name="adapted", index=1)) == [
        ("fallen", 20)
    ]
    again = load_plan("ssl-1").stages[1]
    assert again.start == "scratch"
    before = series("val_miou", [0.5], name="first")
    assert said(Diagnostics(again, before), series("val_miou", [0.2], name="again", index=1)) == []


def test_what_the_targets_statistics_cost_at_the_end_is_no_fall():
    adapted = load_plan("rtda-after-source").stages[1]
    rows = series("val_miou", [0.5, 0.2], start=adapted.steps - 20, name="adapted", index=1)
    assert said(Diagnostics(adapted), rows) == []
    rows = series("val_miou", [0.5, 0.2], start=adapted.steps - 40, name="adapted", index=1)
    assert said(Diagnostics(adapted), rows) == [("fallen", adapted.steps - 20)]


# pseudo labels


def test_a_teacher_that_is_hardly_believed_is_told():
    diagnostics = Diagnostics(stage(recipe="classmix"))
    findings = [finding for row in series("pseudo_share", [0.04] * 40) for finding in diagnostics.see(row)]
    assert [(finding.kind, finding.step) for finding in findings] == [("coverage", 420)]
    assert "lower ema.threshold (now 0.968)" in findings[0].text
    assert said(Diagnostics(stage(recipe="classmix")), series("pseudo_share", [0.04] * 20 + [0.06] * 20)) == []


@pytest.mark.parametrize(
    ("share", "recipe", "advice"),
    [
        (0.049, "ssl-1", "lower offline.threshold (now 0.9)"),
        (0.049, "ssl-balanced", "lower offline.quantile (now 0.5)"),
        (0.051, "ssl-1", ""),
    ],
)
def test_labels_on_disk_that_cover_little_are_told(tmp_path, share, recipe, advice):
    again = load_plan(recipe).stages[1]
    settings = {"select": again.settings["offline"].select, "threshold": 0.9, "quantile": 0.5}
    (tmp_path / "labels.json").write_text(json.dumps({"share": share, "settings": settings}))
    found = Diagnostics(again).labels(tmp_path)
    assert [finding.kind for finding in found] == (["coverage"] if advice else [])
    assert not advice or advice in found[0].text


@pytest.mark.parametrize("content", ["", "{", "[]", '{"share": null}'])
def test_a_record_that_cannot_be_read_is_no_matter(tmp_path, content):
    if content:
        (tmp_path / "labels.json").write_text(content)
    assert Diagnostics(load_plan("ssl-1").stages[1]).labels(tmp_path) == []


# as a whole


def test_nothing_is_said_twice_after_a_resume():
    rows = series("disc", [0.693] * 30)
    assert said(Diagnostics(stage(), rows), series("disc", [0.693] * 10, start=620)) == []


def test_a_resume_does_not_forget_how_long_it_has_lasted():
    rows = series("disc", [0.693] * 10)
    assert said(Diagnostics(stage(), rows), series("disc", [0.693] * 10, start=220)) == [("stuck", 300)]


def test_the_report_says_what_the_screen_said(tmp_path):
    plan = load_plan("rtda-after-source")
    rows = [*series("val_miou", [0.5], name="source-only"), *series("disc", [0.693] * 20, name="adapted", index=1)]
    rows += series("val_miou", [0.1], start=420, name="adapted", index=1)
    found = warnings_of(plan, rows, tmp_path)
    assert [(finding.stage, finding.kind) for finding in found] == [("adapted", "stuck"), ("adapted", "fallen")]


def test_the_demos_usual_course_says_that_its_discriminator_is_stuck_and_no_more(tmp_path):
    rows = []
    for index, (name, known) in enumerate(DEMO_VAL.items()):
        disc = DEMO_DISC if name == "adapted" else {}
        for step in sorted({*known, *disc}):
            row = {"stage": name, "stage_index": index, "step": step}
            row.update({key: found[step] for key, found in (("disc", disc), ("val_miou", known)) if step in found})
            rows.append(row)
    assert len(rows) == 4 + 13
    found = warnings_of(load_plan("rtda-after-source"), rows, tmp_path)
    assert [(finding.stage, finding.kind, finding.step) for finding in found] == [("adapted", "stuck", 200)]


def test_a_short_training_of_the_demos_recipe_warns_that_its_discriminator_is_stuck(tmp_path):
    """As ``make demo``, small: nothing here is made up, neither losses nor answers."""
    settings = ["size=64x32", "batch_size=2", "source-only.steps=4", "adapted.steps=100", "val_pictures=2"]
    sets = {"source": "toytown:source?count=8", "target": "toytown:target?count=8"}
    plan = load_plan("rtda-after-source", settings, **sets)
    told: list[str] = []
    train_plan(
        plan,
        tmp_path,
        report=False,
        on_event=lambda event: told.append(event.stage) if event.kind == "warning" else None,
    )
    stuck = [text for text in told if text.startswith("adapted: the discriminator has told nothing apart")]
    assert len(stuck) == 1 and "raise adversarial.learning_rate (now 0.0004)" in stuck[0]
    logged = [row for row in read_rows(tmp_path) if "disc" in row]
    assert all(abs(row["disc"] - 0.693) < 0.01 for row in logged), "it was stuck"
    assert [finding.kind for finding in warnings_of(plan, read_rows(tmp_path), tmp_path)] == ["stuck"]
