"""What the view shows, and when it draws: pictures, figures, states; on a clock that moves when told."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Dict, Mapping

import cv2
import numpy as np
import pytest
from runtime.fakes import FakeClock
from runtime.models import PALETTE, tiny_spec

from rtda_deploy.errors import ConfigError
from rtda_runtime import Overlay, Result, colorize
from rtda_runtime.sinks.view.feed import Feed
from rtda_runtime.sinks.view.painter import Painter

SPEC = tiny_spec()


def result(
    number: int = 0,
    size_hw: Any = (48, 64),
    *,
    captured_ns: int = 0,
    compared: bool = False,
    dropped: int = 0,
    state: str = "live",
) -> Result:
    """A noisy frame; the mask is road, its right quarter car, its top eighth without a class."""
    rng = np.random.default_rng(number)
    mask = np.zeros(size_hw, np.uint8)
    mask[:, size_hw[1] * 3 // 4 :] = 3
    mask[: size_hw[0] // 8] = 255
    return Result(
        frame=rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8),
        mask=mask,
        captured_ns=captured_ns,
        sequence=number,
        dropped=dropped,
        timing={"age": 20.0 + number},
        spec=SPEC,
        compared=np.full(size_hw, 2, np.uint8) if compared else None,
        state=state,
    )


class Setting:
    """A feed whose clock and statistics the test moves."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.stats: Dict[str, Any] = {"state": "live"}
        self.asked = 0
        self.feed = Feed(SPEC, stats=self.look, title="tiny", clock=self.clock)
        self.count = 0

    def look(self) -> Dict[str, Any]:
        self.asked += 1
        return self.stats

    def put(self, times: int = 1, every_s: float = 0.1, **more: Any) -> None:
        for _ in range(times):
            self.clock.sleep(every_s)
            self.feed.put(result(self.count, captured_ns=self.clock.now_ns, **more))
            self.count += 1


def picture_of(part: Any) -> np.ndarray:
    head, _, jpeg = part.data.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(jpeg) - 2}".encode() in head
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.asarray(decoded)


# ---- pictures


def test_the_overlay_is_that_of_the_overlay_sink() -> None:
    given = result()
    drawn = Painter(SPEC, 0.5).draw(given, "overlay")
    np.testing.assert_array_equal(drawn, Overlay(SPEC, 0.5, legend=False).draw(given.frame, given.mask))


def test_the_mask_and_both_sides_show_what_they_say() -> None:
    given, painter = result(compared=True), Painter(SPEC)
    colours = colorize(given.mask, PALETTE)
    np.testing.assert_array_equal(painter.draw(given, "mask"), colours)
    side = painter.draw(given, "side").copy()
    np.testing.assert_array_equal(side[:, :64], given.frame)
    np.testing.assert_array_equal(side[:, 64:], colours)
    both = painter.draw(given, "compare").copy()
    assert given.compared is not None
    overlay = Overlay(SPEC, 0.5, legend=False)
    np.testing.assert_array_equal(both[:, :64], overlay.draw(given.frame, given.mask))
    np.testing.assert_array_equal(both[:, 64:], overlay.draw(given.frame, given.compared))


@pytest.mark.parametrize(("mode", "shape"), [("overlay", (720, 1280, 3)), ("side", (360, 1280, 3))])
def test_large_frames_are_made_smaller_for_the_stream(mode: str, shape: Any) -> None:
    assert Painter(SPEC).draw(result(size_hw=(1080, 1920)), mode, 1280).shape == shape


def test_masks_are_made_smaller_without_new_classes() -> None:
    mask = np.random.default_rng(0).choice(np.array([0, 3], np.uint8), (541, 963))
    drawn = Painter(SPEC).draw(dataclasses.replace(result(size_hw=mask.shape), mask=mask), "mask", 640)
    seen = {tuple(reversed(colour)) for colour in drawn.reshape(-1, 3).tolist()}
    assert seen == {PALETTE[0], PALETTE[3]}, "no class between two others"


@pytest.mark.parametrize("mode", ["overlay", "mask", "side", "compare"])
def test_memory_is_used_again_until_the_size_changes(mode: str) -> None:
    painter = Painter(SPEC, outline=False)
    first = painter.draw(result(0, (480, 640), compared=True), mode, 320)
    assert np.shares_memory(first, painter.draw(result(1, (480, 640), compared=True), mode, 320))
    other = result(2, (240, 320), compared=True)
    np.testing.assert_array_equal(painter.draw(other, mode), Painter(SPEC, outline=False).draw(other, mode))


def test_masks_that_are_views_can_be_drawn() -> None:
    given = result(size_hw=(96, 128))
    strided = Result(
        frame=given.frame[::2, ::2],
        mask=given.mask[::2, ::2],
        captured_ns=0,
        sequence=0,
        dropped=0,
        timing={},
        spec=SPEC,
    )
    np.testing.assert_array_equal(Painter(SPEC).draw(strided, "mask"), colorize(strided.mask, PALETTE))
    assert Painter(SPEC).draw(strided, "overlay", 16).shape == (12, 16, 3)


def test_an_alpha_outside_its_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="alpha"):
        Painter(SPEC, 1.1)


# ---- when pictures are made


def test_nothing_is_drawn_while_nobody_looks() -> None:
    setting = Setting()
    setting.put(50)
    assert setting.feed.encoded == 0
    assert setting.asked == 0, "statistics are not asked for either"


def test_one_picture_serves_everybody() -> None:
    setting = Setting()
    setting.put()
    parts = []
    for _ in range(5):
        parts.append(setting.feed.part("overlay")[0])
        setting.clock.sleep(0.1)
    assert setting.feed.encoded == 1, "also later, while it is the newest"
    assert parts[0] is not None
    assert all(part is parts[0] for part in parts)
    setting.feed.part("mask")
    assert setting.feed.encoded == 2, "another mode is another picture"


def test_no_more_pictures_than_a_stream_may_have() -> None:
    setting = Setting()
    setting.put(2, 0.01)
    setting.feed.part("overlay")
    for _ in range(100):  # one second at 100 frames a second
        setting.put(every_s=0.01)
        setting.feed.part("overlay")
    assert 12 <= setting.feed.encoded <= 16


def test_after_the_wait_the_newest_is_given_not_the_one_that_waited() -> None:
    setting = Setting()
    setting.put(3, 0.1)
    first, wait_s = setting.feed.part("overlay")
    assert first is not None
    assert wait_s is None, "nothing newer to wait for"
    setting.put(2, 0.01)
    again, wait_s = setting.feed.part("overlay")
    assert again is first
    assert wait_s is not None
    setting.clock.sleep(wait_s)
    setting.feed.put(result(99))
    newest, _ = setting.feed.part("overlay")
    assert newest is not None
    assert b"X-Sequence: 99\r\n" in newest.data


def test_a_part_tells_the_age_of_its_picture() -> None:
    setting = Setting()
    setting.put(3)
    setting.clock.sleep(0.04)
    part, _ = setting.feed.part("overlay")
    assert part is not None
    assert b"X-Age-Ms: 40.0\r\n" in part.data
    assert b"X-State: live\r\n" in part.data


def test_a_recording_has_no_age() -> None:
    setting = Setting()
    setting.feed.put(dataclasses.replace(result(captured_ns=setting.clock.now_ns), live=False))
    part, _ = setting.feed.part("overlay")
    assert part is not None and b"X-Age-Ms" not in part.data and b"X-State: live\r\n\r\n" in part.data
    report = setting.feed.report()
    assert report["ages_ms"] == [] and set(report["age_ms"].values()) == {None}


def test_the_size_may_change_midway() -> None:
    setting = Setting()
    for size in ((48, 64), (480, 640), (48, 64)):
        setting.put(size_hw=size)
        part, _ = setting.feed.part("overlay")
        assert picture_of(part).shape == (*size, 3)


def test_snapshots_have_the_cameras_size_and_lose_nothing() -> None:
    setting = Setting()
    setting.put(3, size_hw=(90, 1600))
    taken = setting.feed.snapshot("mask", ".png")
    assert taken is not None
    content, sequence = taken
    assert sequence == 2
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded, colorize(result(size_hw=(90, 1600)).mask, PALETTE))


# ---- states


def state_of(setting: Setting) -> str:
    return setting.feed.state()[0]


def test_states_from_the_first_frame_to_a_lost_camera_and_back() -> None:
    setting = Setting()
    assert state_of(setting) == "waiting"
    setting.put(10, 0.1)
    assert setting.feed.state() == ("live", 0.0)
    setting.clock.sleep(0.45)
    assert state_of(setting) == "live"
    setting.clock.sleep(0.1)  # more than three periods, and more than half a second
    assert setting.feed.state() == ("stale", pytest.approx(0.55))
    setting.stats = {"state": "lost"}
    setting.clock.sleep(5)
    assert setting.feed.state() == ("lost", pytest.approx(5.55))
    setting.put()
    assert state_of(setting) == "live", "a frame that came after the look at the source knows better"


def test_a_slow_network_is_not_stale() -> None:
    setting = Setting()
    setting.put(5, 2.0)
    setting.clock.sleep(5.9)
    assert state_of(setting) == "live"
    setting.clock.sleep(0.2)
    assert state_of(setting) == "stale"


def test_results_that_call_themselves_stale_are_believed() -> None:
    setting = Setting()
    setting.put(5)
    setting.put(state="stale")
    assert state_of(setting) == "stale"


def test_a_run_that_ended_shows_an_old_picture() -> None:
    setting = Setting()
    setting.put(5)
    setting.clock.sleep(1.1)  # the statistics are looked at once a second
    setting.put(5)
    setting.stats = {"state": "ended"}
    setting.clock.sleep(1.1)
    assert state_of(setting) == "stale"


def test_a_camera_lost_before_its_first_frame_is_lost() -> None:
    setting = Setting()
    setting.stats = {"state": "lost"}
    assert state_of(setting) == "lost"


@pytest.mark.parametrize("state", ["stale", "lost"])
def test_an_old_picture_loses_its_colours_in_streams_and_snapshots(state: str) -> None:
    setting = Setting()
    setting.put(5, size_hw=(120, 160))
    live, _ = setting.feed.part("mask")
    assert np.ptp(picture_of(live).astype(int), axis=2).max() > 40, "colours"
    setting.stats = {"state": state}
    setting.clock.sleep(3)
    old, _ = setting.feed.part("mask")
    assert old is not None
    assert old.key != getattr(live, "key", None)
    assert f"X-State: {state}\r\n".encode() in old.data
    taken = setting.feed.snapshot("mask", ".png")
    assert taken is not None
    saved = cv2.imdecode(np.frombuffer(taken[0], np.uint8), cv2.IMREAD_COLOR)
    for picture in (picture_of(old), np.asarray(saved)):
        edge = picture[:8].astype(int)  # above the band with the words
        assert np.ptp(edge, axis=2).max() <= 8, "grey"
    setting.clock.sleep(1)
    later, _ = setting.feed.part("mask")
    assert later is not None
    assert later.data != old.data, "it says for how long"


# ---- figures


def test_the_report_counts_shares_exactly() -> None:
    setting = Setting()
    setting.put(size_hw=(80, 100), dropped=4)
    report = setting.feed.report()
    shares = {row["name"]: row["share"] for row in report["classes"]}
    assert shares == {"road": 0.75, "building": 0.0, "sky": 0.0, "car": 0.25, "vegetation": 0.0}, "of what has a class"
    assert report["unlabelled"] == 0.125, "of the whole picture"
    assert report["dropped"] == 4
    assert report["size"] == [100, 80]
    assert report["classes"][0]["colour"] == "#804080"
    assert "compare" not in report["modes"]


def test_the_report_has_a_second_column_for_a_second_model() -> None:
    setting = Setting()
    setting.put(compared=True)
    report = setting.feed.report()
    assert {row["name"]: row["compared"] for row in report["classes"]}["sky"] == 1.0
    assert report["modes"][-1] == "compare"


def test_rate_and_age_are_those_of_the_last_moments() -> None:
    setting = Setting()
    setting.put(100, 0.5)
    setting.put(60, 0.05)
    report = setting.feed.report()
    assert report["fps"] == pytest.approx(20, rel=0.05)
    assert report["age_ms"]["now"] == 20 + 159
    assert report["ages_ms"][-2:] == [178.0, 179.0]
    setting.clock.sleep(60)
    assert setting.feed.report()["fps"] == 0


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_the_report_is_strict_json_from_the_start(frames: int) -> None:
    setting = Setting()
    setting.stats = {"state": "live", "stages": {"infer": {"p50": 9.876}, "age": {"p50": 1.0}}, "losses": 2}
    setting.put(frames)
    report = json.loads(json.dumps(setting.feed.report(), allow_nan=False))
    assert report["frames"] == frames
    assert report["losses"] == 2
    assert report["stages_ms"] == {"infer": 9.88} and "shadow" not in report


def test_a_shadow_is_in_the_report_as_it_is_in_the_statistics() -> None:
    setting = Setting()
    setting.stats = {"state": "live", "shadow": {"compared": 12, "agreement": 0.9}}
    setting.put(1)
    assert setting.feed.report()["shadow"] == {"compared": 12, "agreement": 0.9}


def test_statistics_are_asked_for_once_a_second_at_most() -> None:
    setting = Setting()
    for _ in range(50):
        setting.put(every_s=0.1)
        setting.feed.report()
        setting.feed.part("overlay")
    assert 4 <= setting.asked <= 6


def test_statistics_that_raise_are_none_and_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    def stats() -> Mapping[str, Any]:
        raise NameError("name 'pipeline' is not defined")

    feed = Feed(SPEC, stats=stats, title="early")
    assert feed.state() == ("waiting", 0.0)
    feed.put(result())
    assert feed.report()["state"] == "live" and feed.report()["source"] == ""
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == ["view: no statistics: NameError: name 'pipeline' is not defined"]


def test_whether_there_is_a_second_model_is_open_until_the_first_frame() -> None:
    setting = Setting()
    assert setting.feed.has_mode("compare")
    setting.put()
    assert not setting.feed.has_mode("compare")
    assert setting.feed.has_mode("side")
