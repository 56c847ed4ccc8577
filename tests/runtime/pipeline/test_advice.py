"""What the numbers of a run are explained with."""

from __future__ import annotations

import re
from typing import Any, Dict

import pytest

from rtda_runtime.pipeline.advice import advice


def stats(**changes: Any) -> Dict[str, Any]:
    stages = {"capture": 30.0, "preprocess": 2.0, "infer": 10.0, "postprocess": 1.0, "age": 14.0}
    stages.update(changes.pop("stages", {}))
    values: Dict[str, Any] = {
        "frames": 300,
        "captured": 300,
        "dropped": 0,
        "seconds": 10.0,
        "fps": 30.0,
        "policy": "newest",
        "sinks": {},
        "stages": {stage: {"p50": ms, "p99": 2 * ms} for stage, ms in stages.items()},
    }
    return {**values, **changes}


def sink(written: int, dropped: int) -> Dict[str, Any]:
    return {"written": written, "dropped": dropped, "error": None, "stages": {"encode": {"p50": 45.0}}}


@pytest.mark.parametrize(
    ("changes", "known", "said"),
    [
        ({}, {"fps": 30.0}, "the camera is the limit: 30.0 of its 30 fps"),
        ({"fps": 15.0}, {"fps": 30.0}, "gives 15.0 fps though it says 30"),
        ({"stages": {"age": 46.0}}, {"stamp": "driver"}, "wait in the camera's driver"),
        ({"stages": {"age": 46.0}}, {"stamp": "arrival"}, "short of cores"),
        ({"captured": 900, "dropped": 600, "stages": {"age": 25.0}}, {}, "waits for the one before"),
        ({"captured": 900, "dropped": 600}, {}, r"67 % of the frames .*: the work takes 13.0 ms .* every 11.1 ms"),
        ({"captured": 300, "dropped": 30}, {}, r"10 % of the frames .*: the work takes only 13.0 of 33.3 ms"),
        ({"stages": {"postprocess": 40.0, "age": 55.0}}, {}, "postprocess takes 40.0 ms, the network 10.0"),
        ({"stages": {"preprocess": 40.0, "age": 55.0}}, {}, r"preprocess takes 40.0 ms, the network 10.0.*\(--size\)"),
        ({"stages": {"preprocess": 40.0, "age": 55.0}}, {"stamp": "arrival"}, "helps .set it in the camera"),
        ({"sinks": {"video": sink(200, 100)}}, {}, r"video kept 200 of 300 results: it takes 45.0 ms each, .*33.3 ms"),
        ({}, {"clocks_locked": False}, "sudo jetson_clocks"),
    ],
)  # fmt: skip
def test_numbers_that_show_a_cause_are_explained(changes: Dict[str, Any], known: Dict[str, Any], said: str) -> None:
    assert any(re.search(said, sentence) for sentence in advice(stats(**changes), live=True, **known)), said


@pytest.mark.parametrize("live", [True, False])
def test_a_mask_that_numpy_makes_slowly_is_told_with_the_install_line_and_no_smaller_picture(live: bool) -> None:
    slow = stats(stages={"postprocess": 64.0, "age": 80.0})
    said = advice(slow, live=live, mask_maker="numpy")
    assert [sentence for sentence in said if "postprocess" in sentence] == [
        "postprocess takes 64.0 of 76.0 ms: without numba NumPy makes the mask, 10 to 20 times as slowly:"
        " pip install numba"
    ]
    assert not any("numba" in sentence for sentence in advice(slow, live=live, mask_maker="numba"))
    assert not any("numba" in sentence for sentence in advice(stats(), live=live, mask_maker="numpy"))
    assert not any("--size" in sentence for sentence in advice(slow, live=False, mask_maker="numba"))


@pytest.mark.parametrize(
    ("changes", "live"),
    [({}, True), ({"frames": 3, "fps": 1.0}, True), ({"sinks": {"view": sink(1, 299)}}, True), ({}, False)],
)
def test_numbers_that_show_nothing_are_left_alone(changes: Dict[str, Any], live: bool) -> None:
    assert advice(stats(**changes), live=live) == []
