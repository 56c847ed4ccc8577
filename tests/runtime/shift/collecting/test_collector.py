"""The sink: what it keeps of results, what it says of each frame, and that training reads its folder as it stands."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import cv2
import numpy as np
import pytest
from runtime.models import NAMES, PALETTE, write_model
from runtime.shift.collecting.frames import SPEC, mask, picture, result_of

from rtda_deploy.errors import ConfigError, EngineError
from rtda_runtime import CollectOptions, Collector, Pipeline, Segmenter
from rtda_runtime.sinks.kinds import SinkContext, open_sink, written
from rtda_training.readers import open_labelled, open_unlabelled

EASY: Dict[str, Any] = {"control": 0.0, "free_bytes": 0}


def collected(folder: Path, results: List[Any], options: Optional[CollectOptions] = None, **more: Any) -> Collector:
    with Collector(folder, SPEC, options or CollectOptions(**EASY), seed=1, **more) as collector:
        for result in results:
            collector.write(result)
    return collector


def lines_of(folder: Path) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in (folder / "frames.jsonl").read_text(encoding="utf-8").splitlines()]


def kept_seeds(folder: Path) -> List[int]:
    return [line["sequence"] for line in lines_of(folder)]


def test_the_hardest_frame_of_each_window_is_kept(tmp_path: Path) -> None:
    sure = {3: 0.2, 12: 0.4}
    results = [result_of(seed, float(seed), sure=sure.get(seed, 0.95)) for seed in range(20)]
    collector = collected(tmp_path / "hard", results)
    assert kept_seeds(tmp_path / "hard") == [3, 12]
    told = collector.details()
    assert (told["kept"], told["replaced"], told["not_worth"], told["frames"], told["stopped"]) == (2, 0, 0, 2, None)
    files = [path for part in ("images", "labels", "confidence") for path in (tmp_path / "hard" / part).iterdir()]
    assert told["bytes"] == sum(path.stat().st_size for path in files) and len(files) == 6


def test_what_is_written_is_what_was_seen(tmp_path: Path) -> None:
    folder = tmp_path / "hard"
    model = write_model(tmp_path / "a.onnx")
    smooth = cv2.GaussianBlur(picture(7), (0, 0), 8)
    result = result_of(7, 3.5, sure=0.6, frame=smooth)
    collected(folder, [result], source="drive.mp4", model="a.onnx", model_file=model)
    (line,) = lines_of(folder)
    stored = cv2.imread(str(folder / "images" / f"{line['id']}.jpg"))
    assert np.abs(stored.astype(int) - smooth).mean() < 3
    for part, expected in (("labels", result.mask), ("confidence", result.confidence)):
        seen = cv2.imread(str(folder / part / f"{line['id']}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(seen, expected)
    assert line["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (line["source"], line["model"], line["recorded_s"], line["size"]) == ("drive.mp4", "a.onnx", 3.5, [96, 64])
    assert line["why"] == "hard" and line["class"] in NAMES and line["time"].endswith("Z")
    assert line["id"][:8] == line["time"][:10].replace("-", "")
    assert line["scores"]["novelty"] == 0.5 and line["scores"]["unsure"] == pytest.approx(0.4, abs=0.002)
    assert line["scores"]["score"] == pytest.approx(0.2, abs=0.002)
    assert sum(line["shares"].values()) == pytest.approx(1.0, abs=0.002)


def test_the_folder_is_a_target_and_a_labelled_set_as_it_stands(tmp_path: Path) -> None:
    folder = tmp_path / "hard"
    collected(folder, [result_of(seed, seed * 10.0, sure=0.5) for seed in range(4)])
    target = open_unlabelled(f"folder:{folder}")
    assert len(target) == 4 and target.frame(0).shape == (64, 96, 3)
    labelled = open_labelled(f"folder:{folder}")
    assert labelled.classes.names == NAMES and labelled.classes.palette == PALETTE
    for index in range(4):
        frame, label = labelled.pair(index)
        np.testing.assert_array_equal(label, mask(index))
        assert frame.shape == (64, 96, 3)
    assert labelled.without_partner == () and labelled.left_out() == {}


def test_a_check_of_the_set_finds_no_fault_also_while_it_is_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rtda_training.data.survey import survey

    monkeypatch.setenv("RTDA_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "hard"
    half = mask(0) % 3
    half[:40] = 255
    with Collector(folder, SPEC, CollectOptions(**EASY), seed=1) as collector:
        for seed in range(3):
            collector.write(result_of(seed, seed * 10.0, mask=half))
        found = survey(f"folder:{folder}")
        assert found.pictures == 2 and found.fault_count == 0, found.faults
        assert found.ignored_percent == pytest.approx(62.5)


def test_what_is_asked_for_is_kept_before_what_is_hard_and_the_line_says_so(tmp_path: Path) -> None:
    """A frame without any doubt that looks like the one before, and a hard one in the same ten seconds."""
    car, road = np.zeros((64, 96), np.uint8), np.zeros((64, 96), np.uint8)
    car[:10] = 3
    seen = {0: (0, road), 4: (0, car), 5: (5, road), 11: (0, car), 12: (6, road), 21: (7, road), 22: (8, road)}
    results = [
        result_of(seed, float(seed), frame=picture(looks), mask=mask, sure=1.0 if mask is car else 0.1)
        for seed, (looks, mask) in seen.items()
    ]
    options = CollectOptions(**EASY, when="share(car) > 10%")
    collected(tmp_path / "hard", results, options)
    told = [(line["sequence"], line["why"], line.get("when")) for line in lines_of(tmp_path / "hard")]
    assert told[:2] == [(4, "asked", options.when), (11, "asked", options.when)]
    assert [why for _, why, _ in told[2:]] == ["hard"] and told[2][0] in (21, 22)
    assert lines_of(tmp_path / "hard")[1]["scores"]["disagreement"] == 0.0


def test_a_share_by_chance_ignores_what_is_asked_for(tmp_path: Path) -> None:
    results = [result_of(seed, seed * 3.0) for seed in range(12)]
    collected(tmp_path / "hard", results, CollectOptions(control=1.0, free_bytes=0, when="share(car) > 200%"))
    assert [line["why"] for line in lines_of(tmp_path / "hard")] == ["control"] * 4


def test_an_expression_that_needs_what_results_lack_says_how_to_get_it(tmp_path: Path) -> None:
    for name, fix in (("confidence", "--confidence"), ("disagreement", "--shadow")):
        with Collector(tmp_path / name, SPEC, CollectOptions(**EASY, when=f"{name} < 0.5")) as collector:
            with pytest.raises(ConfigError, match=f"results have no {name}") as caught:
                collector.write(result_of(0, 0.0))
            assert fix in caught.value.hint


def test_a_result_that_lacks_what_others_had_is_not_asked_for_and_no_error(tmp_path: Path) -> None:
    """As after a shadow that failed."""
    other = (mask(0) + 1) % 5
    results = [result_of(seed, seed * 10.0, **({"compared": other} if seed == 0 else {})) for seed in range(3)]
    collected(tmp_path / "hard", results, CollectOptions(**EASY, when="disagreement > 0"))
    assert [line["why"] for line in lines_of(tmp_path / "hard")] == ["asked", "hard", "hard"]


def test_the_best_stay_where_there_is_no_more_room_and_the_next_run_knows_them(tmp_path: Path) -> None:
    folder, sure = tmp_path / "hard", [0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.95, 0.05]
    results = [result_of(seed, seed * 10.0, sure=value) for seed, value in enumerate(sure)]
    collected(tmp_path / "one", results[:1])
    size = int(collected(tmp_path / "one", []).details()["bytes"] * 4.3)
    options = CollectOptions(**EASY, disk_bytes=size)
    collected(folder, results[:4], options)
    assert kept_seeds(folder) == [0, 1, 2, 3]
    collector = collected(folder, results[4:], options)
    assert kept_seeds(folder) == [1, 3, 5, 7]
    told = collector.details()
    assert told["bytes"] <= size and told["frames"] == 4 and told["kept"] - told["replaced"] == 0
    assert len(open_labelled(f"folder:{folder}")) == 4


def test_the_next_run_keeps_nothing_that_looks_like_what_is_there(tmp_path: Path) -> None:
    for _ in range(2):
        collected(tmp_path / "hard", [result_of(seed, seed * 10.0, sure=0.5) for seed in range(3)])
        assert kept_seeds(tmp_path / "hard") == [0, 1, 2]


def test_lines_that_people_wrote_or_broke_do_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "hard"
    collected(folder, [result_of(seed, seed * 10.0, sure=0.5) for seed in range(3)])
    lines = lines_of(folder)
    del lines[0]["look"], lines[1]["dhash"]
    lines[2]["look"], lines[2]["scores"], lines[2]["note"] = [10**400], None, "mine"
    (folder / "frames.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "no json\n[]\n")
    options = CollectOptions(**EASY, disk_bytes=10**6)
    assert (
        collected(folder, [result_of(seed, seed * 10.0, sure=0.5) for seed in range(3, 6)], options).details()["kept"]
        == 3
    )
    assert kept_seeds(folder) == [0, 1, 2, 3, 4, 5] and lines_of(folder)[2]["note"] == "mine"


def test_a_frame_whose_mask_was_corrected_never_gives_way(tmp_path: Path) -> None:
    folder = tmp_path / "hard"
    size = collected(folder, [result_of(seed, seed * 10.0, sure=0.9) for seed in range(2)]).details()["bytes"]
    first = folder / "labels" / f"{lines_of(folder)[0]['id']}.png"
    corrected_mask = np.full((64, 96), 3, np.uint8)
    cv2.imwrite(str(first), corrected_mask)
    options = CollectOptions(**EASY, disk_bytes=int(size * 1.3))
    told = collected(folder, [result_of(seed, seed * 10.0, sure=0.1) for seed in range(2, 6)], options).details()
    assert 0 in kept_seeds(folder) and len(kept_seeds(folder)) == 2 and told["bytes"] <= options.disk_bytes
    assert (cv2.imread(str(first), cv2.IMREAD_UNCHANGED) == corrected_mask).all()
    full = CollectOptions(**EASY, disk_bytes=size // 2)
    assert collected(folder, [result_of(9, 0.0, sure=0.01)], full).details()["kept"] == 0, "it takes all of disk="


def test_a_frame_whose_mask_is_corrected_while_the_run_goes_on_stays(tmp_path: Path) -> None:
    folder = tmp_path / "hard"
    size = collected(tmp_path / "size", [result_of(0, 0.0, sure=0.9)]).details()["bytes"]
    options = CollectOptions(**EASY, disk_bytes=int(size * 2.5))
    with Collector(folder, SPEC, options, seed=1) as collector:
        for seed in range(2):
            collector.write(result_of(seed, seed * 10.0, sure=0.9))
        (frame,) = (folder / "images").iterdir()
        cv2.imwrite(str(folder / "labels" / f"{frame.stem}.png"), np.full((64, 96), 3, np.uint8))
        for seed in range(2, 8):
            collector.write(result_of(seed, seed * 10.0, sure=0.9 - 0.1 * seed))
    assert frame.is_file() and collector.details()["replaced"] > 0
    assert len(kept_seeds(folder)) == 2 and collector.details()["bytes"] <= options.disk_bytes


def test_a_class_that_is_everywhere_does_not_take_all_places(tmp_path: Path) -> None:
    road, sky = np.zeros((64, 96), np.uint8), np.full((64, 96), 2, np.uint8)
    results = [result_of(seed, seed * 10.0, mask=sky if seed == 5 else road, sure=0.5) for seed in range(9)]
    collected(tmp_path / "hard", results, CollectOptions(**EASY, per_class=2))
    classes = [line["class"] for line in lines_of(tmp_path / "hard")]
    assert sorted(classes) == ["road", "road", "sky"]


def test_people_are_blurred_in_the_picture_and_not_in_the_mask(tmp_path: Path) -> None:
    car = np.zeros((64, 96), np.uint8)
    car[20:50, 30:60] = 3
    grey = np.random.default_rng(0).integers(0, 256, (64, 96, 1), np.uint8)
    result = result_of(1, 0.0, mask=car, frame=np.repeat(grey, 3, axis=2))
    before = result.frame.copy()
    collected(tmp_path / "hard", [result], CollectOptions(**EASY, blur=("Car",)))
    np.testing.assert_array_equal(result.frame, before)
    frame, label = open_labelled(f"folder:{tmp_path / 'hard'}").pair(0)
    np.testing.assert_array_equal(label, car)
    inside, outside = (slice(24, 46), slice(34, 56)), (slice(0, 16), slice(0, 96))
    changed = np.abs(frame.astype(int) - before)
    assert changed[inside].mean() > 30 and changed[outside].mean() < 5


def test_a_class_to_blur_that_is_not_there_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no class 'cars' to blur") as caught:
        Collector(tmp_path / "hard", SPEC, CollectOptions(blur=("cars",)))
    assert "did you mean car?" in caught.value.hint and not (tmp_path / "hard").exists()


def test_two_networks_that_disagree_make_a_frame_hard(tmp_path: Path) -> None:
    same, other = mask(1), (mask(1) + 1) % 5
    results = [result_of(seed, seed * 2.0, mask=same, compared=other if seed == 3 else same) for seed in range(5)]
    collected(tmp_path / "hard", results, CollectOptions(**EASY, when="disagreement >= 0"))
    assert kept_seeds(tmp_path / "hard") == [3]
    assert lines_of(tmp_path / "hard")[0]["scores"]["compare"] == 1.0


def test_a_second_engine_looks_at_few_frames_and_gives_them_a_confidence(tmp_path: Path) -> None:
    model, asked = write_model(tmp_path / "a.onnx"), []

    def second() -> Segmenter:
        engine = Segmenter.open(model, threads=1, confidence=True)
        plain = engine.segment
        engine.segment = lambda frame, *more: asked.append(frame.shape) or plain(frame, *more)  # type: ignore
        return engine

    with Segmenter.open(model, threads=1) as network:
        results = [
            result_of(seed, seed * 0.5, mask=network.segment(picture(seed)).mask) for seed in range(60)
        ]  # 30 seconds
        collected(tmp_path / "hard", results, engine=second)
    lines = lines_of(tmp_path / "hard")
    assert len(lines) == 3 and len(asked) == 2 * (3 + 3 + 1), "three candidates of each whole window, each twice"
    for line in lines:
        assert {"unsure", "flip"} <= set(line["scores"])
        assert (tmp_path / "hard" / "confidence" / f"{line['id']}.png").is_file()


def test_a_second_engine_that_does_not_open_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def second() -> Segmenter:
        raise EngineError("no memory is left", hint="buy some")

    with caplog.at_level(logging.WARNING):
        collected(tmp_path / "hard", [result_of(seed, seed * 10.0) for seed in range(3)], engine=second)
    assert len(lines_of(tmp_path / "hard")) == 3
    assert len(caplog.records) == 1 and "no memory is left" in caplog.text


def test_a_second_engine_that_fails_later_is_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened: List[Segmenter] = []

    def second() -> Segmenter:
        opened.append(Segmenter.open(write_model(tmp_path / "a.onnx"), threads=1, confidence=True))
        opened[0].segment(picture(0))
        opened[0].segment = _fails  # type: ignore[method-assign]
        return opened[0]

    def _fails(*_: Any) -> Any:
        raise EngineError("the GPU fell off the bus")

    with Collector(tmp_path / "hard", SPEC, CollectOptions(**EASY), seed=1, engine=second) as collector:
        for seed in range(3):
            collector.write(result_of(seed, seed * 10.0))
        del opened[0].segment
        with pytest.raises(EngineError, match="closed"):
            opened[0].segment(picture(0))
    assert "fell off the bus" in caplog.text and len(lines_of(tmp_path / "hard")) == 3


def test_a_disk_as_full_as_it_may_be_takes_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results = [result_of(seed, seed * 10.0) for seed in range(4)]
    with caplog.at_level(logging.WARNING):
        collector = collected(tmp_path / "hard", results, CollectOptions(control=0.0, free_bytes=10**18))
    assert collector.details()["not_worth"] == 4 and lines_of(tmp_path / "hard") == []
    assert len(caplog.records) == 1 and "as full as it may be" in caplog.text


def test_a_folder_that_goes_away_stops_the_collecting_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "hard"
    with caplog.at_level(logging.WARNING), Collector(folder, SPEC, CollectOptions(**EASY)) as collector:
        collector.write(result_of(0, 0.0))
        collector.write(result_of(1, 10.0))
        (folder / "images").rename(tmp_path / "gone")
        (folder / "images").write_bytes(b"in the way")
        for seed in range(2, 6):
            collector.write(result_of(seed, seed * 10.0))
    assert len(caplog.records) == 1 and "collecting stopped: cannot write" in caplog.text
    assert collector.stopped and collector.details()["kept"] == 1


# In a pipeline, and by its address


def test_a_pipeline_collects_on_a_thread_of_its_own_that_gives_way(tmp_path: Path) -> None:
    model = write_model(tmp_path / "a.onnx")
    nice: List[int] = []

    def second_engine() -> Segmenter:
        nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return Segmenter.open(model, threads=1, confidence=True)

    with Segmenter.open(model, threads=1) as segmenter:
        collector = Collector(tmp_path / "hard", segmenter.spec, CollectOptions(**EASY), engine=second_engine)
        source = "test://bars?fps=0&frames=12&size=96x64"
        with Pipeline.open(segmenter, source, sinks=[collector]) as pipeline:
            pipeline.join()
        told = pipeline.stats["sinks"]["collect"]
    assert pipeline.stats["frames"] == 12 and told["written"] + told["dropped"] == 12
    assert (told["kept"], told["frames"], told["error"], told["stopped"]) == (1, 1, None, None)
    assert told["stages"]["look"]["count"] == told["written"]
    assert len(open_unlabelled(f"folder:{tmp_path / 'hard'}")) == 1
    assert nice == [10] or not sys.platform.startswith("linux")


def _opened(address: str, **context: Any) -> Collector:
    sink = open_sink("collect", address, SinkContext(SPEC, source="test", **context))
    assert isinstance(sink, Collector)
    return sink


def test_the_table_of_sinks_opens_it_with_its_limits(tmp_path: Path) -> None:
    folder = tmp_path / "a ? b"
    address = f"{folder}?minute=60&gap=0s&free=0&control=0&when=share(car)%20%3E%200.5%20and%201%2B1%3E1&blur=car,road"
    assert written("collect", address) == folder and written("collect", str(folder)) == folder
    with _opened(address) as collector:
        for seed, seen in ((0, 3), (1, 0), (2, 3)):
            collector.write(result_of(seed, float(seed), mask=np.full((64, 96), seen, np.uint8)))
    assert [line["why"] for line in lines_of(folder)] == ["asked", "hard", "asked"]
    assert lines_of(folder)[0]["source"] == "test"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("minute=often", "is no number"),
        ("hour=3", "knows no limit 'hour'"),
        ("when=share(bus)>0", "no class 'bus'"),
        ("blur=bus", "no class 'bus' to blur"),
    ],
)
def test_an_address_that_makes_no_sense_is_refused_before_a_folder_is_made(
    tmp_path: Path, query: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        _opened(f"{tmp_path / 'hard'}?{query}")
    assert said in caught.value.message and not (tmp_path / "hard").exists()


def test_looking_at_a_frame_does_not_hold_its_memory(tmp_path: Path) -> None:
    import gc
    import weakref

    def written_and_gone(collector: Collector, seed: int) -> Tuple[Any, Any]:
        result = result_of(seed, 0.1 * seed)
        collector.write(result)
        return weakref.ref(result.frame), weakref.ref(result.mask)

    with Collector(tmp_path / "hard", SPEC, CollectOptions(**EASY)) as collector:
        held = [written_and_gone(collector, seed) for seed in range(5)]
        gc.collect()
        assert not [ref for pair in held for ref in pair if ref() is not None]
