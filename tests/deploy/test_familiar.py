"""The calibration card's blocks: written, read, and told from broken ones."""

from __future__ import annotations

import base64
import json
import zlib

import numpy as np
import pytest

from rtda_deploy.card import card_from_json
from rtda_deploy.errors import DataError
from rtda_deploy.familiar import MOST_BLOCKS, Familiar, familiar_from_json, with_familiar
from rtda_training.judge.blocks import familiar_of

_WIDTHS = (1, 1, 3, 1)


def _familiar(frames: int = 90) -> Familiar:
    values = np.random.default_rng(0).normal(size=(frames, 6))
    found = familiar_of([values], _WIDTHS, data="bag:drive.bag", robot=True)
    assert found is not None
    return found


def test_a_card_without_labels_holds_blocks_alone_and_is_no_card_of_labels() -> None:
    text = with_familiar("", _familiar())
    assert familiar_from_json(text) == _familiar_rounded(_familiar())
    assert card_from_json(text) is None


def _familiar_rounded(found: Familiar) -> Familiar:
    again = familiar_from_json(with_familiar("", found))
    assert again is not None and again.packed == found.packed and again.stretches == found.stretches
    assert again.low == pytest.approx(found.low, rel=1e-5)
    return again


def test_a_card_of_labels_keeps_them_beside_the_blocks(card_text: str) -> None:
    both = with_familiar(card_text, _familiar())
    assert card_from_json(both) == card_from_json(card_text) is not None
    assert familiar_from_json(both) is not None and familiar_from_json(card_text) is None


@pytest.fixture
def card_text() -> str:
    from rtda_deploy.card import BINS, Card

    even = (1.0 / BINS,) * BINS
    return Card("toytown:train", 4, True, 1.2, (0.5, 0.5), (0.4, 0.6), even, (0.5,) * BINS).to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"packed": "no base64!"},
        {"packed": "AAAA"},
        {"stretches": [7]},
        {"stretches": [-1, 31]},
        {"widths": [2, 3]},
        {"low": [0.0]},
        {"high": ["a"] * 6},
        {"high": [float("nan")] * 6},
        {"sample_s": 0},
        {"samples": 0},
        {"data": None, "widths": None},
        {"sample_s": float("inf")},
        {"sample_s": 1e308},
        {"sample_s": 10**400},
        {"samples": float("inf")},
        {"samples": 10**400},
        {"stretches": [10**30]},
        {"widths": [float("inf")] * 4},
        {"low": [1e308] * 6, "high": [-1e308] * 6},
        {"low": [-1e308] * 6, "high": [1e308] * 6},
        {"packed": base64.b64encode(zlib.compress(bytes(10**7))).decode()},
    ],
)
def test_broken_blocks_are_none(change: dict[str, object]) -> None:
    values = json.loads(with_familiar("", _familiar()))
    values["familiar"].update(change)
    assert familiar_from_json(json.dumps(values)) is None


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"familiar": 3}', "no json", '{"familiar": {}}', "[" * 100_000]
)
def test_a_text_without_blocks_has_none(text: str) -> None:
    assert familiar_from_json(text) is None and card_from_json(text) is None


def test_long_footage_is_kept_in_runs_spread_over_it() -> None:
    found = _familiar(9000)
    assert found.blocks <= MOST_BLOCKS and set(found.stretches[:-1]) == {30} and len(found.stretches) == 20


def test_short_footage_makes_no_blocks_and_broken_numbers_are_refused() -> None:
    assert familiar_of([np.zeros((29, 6))], _WIDTHS, data="x", robot=True) is None
    broken = np.zeros((90, 6))
    broken[3, 3] = np.inf
    with pytest.raises(DataError, match="NaN or infinite"):
        familiar_of([broken], _WIDTHS, data="x", robot=True)
