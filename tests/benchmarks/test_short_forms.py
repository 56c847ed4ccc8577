"""What the benchmarks of speed share, and short forms of preprocess, cpu_threads and first_mask on tiny networks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import pytest
from runtime.models import tiny_spec, write_model

from rtda_deploy.errors import RtdaError
from rtda_deploy.optional import available

FOLDER = Path(__file__).parents[2] / "benchmarks"
Module = Callable[[str], Any]


def printed(name: str, *words: str) -> Dict[str, Any]:
    """What the command prints with ``--json``; it fails where it says that a goal was missed, and only there."""
    command = [sys.executable, str(FOLDER / f"{name}.py"), *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found: Dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == int(not found.get("met", True)), done.stderr
    assert found["environment"]["cores"] and found["conditions"]["seconds"] >= 0
    for row in found["rows"]:
        assert row["low"] <= row.get("ratio", row.get("total_ms")) <= row["high"]
    return found


# what they share


def test_every_way_runs_once_a_round_forwards_and_backwards_after_a_warm_up(benchmark_module: Module) -> None:
    calls: List[str] = []

    def way(name: str) -> Any:
        def run(number: int) -> int:
            calls.append(f"{name}{number}")
            return len(calls)

        return run

    times = benchmark_module("rounds").in_turns({name: way(name) for name in "abc"}, 2, warm_up=2)
    assert calls[6:] == ["a0", "b0", "c0", "c1", "b1", "a1"]
    assert times["a"] == [7, 12], "the warm-up is not counted"


def test_a_ratio_is_that_of_one_round_and_its_spread_the_middle_half(benchmark_module: Module) -> None:
    rounds = benchmark_module("rounds")
    machine = [1.0, 2.0, 1.0, 4.0, 1.0]  # how slow the machine was in each round
    own = [slow * factor for slow, factor in zip(machine, [2.0, 1.75, 2.5, 1.5, 2.0])]
    assert rounds.times_as_long(own, machine) == {"ms": 2.5, "ratio": 2.0, "low": 1.75, "high": 2.0}
    assert rounds.times_as_fast(machine, own) == {"ms": 1.0, "ratio": 2.0, "low": 1.75, "high": 2.0}


def test_a_way_is_timed_by_the_clock_it_is_given_on_each_input_in_turn(benchmark_module: Module) -> None:
    seen: List[str] = []
    ticks = iter(range(10))
    run = benchmark_module("rounds").timed(seen.append, lambda: next(ticks), ["left", "right"])
    assert [run(number) for number in range(3)] == [1000.0] * 3 and seen == ["left", "right", "left"]


def test_a_table_is_markdown_and_padded_for_a_terminal(benchmark_module: Module) -> None:
    tables = benchmark_module("tables")
    columns = {"way": "{way}", ">ms": "{ms:ms}", ">ratio": "{row:x1}", ">same": "{same:%1}"}
    rows = [{"way": "a|b", "ms": 12.34, "ratio": 2.0, "low": 1.0, "high": 3.0, "same": None}]
    text = tables.table(columns, [*rows, {**rows[0], "way": "c", "ms": 123.4, "same": 0.5}])
    assert text.splitlines()[:3] == [
        "| way | ms | ratio | same |",
        "| --- | ---: | ---: | ---: |",
        "| a/b | 12.3 | 2.0x (1.0 to 3.0) | – |",
    ]
    assert tables.wide(f"before\n\n{text}\nafter").splitlines() == [
        "before",
        "",
        "way    ms              ratio    same",
        "a/b  12.3  2.0x (1.0 to 3.0)       –",
        "c     123  2.0x (1.0 to 3.0)  50.0 %",
        "after",
    ]


@pytest.mark.parametrize("ratio", [2.0, 3.0])
def test_a_missed_goal_is_printed_and_is_the_exit_code(
    benchmark_module: Module, capsys: pytest.CaptureFixture[str], ratio: float
) -> None:
    row = {"threads": 1, "frame": "1280x720", "way": "ours", "ms": 1.0, "ratio": ratio, "low": ratio, "high": ratio}
    machine = {"environment": {"cpu": "X", "cores": 2}, "conditions": {"other_cores": 0.5}}
    found = {"rows": [row, {**row, "way": "NumPy", "ratio": 30.0}], "goal": 2.5, **machine}
    report = benchmark_module("speed_sections").report
    assert report("preprocess", found, as_json=False) == int(ratio > 2.5)
    assert ("**MISSED**" in capsys.readouterr().out) == (ratio > 2.5)
    assert report("preprocess", found, as_json=True) == int(ratio > 2.5)
    assert json.loads(capsys.readouterr().out) == found


# preprocess


def test_all_ways_make_the_same_input(benchmark_module: Module) -> None:
    script = benchmark_module("preprocess")
    frame = script.smooth_pictures((128, 96), 1)[0]
    made = {name: way(frame) for name, way in script.ways(tiny_spec(size_hw=(32, 64))).items()}
    assert made[script.FLOOR].shape == (32, 64, 3)
    np.testing.assert_allclose(made["NumPy"], made["ours"], atol=1e-5)
    # one scale for the three colours: it is off by what their std differ from its mean, and no more
    assert np.corrcoef(made["blobFromImage"].ravel(), made["ours"].ravel())[0, 1] > 0.999


def test_preprocess_prints_a_row_per_thread_count_frame_and_way() -> None:
    found = printed("preprocess", "--size", "64x32", "--rounds", "3")
    assert found["size"] == "64x32" and found["environment"]["opencv"]
    assert len(found["rows"]) == len({row["threads"] for row in found["rows"]}) * 2 * 4


# cpu_threads


def test_busy_programs_run_meanwhile_and_no_longer(benchmark_module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    script = benchmark_module("cpu_threads")
    started = []
    real = subprocess.Popen

    def popen(command: Any) -> Any:
        started.append(real(command))
        return started[-1]

    monkeypatch.setattr(script.subprocess, "Popen", popen)
    running = []
    known = {("x", script.OWN): lambda: running.append([each.poll() for each in started])}
    (row,) = script.measure(known, 2, 2)
    assert running == [[None, None]] * 6 and row["busy"] == 2 and row["ratio"] == 1.0
    assert all(each.poll() is not None for each in started)


def test_cpu_threads_compares_ours_with_each_librarys_own(tmp_path: Path) -> None:
    found = printed("cpu_threads", "--model", str(write_model(tmp_path / "tiny.onnx")), "--rounds", "2")
    libraries = {"ONNX Runtime", "OpenVINO"} if available("openvino") else {"ONNX Runtime"}
    for option in ("ours", "library's own"):
        rows = [row for row in found["rows"] if row["option"] == option]
        assert {(row["library"], row["busy"]) for row in rows} == {
            (name, busy) for name in libraries for busy in (0, 1)
        }
        assert all(row["cpu_ms"] >= 0 and (option == "ours" or row["ratio"] == 1.0) for row in rows)


# first_mask, memory and small_network


def test_a_start_is_split_by_phase_and_keeps_its_code_for_the_second(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny.onnx")
    found = printed("first_mask", "--model", str(model), "--starts", "1", "--masks", "3", "--threads", "1")
    libraries = ["ONNX Runtime", *(["OpenVINO", "auto"] if available("openvino") else [])]
    expected = [(library, which) for library in libraries for which in ("first", "second")]
    assert [(row["library"], row["start"]) for row in found["rows"]] == expected
    for row in found["rows"]:
        phases = [row[name] for name in ("python_ms", "import_ms", "open_ms", "mask_ms")]
        assert all(phase > 0 for phase in phases) and row["total_ms"] == pytest.approx(sum(phases))
        assert row["masks"] == 3 and 20 < row["peak_1_mb"] <= row["peak_mb"] and row["resident_mb"] <= row["peak_mb"]


def test_a_first_mask_leaves_its_compiled_code_in_the_folder_it_is_given(
    benchmark_module: Module, tmp_path: Path
) -> None:
    pytest.importorskip("numba", reason="nothing is compiled without it")
    model = write_model(tmp_path / "tiny.onnx")
    benchmark_module("first_mask").first_mask(model, "cpu", (32, 24), cache=tmp_path / "kept", threads=1)
    assert list((tmp_path / "kept").rglob("*.nbi"))


def test_a_start_that_fails_says_so_with_the_words_of_the_process(benchmark_module: Module, tmp_path: Path) -> None:
    with pytest.raises(RtdaError, match=r"made no mask with .*none\.onnx") as caught:
        benchmark_module("first_mask").first_mask(tmp_path / "none.onnx", "cpu", (32, 24), cache=tmp_path)
    assert "FileAccessError" in caught.value.why


def test_memory_is_read_from_a_status_by_its_field(benchmark_module: Module) -> None:
    memory = benchmark_module("memory")
    status = "Name:\tpython\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\n"
    assert (memory.status_mb(status, "VmHWM"), memory.status_mb(status, "VmRSS")) == (200.0, 100.0)
    with pytest.raises(OSError, match="no VmSwap"):
        memory.status_mb(status, "VmSwap")


def test_small_networks_are_written_by_another_process_with_the_size_asked_for(
    benchmark_module: Module, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx", reason="the network is written with onnx")
    pytest.importorskip("torch", reason="the network is made with torch")
    path = benchmark_module("small_network").write_network(tmp_path / "a.onnx", (64, 32))
    shape = onnx.load(str(path)).graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_value for side in shape] == [1, 3, 32, 64] and path.stat().st_size > 10e6, "R18, whole"
