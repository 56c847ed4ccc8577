"""Which frames are candidates, which are kept, and which give way."""

from __future__ import annotations

import random
from typing import Any, Dict, List, Optional

import numpy as np
import pytest
from runtime.shift.collecting.frames import mask, picture, result_of

from rtda_deploy.errors import ConfigError
from rtda_deploy.pictures.dhash import dhash, hamming
from rtda_runtime.shift.collecting.blur import blur_classes
from rtda_runtime.shift.collecting.doubt import Doubter
from rtda_runtime.shift.collecting.limits import CollectOptions, parse_bytes
from rtda_runtime.shift.collecting.look import Novelty, distance, look_at
from rtda_runtime.shift.collecting.replacement import Kept, KeptFrames
from rtda_runtime.shift.collecting.window import Candidate, Window

# Limits as they are typed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5GB", 5 * 10**9),
        ("500 mb", 5 * 10**8),
        ("1.5TB", 15 * 10**11),
        ("2GiB", 2 << 30),
        ("77B", 77),
        (".5kB", 500),
        ("0", 0),
    ],
)
def test_sizes_of_a_disk_are_read(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


def test_limits_are_read_by_their_keys() -> None:
    typed = {"minute": "12", "gap": "500ms", "disk": "1GB", "free": "0", "class": "9", "control": "2%", "flip": "off"}
    found = CollectOptions.typed(typed, when="novelty > 0.1")
    assert found == CollectOptions(12.0, 0.5, 10**9, 0, 9, 0.02, False, "novelty > 0.1")
    assert found.window_s == 5.0 and CollectOptions(per_minute=120, gap_s=3).window_s == 3.0


@pytest.mark.parametrize(
    ("typed", "said", "hint"),
    [
        ({"hour": "5"}, "knows no limit 'hour'", "minute=, gap=, disk="),
        ({"disk": "five"}, "disk=five is no size", "5GB"),
        ({"disk": "-5GB"}, "is no size", ""),
        ({"disk": "5XB"}, "is no size", ""),
        ({"disk": "0"}, "disk=0 has room for no frame", "5GB"),
        ({"disk": "20"}, "disk=20 has no unit", "disk=20GB, or MB"),
        ({"free": "2"}, "free=2 has no unit", "free=2GB"),
        ({"disk": "20kB"}, "disk=20kB has room for no frame", "5GB"),
        ({"disk": "9" * 400}, "is no size", ""),
        ({"minute": "0"}, "per_minute must be positive", ""),
        ({"minute": "inf"}, "inf is no number", ""),
        ({"minute": "-1"}, "is no number", ""),
        ({"class": "1.5"}, "is no number of frames", ""),
        ({"class": "0"}, "per_class must be positive", ""),
        ({"control": "500%"}, "control is 5", "5%"),
        ({"control": "often"}, "often is no share", ""),
        ({"gap": "soon"}, "soon is no time", ""),
        ({"flip": "maybe"}, "neither on nor off", ""),
    ],
)
def test_limits_that_make_no_sense_are_refused(typed: Dict[str, str], said: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        CollectOptions.typed(typed)
    assert said in caught.value.message and hint in caught.value.hint and caught.value.hint


# What a frame looks like


def test_a_frame_is_near_itself_and_far_from_another() -> None:
    first, again, other = (look_at(result_of(seed, 0.0)) for seed in (1, 1, 2))
    assert distance(first.vector, again.vector) == 0.0 and hamming(first.dhash, again.dhash) == 0
    assert distance(first.vector, other.vector) > 0.2 and hamming(first.dhash, other.dhash) > 10
    black = look_at(result_of(1, 0.0, frame=np.zeros((64, 96, 3), np.uint8), mask=np.zeros((64, 96), np.uint8)))
    white = look_at(result_of(1, 0.0, frame=np.full((64, 96, 3), 255, np.uint8), mask=np.ones((64, 96), np.uint8)))
    assert distance(black.vector, white.vector) == pytest.approx(5**0.5)
    assert (black.values["brightness"], white.values["brightness"]) == (0.0, 1.0)


def test_each_bit_of_the_hash_is_a_cell_that_is_brighter_than_the_one_to_its_left() -> None:
    cells = np.zeros((8, 9), np.uint8)
    assert dhash(cells) == 0
    cells[0, 1:] = 7
    assert dhash(cells) == 1 << 63, "the first bit is the first cell's"
    cells[7, 8] = 1
    assert dhash(cells) == 1 << 63 | 1 and hamming(dhash(cells), 1) == 1


def test_a_look_has_the_values_that_the_result_can_give() -> None:
    plain = look_at(result_of(1, 0.0))
    assert set(plain.values) == {"brightness", "unlabelled"} and plain.shares.sum() == pytest.approx(1.0)
    half = mask(1)
    half[:, :48] = 255
    second = np.where(half == 255, 0, (half + 1) % 5).astype(np.uint8)
    second[:32] = half[:32]
    full = look_at(result_of(1, 0.0, mask=half, compared=second, sure=0.4))
    assert full.values["unlabelled"] == 0.5 and full.values["disagreement"] == 0.5
    assert full.values["confidence"] == pytest.approx(0.4, abs=0.002)
    nothing = look_at(result_of(1, 0.0, mask=np.full((64, 96), 255, np.uint8), compared=half, sure=0.4))
    assert (nothing.values["disagreement"], nothing.values["confidence"]) == (0.0, 1.0)


def test_what_was_not_seen_before_is_novel_and_what_comes_often_is_not() -> None:
    rng = np.random.default_rng(0)
    usual, novelty = rng.random(50), Novelty()
    seen = [novelty.of(usual + rng.normal(0, 0.03, 50)) for _ in range(200)]
    other = novelty.of(usual + 0.5)
    assert seen[0] == 0.5 and other > 0.8 > 0.6 > max(seen[20:])
    for _ in range(3000):
        last = novelty.of(usual + 0.5 + rng.normal(0, 0.03, 50))
    assert last < 0.6, "a world that stays becomes the usual one"


def test_what_varied_once_and_does_not_any_more_is_told_sooner() -> None:
    """The variance, too, is that of about the last thousand frames."""
    rng = np.random.default_rng(0)
    usual, restless = rng.random(50), Novelty()
    for _ in range(1000):
        restless.of(usual + rng.normal(0, 0.3, 50))
    assert restless.of(usual + 0.15) < 0.4 < 0.8 < _calm(usual).of(usual + 0.15)
    for _ in range(4000):
        restless.of(usual + rng.normal(0, 0.02, 50))
    assert restless.of(usual + 0.15) == pytest.approx(_calm(usual).of(usual + 0.15), abs=0.1)


def _calm(usual: np.ndarray) -> Novelty:
    rng, novelty = np.random.default_rng(1), Novelty()
    for _ in range(200):
        novelty.of(usual + rng.normal(0, 0.02, 50))
    return novelty


# Doubt


class _Mirror:
    """An engine that sees road on the left and sky on the right, whatever it is shown; counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.closed = False

    def segment(self, frame: np.ndarray) -> Any:
        self.asked += 1
        seen = np.zeros((64, 96), np.uint8)
        seen[:, 48:] = 2
        return result_of(0, 0.0, mask=seen, sure=0.75)

    def close(self) -> None:
        self.closed = True


def test_doubt_is_confidence_the_mirror_image_and_the_second_network() -> None:
    engine: Any = _Mirror()
    doubter = Doubter(lambda: engine, flip=True)
    left_right = engine.segment(picture(0)).mask
    road = np.zeros((64, 96), np.uint8)
    doubt = doubter(result_of(0, 0.0, mask=left_right, compared=road))
    assert doubt.scores["unsure"] == pytest.approx(0.25, abs=0.002)
    assert (doubt.scores["flip"], doubt.scores["compare"], doubt.disagreement) == (1.0, 0.5, 1.0)
    assert doubt.confidence is not None and engine.asked == 3
    doubter(result_of(0, 0.0, mask=left_right, sure=0.5))
    assert engine.asked == 4, "a result with a confidence needs the mirror image alone"
    doubter.close()
    assert engine.closed


def test_without_a_second_engine_results_are_judged_by_what_they_hold() -> None:
    off: Any = _Mirror()
    for doubter in (Doubter(None, flip=True), Doubter(lambda: off, flip=False)):
        assert doubter(result_of(0, 0.0)).disagreement == 1.0
        assert doubter(result_of(0, 0.0)).confidence is None
        assert doubter(result_of(0, 0.0, sure=0.5)).disagreement == pytest.approx(0.5, abs=0.002)
        doubter.close()
    assert off.asked == 0


def test_the_subject_is_the_class_with_most_of_the_doubt() -> None:
    seen = np.zeros((64, 96), np.uint8)
    seen[:16], seen[16:20] = 2, 3
    confidence = np.full((64, 96), 255, np.uint8)
    confidence[16:20] = 0
    doubter = Doubter(None, flip=False)
    assert doubter(result_of(0, 0.0, mask=seen, confidence=confidence)).subject(seen, 5) == 3
    assert doubter(result_of(0, 0.0, mask=seen)).subject(seen, 5) == 3, "the smallest, where nothing is doubted"
    nothing = np.full((64, 96), 255, np.uint8)
    assert doubter(result_of(0, 0.0, mask=nothing)).subject(nothing, 5) is None


# Windows


def _offered(window: Window, seed: int, at_s: float, value: float, asked: bool = False) -> List[Candidate]:
    """Goes through a window as a collector does; gives what ended with this frame."""
    ended = window.ended(at_s)
    look = look_at(result_of(seed, at_s))
    if window.wants(look, value, at_s, asked=asked):
        why = "asked" if asked else "hard"
        window.offer(Candidate(result_of(seed, at_s), look, value, value, why, at_s))
    return ended


def _window(**changes: Any) -> Window:
    options = {"per_minute": 6.0, "gap_s": 2.0, "control": 0.0, **changes}
    return Window(CollectOptions(**options), random.Random(1))


def seeds(candidates: List[Candidate]) -> List[int]:
    return [candidate.result.sequence for candidate in candidates]


def test_each_window_gives_the_most_valuable_frames_first() -> None:
    window = _window()
    values = (0.1, 0.5, 0.9, 0.3, 0.7)
    assert [_offered(window, seed, seed * 2.0, value) for seed, value in enumerate(values)] == [[]] * 5
    assert seeds(_offered(window, 5, 9.9, 0.0)) == []
    assert seeds(_offered(window, 6, 10.0, 0.2)) == [2, 4, 1]
    assert seeds(window.rest()) == [6] and window.rest() == []


def test_a_frame_that_looks_like_one_held_takes_its_place_only_if_it_is_better() -> None:
    window = _window()
    for value in (0.3, 0.2, 0.6, 0.5):
        _offered(window, 1, 0.0, value)
    held = window.rest()
    assert [candidate.value for candidate in held] == [0.6]


def test_a_frame_that_looks_like_one_kept_or_comes_too_soon_is_no_candidate() -> None:
    window = _window()
    _offered(window, 1, 0.0, 0.5)
    window.kept(window.rest()[0])
    _offered(window, 2, 1.9, 0.9)
    assert window.rest() == [], "too soon"
    _offered(window, 1, 2.1, 0.9)
    assert window.rest() == [], "seen before"
    _offered(window, 2, 2.1, 0.1)
    assert seeds(window.rest()) == [2]
    window.remember(look_at(result_of(3, 0.0)).dhash)
    _offered(window, 3, 3.0, 0.9)
    assert window.rest() == [], "kept by an earlier run"


def test_what_was_asked_for_goes_first_and_may_look_like_what_is_kept() -> None:
    window = _window()
    _offered(window, 9, 0.0, 0.9)
    window.kept(window.rest()[0])
    _offered(window, 1, 3.0, 0.9)
    _offered(window, 9, 3.1, 0.0, asked=True)
    _offered(window, 3, 3.2, 0.1, asked=True)
    _offered(window, 3, 3.3, 0.9)
    assert seeds(window.rest()) == [3, 9, 1]
    _offered(window, 9, 4.0, 0.0, asked=True)
    assert seeds(_offered(window, 2, 10.0, 0.9)) == [9]
    for seed in range(3, 8):
        _offered(window, seed, 10.1, 0.9)
    _offered(window, 9, 10.2, 0.0, asked=True)
    assert seeds(window.rest())[0] == 9, "also where three others are held"


def test_windows_by_chance_give_every_frame_the_same_probability_whatever_it_is_worth() -> None:
    window = _window(control=1.0, gap_s=0.0)
    drawn = []
    for number in range(401):
        for place in range(5):
            ended = _offered(window, place, number * 10.0 + place, 0.5 * (place == 0), asked=place == 1)
            drawn += [(candidate.result.sequence, candidate.why) for candidate in ended]
    counts = [sum(seed == place for seed, _ in drawn) for place in range(5)]
    assert {why for _, why in drawn} == {"control"} and sum(counts) == 400
    assert min(counts) > 50 and max(counts) < 110, "80 each; 3.7 standard deviations"


def test_some_windows_are_by_chance() -> None:
    window = _window(control=0.25)
    drawn: List[Candidate] = []
    for number in range(401):
        drawn += _offered(window, number, number * 10.0, 0.5)
    share = sum(candidate.why == "control" for candidate in drawn) / len(drawn)
    assert 0.17 < share < 0.33


def test_a_recording_that_begins_again_begins_a_window() -> None:
    window = _window()
    _offered(window, 1, 100.0, 0.5)
    window.kept(window.rest()[0])
    _offered(window, 2, 101.9, 0.9)
    assert window.rest() == []
    _offered(window, 2, 0.0, 0.9)
    assert seeds(window.rest()) == [2]


# What gives way


def _frame(name: str, score: float, place: float, **changes: Any) -> Kept:
    values: Dict[str, Any] = {"why": "hard", "subject": None, "size": 10, **changes}
    return Kept(name, score, vector=np.array([place, 0.0], np.float32), **values)


def _names(frames: Optional[List[Kept]]) -> Optional[List[str]]:
    return None if frames is None else [frame.id for frame in frames]


def test_the_least_valuable_gives_way_to_what_is_worth_more() -> None:
    frames = [_frame("a", 0.9, 0.0), _frame("b", 0.2, 1.0), _frame("c", 0.5, 3.0)]
    kept = KeptFrames(frames, control=0.0, per_class=99)
    assert [kept.value(frame) for frame in frames] == pytest.approx([0.9, 0.2, 0.5])
    new = _frame("new", 0.4, 5.0)
    assert _names(kept.giving_way(new, 40)) == []
    assert _names(kept.giving_way(new, 39)) == ["b"]
    assert kept.giving_way(_frame("new", 0.1, 5.0), 39) is None
    assert kept.giving_way(_frame("new", 0.9, 5.0), 9) is None
    assert _names(kept.giving_way(_frame("new", 0.9, 5.0, size=25), 39)) == ["b", "c"]


def test_a_frame_is_worth_little_where_another_looks_like_it() -> None:
    frames = [_frame("a", 0.9, 0.0), _frame("b", 0.8, 0.01), _frame("c", 0.1, 3.0)]
    kept = KeptFrames(frames, control=0.0, per_class=99)
    assert _names(kept.giving_way(_frame("new", 0.5, 8.0), 30)) == ["b"]
    assert kept.giving_way(_frame("new", 1.0, 3.001), 30) is None, "it looks like c"
    kept.remove([frames[0]])
    assert kept.value(frames[1]) == pytest.approx(0.8), "nothing is near b any more"
    kept.add(_frame("d", 0.5, 2.9))
    assert kept.value(frames[2]) == pytest.approx(0.01, rel=1e-4)


def test_distances_are_those_that_a_comparison_of_all_gives() -> None:
    rng = np.random.default_rng(3)
    points = [Kept(f"{n}", 1.0, "hard", None, 1, (rng.random(4) / 4).astype(np.float32)) for n in range(600)]
    kept = KeptFrames(points[:300], control=0.0, per_class=9)
    for frame in points[300:]:
        kept.add(frame)
    for frame in points[::3]:
        kept.remove([frame])
    left = [frame for number, frame in enumerate(points) if number % 3]
    for frame in left[::40]:
        apart = min(float(np.linalg.norm(frame.vector - other.vector)) for other in left if other is not frame)
        assert kept.value(frame) == pytest.approx(apart, abs=1e-5)


def test_a_class_has_a_budget_of_its_own() -> None:
    frames = [_frame(f"car{n}", 0.1 * n, n, subject="car") for n in range(1, 4)] + [
        _frame("sky", 0.01, 9, subject="sky")
    ]
    kept = KeptFrames(frames, control=0.0, per_class=3)
    assert _names(kept.giving_way(_frame("new", 0.9, 20, subject="car"), 10**6)) == ["car1"]
    assert kept.giving_way(_frame("new", 0.05, 20, subject="car"), 10**6) is None
    assert _names(kept.giving_way(_frame("new", 0.05, 20, subject="sky"), 10**6)) == []
    assert _names(kept.giving_way(_frame("new", 0.05, 20, subject="car", why="control"), 10**6)) == []


def test_what_was_asked_for_gives_way_to_nothing_else() -> None:
    frames = [_frame("a", 0.1, 0.0, why="asked"), _frame("b", 0.9, 3.0), _frame("c", 0.8, 6.0, subject="car")]
    kept = KeptFrames(frames, control=0.0, per_class=1)
    assert _names(kept.giving_way(_frame("new", 0.05, 9.0, why="asked"), 30)) == ["c"]
    assert _names(kept.giving_way(_frame("new", 0.95, 9.0), 30)) == ["c"]
    assert _names(kept.giving_way(_frame("new", 0.0, 9.0, why="asked", subject="car"), 99)) == ["c"]
    asked = KeptFrames(
        [_frame("a", 0.1, 0.0, why="asked"), _frame("d", 0.2, 3.0, why="asked")], control=0.0, per_class=9
    )
    assert asked.giving_way(_frame("new", 1.0, 9.0), 20) is None
    assert asked.giving_way(_frame("new", 0.05, 9.0, why="asked"), 20) is None
    assert _names(asked.giving_way(_frame("new", 0.15, 9.0, why="asked"), 20)) == ["a"]


def test_frames_by_chance_keep_their_share_and_no_more() -> None:
    frames = [_frame(f"h{n}", 0.9, n) for n in range(8)] + [
        _frame(f"r{n}", 0.0, 20 + n, why="control") for n in range(2)
    ]
    kept = KeptFrames(frames, control=0.2, per_class=99)
    assert _names(kept.giving_way(_frame("h9", 0.95, 50), 100)) == ["h0"], "2 of 11 are no more than a fifth"
    assert _names(kept.giving_way(_frame("r9", 0.0, 50, why="control"), 100)) == ["r0"], "3 of 11 are"
    few = KeptFrames(frames, control=0.1, per_class=99)
    assert _names(few.giving_way(_frame("h9", 0.01, 50), 100)) == ["r0"]


def test_a_folder_that_is_far_beyond_its_limit_is_looked_over_once_for_each_new_frame() -> None:
    """As after disk= was made a tenth: nothing is compared again for each frame that would have to go."""

    class Counted(KeptFrames):
        asked = 0

        def worth(self, frame: Kept) -> Any:
            self.asked += 1
            return super().worth(frame)

    kept = Counted([_frame(f"{n:03d}", n / 1000, n) for n in range(500)], control=0.1, per_class=9)
    assert kept.giving_way(_frame("new", 0.1, 900), 1000) is None
    chance = kept.giving_way(_frame("chance", 0.0, 900, why="control"), 1000)
    assert _names(chance) == [f"{n:03d}" for n in range(401)]
    assert kept.asked < 5 * 500
    kept.remove(chance or [])
    assert len(kept) == 99 and kept.value(_frame("new", 0.5, 900)) == 0.5


# Blur


def test_classes_are_unrecognisable_and_the_rest_is_as_it_was() -> None:
    shown = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    before, person = shown.copy(), np.zeros((240, 320), np.uint8)
    person[100:140, 100:140] = 3
    hidden = blur_classes(shown, [person], [3])
    np.testing.assert_array_equal(shown, before)
    changed = (hidden != shown).any(axis=2)
    assert changed[100:140, 100:140].mean() > 0.99 and changed[97:143, 97:143].mean() > 0.95, "with a margin"
    assert not changed[:90].any() and not changed[:, :90].any() and not changed[150:].any()
    cells = hidden[105:135, 105:135]
    assert len(np.unique(cells.reshape(-1, 3), axis=0)) <= 64, "cells of one colour each"
    np.testing.assert_array_equal(blur_classes(shown, [person], [4]), shown)


def test_what_either_network_calls_a_person_is_hidden() -> None:
    shown = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    first, second = np.zeros((64, 96), np.uint8), np.zeros((64, 96), np.uint8)
    first[:20], second[-20:] = 3, 3
    changed = (blur_classes(shown, [first, second], [3]) != shown).any(axis=2)
    assert changed[:20].mean() > 0.9 and changed[-20:].mean() > 0.9 and not changed[25:40].any()
