"""growth, and what it uses of startup, memory and small_network: real sessions and processes, tiny networks."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np
import pytest
from runtime.models import tiny_spec, write_model

from rtda_deploy.errors import ConfigError, RtdaError
from rtda_deploy.optional import available

FOLDER = Path(__file__).parents[2] / "benchmarks"
PROVIDERS = ["cpu", *(["openvino"] if available("openvino") else [])]
pytest.importorskip("onnx", reason="the tiny networks are written with onnx")


@pytest.fixture(scope="module")
def growth() -> Iterator[Any]:
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("growth")
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("growth", "memory", "small_network", "startup"):
            sys.modules.pop(name, None)


class TinyNetworks:
    """Strided convolutions of the size and batch that is asked for, whatever the backbone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: List[Tuple[Any, ...]] = []

    def file(self, size_wh: Tuple[int, int], backbone: str = "resnet18", variant: str = "rtda", batch: int = 1) -> Path:
        self.asked.append((size_wh, backbone, variant, batch))
        spec = tiny_spec(size_hw=(size_wh[1], size_wh[0]))
        path = self.folder / f"{'-'.join(map(str, self.asked[-1]))}.onnx"
        return write_model(path, spec, shape=(batch, 3, size_wh[1], size_wh[0]))


@pytest.fixture()
def networks(tmp_path: Path) -> TinyNetworks:
    return TinyNetworks(tmp_path)


@pytest.fixture()
def plan(growth: Any) -> Any:
    return growth.Plan((96, 64), ((48, 32), (96, 64), (192, 128)), rounds=3, starts=1, masks=3, threads=1)


def test_every_way_runs_once_a_round_forwards_and_backwards_after_a_warm_up(growth: Any) -> None:
    calls: List[str] = []

    def way(name: str) -> Any:
        def run() -> Dict[str, float]:
            calls.append(name)
            return {"ms": float(len(calls))}

        return run

    times = growth.interleaved({name: way(name) for name in "abc"}, 2)
    assert calls[6:] == ["a", "b", "c", "c", "b", "a"]
    assert [entry["ms"] for entry in times["a"]] == [7.0, 12.0], "the warm-up is not counted"


def test_a_ratio_is_that_of_one_round_and_its_spread_the_middle_half(growth: Any) -> None:
    machine = [1.0, 2.0, 1.0, 4.0, 1.0]  # how slow the machine was in each round
    factors = [2.0, 2.0, 2.5, 1.5, 2.0]
    times = {
        "base": [{"ms": slow} for slow in machine],
        "own": [{"ms": slow * factor} for slow, factor in zip(machine, factors)],
    }
    assert growth._row(times, "own", "base", "ms") == {"ms": 2.5, "ratio": 2.0, "low": 2.0, "high": 2.0}
    times["own"][1]["ms"] = 2.0 * 1.75
    assert growth._row(times, "own", "base", "ms")["low"] == 1.75


@pytest.mark.parametrize("power", [0.5, 1.0, 1.3])
def test_the_exponent_of_a_power_law_is_its_power(growth: Any, power: float) -> None:
    pixels = [0.25, 0.5, 1.0, 4.0]
    assert growth.exponent(pixels, [7.0 * value**power for value in pixels]) == pytest.approx(power)


def test_batches_are_measured_per_picture_on_files_of_that_batch(
    growth: Any, plan: Any, networks: TinyNetworks, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = growth.batch(plan, networks, PROVIDERS)
    assert [row["batch"] for row in rows] == list(growth.BATCHES) * len(PROVIDERS)
    assert {batch for _, _, _, batch in networks.asked} == set(growth.BATCHES)
    assert all(row["ratio"] == 1.0 for row in rows if row["batch"] == 1)
    assert all(row["ms"] > 0 and row["low"] <= row["ratio"] <= row["high"] for row in rows)
    ticks = iter(range(0, 10**9, 8_000_000))  # every run takes 8 ms by this clock
    monkeypatch.setattr(growth.time, "perf_counter_ns", lambda: next(ticks))
    assert growth._bare("cpu", networks.file((96, 64), batch=4), 4, 1)() == {"ms": 2.0}


def test_a_file_of_another_batch_is_refused(growth: Any, networks: TinyNetworks) -> None:
    with pytest.raises(ConfigError, match="takes 2 pictures at a time, expected 4"):
        growth._bare("cpu", networks.file((96, 64), batch=2), 4, 1)


def test_sizes_are_rows_and_an_exponent_for_each_library(growth: Any, plan: Any, networks: TinyNetworks) -> None:
    found = growth.size(plan, networks, PROVIDERS)
    assert [row["pixels"] for row in found["rows"]] == [0.25, 1.0, 4.0] * len(PROVIDERS)
    for row in found["rows"]:
        assert 0 < row["network_ms"] < row["frame_ms"]
        assert row["low"] <= row["ratio"] <= row["high"]
        assert row["ratio"] == 1.0 or row["size"] != found["base"] == "96x64"
    for number, fit in enumerate(found["fits"]):
        mine = found["rows"][3 * number : 3 * number + 3]
        assert fit["library"] == mine[0]["library"]
        expected = np.log(mine[2]["network_ms"] / mine[0]["network_ms"]) / np.log(16)  # the middle one has no lever
        assert fit["network_exponent"] == pytest.approx(expected)


def test_networks_stand_beside_their_operations(growth: Any, plan: Any, networks: TinyNetworks) -> None:
    rows = growth.backbone(plan, networks, PROVIDERS)
    assert [(row["backbone"], row["variant"]) for row in rows] == list(growth.BACKBONES) * len(PROVIDERS)
    operations = 2 * 5 * 3 * 64 * 96  # multiply and add, classes, colours, pixels: a pixel is read once for each class
    assert rows[0]["gflop"] == pytest.approx(operations / 1e9) and rows[2]["gflop_ratio"] == 1.0
    assert rows[0]["ratio"] == 1.0 and all(row["ms"] > 0 for row in rows)


def test_a_start_is_split_by_phase_and_keeps_its_code_for_the_second(
    growth: Any, plan: Any, networks: TinyNetworks
) -> None:
    rows = growth.start(plan, networks, PROVIDERS)
    libraries = ["ONNX Runtime", *(["OpenVINO", "auto"] if len(PROVIDERS) > 1 else [])]
    expected = [(library, which) for library in libraries for which in ("first", "second")]
    assert [(row["library"], row["start"]) for row in rows] == expected
    for row in rows:
        phases = [row[name] for name in growth.PHASES]
        assert all(phase > 0 for phase in phases) and phases[-1] == pytest.approx(sum(phases[:-1]))
        assert row["masks"] == 3 and 20 < row["peak_1_mb"] <= row["peak_mb"] and row["resident_mb"] <= row["peak_mb"]


def test_a_first_mask_leaves_its_compiled_code_in_the_folder_it_is_given(
    growth: Any, networks: TinyNetworks, tmp_path: Path
) -> None:
    pytest.importorskip("numba", reason="nothing is compiled without it")
    growth.first_mask(networks.file((96, 64)), "cpu", (32, 24), cache=tmp_path / "kept", threads=1)
    assert list((tmp_path / "kept").rglob("*.nbi"))


def test_a_start_that_fails_says_so_with_the_words_of_the_process(growth: Any, tmp_path: Path) -> None:
    with pytest.raises(RtdaError, match=r"made no mask with .*none\.onnx") as caught:
        growth.first_mask(tmp_path / "none.onnx", "cpu", (32, 24), cache=tmp_path)
    assert "FileAccessError" in caught.value.why


def test_memory_is_read_from_a_status_by_its_field(growth: Any) -> None:
    memory = sys.modules["memory"]
    status = "Name:\tpython\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\n"
    assert (memory.status_mb(status, "VmHWM"), memory.status_mb(status, "VmRSS")) == (200.0, 100.0)
    with pytest.raises(OSError, match="no VmSwap"):
        memory.status_mb(status, "VmSwap")


def test_a_part_that_does_not_exist_is_refused_with_the_known_ones(growth: Any) -> None:
    assert growth._parts("size,start") == ["size", "start"]
    for text in ("size,colour", ""):
        with pytest.raises(growth.argparse.ArgumentTypeError, match="known: batch, size, backbone, start"):
            growth._parts(text)


def test_only_the_parts_asked_for_are_measured_and_printed(growth: Any, plan: Any, networks: TinyNetworks) -> None:
    found = growth.measure(["backbone"], plan, networks, ["cpu"])
    assert list(found) == ["backbone"]
    settings = {"rounds": 3, "starts": 1, "threads": 1, "environment": {"cpu": "X", "cores": 2}}
    text = "\n".join(growth._tables({**found, **settings, "conditions": {"other_cores": 0.5}}))
    assert "resnet101 rtda" in text and "others took 0.5 meanwhile" in text and "batch" not in text


@pytest.mark.usefixtures("published_width")  # one of them is written by another process
def test_small_networks_have_the_same_weights_at_every_size_and_batch(growth: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the network is made with torch")
    import onnx
    from onnx import numpy_helper

    sys.modules["small_network"]._write_here(tmp_path / "a.onnx", (64, 32), "resnet18", "rtda", 1)
    first = onnx.load(str(tmp_path / "a.onnx"))
    second = onnx.load(str(growth.write_network(tmp_path / "b.onnx", (32, 32), batch=2)))
    shapes = [[side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim] for model in (first, second)]
    assert shapes == [[1, 3, 32, 64], [2, 3, 32, 32]]
    weights = [
        {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer if len(entry.dims) == 4}
        for model in (first, second)
    ]
    assert len(weights[0]) > 20 and weights[0].keys() == weights[1].keys()
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
