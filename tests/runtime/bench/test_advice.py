"""Each cause that the figures of a benchmark show has its sentence."""

from __future__ import annotations

import re
from typing import Any, Dict

import pytest
from runtime.bench.records import quiet_record, quiet_values

from rtda_runtime.bench.advice import advice, drift


def test_nothing_to_say_about_a_quiet_machine() -> None:
    assert advice(quiet_record()) == []


def test_engines_that_share_the_cores_leave_none_idle() -> None:
    assert advice(quiet_record(model={"threads": 2}, settings={"in_flight": 2})) == []
    assert advice(quiet_record(model={"threads": 1}, settings={"in_flight": 2})) != []


JETSON = {"gpu_clock": {"least_mhz": 114, "now_mhz": 905, "most_mhz": 905}}
HOT = {"name": "T4", "throttled": "heat"}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"settled": False, "settings": {"duration_s": None}}, "p95 did not settle in"),
        ({"environment": {"jetson": JETSON}}, "clocks not locked: run `sudo jetson_clocks`"),
        ({"variation": {"infer": 0.3}}, "coefficient of variation of infer is 30.0 %, more than 10 %"),
        ({"variation": {"infer": 0.03}, "model": {"provider": "tensorrt"}}, "more than 2.5 %: lock the clocks"),
        ({"conditions": {"other_cores": 1.5}}, "other processes kept 1.5 of 4 cores busy"),
        ({"conditions": {"stolen_cores": 0.5}}, "hypervisor took 0.50 cores"),
        ({"conditions": {"throttled": 3, "temperature_start_c": 60.0, "temperature_end_c": 97.0}}, "heat.*60 to 97 °C"),
        ({"conditions": {"gpus": [HOT]}}, "lowered for heat"),
        ({"conditions": {"gpus": [{"name": "T4", "throttled": "power"}]}}, "power limit"),
        ({"samples": {"total": [1.0] * 60 + [1.2] * 40}}, "20 % slower while it ran"),
        ({"model": {"threads": 2}}, "2 of 4 cores work on the network"),
        ({"model": {"threads": 6}}, "6 threads share 4 cores: leave --threads out"),
        (
            {"environment": {"cpu_quota": 1.5, "cores_usable": 2}, "model": {"threads": 4}},
            "4 threads share 2 cores, all that the quota pays for: leave --threads out",
        ),
        ({"environment": {"cores_usable": 2}, "model": {"threads": 1}}, "1 of 2 cores work on the network"),
        ({"environment": {"governor": "powersave"}}, "governor is powersave"),
        (
            {
                "mask_maker": "numpy",
                "stages": {"preprocess": {"p50": 7.0}, "infer": {"p50": 7.0}, "postprocess": {"p50": 64.0}},
            },
            "postprocess takes 64.0 of 78.0 ms: without numba .*: pip install numba",
        ),
        (
            {"settings": {"rate_hz": 30.0}, "throughput": 20.0, "missed": 10, "offered": 30, "late": 10},
            "30 Hz cannot be kept here: 20.0 Hz were",
        ),
    ],
)
def test_each_cause_has_its_sentence(parts: Dict[str, Any], said: str) -> None:
    (sentence,) = advice(quiet_record(**parts))
    assert re.search(said, sentence), sentence


def test_frames_that_wait_longer_than_they_are_worked_on_are_told() -> None:
    stages = quiet_values()["stages"]
    waits = {"wait": {**stages["infer"], "p50": 15.0}, "total": {"p50": 24.0}}
    (sentence,) = advice(quiet_record(settings={"measures": "pipeline"}, stages=waits))
    assert "the work is 9.0 ms but a frame is 24.0 ms old" in sentence


def test_a_latency_that_goes_up_and_down_is_no_drift() -> None:
    assert drift(quiet_record(samples={"total": [1.0, 3.0, 1.0, 1.0, 1.3] * 20})) is None
    assert drift(quiet_record(samples={"total": [1.0] * 20 + [3.0] * 20 + [1.0] * 40 + [1.3] * 20})) is None
    assert drift(quiet_record(samples={"total": [1.0] * 49})) is None, "too few"
