"""The alarm in a pipeline: what it tells, to whom, and what it refuses before a frame is read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, List, Optional

import numpy as np
import pytest
from cli.commandline import invoke
from runtime.fakes import ListSource, NumpyEngine
from runtime.models import write_model
from runtime.shift.monitored import picture, write_monitored

from rtda_deploy.engine_file import EngineBuild, EngineSidecar, write_sidecar
from rtda_deploy.errors import ConfigError, EngineError
from rtda_deploy.files import sha256_file
from rtda_deploy.onnx_file import read_onnx_facts
from rtda_runtime import Pipeline, Result, Segmenter, SegmenterPool
from rtda_runtime.shift.alarm import ShiftState
from rtda_runtime.shift.watch import ShiftWatch, familiar_of
from rtda_runtime.sources import Frame


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_monitored(tmp_path_factory.mktemp("monitored") / "tiny.onnx", blocks=60)


class DriveSource(ListSource):
    """Pictures a second apart; from ``dusk`` on it is dark. ``rate``: pictures a second, with times of their own."""

    def __init__(self, count: int, dusk: Optional[int] = None, rate: Optional[int] = None) -> None:
        super().__init__(count)
        self.size_wh = (24, 16)
        self._dusk, self._rate = dusk, rate

    def read(self, timeout_s: float = 2.0) -> Optional[Frame]:
        frame = super().read(timeout_s)
        if frame is None:
            return None
        second = frame.sequence // (self._rate or 1)
        dark = 90.0 if self._dusk is not None and second >= self._dusk else 0.0
        recorded_ns = None if self._rate is None else frame.sequence * 1_000_000_000 // self._rate
        return Frame(picture(second, 1, dark), frame.captured_ns, frame.sequence, recorded_ns)


def test_a_result_carries_its_frame_s_signals(model: Path) -> None:
    with Segmenter.open(model, threads=1) as segmenter:
        first, second = segmenter.segment(picture(0)), segmenter.segment(picture(0, dark=50))
    assert first.monitor is not None and second.monitor is not None
    assert first.monitor.shape == (12,) and not np.array_equal(first.monitor, second.monitor), "not the same memory"
    assert first.monitor[6:11].sum() == pytest.approx(1.0, abs=1e-5)
    pixel = float(picture(0)[0, 0, 0]) / 255.0
    assert first.monitor[0] == pytest.approx((pixel - 0.485) / 0.229, abs=1e-4)


def test_a_pipeline_tells_of_dusk_and_not_of_the_day_before(model: Path) -> None:
    told: List[ShiftState] = []
    with Pipeline.open(model, DriveSource(300, dusk=180), "cpu", threads=1, shift="10m", on_shift=told.append) as run:
        assert run.shift is not None and (run.shift.state, run.shift.blocks) == ("familiar", 0)
        run.join()
        stats, shift = run.stats, run.shift
    assert [state.state for state in told] == ["unfamiliar"] and 60 <= told[0].blocks <= 75
    assert shift is not None and shift.unfamiliar and shift.blocks == 100
    assert shift.since_s == 3.0 * (100 - told[0].blocks)
    assert stats["shift"] == json.loads(json.dumps(shift.to_dict())) and stats["shift"]["signal"] in shift.signals
    assert stats["sinks"]["shift"] == {"written": 300, "dropped": 0, "error": None, "stages": {}}


def test_of_a_fast_recording_a_frame_a_second_reaches_the_alarm(model: Path) -> None:
    with Pipeline.open(model, DriveSource(200, rate=10), "cpu", threads=1, shift=600.0) as run:
        run.join()
        stats = run.stats
    assert stats["frames"] == 200 and stats["shift"]["blocks"] == 6
    assert 20 <= stats["sinks"]["shift"]["written"] < 60, "the others never left the loop's thread"


def test_without_the_option_there_is_no_thread_and_nothing_is_told(model: Path) -> None:
    with Pipeline.open(model, DriveSource(5), "cpu", threads=1) as run:
        run.join()
        assert run.shift is None and "shift" not in run.stats and not run.stats["sinks"]


def test_a_callback_that_fails_ends_the_alarm_alone(model: Path) -> None:
    def fail(state: ShiftState) -> None:
        raise ValueError("of the robot's own code")

    with Pipeline.open(model, DriveSource(300, dusk=100), "cpu", threads=1, shift="10m", on_shift=fail) as run:
        run.join()
        assert run.stats["frames"] == 300 and "robot's own" in str(run.sink_errors["shift"])


def test_a_pool_is_watched_too(model: Path) -> None:
    pool = SegmenterPool.open(model, "cpu", threads=1)
    with pool, Pipeline.open(pool, DriveSource(30), shift="10m") as run:
        run.join()
        assert run.shift is not None and run.shift.blocks == 10


@pytest.mark.parametrize("asked", ["soon", "0h", 0, -5.0, float("inf"), float("nan")])
def test_what_is_no_time_is_refused_before_a_model_is_loaded(tmp_path: Path, asked: Any) -> None:
    with pytest.raises(ConfigError, match="between false alarms"):
        Pipeline.open(tmp_path / "not looked for.onnx", DriveSource(1), shift=asked)


def test_a_model_that_cannot_be_watched_is_refused_with_the_export_that_can(model: Path, tmp_path: Path) -> None:
    for path, said in (
        (write_model(tmp_path / "plain.onnx"), "gives no signals"),
        (write_monitored(tmp_path / "no-blocks.onnx"), "says nothing of what is familiar"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            Pipeline.open(path, DriveSource(1), "cpu", shift="10m")
        assert "--monitor --footage" in caught.value.hint
    with pytest.raises(ConfigError, match="footage support") as caught:
        Pipeline.open(model, DriveSource(1), "cpu", shift="300d")
    assert "of footage as varied" in caught.value.hint
    with pytest.raises(ConfigError, match="--region"), Segmenter.open(model, region="0,0.5,1,1") as part:
        ShiftWatch(part, 600.0)
    with pytest.raises(EngineError, match="opened from none"), Segmenter(NumpyEngine()) as bare:
        ShiftWatch(bare, 600.0)


def test_the_card_is_found_beside_an_engine_and_missing_elsewhere(model: Path, tmp_path: Path) -> None:
    assert familiar_of(model) is not None
    assert familiar_of(tmp_path / "alone.engine") is None


def test_inspect_says_of_an_engine_which_time_it_supports_as_of_its_onnx(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts, engine = read_onnx_facts(model), tmp_path / "tiny.engine"
    engine.write_bytes(b"of a GPU")
    build = EngineBuild("tiny.onnx", "0" * 64, "fp16", "8.5.2.2", "Xavier", (7, 2), (64, 96))
    assert facts.spec is not None
    write_sidecar(engine, EngineSidecar(facts.spec, build, sha256_file(engine), 8, facts.card))
    monkeypatch.setenv("COLUMNS", "200")
    told = [invoke("inspect", path, "--json").json["familiar"] for path in (model, engine)]
    assert told[0] == told[1] and told[0]["longest_shift_s"] > 0
    assert re.search(
        r"^familiar .*60 blocks of 3 s of footage drive: --shift up to \d", invoke("inspect", engine).out, re.M
    )


def test_the_loop_s_own_thread_only_compares_two_times(model: Path) -> None:
    with Segmenter.open(model, threads=1) as segmenter:
        watch = ShiftWatch(segmenter, 600.0)
        result = segmenter.segment(picture(0), captured_ns=10**9)
        later = segmenter.segment(picture(1), captured_ns=10**9 + 10**8)
        plain = Result(result.frame, result.mask, 0, 0, 0, {}, result.spec)
    assert watch.wants(result) and not watch.wants(plain)
    assert watch.write(result) == {}
    assert not watch.wants(later), "a tenth of a second later nothing is handed over"
