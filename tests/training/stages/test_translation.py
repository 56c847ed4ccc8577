"""Translators between domains: their losses, their stage in a plan, their files, and their use as a style."""

import copy
import json
import math

import cv2
import numpy as np
import pytest
import torch
from training.settings import PictureList, TinyNetwork, class_names, make_context, make_stage

from rtda_deploy.errors import CheckpointError, ConfigError, DataError, FileAccessError
from rtda_training.adapt.slots import components
from rtda_training.checkpoint import read_checkpoint
from rtda_training.data.address import DataAddress
from rtda_training.models.cyclegan import Generator
from rtda_training.plan import load_plan, plan_from_table
from rtda_training.readers import LabelledSet, UnlabelledSet, open_labelled, open_unlabelled
from rtda_training.stages.translation import losses
from rtda_training.stages.translation.stage import TranslationConfig, TranslationStage
from rtda_training.trainer import Trainer
from rtda_training.translated_set import translate_set
from rtda_training.translator import (
    FrameTranslator,
    Translator,
    frames_from,
    pictures_from,
    read_translator,
    write_translator,
)

SIZE_HW = (32, 32)
TINY = {"width": 4, "blocks": 1}
DARK_RED, BRIGHT_BLUE = (10, 15, 90), (240, 190, 150)  # BGR


def blocks(rng, tint):
    """A picture of 8x8 blocks whose brightness varies around a tint."""
    light = np.kron(rng.uniform(0.6, 1.4, (4, 4)), np.ones((8, 8)))[..., None]
    return np.clip(light * np.array(tint), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A dark red source with labels and a bright blue target without."""
    base = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for domain, tint in (("source", DARK_RED), ("target", BRIGHT_BLUE)):
        for split in ("train", "val"):
            images = base / domain / split / "images"
            images.mkdir(parents=True)
            for index in range(8):
                cv2.imwrite(str(images / f"{index}.png"), blocks(rng, tint))
                if domain == "source":
                    labels = base / domain / split / "labels"
                    labels.mkdir(exist_ok=True)
                    cv2.imwrite(str(labels / f"{index}.png"), rng.integers(0, 3, SIZE_HW).astype(np.uint8))
        classes = {"names": ["a", "b", "c"], "palette": [[i, i, i] for i in range(3)]}
        (base / domain / "classes.json").write_text(json.dumps(classes))
    return base


def plan(folders, stages, **changes):
    table = {
        "source": f"folder:{folders / 'source'}",
        "target": f"folder:{folders / 'target'}",
        "size": "32x32",
        "batch_size": 2,
        "device": "cpu",
        "precision": "fp32",
        "val_every": 0,
        "save_every": 2,
        "steps": 5,
        "stages": stages,
    }
    return plan_from_table({**table, **changes})


def translation(name="f", **settings):
    return {"name": name, "kind": "translation", "translation": {**TINY, **settings}}


def a_stage(tmp_path, folders, finished=None, precision="fp32", around=None, **settings):
    """A translation stage that is about to do its first step, outside a trainer."""
    before = [{"name": settings["network"]}] if "network" in settings else []
    whole = plan(folders, [*before, translation(**settings)])
    config = TranslationConfig(**{**TINY, **settings})
    given = {"folder": tmp_path, "finished": lambda name: finished, "precision": precision}
    stage = make_stage(size_hw=SIZE_HW, **given, **(around or {}))
    run = TranslationStage(config, stage, whole, whole.stages[-1])
    run.begin(0)
    return run


def copied(state):
    return {key: value.clone() for key, value in state.items()}


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one)


def a_translator(seed=0, order="rgb"):
    torch.manual_seed(seed)
    to_target, to_source = Generator(4, 1).state_dict(), Generator(4, 1).state_dict()
    return Translator(4, 1, order, SIZE_HW, to_target, to_source)


# losses


def test_a_perfect_cycle_costs_nothing_and_a_shift_costs_its_size():
    picture = torch.rand(2, 3, 8, 8) - 0.5
    assert losses.cycle_loss(picture, picture) == 0 and losses.identity_loss(picture, picture) == 0
    assert losses.cycle_loss(picture, picture + 0.25) == pytest.approx(0.25, abs=1e-6)
    assert losses.identity_loss(picture, picture - 0.25) == pytest.approx(0.25, abs=1e-6)


def test_the_least_squares_game_has_opposite_ends():
    scores = torch.full((2, 1, 3, 3), 0.25)
    assert losses.generator_loss(scores) == pytest.approx(0.75**2)
    assert losses.discriminator_loss(torch.ones(1), torch.zeros(1)) == 0
    assert losses.discriminator_loss(scores, scores) == pytest.approx(0.5 * (0.75**2 + 0.25**2))


@pytest.mark.parametrize("distance", losses.PERCEPTUAL)
def test_perception_does_not_mind_how_loud_a_class_is(distance):
    logits = torch.randn(2, 4, 8, 8)
    loud = logits * torch.tensor([1.0, 5.0, 20.0, 3.0]).view(1, 4, 1, 1) + 7.0
    assert losses.perceptual_loss(logits, loud, distance) < 1e-4
    assert losses.perceptual_loss(logits, logits.flip(-1), distance) > 0.5


def test_the_perceptual_distances_are_the_codes_and_the_texts():
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).view(1, 1, 2, 2)  # already normalised; its negative is 2 away
    assert losses.perceptual_loss(checks, -checks) == pytest.approx(4.0, abs=1e-3)
    assert losses.perceptual_loss(checks, -checks, "l1") == pytest.approx(2.0, abs=1e-3)


def test_the_rate_stays_for_half_of_the_steps_and_falls_to_zero():
    factors = [losses.half_linear_decay(step, 8) for step in range(8)]
    assert factors == [1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]


def test_pictures_are_frames_again_in_either_channel_order():
    frames = torch.randint(0, 256, (2, 8, 8, 3)).float()
    for order, first in (("rgb", 2), ("bgr", 0)):
        pictures = pictures_from(frames, order)
        assert pictures.min() >= -1 and pictures.max() <= 1
        torch.testing.assert_close(pictures[:, 0], frames[..., first] / 127.5 - 1)
        torch.testing.assert_close(frames_from(pictures, order), frames, atol=1e-4, rtol=0)


# the pool


def test_a_pool_fills_first_and_then_gives_earlier_pictures_half_of_the_time():
    pool = losses.ImagePool(4)
    first = torch.linspace(-1, 1, 4).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    assert torch.equal(pool.exchange(first, np.random.default_rng(0)), first) and len(pool) == 4
    new = torch.full((200, 3, 2, 2), 0.5)
    given = pool.exchange(new, np.random.default_rng(1))
    assert sum(not torch.equal(a, b) for a, b in zip(given, new, strict=True)) >= 4
    kept = pool.state_dict()["pictures"]
    assert kept.shape == (4, 3, 2, 2) and kept.dtype == torch.uint8 and (kept == 191).all()


def test_about_half_of_the_pictures_are_exchanged():
    pool, rng = losses.ImagePool(3), np.random.default_rng(0)
    pool.exchange(torch.full((3, 3, 1, 1), -1.0), rng)
    levels = (torch.arange(200) / 255).mul(2).sub(1).view(200, 1, 1, 1).expand(200, 3, 1, 1)  # no two alike
    given = pool.exchange(levels, rng)
    exchanged = sum(not torch.equal(a, b) for a, b in zip(given, levels, strict=True))
    assert 75 < exchanged < 125
    earlier = [index for index in range(200) if not torch.equal(given[index], levels[index])]
    assert all(given[index, 0, 0, 0] < levels[index, 0, 0, 0] for index in earlier[1:])  # each was put in before


def test_a_pool_is_a_function_of_its_state_and_the_generator_it_is_given():
    pool, other = losses.ImagePool(3), losses.ImagePool(3)
    pool.exchange(torch.rand(5, 3, 2, 2), np.random.default_rng(0))
    other.load_state_dict(pool.state_dict())
    new = torch.rand(8, 3, 2, 2)
    assert torch.equal(pool.exchange(new, np.random.default_rng(1)), other.exchange(new, np.random.default_rng(1)))
    assert torch.equal(pool.state_dict()["pictures"], other.state_dict()["pictures"])
    with pytest.raises(CheckpointError, match="pool of 2"):
        losses.ImagePool(2).load_state_dict(pool.state_dict())
    empty = losses.ImagePool(3)
    empty.load_state_dict(losses.ImagePool(3).state_dict())
    assert len(empty) == 0


def test_a_pool_of_none_gives_every_picture_back():
    pool = losses.ImagePool(0)
    assert torch.equal(pool.exchange(torch.ones(2, 3, 2, 2), np.random.default_rng(0)), torch.ones(2, 3, 2, 2))
    assert len(pool) == 0


# one step


def test_without_any_weight_nothing_moves_the_translators(tmp_path, folders):
    none = {f"{name}_weight": 0.0 for name in ("gan", "cycle", "identity", "perceptual", "perceptual_cycle")}
    run = a_stage(tmp_path, folders, TinyNetwork(5), network="m", **none)
    translators, judges = copied(run.state_dict()["translators"]), copied(run.state_dict()["judges"])
    row = run.step(0)
    assert set(row) == {"gan", "cycle", "disc", "learning_rate"}
    assert same(run.state_dict()["translators"], translators)
    assert not same(run.state_dict()["judges"], judges)


def test_each_term_is_counted_by_its_own_weight(tmp_path, folders):
    factors = {"gan": 2, "cycle": 3, "identity": 4, "perceptual": 5, "perceptual_cycle": 6}
    usual = TranslationConfig()
    weights = {f"{name}_weight": factor * getattr(usual, f"{name}_weight") for name, factor in factors.items()}
    torch.manual_seed(0)
    network = TinyNetwork(5)
    once = a_stage(tmp_path, folders, network, network="m").step(0)
    more = a_stage(tmp_path, folders, network, network="m", **weights).step(0)
    for name, factor in {**factors, "disc": 1}.items():
        assert float(more[name]) == pytest.approx(factor * float(once[name]), rel=1e-5), name


@pytest.mark.parametrize("only", ["gan", "cycle", "identity", "perceptual", "perceptual_cycle"])
def test_every_term_moves_both_translators_and_leaves_the_network(tmp_path, folders, only):
    weights = {f"{name}_weight": 0.0 for name in ("gan", "cycle", "identity", "perceptual", "perceptual_cycle")}
    network = TinyNetwork(5)
    run = a_stage(tmp_path, folders, network, **{**weights, "network": "m", f"{only}_weight": 1.0})
    before, seen_by = copied(run.state_dict()["translators"]), copied(network.state_dict())
    assert run.step(0)[only] > 0
    after = run.state_dict()["translators"]
    moved = {key.split(".")[0] for key in after if not torch.equal(after[key], before[key])}
    assert moved == {"to_target", "to_source"}
    assert same(network.state_dict(), seen_by) and not network.training
    assert all(parameter.grad is None for parameter in network.parameters())


def test_each_loss_compares_the_pictures_that_belong_together(tmp_path, folders):
    run = a_stage(tmp_path, folders, pool=0)
    calls, shown = [], []
    run.generators.register_forward_hook(lambda _, given, made: calls.append((given, made)))
    to_target, to_source = (copy.deepcopy(part) for part in (run.generators.to_target, run.generators.to_source))
    discriminators = copy.deepcopy(run.discriminators)
    run.discriminators.register_forward_pre_hook(lambda _, pictures: shown.append(pictures))
    row = run.step(0)
    (source, target), _ = calls[0]
    with torch.no_grad():
        made_target, made_source = to_target(source), to_source(target)
        cycle = (to_source(made_target) - source).abs().mean() + (to_target(made_source) - target).abs().mean()
        kept = (to_source(source) - source).abs().mean() + (to_target(target) - target).abs().mean()
    assert float(row["cycle"]) == pytest.approx(10 * float(cycle), rel=1e-4)
    assert float(row["identity"]) == pytest.approx(5 * float(kept), rel=1e-4)
    for found, expected in zip(shown[0], (source, made_source, target, made_target), strict=True):
        torch.testing.assert_close(found, expected)
        assert not found.requires_grad
    moved = run.discriminators.state_dict()
    assert {key.split(".")[0] for key in moved if not torch.equal(moved[key], discriminators.state_dict()[key])} == {
        "of_source",
        "of_target",
    }
    with torch.no_grad():
        expected = losses.discriminator_loss(discriminators.of_source(source), discriminators.of_source(made_source))
        expected += losses.discriminator_loss(discriminators.of_target(target), discriminators.of_target(made_target))
    assert float(row["disc"]) == pytest.approx(float(expected), rel=1e-4)
    frames = make_stage(size_hw=SIZE_HW).source
    frames = pictures_from(torch.from_numpy(np.stack([frames.frame(k) for k in range(6)])), "rgb")
    assert any(torch.equal(source[0], frame) or torch.equal(source[0], frame.flip(2)) for frame in frames)


def test_both_players_learn_at_the_rate_of_the_step(tmp_path, folders):
    run = a_stage(tmp_path, folders)  # a plan of 5 steps
    for step, rate in ((2, 2e-4), (4, 0.4 * 2e-4)):
        assert run.step(step)["learning_rate"] == pytest.approx(rate)
        for player in ("translators_optimizer", "judges_optimizer"):
            assert run.state_dict()[player]["param_groups"][0]["lr"] == pytest.approx(rate)


def test_crops_are_drawn_anew_each_step_and_for_each_domain_and_the_same_again(tmp_path, folders):
    rows, columns = np.mgrid[:32, :32].astype(np.uint8)
    coordinates = PictureList([np.dstack([rows, columns, columns])] * 4, [rows * 0] * 4, class_names(5))
    source, target = (of(coordinates, DataAddress.parse("list:x")) for of in (LabelledSet, UnlabelledSet))

    def corners(steps):
        run = a_stage(tmp_path, folders, around={"source": source, "target": target}, crop="28x24")
        seen = []
        run.generators.register_forward_pre_hook(lambda _, both: seen.extend(frames_from(x, "bgr") for x in both))
        for step in range(steps):
            run.step(step)
        assert {tuple(frames.shape) for frames in seen} == {(2, 24, 28, 3)}
        return [frames.amin((1, 2)).round().tolist() for frames in seen]  # of each step: source, target

    found = corners(3)
    assert corners(3) == found and len({str(corner) for corner in found}) == 6


def test_discriminators_are_frozen_while_translators_learn_and_learn_afterwards(tmp_path, folders):
    run = a_stage(tmp_path, folders)
    learning = []
    discriminator = run.discriminators.of_target
    discriminator.register_forward_pre_hook(lambda module, _: learning.append(next(module.parameters()).requires_grad))
    run.step(0)
    assert learning == [False, True, True]  # of the translation; of real pictures, of pooled translations


def test_discriminators_are_shown_pictures_of_the_pool(tmp_path, folders):
    run = a_stage(tmp_path, folders, pool=2)
    shown = []
    run.discriminators.register_forward_pre_hook(
        lambda _, pictures: shown.append([p.detach().clone() for p in pictures])
    )
    for step in range(4):
        run.step(step)
    for made in (1, 3):
        first = frames_from(shown[0][made], "rgb").round()  # of step 0, at 256 levels
        rest = torch.cat([frames_from(pictures[made], "rgb") for pictures in shown[1:]])
        assert any((picture - earlier).abs().max() < 1e-3 for picture in rest for earlier in first)


def test_a_step_in_bf16_is_finite_and_moves_both_players(tmp_path, folders):
    run = a_stage(tmp_path, folders, TinyNetwork(5), network="m", precision="bf16")
    before = {name: copied(run.state_dict()[name]) for name in ("translators", "judges")}
    assert all(np.isfinite(float(value)) for value in run.step(0).values())
    assert not any(same(run.state_dict()[name], state) for name, state in before.items())


def test_red_becomes_blue(tmp_path, folders):
    settings = {"width": 8, "learning_rate": 2e-3, "identity_weight": 0.0, "betas": [0.5, 0.9]}
    recipe = plan(folders, [translation(**settings)], steps=40, save_every=0)
    Trainer(recipe, tmp_path).run()
    translator = FrameTranslator(read_translator(tmp_path / "translator-f.pth"))
    source, target = (
        np.stack([cv2.imread(str(folders / domain / "val" / "images" / f"{k}.png")) for k in range(8)])
        for domain in ("source", "target")
    )
    means = [frames.mean((0, 1, 2)) for frames in (source, target)]
    found = translator(torch.from_numpy(source)).numpy().mean((0, 1, 2))
    left = np.linalg.norm(found - means[1]) / np.linalg.norm(means[0] - means[1])
    assert left < 0.2  # 0.04 here


# in a plan


@pytest.fixture(scope="module")
def finished(folders, tmp_path_factory):
    """A run of a network, a translator through its eyes, and a network on translated pictures."""
    stages = [
        {"name": "m", "steps": 2},
        translation(network="m", crop="32x32", pool=3),
        {"name": "last", "steps": 2, "style": "translator", "translator": {"stage": "f"}},
    ]
    recipe = plan(folders, stages, size="64x32")
    folder = tmp_path_factory.mktemp("run")
    events = []
    result = Trainer(recipe, folder, events.append).run()
    return recipe, folder, events, result


def test_a_translation_in_the_middle_leaves_its_files_and_the_network_alone(finished):
    _, folder, events, result = finished
    names = {path.name for path in folder.iterdir()}
    assert {"stage-m.pth", "translator-f.pth", "stage-last.pth", "best.pth", "last.pth"} <= names
    assert "stage-f.pth" not in names
    grid = cv2.imread(str(folder / "stages" / "f" / "grid.png"))
    assert grid.shape == (4 * 32, 4 * 64, 3)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["stage"] == "f" and row["step"] == 5)
    assert {"gan", "cycle", "identity", "perceptual", "perceptual_cycle", "disc", "learning_rate"} <= row.keys()
    assert "val_miou" not in row
    assert [event.stage for event in events if event.kind == "validation"] == ["m", "last"]
    assert np.isfinite(result.last_miou)


def test_the_grid_shows_source_translated_again_and_target(finished, folders):
    _, folder, _, _ = finished
    grid = cv2.imread(str(folder / "stages" / "f" / "grid.png")).astype(float)
    source, made, again, target = (grid[:, 64 * k : 64 * (k + 1)] for k in range(4))
    assert source[..., 2].mean() > 2 * source[..., 0].mean()  # red
    assert target[..., 0].mean() > 200 > target[..., 2].mean()  # blue
    translator = read_translator(folder / "translator-f.pth")
    frames = torch.from_numpy(source.reshape(4, 32, 64, 3))
    expected = FrameTranslator(translator)(frames).reshape(128, 64, 3).numpy()
    assert np.abs(expected - made).max() <= 1
    back = Translator(
        4, 1, translator.channel_order, SIZE_HW, to_target=translator.to_source, to_source=translator.to_target
    )
    returned = FrameTranslator(back)(torch.from_numpy(made.reshape(4, 32, 64, 3))).reshape(128, 64, 3).numpy()
    assert np.abs(returned - again).mean() < 3  # `made` was rounded on the way


@pytest.mark.parametrize("killed", [1, 5])
def test_a_killed_translation_ends_as_an_uninterrupted_one(finished, tmp_path, killed):
    recipe, whole, _, _ = finished

    def die(event):
        if event.kind == "step" and (event.stage, event.step) == ("f", killed):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(recipe, tmp_path, die).run()
    state = read_checkpoint(tmp_path / "last.pth")
    assert state.training["stage_index"] == (1 if killed == 5 else 0)
    Trainer(recipe, tmp_path).run(state)
    expected, found = (read_translator(folder / "translator-f.pth") for folder in (whole, tmp_path))
    assert same(expected.to_target, found.to_target) and same(expected.to_source, found.to_source)
    assert same(read_checkpoint(whole / "last.pth").weights, read_checkpoint(tmp_path / "last.pth").weights)
    grids = [(folder / "stages" / "f" / "grid.png").read_bytes() for folder in (whole, tmp_path)]
    assert grids[0] == grids[1]


def test_a_resumed_stage_has_the_players_of_the_killed_one(tmp_path, folders):
    settings = {"network": "m", "pool": 3, "crop": "32x32"}
    network = TinyNetwork(5)
    run = a_stage(tmp_path, folders, network, **settings)
    for step in range(3):
        run.step(step)
    other = a_stage(tmp_path, folders, network, **settings)
    torch.save(run.state_dict(), tmp_path / "state.pth")
    other.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    other.begin(3)
    for step in (3, 4):
        run.step(step), other.step(step)
    ours, theirs = run.state_dict(), other.state_dict()
    assert same(ours["translators"], theirs["translators"]) and same(ours["judges"], theirs["judges"])
    for name in ("source", "target"):
        assert torch.equal(ours["pools"][name]["pictures"], theirs["pools"][name]["pictures"])


def test_a_translation_can_be_the_last_and_only_stage(folders, tmp_path):
    result = Trainer(plan(folders, [translation()], steps=2), tmp_path).run()
    assert (tmp_path / "translator-f.pth").is_file() and not (tmp_path / "best.pth").exists()
    assert read_checkpoint(tmp_path / "last.pth").training["done"]
    assert math.isnan(result.best_miou), "nothing was validated"
    Trainer(plan(folders, [translation()], steps=2), tmp_path).run(read_checkpoint(tmp_path / "last.pth"))


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"style": "fda"}, "no use for style 'fda'"),
        ({"labelled": "target"}, "no use for labelled = target"),
        ({"translation": {"crop": "36x32"}}, "larger than size 32x32"),
        ({"translation": {"crop": "24x32", "network": "m"}}, "no multiple of 32"),
    ],
)
def test_a_translation_refuses_what_it_would_not_do(tmp_path, folders, stage, words):
    whole = plan(folders, [{"name": "m"}, {"name": "f", "kind": "translation", **stage}])
    config = whole.stages[1].settings["translation"]
    with pytest.raises(ConfigError, match=words):
        TranslationStage(config, make_stage(size_hw=SIZE_HW, folder=tmp_path), whole, whole.stages[1])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 0}, "width must be at least 1"),
        ({"blocks": -1}, "blocks must be at least 0"),
        ({"pool": -1}, "pool must be at least 0"),
        ({"crop": "450x448"}, "multiple of 4"),
        ({"crop": "big"}, "WIDTHxHEIGHT"),
        ({"betas": [0.5, 1.0]}, "betas"),
        ({"perceptual": "l2"}, "unknown"),
        ({"network": "m9"}, "needs stage 'm9'"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_the_plan(folders, settings, words):
    with pytest.raises(ConfigError) as caught:
        plan(folders, [translation(**settings)])
    assert words in f"{caught.value.message} {caught.value.hint}"


def test_a_translation_needs_a_target(folders):
    with pytest.raises(ConfigError, match="needs a target"):
        plan(folders, [translation()], target="")


# the style


def styled(folders, **settings):
    return plan(folders, [translation(), {"name": "m", "style": "translator", "translator": settings}])


def test_the_style_takes_its_translator_from_one_place(folders):
    assert styled(folders, stage="f").stages[1].stages_used == (("f", "translation"),)
    assert styled(folders, path="x.pth").stages[1].stages_used == ()
    with pytest.raises(ConfigError, match="neither is"):
        styled(folders)
    with pytest.raises(ConfigError, match="both are set"):
        styled(folders, stage="f", path="x.pth")
    with pytest.raises(ConfigError, match="no earlier one"):
        styled(folders, stage="g")


def test_the_style_paints_the_source_and_nothing_learns(tmp_path):
    translator = a_translator()
    path = write_translator(tmp_path / "translator-f.pth", translator)
    stage = make_stage(size_hw=(32, 40), folder=tmp_path)
    kind = components("style")["translator"]
    by_stage, by_path = (
        kind(kind.settings(**where), stage) for where in ({"stage": "f"}, {"path": str(path), "stage": ""})
    )
    context = make_context(stage)
    frames = context.source_frames.clone()
    painted = by_stage.apply(context)
    assert painted.dtype == torch.float32 and painted.shape == frames.shape and not painted.requires_grad
    assert painted.min() >= 0 and painted.max() <= 255
    generator = Generator(4, 1)
    generator.load_state_dict(translator.to_target)
    rgb = frames.flip(3).permute(0, 3, 1, 2) / 127.5 - 1
    expected = ((generator(rgb).detach() + 1) * 127.5).permute(0, 2, 3, 1).flip(3)
    torch.testing.assert_close(painted, expected, atol=1e-3, rtol=0)
    assert torch.equal(context.source_frames, frames) and torch.equal(by_path.apply(context), painted)
    assert by_stage.state_dict() == {}


def test_a_stage_that_is_no_translation_is_named(tmp_path):
    kind = components("style")["translator"]
    with pytest.raises(ConfigError, match=r"left no translator-m\.pth"):
        kind(kind.settings(stage="m"), make_stage(folder=tmp_path))
    with pytest.raises(FileAccessError, match="nowhere"):
        kind(kind.settings(path=str(tmp_path / "nowhere.pth")), make_stage(folder=tmp_path))


def test_the_network_is_trained_on_painted_pictures(finished, folders, tmp_path):
    _, folder, _, _ = finished
    table = {
        "name": "last",
        "steps": 2,
        "style": "translator",
        "translator": {"path": str(folder / "translator-f.pth")},
    }
    painted = plan(folders, [table])
    plain = plan(folders, [{"name": "last", "steps": 2}])
    for name, which in (("painted", painted), ("plain", plain)):
        Trainer(which, tmp_path / name).run()
    a, b = (read_checkpoint(tmp_path / name / "last.pth").weights for name in ("painted", "plain"))
    assert not same(a, b)


# files


def test_a_translator_comes_back_from_its_file(tmp_path):
    translator = a_translator()
    found = read_translator(write_translator(tmp_path / "t.pth", translator))
    assert same(found.to_target, translator.to_target) and same(found.to_source, translator.to_source)
    assert (found.width, found.blocks, found.channel_order, found.size_hw) == (4, 1, "rgb", SIZE_HW)
    content = torch.load(tmp_path / "t.pth", weights_only=True)
    assert content["format"] == "rtda-deploy-translator"


def test_other_files_are_refused(finished, tmp_path):
    _, folder, _, _ = finished
    with pytest.raises(CheckpointError, match="no translator of pictures"):
        read_translator(folder / "last.pth")
    (tmp_path / "garbage.pth").write_bytes(b"no zip at all")
    with pytest.raises(CheckpointError, match="torch can read"):
        read_translator(tmp_path / "garbage.pth")
    whole = torch.load(folder / "translator-f.pth", weights_only=True)
    for part, words in (
        ({"config": {**whole["config"], "width": 5}}, "does not fit its own config"),
        ({"config": {**whole["config"], "width": -5}}, "width of at least 1"),
        ({"config": {**whole["config"], "channel_order": "hsv"}}, "hsv"),
        ({"config": {}}, "lacks a part"),
        ({"to_source": {}}, "does not fit"),
    ):
        torch.save({**whole, **part}, tmp_path / "edited.pth")
        with pytest.raises(CheckpointError, match=words):
            read_translator(tmp_path / "edited.pth")


def test_a_translated_set_is_read_back_under_the_sources_labels(finished, folders, tmp_path):
    _, run, _, _ = finished
    file, out, seen = run / "translator-f.pth", tmp_path / "out", []
    pictures = open_labelled(f"folder:{folders / 'source'}")
    how = {"device": "cpu", "precision": "fp32"}
    done = translate_set(file, pictures, out, SIZE_HW, **how, progress=lambda *at: seen.append(at))
    assert done == 8 and seen[-1] == (8, 8)
    translated = open_labelled(f"folder:{folders / 'source'}?pictures={out}")
    assert np.array_equal(translated.label(3), pictures.label(3))
    expected = FrameTranslator(read_translator(file))(torch.from_numpy(pictures.frame(3))[None])[0].round().numpy()
    assert np.array_equal(translated.frame(3), expected)

    victim = out / f"{pictures.key(2)}.png"
    content = victim.read_bytes()
    kept = (out / f"{pictures.key(1)}.png").stat().st_mtime_ns
    victim.unlink()
    assert translate_set(file, pictures, out, SIZE_HW, **how) == 1
    assert victim.read_bytes() == content and (out / f"{pictures.key(1)}.png").stat().st_mtime_ns == kept

    with pytest.raises(DataError, match="another translator or size"):
        translate_set(file, pictures, out, **how)  # the translator's own size
    other = write_translator(tmp_path / "other.pth", a_translator(seed=5))
    with pytest.raises(DataError, match="another translator or size"):
        translate_set(other, pictures, out, SIZE_HW, **how)


def test_a_translated_set_has_the_size_asked_for_and_needs_no_labels(tmp_path, folders):
    file = write_translator(tmp_path / "t.pth", a_translator())
    pictures = open_unlabelled(f"folder:{folders / 'target'}")
    translate_set(file, pictures, tmp_path / "small", (16, 24), device="cpu", precision="fp32")
    assert cv2.imread(str(tmp_path / "small" / f"{pictures.key(0)}.png")).shape == (16, 24, 3)
    translate_set(file, pictures, tmp_path / "own", device="cpu", precision="fp32")
    assert cv2.imread(str(tmp_path / "own" / f"{pictures.key(0)}.png")).shape == (*SIZE_HW, 3)
    with pytest.raises(ConfigError, match="30x32") as caught:
        translate_set(file, pictures, tmp_path / "odd", (32, 30), device="cpu")
    assert "32x32" in caught.value.hint


def test_a_picture_never_leaves_its_folder(tmp_path):
    file = write_translator(tmp_path / "t.pth", a_translator())

    class Escaping:
        def __len__(self):
            return 1

        def key(self, index):
            return "../escaped"

    with pytest.raises(DataError, match="no place below"):
        translate_set(file, Escaping(), tmp_path / "out", device="cpu")


# recipes


@pytest.mark.parametrize("name", ["bdl", "bdl-1x1", "bdl-deeplab", "bdl-fcn8s", "bdl-folder"])
def test_every_recipe_of_bdl_loads(name):
    found = load_plan(name)
    assert plan_from_table(found.to_dict()) == found
    adversary = {stage.settings["adversarial"].weight for stage in found.stages if "adversarial" in stage.settings}
    assert adversary == ({1e-4} if name == "bdl-fcn8s" else {1e-3})
    labelled = [stage.settings["offline"] for stage in found.stages if stage.labeler == "offline"]
    assert labelled and {(offline.select, offline.quantile, offline.cap) for offline in labelled} == {
        ("class-balanced", 0.5, 0.9)
    }


def test_bdl_goes_through_the_algorithm_of_the_paper():
    found = load_plan("bdl")
    looks = {s.name: s.settings["translation"].network for s in found.stages if s.kind == "translation"}
    assert looks == {"f-1": "m-0", "f-2": "m-1-2"}
    networks = [stage for stage in found.stages if stage.kind == "segmentation"][1:]
    assert [s.name for s in networks] == ["m-1-0", "m-1-1", "m-1-2", "m-2-0", "m-2-1", "m-2-2"]
    assert [s.settings["translator"].stage for s in networks] == ["f-1"] * 3 + ["f-2"] * 3
    teachers = {s.name: s.settings["offline"].stages for s in networks if s.labeler == "offline"}
    assert teachers == {"m-1-1": ("m-1-0",), "m-1-2": ("m-1-1",), "m-2-1": ("m-2-0",), "m-2-2": ("m-2-1",)}
    assert all("pseudo" in s.objectives for s in networks if s.labeler == "offline")
    assert all(s.start == "scratch" for s in networks)
