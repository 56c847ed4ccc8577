"""Rare class sampling: chances by the formula, pictures that hold the class, draws as a function of the position."""

import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from training.settings import make_stage, with_fields

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.samplers.rare import RareClasses, RareConfig, class_probabilities
from rtda_training.adapt.slots import components
from rtda_training.data.batches import PictureOrder

PIXELS = np.array(  # road, car, rider, train (absent), in 1000 labelled pixels each
    [
        [1000, 0, 0, 0],
        [900, 100, 0, 0],
        [970, 28, 2, 0],
        [960, 0, 40, 0],
        [999, 0, 1, 0],
    ],
    dtype=np.int64,
)
SEED = (7, 0)


@pytest.fixture
def index(monkeypatch):
    stand_in = SimpleNamespace(pixels=PIXELS, frequencies=PIXELS.sum(0) / PIXELS.sum())
    asked = []

    def index_of(data, *, progress=None):
        asked.append(data)
        progress(1, len(PIXELS))
        progress(2, len(PIXELS))
        return stand_in

    monkeypatch.setitem(sys.modules, "rtda_training.data.index", SimpleNamespace(index_of=index_of))
    stand_in.asked = asked
    return stand_in


def order_of(stage=None, **config):
    stage = stage or make_stage(4, pictures=5)
    return RareClasses(RareConfig(**config), stage).order(stage.source, SEED)


def test_the_sampler_is_found_by_its_name_in_recipes():
    assert components("sampler")["rare"] is RareClasses


def test_chances_are_the_softmax_over_the_classes_that_are_there():
    frequencies = np.array([0.9, 0.06, 0.04, 0.0])
    holders = [np.arange(3), np.arange(2), np.arange(1), np.arange(0)]
    found = class_probabilities(frequencies, holders, 0.05)
    weights = np.exp((1 - frequencies[:3]) / 0.05)
    np.testing.assert_allclose(found[:3], weights / weights.sum(), rtol=1e-12)
    assert found[3] == 0.0  # the plain formula would give it most: it is the rarest of all


def test_chances_of_a_low_temperature_do_not_overflow():
    found = class_probabilities(np.array([0.9, 0.1]), [np.arange(1)] * 2, 0.0001)
    np.testing.assert_allclose(found, [0.0, 1.0], atol=1e-300)


def test_ten_thousand_draws_follow_the_formula(index):
    order = order_of(temperature=0.5, min_share=0.0015)
    draws = [order.draw(position) for position in range(10_000)]
    wanted = np.bincount([draw.wanted for draw in draws], minlength=4) / 10_000
    weights = np.exp((1 - index.frequencies[:3]) / 0.5)
    np.testing.assert_allclose(wanted[:3], weights / weights.sum(), atol=0.02)  # 4 standard deviations
    assert wanted[3] == 0.0
    for wanted_class, holders in ((0, {0, 1, 2, 3, 4}), (1, {1, 2}), (2, {2, 3})):
        counts = np.bincount([draw.index for draw in draws if draw.wanted == wanted_class], minlength=5)
        assert set(np.flatnonzero(counts)) == holders
        shares = counts[list(holders)] / counts.sum()
        np.testing.assert_allclose(shares, 1 / len(holders), atol=0.04)


def test_a_low_temperature_draws_the_rarest_class(index):
    order = order_of(temperature=0.01)
    assert np.mean([order.draw(position).wanted == 2 for position in range(1000)]) > 0.85


def test_a_picture_with_exactly_the_least_share_does_not_count(index):
    order = order_of(min_share=0.002)  # picture 2 has 2 of 1000 pixels of the rider
    assert {order.draw(p).index for p in range(2000) if order.draw(p).wanted == 2} == {3}
    order = order_of(min_share=0.0)
    assert {order.draw(p).index for p in range(2000) if order.draw(p).wanted == 2} == {2, 3, 4}


def test_a_class_too_small_everywhere_is_never_drawn(index):
    order = order_of(min_share=0.05, temperature=1.0)
    assert {order.draw(position).wanted for position in range(500)} == {0, 1}


def test_a_share_that_no_picture_reaches_is_an_error(index):
    with pytest.raises(ConfigError, match="no picture of list:source") as caught:
        order_of(min_share=1.0)
    assert "rare.min_share" in caught.value.hint


def test_the_crop_should_hold_half_of_the_share_of_its_own_size(index):
    stage = make_stage(4, pictures=5, size_hw=(512, 1024))
    assert order_of(stage).draw(0).least_pixels == round(0.5 * 0.0015 * 512 * 1024) == 393
    assert order_of(stage, crop_share=0.0).draw(0).least_pixels == 1


def test_draws_are_a_function_of_the_position_in_every_process(index):
    order = order_of(temperature=1.0)
    assert isinstance(order, PictureOrder)
    sent = pickle.loads(pickle.dumps(order))
    positions = [900, 3, 3, 12, 0]
    assert [sent.draw(p) for p in positions] == [order.draw(p) for p in positions]
    assert len({(order.draw(p).index, order.draw(p).wanted) for p in range(50)}) > 3
    other = RareClasses(RareConfig(temperature=1.0), make_stage(4, pictures=5)).order(index.asked[0], (8, 0))
    assert [other.draw(p) for p in range(50)] != [order.draw(p) for p in range(50)]


def test_counting_is_told_once(index):
    lines = []
    order_of(make_stage(4, pictures=5, tell=lines.append))
    assert lines == ["classes  counting those of 5 labels, once"]


def test_defaults_are_daformers():
    assert RareConfig() == RareConfig(temperature=0.01, min_share=0.0015, crop_share=0.5)
    assert round(0.0015 * 1914 * 1052, -3) == 3000


def test_the_real_index_of_a_set_gives_the_same_order_every_time(tmp_path, monkeypatch):
    monkeypatch.setenv("RTDA_CACHE", str(tmp_path))
    stage = make_stage(5, pictures=4)
    lines = []
    sampler = RareClasses(RareConfig(temperature=1.0), with_fields(stage, tell=lines.append))
    first, second = (sampler.order(stage.source, SEED) for _ in range(2))
    draws = [first.draw(position) for position in range(30)]
    assert draws == [second.draw(position) for position in range(30)] and len(lines) == 1
    for draw in draws:
        label = stage.source.label(draw.index)
        assert (label == draw.wanted).sum() > 0.0015 * label.size
