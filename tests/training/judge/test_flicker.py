"""Flicker: a mask that moves with the picture does not, one that does not see the picture does."""

from __future__ import annotations

from typing import Callable, List

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")

from rtda_deploy.errors import DataError  # noqa: E402
from rtda_training.judge.flicker import changes, flicker_of, flow_between  # noqa: E402

NAMES = ("road", "sky", "car")
H, W, STEP = 96, 160, 4


def scene(width: int = W + 80) -> np.ndarray:
    """A picture with texture everywhere, uint8 (H, width, 3)."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (H // 4, width // 4, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, H), interpolation=cv2.INTER_CUBIC))


def drive(count: int = 7) -> List[np.ndarray]:
    """A camera that moves to the right by STEP pixels a frame."""
    return [np.ascontiguousarray(scene()[:, STEP * place : STEP * place + W]) for place in range(count)]


def stripes(shift: int) -> np.ndarray:
    """A mask of 16-pixel stripes of all classes, moved by some pixels."""
    columns = (np.arange(W) + shift) // 16 % len(NAMES)
    return np.ascontiguousarray(np.broadcast_to(columns, (H, W)).astype(np.uint8))


def in_turn(masks: List[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    left = iter(masks)
    return lambda frame: next(left)


def test_a_mask_that_moves_with_the_picture_does_not_flicker_and_one_that_stays_does() -> None:
    count, rng = 7, np.random.default_rng(1)
    moving = [stripes(STEP * place) for place in range(count)]
    noise = [rng.integers(0, 3, (H, W)).astype(np.uint8) for _ in range(count)]
    staying, constant = [stripes(0)] * count, [np.ones((H, W), np.uint8)] * count
    masks = [in_turn(each) for each in (moving, staying, noise, constant)]
    with_picture, stuck, random, one = flicker_of(masks, [NAMES] * 4, drive(count))
    assert with_picture.pairs == 6 and with_picture.left_out == 0
    assert with_picture.share < 0.02, "what the flow is off by at the borders of stripes"
    assert stuck.share == pytest.approx(STEP / 16, abs=0.03), "a quarter of each stripe belongs to another by now"
    assert random.share == pytest.approx(2 / 3, abs=0.02)
    assert one.share == 0.0 and one.by_class == {"road": None, "sky": 0.0, "car": None}
    values = stuck.to_dict()
    assert values["percent"] == pytest.approx(100 * stuck.share, abs=0.001) and set(values["by_class"]) == set(NAMES)
    assert one.to_dict()["by_class"]["car"] is None


def test_each_class_has_its_own_share() -> None:
    frame = drive(1)[0]
    before, after = np.zeros((H, W), np.uint8), np.zeros((H, W), np.uint8)
    before[:, 80:], after[:, 80:] = 2, 1  # the right half changes all of a sudden
    followed, changed = changes(before, after, flow_between(frame, frame), 3)
    assert followed[0] > 6000 and followed[2] > 6000 and followed[1] == 0
    assert changed.tolist() == [0, 0, followed[2]]
    before[:] = 255
    assert changes(before, after, flow_between(frame, frame), 3)[0].sum() == 0, "no class is followed nowhere"


def test_what_was_hidden_is_left_out() -> None:
    coarse = np.random.default_rng(5).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    thing = cv2.resize(coarse, (48, 48), interpolation=cv2.INTER_CUBIC)
    before, after = scene(W), scene(W)
    before[20:68, 30:78] = after[20:68, 38:86] = thing  # it moves by 8 pixels
    known = flow_between(before, after).known
    assert known[24:64, 31:37].mean() < 0.3, "the ground that it uncovered"
    assert known[24:64, 48:78].mean() > 0.9 and known[75:].mean() > 0.9, "the thing, and the ground elsewhere"


@pytest.mark.parametrize("broken", ["cuts", "sizes", "few"])
def test_frames_that_do_not_follow_one_another_are_refused(broken: str) -> None:
    rng = np.random.default_rng(2)
    frames = drive(7)
    if broken == "cuts":
        frames = [rng.integers(0, 256, (H, W, 3), dtype=np.uint8) for _ in range(7)]
    elif broken == "sizes":
        frames = [frame[: H - 2 * (place % 2)] for place, frame in enumerate(frames)]
    else:
        frames = frames[:5]
    with pytest.raises(DataError, match="too few to tell how much masks flicker") as caught:
        flicker_of([lambda frame: np.zeros(frame.shape[:2], np.uint8)], [NAMES], frames)
    assert "consecutive" in caught.value.hint and caught.value.message.startswith("4" if broken == "few" else "0")
