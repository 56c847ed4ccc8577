"""loop_overhead, memory, shadow and soak: that they see what they look for, and their short forms on a tiny network."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Callable, Iterator, List

import numpy as np
import pytest
from runtime.fakes import NumpyEngine
from runtime.models import tiny_spec, write_model

from rtda_runtime import Segmenter


@pytest.fixture(scope="module")
def scripts(benchmark_module: Callable[[str], Any]) -> Callable[[str], Any]:
    return benchmark_module


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segmenter]:
    model = write_model(tmp_path_factory.mktemp("loops") / "tiny.onnx", tiny_spec())
    with Segmenter.open(model, "cpu", threads=1) as opened:
        yield opened


# memory


def test_no_loop_allocates_frames_once_it_is_warm(scripts: Callable[[str], Any], segmenter: Segmenter) -> None:
    pytest.importorskip("numba", reason="without it the mask is made by NumPy, which takes memory for its steps")
    found = scripts("memory").measure(segmenter, (640, 480), 60)
    assert found["met"], found
    assert {row["name"] for row in found["rows"] if row["goal"]} >= {"segmenter, out=", "pipeline"}


def test_an_allocation_per_frame_is_seen_even_where_it_is_given_back(scripts: Callable[[str], Any]) -> None:
    memory = scripts("memory")

    @contextlib.contextmanager
    def wasteful() -> Iterator[Callable[[], Any]]:
        yield lambda: np.empty((480, 640), np.uint8).shape

    row = memory._row("wasteful", True, wasteful, 20, 480 * 640)
    assert row["allocating"] == 20 and row["peak_bytes"] >= 480 * 640
    assert row["held_bytes"] < 1000, "nothing of it is kept"


def test_what_was_allocated_once_counts_as_one_frame(scripts: Callable[[str], Any]) -> None:
    memory = scripts("memory")
    frames = 0

    @contextlib.contextmanager
    def rare() -> Iterator[Callable[[], Any]]:
        def one() -> None:
            nonlocal frames
            frames += 1
            if frames == memory._WARM_UP * 3 // 2 + 5:
                np.empty((480, 640), np.uint8)

        yield one

    assert memory._row("rare", True, rare, 20, 480 * 640)["allocating"] == 1


def test_what_is_kept_from_frame_to_frame_is_seen(scripts: Callable[[str], Any]) -> None:
    kept: List[Any] = []

    @contextlib.contextmanager
    def leaking() -> Iterator[Callable[[], Any]]:
        yield lambda: kept.append(np.zeros(10_000, np.uint8))

    assert scripts("memory")._row("leaking", True, leaking, 20, 480 * 640)["held_bytes"] > 9000


# loop_overhead


def test_the_overhead_of_a_pipeline_is_what_is_none_of_its_stages(
    scripts: Callable[[str], Any], segmenter: Segmenter
) -> None:
    script = scripts("loop_overhead")
    found = script.measure(segmenter, script.smooth_pictures((96, 64)), 20, 2)
    for row in found["loops"].values():
        assert 0.0 < row["work_ms"] < row["frame_ms"]
        assert row["low"] <= row["overhead"] <= row["high"] < 1.0
    assert found["met"] == (found["loops"]["pipeline"]["overhead"] <= 0.05)
    assert found["handover_ms"]["p50"] > 0


def test_a_source_of_prepared_pictures_gives_each_in_turn(scripts: Callable[[str], Any]) -> None:
    pictures = [np.full((4, 6, 3), value, np.uint8) for value in (1, 2)]
    source = scripts("loop_overhead").Prepared(pictures, 3)
    frames = [source.read() for _ in range(4)]
    assert [frame.image[0, 0, 0] for frame in frames[:3]] == [1, 2, 1] and frames[3] is None


# shadow


def test_a_shadow_is_measured_beside_no_second_network_and_one_to_compare_with(
    scripts: Callable[[str], Any], segmenter: Segmenter
) -> None:
    script, model = scripts("shadow"), segmenter.path
    with Segmenter.open(str(model), "cpu", threads=1) as other, script.open_shadow(str(model), "cpu") as shadow:
        found = script.measure(segmenter, other, shadow, script.smooth_pictures((96, 64)), 20, 2, 0.05)
    ways = found["ways"]
    assert ways["alone"]["looked_at"] == 0.0 < ways["shadow"]["looked_at"] <= 1.0
    assert 0.0 < ways["collect"]["looked_at"] <= 1.0
    assert ways["alone"]["p50"]["ratio"] == 1.0 and ways["compare"]["looked_at"] == 1.0 - ways["compare"]["dropped"]
    assert all(row["p95"]["ms"] >= row["p50"]["ms"] > 0.0 for row in ways.values())


# soak


def rows(soak: Any, memory_mb: np.ndarray, latency_ms: np.ndarray) -> np.ndarray:
    """A second per row."""
    table = np.zeros((len(memory_mb), len(soak.COLUMNS)))
    values = {"at_s": np.arange(1, len(table) + 1), "rss_mb": memory_mb, "latency_ms": latency_ms, "frames": 50.0}
    for name, value in values.items():
        table[:, soak.COLUMNS.index(name)] = value
    return table


def test_a_steady_run_meets_both_limits(scripts: Callable[[str], Any]) -> None:
    soak = scripts("soak")
    found = soak.judge(rows(soak, np.full(1800, 100.0), np.full(1800, 20.0)))
    assert found["met"] and found["rss_growth"] == 0.0 and found["latency_change"] == 0.0
    assert found["frames"] == 90_000 and found["window_s"] == 60.0


def test_a_leak_is_seen_and_a_warm_up_is_none(scripts: Callable[[str], Any]) -> None:
    soak = scripts("soak")
    warming = np.minimum(100.0, 50.0 + np.arange(1800.0))  # full after 50 s
    assert soak.judge(rows(soak, warming, np.full(1800, 20.0)))["met"]
    leak = soak.judge(rows(soak, 100.0 + np.arange(1800.0) * 4.0 / 3600, np.full(1800, 20.0)))
    assert not leak["met"] and leak["slope_mb_per_hour"] == pytest.approx(4.0)
    assert leak["rss_first_mb"] == pytest.approx(100.0 + 89.5 * 4.0 / 3600, abs=0.001), "the second minute"
    assert leak["rss_last_mb"] == pytest.approx(100.0 + 1769.5 * 4.0 / 3600, abs=0.001), "the last"


def test_a_run_that_slows_down_misses_its_limit(scripts: Callable[[str], Any]) -> None:
    soak = scripts("soak")
    found = soak.judge(rows(soak, np.full(1800, 100.0), np.linspace(20.0, 23.0, 1800)))
    assert not found["met"] and found["latency_change"] == pytest.approx(0.14, abs=0.01)


def test_a_short_run_writes_a_row_per_second(scripts: Callable[[str], Any]) -> None:
    soak = scripts("soak")
    with Segmenter(NumpyEngine()) as segmenter:
        table, dropped = soak.run(segmenter, 2.0, quiet=True)
    assert len(table) == 2 and dropped == 0
    assert (table[:, soak.COLUMNS.index("rss_mb")] > 1).all() and (table[:, soak.COLUMNS.index("threads")] >= 3).all()
    assert soak._csv(table).splitlines()[0] == ",".join(soak.COLUMNS)


# outside_network


def test_what_is_not_the_network_is_told_of_each_file(
    scripts: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [write_model(tmp_path / f"{name}.onnx", tiny_spec()) for name in ("one", "two")]
    monkeypatch.setattr("sys.argv", ["", *map(str, files), "--rounds", "3", "--threads", "1", "--provider", "cpu"])
    module = scripts("outside_network")
    assert module.main() == 0
    table = capsys.readouterr().out
    assert "one.onnx" in table and "two.onnx" in table and "3 rounds" in table
    frames = [np.zeros((720, 1280, 3), np.uint8)]
    first, second = module.measure(files, frames, 4, "cpu", 1)["models"]
    assert first["over_first"]["ratio"] == 1.0 and 0 < first["outside"]["ratio"] < 1
    assert first["over_bare"]["ratio"] > 1, "a tiny network: most of a frame is around it"
    assert second["over_first"]["ratio"] != 1.0
