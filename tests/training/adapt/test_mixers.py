"""ClassMix and CutMix by hand, and the colours of mixed pictures."""

import copy
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training.settings import make_context, make_stage, to_input

from rtda_training.adapt.context import PseudoLabels
from rtda_training.adapt.mixers.appearance import AppearanceConfig, blurred, changed, recoloured
from rtda_training.adapt.mixers.classmix import ClassMix, ClassMixConfig
from rtda_training.adapt.mixers.cutmix import CutMix, CutMixConfig
from rtda_training.adapt.mixers.in_turn import InTurn, InTurnConfig
from rtda_training.adapt.mixers.rectangle import rectangle
from rtda_training.adapt.slots import components

PLAIN = {"jitter": 0.0, "blur_probability": 0.0}


class Says:
    """A labeler that says what it is told to."""

    def __init__(self, label, weight, soft=None):
        self._labels = PseudoLabels(label, weight, soft)

    def label(self, context):
        return self._labels


@pytest.fixture(scope="module")
def stage():
    return make_stage(5)


def context_of(stage, labels, weight=0.25, step=0, first_place=0, pseudo=7):
    """Source frames 0..99, target frames 100..199, so that each pixel tells where it is from."""
    label = torch.as_tensor(labels, dtype=torch.long)
    shape = label.shape
    generator = torch.Generator().manual_seed(step)
    weights = None if weight is None else torch.full(shape, weight)
    return make_context(
        stage,
        step,
        label=label,
        source_frames=torch.randint(0, 100, (*shape, 3), generator=generator).float(),
        target_frames=torch.randint(100, 200, (*shape, 3), generator=generator).float(),
        labeler=Says(torch.full(shape, pseudo), weights),
        normalise=lambda frames: frames.permute(0, 3, 1, 2),
        first_place=first_place,
        seed=(3, 1),
    )


def classmix(stage, **config):
    return ClassMix(ClassMixConfig(**{**PLAIN, **config}), stage)


def block_labels(rows):
    """(N, 16, 16) labels; each row of ``rows`` gives a picture's classes in vertical bands of equal width."""
    return np.stack([np.repeat(np.array(row), 16 // len(row))[None].repeat(16, axis=0) for row in rows])


def from_source(mixed):
    return (mixed.pictures < 100).all(dim=1)


def test_mixers_are_found_by_their_names_in_recipes():
    assert {"classmix", "cutmix", "in-turn"} <= components("mixer").keys()


def test_half_of_each_pictures_own_classes_is_pasted(stage):
    label = block_labels([[0, 1, 2, 3], [4, 4, 4, 255], [0, 1, 2, 2]])
    pasted_classes = [set(), set(), set()]
    for step in range(12):
        context = context_of(stage, label, step=step)
        mixed = classmix(stage).mix(context)
        mask = from_source(mixed)
        for place, count in enumerate((2, 1, 2)):
            chosen = set(label[place][mask[place].numpy()].tolist())
            assert len(chosen) == count and 255 not in chosen
            # a chosen class is pasted as a whole
            np.testing.assert_array_equal(mask[place].numpy(), np.isin(label[place], list(chosen)))
            pasted_classes[place] |= chosen
        wanted = torch.where(mask[..., None], context.source_frames, context.target_frames)
        assert torch.equal(mixed.pictures.permute(0, 2, 3, 1), wanted)
        assert torch.equal(mixed.label, torch.where(mask, context.label, 7))
        assert torch.equal(mixed.weight, torch.where(mask, 1.0, 0.25))
    assert pasted_classes == [{0, 1, 2, 3}, {4}, {0, 1, 2}]


def test_each_picture_of_a_batch_draws_its_own_classes(stage):
    mask = from_source(classmix(stage).mix(context_of(stage, block_labels([[0, 1, 2, 3]] * 8))))
    assert len({mask[place].numpy().tobytes() for place in range(8)}) > 2


@pytest.mark.parametrize(("present", "pasted"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_an_odd_class_is_pasted_rather_than_left(stage, present, pasted):
    label = np.arange(256).reshape(1, 16, 16) % present
    mixed = classmix(stage).mix(context_of(stage, label))
    assert len(np.unique(label[0][from_source(mixed)[0].numpy()])) == pasted


@pytest.mark.parametrize("make", [classmix, lambda s, **k: InTurn(InTurnConfig(**{**PLAIN, **k}), s)])
def test_rare_classes_are_pasted_more_often_where_asked(stage, monkeypatch, make):
    index = SimpleNamespace(index_of=lambda data: SimpleNamespace(frequencies=[0.7, 0.2, 0.09, 0.01, 0.0]))
    monkeypatch.setitem(sys.modules, "rtda_training.data.index", index)
    label, counts = block_labels([[0, 1, 2, 3]] * 64), np.zeros(4)
    mixed = make(stage, rare=1.0).mix(context_of(stage, label))
    mask = from_source(mixed).numpy()
    for place in range(64):
        chosen = np.unique(label[place][mask[place]])
        assert len(chosen) == 2
        counts[chosen] += 1
    assert counts[3] > 60 and counts[0] < 8 and counts[1] < counts[2], counts
    assert not from_source(make(stage, rare=1.0).mix(context_of(stage, np.full((1, 16, 16), 255)))).any()


def test_a_picture_without_labels_gives_nothing(stage):
    mixed = classmix(stage).mix(context_of(stage, np.full((1, 16, 16), 255)))
    assert not from_source(mixed).any() and (mixed.label == 7).all()


def test_labels_without_weights_mix_without_weights(stage):
    assert classmix(stage).mix(context_of(stage, block_labels([[0, 1]]), weight=None)).weight is None


@pytest.mark.parametrize("make", [classmix, lambda s, **k: CutMix(CutMixConfig(**{**PLAIN, **k}), s)])
def test_probabilities_are_mixed_too_and_a_pasted_pixel_is_certain(stage, make):
    label = block_labels([[0, 1, 2, 255], [4, 3, 3, 1]])
    soft = torch.randn(2, 5, 16, 16, generator=torch.Generator().manual_seed(1)).softmax(1)
    context = context_of(stage, label)
    context.labeler = Says(torch.full(context.label.shape, 7), None, soft)
    mixed = make(stage).mix(context)
    mask = from_source(mixed)
    assert mask.any() and not mask.all()
    for place, top, left in np.ndindex(*mask.shape):
        found, true = mixed.soft[place, :, top, left], int(label[place, top, left])
        wanted = torch.eye(256)[true, :5] if mask[place, top, left] else soft[place, :, top, left]
        assert torch.equal(found, wanted)


def test_inputs_stay_as_they_were(stage):
    context = context_of(stage, block_labels([[0, 1], [2, 3]]))
    before = copy.deepcopy((context.source_frames, context.target_frames, context.label, context.pseudo_labels()))
    classmix(stage, jitter=0.3, jitter_probability=1.0, blur_probability=1.0).mix(context)
    assert torch.equal(context.source_frames, before[0]) and torch.equal(context.target_frames, before[1])
    assert torch.equal(context.label, before[2]) and torch.equal(context.pseudo_labels().weight, before[3].weight)


@pytest.mark.parametrize("make", [classmix, lambda s, **k: CutMix(CutMixConfig(**k), s)])
def test_two_processes_mix_what_one_would(stage, make):
    mixer = make(stage, jitter=0.2, jitter_probability=0.5, blur_probability=0.5, cutout=0.2)
    label = block_labels([[0, 1, 2, 3]] * 4)
    one = context_of(stage, label, step=9)
    together = mixer.mix(one)
    for rank in range(2):
        part = slice(2 * rank, 2 * rank + 2)
        context = context_of(stage, label[part], step=9, first_place=2 * rank)
        context.source_frames, context.target_frames = one.source_frames[part], one.target_frames[part]
        mixed = mixer.mix(context)
        torch.testing.assert_close(mixed.pictures, together.pictures[part], rtol=1e-6, atol=1e-4)
        assert torch.equal(mixed.label, together.label[part]) and torch.equal(mixed.weight, together.weight[part])
    again = mixer.mix(context_of(stage, label, step=9))
    assert torch.equal(again.pictures, together.pictures)
    assert not torch.equal(mixer.mix(context_of(stage, label, step=10)).label, together.label)


def test_a_mix_is_normalised_as_the_network_wants_it(stage):
    context = context_of(stage, block_labels([[0, 1]]))
    context.normalise = to_input
    frames = torch.where(
        (classmix(stage).mix(context).label != 7)[..., None], context.source_frames, context.target_frames
    )
    torch.testing.assert_close(classmix(stage).mix(context).pictures, to_input(frames))


# CutMix


def test_cutmix_pastes_one_rectangle_of_the_area(stage):
    context = context_of(stage, np.zeros((6, 64, 96), dtype=np.int64))
    mixed = CutMix(CutMixConfig(area=0.3, **PLAIN), stage).mix(context)
    mask = from_source(mixed)
    shapes = set()
    for place in range(6):
        rows, columns = mask[place].any(dim=1), mask[place].any(dim=0)
        assert torch.equal(mask[place], rows[:, None] & columns[None, :])
        shapes.add((int(rows.sum()), int(columns.sum())))
        assert mask[place].float().mean() == pytest.approx(0.3, abs=0.02)
    assert len(shapes) > 2
    assert torch.equal(mixed.label, torch.where(mask, 0, 7))


def test_rectangles_stay_inside_whatever_is_drawn():
    rng = np.random.default_rng(0)
    for area in (0.01, 0.5, 1.0):
        for _ in range(200):
            top, bottom, left, right = rectangle(rng, area, 32, 64)
            assert 0 <= top < bottom <= 32 and 0 <= left < right <= 64
    assert rectangle(rng, 1.0, 32, 64) == (0, 32, 0, 64)


def test_in_turn_is_classmix_and_then_cutmix(stage):
    settings = {"area": 0.3, **PLAIN}
    in_turn = InTurn(InTurnConfig(**settings), stage)
    for step, mixer in enumerate((classmix(stage), CutMix(CutMixConfig(**settings), stage)) * 2):
        context = context_of(stage, block_labels([[0, 1, 2, 3]] * 4), step=step)
        assert torch.equal(in_turn.mix(context).pictures, mixer.mix(context).pictures)
        assert torch.equal(in_turn.mix(context).label, mixer.mix(context).label)


def test_cutout_hides_a_rectangle_of_each_mixed_picture_and_keeps_its_labels(stage):
    context = context_of(stage, block_labels([[0, 1, 2, 3]] * 4))
    plain, hidden = classmix(stage).mix(context), classmix(stage, cutout=0.25).mix(context)
    changed_pixels = (plain.pictures != hidden.pictures).any(dim=1)
    masks = [(hidden.pictures[place] == 0).all(dim=0) for place in range(4)]
    for place, mask in enumerate(masks):
        assert torch.equal(mask, mask.any(dim=1)[:, None] & mask.any(dim=0)[None, :])
        assert mask.float().mean() == pytest.approx(0.25, abs=0.06)
        assert not (changed_pixels[place] & ~mask).any()
    assert len({mask.numpy().tobytes() for mask in masks}) > 1
    assert torch.equal(plain.label, hidden.label) and torch.equal(plain.weight, hidden.weight)


# appearance


def pictures(count=2, seed=0):
    return torch.rand(count, 24, 32, 3, generator=torch.Generator().manual_seed(seed)) * 150 + 50


def recolour(frames, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0):
    return recoloured(frames, np.array([[brightness, contrast, saturation, hue]] * len(frames)))


def test_no_change_of_colour_gives_the_picture_back():
    torch.testing.assert_close(recolour(pictures()), pictures(), rtol=1e-6, atol=1e-4)


def test_brightness_scales_pixels_and_clips():
    torch.testing.assert_close(recolour(pictures(), brightness=0.2), pictures() * 1.2, rtol=1e-5, atol=1e-3)
    assert recolour(pictures() + 100, brightness=0.5).max() == 255.0


def test_contrast_scales_about_each_pictures_mean():
    frames = torch.cat([pictures(1), pictures(1) - 40])
    mean = frames.mean(dim=(1, 2, 3), keepdim=True)
    wanted = mean + (frames - mean) * 0.8
    torch.testing.assert_close(recolour(frames, contrast=-0.2), wanted, rtol=1e-5, atol=1e-3)


def test_saturation_moves_colours_towards_grey_and_minus_one_is_grey():
    grey = pictures().mean(dim=3, keepdim=True)
    wanted = grey + (pictures() - grey) * 0.7
    torch.testing.assert_close(recolour(pictures(), saturation=-0.3), wanted, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(recolour(pictures(), saturation=-1.0), grey.expand(-1, -1, -1, 3), rtol=1e-5, atol=1e-3)


def test_a_third_of_a_turn_of_the_hue_exchanges_the_channels():
    turned = recolour(pictures(), hue=1.0 / 3.0)
    torch.testing.assert_close(turned, pictures()[..., [2, 0, 1]], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(recolour(pictures(), hue=1.0), pictures(), rtol=1e-5, atol=1e-3)
    grey = torch.full((1, 4, 4, 3), 90.0)
    torch.testing.assert_close(recolour(grey, hue=0.13), grey)


def test_changes_are_made_one_after_the_other_in_the_order_told():
    at_once = recolour(pictures(), brightness=0.1, contrast=-0.1, saturation=-0.2, hue=0.05)
    frames = recolour(pictures(), hue=0.05)
    frames = recolour(frames, saturation=-0.2)
    frames = recolour(frames, contrast=-0.1)
    torch.testing.assert_close(at_once, recolour(frames, brightness=0.1), rtol=1e-5, atol=1e-2)


def test_blur_is_opencvs_with_each_pictures_own_sigma():
    cv2 = pytest.importorskip("cv2")
    frames, sigmas = pictures(3), np.array([0.15, 0.6, 1.15])
    found = blurred(frames, sigmas)
    for place, sigma in enumerate(sigmas):
        wanted = cv2.GaussianBlur(
            frames[place].numpy(), (9, 9), float(sigma), sigmaY=float(sigma), borderType=cv2.BORDER_REFLECT_101
        )
        np.testing.assert_allclose(found[place].numpy(), wanted, atol=0.02)


def test_probabilities_are_of_pictures_and_others_stay_exactly_as_they_were():
    frames = pictures(1).expand(400, -1, -1, -1).clone()
    generators = [np.random.default_rng(place) for place in range(400)]
    jittered = changed(frames, AppearanceConfig(0.2, 0.8, 0.0), generators)
    moved = (jittered != frames).flatten(1).any(dim=1).float().mean()
    assert moved == pytest.approx(0.8, abs=0.06)  # 3 standard deviations
    generators = [np.random.default_rng(place) for place in range(400)]
    soft = changed(frames, AppearanceConfig(0.2, 0.0, 0.5), generators)
    assert (soft != frames).flatten(1).any(dim=1).float().mean() == pytest.approx(0.5, abs=0.075)


def test_switched_off_nothing_changes_and_generators_move_alike():
    first, second = np.random.default_rng(1), np.random.default_rng(1)
    assert torch.equal(changed(pictures(1), AppearanceConfig(**PLAIN), [first]), pictures(1))
    changed(pictures(1), AppearanceConfig(0.5, 1.0, 1.0), [second])
    assert first.random() == second.random()


def test_defaults_are_those_of_the_published_recipe():
    assert ClassMixConfig() == ClassMixConfig(jitter=0.2, jitter_probability=0.8, blur_probability=0.5)


def draws(count):
    return [np.random.default_rng(place) for place in range(count)]


def test_grey_pictures_have_one_value_a_pixel_and_the_other_draws_stay_as_they_were():
    frames = pictures(60)
    plain = AppearanceConfig(jitter=0.0, blur_probability=0.5)
    some = changed(frames, AppearanceConfig(jitter=0.0, blur_probability=0.0, grey_probability=0.2), draws(60))
    grey = (some[..., :1] == some).all(dim=3).all(dim=2).all(dim=1)
    assert 4 < int(grey.sum()) < 24
    torch.testing.assert_close(some[grey], frames[grey].mean(3, keepdim=True).expand(-1, -1, -1, 3))
    assert torch.equal(some[~grey], frames[~grey])
    both = changed(frames, AppearanceConfig(jitter=0.0, blur_probability=0.5, grey_probability=0.2), draws(60))
    assert torch.equal(both[~grey], changed(frames, plain, draws(60))[~grey])
