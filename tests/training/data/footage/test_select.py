"""What is chosen of a made drive: what can be seen, is sharp, is new and differs."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Dict, Iterator, List, Sequence, Tuple

import numpy as np
import pytest
from training.data.footage.made_drive import (
    LAP_FRAMES,
    SIZE_HW,
    again,
    defocused,
    lap,
    lit,
    made_drive,
    noisy,
    standing,
    turned,
    write_video,
)

from rtda_deploy.errors import ConfigError, FrameError
from rtda_runtime.sources.footage.kinds import open_footage
from rtda_training.data.footage.select import Chosen, SelectOptions, Selector, parse_count

cv2 = pytest.importorskip("cv2")

EVERYTHING = SelectOptions(count=0)
Parts = Dict[str, List[np.ndarray]]


def choose(frames: Sequence[np.ndarray], options: SelectOptions = EVERYTHING) -> Chosen:
    selector = Selector(options)
    for frame in frames:
        selector.look(frame)
    return selector.choose()


@pytest.fixture(scope="module")
def drive() -> Parts:
    return made_drive()


def together(parts: Parts) -> List[np.ndarray]:
    return list(itertools.chain.from_iterable(parts.values()))


def by_part(parts: Parts, chosen: Chosen) -> Dict[str, Counter[str]]:
    reasons: Iterator[str] = iter(chosen.reasons)
    return {name: Counter(itertools.islice(reasons, len(frames))) for name, frames in parts.items()}


def check_drive(parts: Parts, chosen: Chosen) -> None:
    found = by_part(parts, chosen)
    assert found["tunnel"] == {"dark": 20}
    assert found["too bright"] == {"bright": 20}
    assert found["turn"] == {"blurred": 20}
    assert found["defocus"] == {"blurred": 20}
    assert found["standing"] == {"": 1, "near-duplicate": 59}
    assert found["passer-by"] == {"": 1, "near-duplicate": 59}
    assert found["first lap"][""] > 30 and found["second lap"][""] > 30
    for part in ("first lap", "second lap", "night", "bare"):
        assert set(found[part]) <= {"", "near-duplicate"} and found[part][""] > 2
    assert chosen.places == tuple(place for place, reason in enumerate(chosen.reasons) if not reason)
    assert chosen.counts == {reason: chosen.reasons.count(reason) for reason in chosen.counts}
    assert sum(chosen.counts.values()) + len(chosen.places) == len(chosen.reasons)


def test_of_each_part_of_a_drive_is_dropped_what_spoils_it_and_nothing_else(drive: Parts) -> None:
    check_drive(drive, choose(together(drive)))


def test_a_video_of_the_drive_gives_the_same_as_its_frames(drive: Parts, tmp_path: Path) -> None:
    pytest.importorskip("av")
    (recording,) = open_footage(write_video(tmp_path / "drive.mp4", together(drive)))
    frames = [frame.image for frame in recording.frames(range(recording.num_frames))]
    check_drive(drive, choose(frames))


def test_of_a_lap_driven_twice_one_lap_remains_when_so_many_are_asked_for() -> None:
    twice = [*lap(), *again(lap())]
    chosen = choose(twice, SelectOptions(count=LAP_FRAMES // 2))
    assert len(chosen.places) == LAP_FRAMES // 2
    where = np.array(chosen.places) % LAP_FRAMES
    gaps = np.abs(np.arange(LAP_FRAMES)[:, None] - where).min(axis=1)
    assert gaps.max() <= 3  # 1.3 m: every place of the lap is near one that was chosen,
    assert len(np.unique(where)) >= 0.8 * len(where)  # and hardly one was chosen in both laps


def test_the_same_frames_give_the_same_choice_whatever_the_number_of_threads(drive: Parts) -> None:
    frames = together(drive)
    threads = cv2.getNumThreads()
    try:
        found = []
        for count in (1, 4):
            cv2.setNumThreads(count)
            found.append(choose(frames, SelectOptions(count=30)))
    finally:
        cv2.setNumThreads(threads)
    assert found[0] == found[1]
    assert len(found[0].places) == 30


@pytest.mark.parametrize("blurred_first", [False, True])
def test_blur_that_lasts_longer_than_the_running_median_is_still_blur(blurred_first: bool) -> None:
    sharp = list(lap())
    blurred = [*turned(sharp, 21), *defocused(sharp, 2.0)]
    frames = [*blurred, *sharp] if blurred_first else [*sharp, *blurred]
    reasons = choose(frames, SelectOptions(count=0, blur_window=31)).reasons
    ends = len(blurred) if blurred_first else len(sharp)
    parts = (reasons[:ends], reasons[ends:])
    own, other = parts if blurred_first else parts[::-1]
    assert "blurred" not in other and set(own) == ({"blurred", "near-duplicate"} if blurred_first else {"blurred"})


def test_a_night_that_lasts_is_kept() -> None:
    chosen = choose([*lap(), *lit(lap() * 2, 0.2)])
    assert set(chosen.reasons) <= {"", "near-duplicate"}
    assert chosen.reasons[LAP_FRAMES:].count("") > LAP_FRAMES // 2


def test_a_sharper_frame_takes_the_place_of_the_same_one_less_sharp() -> None:
    soft = defocused([lap()[0]], 0.8)
    chosen = choose([*soft, lap()[0], noisy(lap()[0], 1, 2.0), *soft])
    assert chosen.reasons == ("near-duplicate", "", "near-duplicate", "near-duplicate")


def test_what_was_in_the_way_is_gone_and_the_view_behind_it_is_not_new() -> None:
    before, truck = noisy(lap()[0], 0, 2.0), noisy(lap()[0], 1, 2.0)
    truck[40:170, 30:290] = (60, 160, 220)
    assert choose([before, truck, noisy(lap()[0], 2, 2.0)]).reasons == ("", "", "near-duplicate")


def test_a_view_that_was_seen_some_frames_ago_is_not_new() -> None:
    between = [noisy(frame, number, 2.0) for number, frame in enumerate(lap()[5:30:2])]
    chosen = choose([lap()[0], *between, noisy(lap()[0], 99, 2.0)])
    assert chosen.reasons[1:-1].count("") > SelectOptions().window
    assert chosen.reasons[-1] == "near-duplicate"


def test_another_recording_is_not_compared_with_the_one_before() -> None:
    frames = [noisy(frame, number, 2.0) for number, frame in enumerate(lap()[::5])]
    soft = defocused(frames, 2.0)
    selector = Selector(EVERYTHING)
    for part in (frames, frames, soft * 4):  # the last camera sees no better than this
        selector.begin()
        reasons = [selector.look(frame) for frame in part]
        assert reasons[: len(frames)].count(None) >= len(frames) - 1
    assert selector.choose().counts["blurred"] == 0


@pytest.mark.parametrize(("reason", "light"), [("dark", 0.03), ("near-duplicate", 1.0)])
def test_it_is_said_where_one_reason_takes_nearly_everything(drive: Parts, reason: str, light: float) -> None:
    frames = lit([drive["standing"][0]] * 25, light)
    (note,) = choose(frames).notes
    assert f" of 25 frames that were looked at were dropped as {reason}: " in note and "?select=none" in note


def test_nothing_is_said_of_an_ordinary_drive(drive: Parts) -> None:
    assert choose(together(drive)).notes == ()


def test_a_share_is_of_the_frames_that_were_looked_at() -> None:
    frames = [*lap(), *lit(lap()[:10], 0.03)]
    assert len(choose(frames, SelectOptions(count=0.1)).places) == 5
    assert len(choose(frames, SelectOptions(count=1.0)).places) == len(choose(frames).places)


def test_frames_with_a_fault_are_not_the_most_diverse() -> None:
    frames = list(lap())
    spoiled = (7, 18, 27)
    for place in spoiled:
        frames[place] = frames[place].copy()
        frames[place][:, : SIZE_HW[1] // 2] //= 12  # something before half of the lens
    chosen = choose(frames, SelectOptions(count=12))
    assert len(chosen.places) == 12 and not set(spoiled) & set(chosen.places)


def test_where_a_robot_stood_alone_is_no_fault() -> None:
    frames = [*lap()[:20], *standing(10), *lap()[20:]]
    assert set(range(20, 30)) & set(choose(frames, SelectOptions(count=8)).places)


def test_what_a_frame_looks_like_can_be_told_by_a_network() -> None:
    seen: List[Tuple[int, ...]] = []

    def describe(image: np.ndarray) -> np.ndarray:
        seen.append(image.shape)
        return np.array([float(len(seen) > 20), len(seen) / 1e3])

    selector = Selector(SelectOptions(count=2), describe=describe)
    passed = [place for place, frame in enumerate(lap()) if selector.look(frame) is None]
    first, second = selector.choose().places
    assert first in passed[:20] and second in passed[20:]
    assert set(seen) == {(*SIZE_HW, 3)}


@pytest.mark.parametrize("size_hw", [(1, 1), (2, 700), (48, 64), (1080, 1920)])
def test_frames_of_any_size_are_looked_at(size_hw: Tuple[int, int]) -> None:
    selector = Selector(EVERYTHING)
    assert selector.look(cv2.resize(lap()[0], size_hw[::-1])) is None
    assert selector.thumbnail.shape[1] == 160
    assert selector.choose().places == (0,)


@pytest.mark.parametrize(("text", "count"), [("500", 500), ("0", 0), ("10%", 0.1), ("0.5%", 0.005), ("100%", 1.0)])
def test_a_count_is_a_number_of_frames_or_a_share_of_them(text: str, count: float) -> None:
    parsed = parse_count(text)
    assert parsed == count
    assert isinstance(parsed, float) == text.endswith("%")
    SelectOptions(count=parsed)


@pytest.mark.parametrize("text", ["", "-1", "0%", "101%", "0.5", "all", "5 %"])
def test_a_count_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no number of frames"):
        parse_count(text)


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(FrameError, match=r"float32 \(8, 8, 3\)"):
        Selector().look(np.zeros((8, 8, 3), np.float32))


def test_nothing_is_chosen_of_nothing() -> None:
    chosen = Selector().choose()
    assert chosen.places == () and sum(chosen.counts.values()) == 0
