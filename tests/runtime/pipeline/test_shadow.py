"""A candidate beside the deployed network: what it is given, what it tells, and that nobody waits for it."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from patience import PATIENCE_S, wait_for
from runtime.fakes import FakeClock, ListSink, ListSource, NumpyEngine, numpy_segmenter
from runtime.models import tiny_spec, write_model

from rtda_deploy.errors import ConfigError, EngineError
from rtda_runtime import Pipeline, Result, Segmenter
from rtda_runtime.pipeline.advice import advice
from rtda_runtime.pipeline.options import Patience
from rtda_runtime.pipeline.shadow import Shadow, open_shadow
from rtda_runtime.pool import open_segmenter

URI = "test://bars?fps=0&size=96x64&frames=12"


class After(ListSink):
    """Takes what the shadow looked at."""

    after_shadow = True


def result_of(dropped: int, live: bool = True) -> Result:
    picture = np.zeros((8, 8, 3), np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    return Result(picture, mask, 0, 0, dropped, {}, tiny_spec(), live=live)


def test_what_it_sees_otherwise_is_counted_and_goes_to_the_sinks_after_it(tmp_path: Path) -> None:
    first, second = (write_model(tmp_path / f"{seed}.onnx", seed=seed) for seed in (0, 1))
    after, all_of_them = After(), ListSink(name="all")
    with Pipeline.open(first, URI, "cpu", shadow=second, sinks=[after, all_of_them], threads=1) as pipeline:
        results = list(pipeline)
        pipeline.join()
        stats = pipeline.stats
    assert [result.compared for result in results] == [None] * 12 and len(all_of_them.results) == 12
    told = stats["shadow"]
    assert told["compared"] == len(after.results) > 0 and told["compared"] + told["dropped"] == 12
    assert (told["behind"], told["error"], told["model"]) == (0, None, str(second)) and told["provider"] == "cpu"
    assert stats["stages"]["shadow"]["count"] == told["compared"] and after.closed == 1
    assert 0.0 < stats["stages"]["shadow"]["max"] < 1e3 * PATIENCE_S, "milliseconds of one frame"
    with Segmenter.open(second, "cpu", threads=1) as alone:
        for result in after.results:
            np.testing.assert_array_equal(result.compared, alone.segment(result.frame).mask)
    first_masks, second_masks = (
        np.stack([getattr(result, name)[::4, ::4] for result in after.results]) for name in ("mask", "compared")
    )
    assert told["agreement"] == pytest.approx((first_masks == second_masks).mean(), abs=1e-5) and told["agreement"] < 1
    assert told["newest"] == pytest.approx((first_masks[-1] == second_masks[-1]).mean(), abs=1e-5)
    for index, name in enumerate(tiny_spec().class_names):
        either = ((first_masks == index) | (second_masks == index)).sum()
        both = ((first_masks == index) & (second_masks == index)).sum()
        assert (name in told["by_class"]) == (either > 0)
        assert told["by_class"].get(name, 0.0) == pytest.approx(both / max(1, either), abs=1e-5)


def test_nobody_waits_for_a_candidate_that_does_not_answer() -> None:
    at_work, release = threading.Event(), threading.Event()

    def before() -> None:
        at_work.set()
        release.wait(PATIENCE_S)

    after = After()
    with Pipeline(numpy_segmenter(), ListSource(30), shadow=numpy_segmenter(before), sinks=[after]) as pipeline:
        results = list(pipeline)
        assert at_work.wait(PATIENCE_S) and not release.is_set()
        wait_for(lambda: pipeline.stats["shadow"]["dropped"] == 28)  # one is at work, the newest waits
        assert len(results) == 30 and pipeline.stats["shadow"]["compared"] == 0
        release.set()
        pipeline.join()
    assert len(after.results) == 2 and after.results[-1].sequence == 29
    assert pipeline.stats["shadow"]["agreement"] == 1.0 and after.closed == 1


def test_closing_leaves_a_candidate_that_does_not_answer_behind(caplog: pytest.LogCaptureFixture) -> None:
    at_work, release = threading.Event(), threading.Event()

    def before() -> None:
        at_work.set()
        release.wait(PATIENCE_S)

    after, patience = After(), Patience(stop_s=0.2, hurry_s=0.05, stuck_s=0.2)
    pipeline = Pipeline(
        numpy_segmenter(), ListSource(10**6), shadow=numpy_segmenter(before), sinks=[after], patience=patience
    )
    pipeline.start()
    assert at_work.wait(PATIENCE_S)
    pipeline.close()
    wait_for(lambda: after.closed == 1)  # it does not wait for what the shadow will never give
    assert "sink shadow does not return" in caplog.text and not release.is_set()
    release.set()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads have priorities of their own on Linux")
def test_its_threads_give_way_and_the_network_s_do_not(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Dict[str, int] = {}

    def note() -> None:
        thread = threading.current_thread()
        seen[thread.name] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    usual = os.getpriority(os.PRIO_PROCESS, 0)
    with Pipeline(numpy_segmenter(note), ListSource(5), shadow=numpy_segmenter(note)) as pipeline:
        pipeline.join()
    assert seen == {"rtda-infer": usual, "rtda-shadow": 19}
    asked: Dict[str, Any] = {}

    def opened(*given: Any, **more: Any) -> Any:
        note()
        asked.update(more)
        return open_segmenter(*given, **more)

    monkeypatch.setattr("rtda_runtime.pipeline.shadow.open_segmenter", opened)
    seen.clear()
    with open_shadow(model_path, "cpu"):
        assert seen == {"rtda-shadow": 19} and asked == {"threads": 1}, "what threads an engine makes inherit it"
    assert os.getpriority(os.PRIO_PROCESS, 0) == usual


def test_it_rests_while_a_camera_s_frames_are_dropped_and_longer_each_time() -> None:
    clock = FakeClock()
    shadow = Shadow(numpy_segmenter(), numpy_segmenter(), clock=clock)

    def looked_at(seconds: float, dropped: int, live: bool = True) -> bool:
        clock.sleep(seconds)
        return shadow.wants(result_of(dropped, live))

    assert looked_at(0.0, 7), "what was dropped before the first result says nothing"
    assert looked_at(0.1, 7)
    assert not looked_at(0.1, 8) and not looked_at(0.9, 8) and looked_at(0.2, 8)
    assert not looked_at(0.1, 9) and not looked_at(1.9, 9) and looked_at(0.2, 9), "soon again: twice as long"
    for number in range(10, 20):
        assert not looked_at(0.1, number)
    assert not looked_at(31.9, 19) and looked_at(0.2, 19), "and at most 32 s"
    assert looked_at(11.0, 19) and not looked_at(0.1, 20) and looked_at(1.1, 20), "after a calm it is short again"
    assert looked_at(0.1, 25, live=False), "of a recording nothing is late"


def test_a_network_that_has_no_time_is_told_of_in_the_statistics_and_the_advice() -> None:
    shadow = Shadow(numpy_segmenter(), numpy_segmenter())
    assert shadow.wants(result_of(0))
    assert not shadow.wants(result_of(1)) and not shadow.wants(result_of(2))
    told = shadow.told({"dropped": 3, "error": None})
    assert (told["compared"], told["dropped"], told["behind"], told["agreement"]) == (0, 5, 2, None)
    stats: Dict[str, Any] = {"frames": 3, "sinks": {}, "shadow": told}
    assert ["--fps" in sentence for sentence in advice(stats, live=True)] == [True]
    assert advice({**stats, "shadow": {**told, "behind": 0}}, live=True) == []


def test_a_candidate_that_fails_stops_alone_and_collecting_goes_on() -> None:
    failed = threading.Event()

    def before() -> None:
        raise EngineError("the network gave NaN", hint="export it again")

    def wait_for_failure(number: int) -> None:
        if number == 3:
            assert failed.wait(PATIENCE_S)

    after = After()
    source = ListSource(8, before=wait_for_failure)
    with Pipeline(numpy_segmenter(), source, shadow=numpy_segmenter(before), sinks=[after]) as pipeline:
        pipeline.start()
        wait_for(lambda: bool(pipeline.sink_errors) and not pipeline._wiring._shadowed)
        failed.set()
        pipeline.join()
    assert pipeline.stats["frames"] == 8 and "NaN" in pipeline.stats["shadow"]["error"]
    assert [result.sequence for result in after.results][-1] == 7 and after.closed == 1
    assert all(result.compared is None for result in after.results)
    assert list(pipeline.sink_errors) == ["shadow"]


def test_what_is_owned_is_closed_with_the_pipeline_and_the_rest_is_not(tmp_path: Path) -> None:
    engines = [NumpyEngine() for _ in range(2)]
    deployed, candidate = (Segmenter(engine) for engine in engines)
    with Pipeline(deployed, ListSource(3), shadow=candidate) as pipeline:
        pipeline.join()
    assert [engine.released for engine in engines] == [0, 0]
    with Pipeline(deployed, ListSource(3), shadow=candidate, owned=[deployed, candidate]) as pipeline:
        pipeline.join()
    assert [engine.released for engine in engines] == [1, 1]
    never, after = NumpyEngine(), After()
    with Pipeline(numpy_segmenter(), ListSource(3), shadow=Segmenter(never), sinks=[after]) as pipeline:
        pass  # nothing was asked of it
    assert (after.closed, never.released) == (1, 0)


def test_who_waits_for_it_is_told_that_it_is_over_also_where_closing_it_fails() -> None:
    class Stuck(NumpyEngine):
        def _release(self) -> None:
            raise EngineError("the driver does not answer", hint="")

    after = After()
    candidate = Segmenter(Stuck())
    with Pipeline(numpy_segmenter(), ListSource(3), shadow=candidate, owned=[candidate], sinks=[after]) as pipeline:
        pipeline.join()
    assert after.closed == 1 and "driver" in str(pipeline.sink_errors["shadow"])


def test_candidates_that_cannot_be_compared_are_refused_before_a_frame_is_read(
    model_path: Path, tmp_path: Path
) -> None:
    other = write_model(tmp_path / "other.onnx", tiny_spec(class_names=("road", "b", "sky", "car", "vegetation")))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model_path.read_bytes()[:100])
    refused: List[Any] = [
        (ConfigError, "other classes than the deployed network: without building; with b", {"shadow": other}),
        (EngineError, "broken.onnx", {"shadow": broken}),
        (ConfigError, "both to compare with and as a shadow", {"shadow": model_path, "compare": model_path}),
    ]
    for kind, said, words in refused:
        source = ListSource(3)
        with pytest.raises(kind, match=said) as caught:
            Pipeline.open(model_path, source, "cpu", threads=1, **words)
        assert caught.value.hint and source.closed.is_set() and not source.read_by
    without = dataclasses.replace(tiny_spec(), ignore_index=254)
    with pytest.raises(ConfigError, match="other classes"):
        Shadow(numpy_segmenter(), Segmenter(NumpyEngine(without)))
