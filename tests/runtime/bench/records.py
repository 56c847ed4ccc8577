"""Records of a benchmark for tests, made from a real one."""

from __future__ import annotations

import copy
import functools
from typing import Any, Dict

import numpy as np
from runtime.fakes import NumpyEngine

from rtda_runtime import Segmenter
from rtda_runtime.bench.benchmark import benchmark
from rtda_runtime.bench.record import BenchRecord
from rtda_runtime.timing import summarize_ms

FRAMES = 400


def quiet_values(**parts: Any) -> Dict[str, Any]:
    """The JSON of a record that gives no cause for advice, but for ``parts`` (``environment={"governor": ...}``)."""
    values = copy.deepcopy(_measured())
    quiet = {
        "settled": True,
        "variation": {"infer": 0.01},
        "mask_maker": "numba",
        "environment": {"governor": "performance", "cpu_quota": None, "gpus": [], "jetson": None},
        "conditions": {"other_cores": 0.1, "stolen_cores": 0.0, "throttled": 0, "gpus": []},
    }
    quiet["environment"].update(cores=4, cores_total=4, cores_usable=4)  # type: ignore[attr-defined]
    return _merged(_merged({**values, "samples": {"total": [1.0] * 100}}, quiet), parts)


def quiet_record(**parts: Any) -> BenchRecord:
    """The record of :func:`quiet_values`."""
    return BenchRecord.from_dict(quiet_values(**parts))


def timed_values(total_ms: float = 10.0, *, seed: int = 0, noise: float = 0.05, **parts: Any) -> Dict[str, Any]:
    """The JSON of a record whose frames took about ``total_ms``, in slow waves as neighbouring frames have them."""
    rng = np.random.default_rng(seed)
    waves = np.repeat(rng.normal(0.0, noise, FRAMES // 10), 10)
    total = total_ms * (1.0 + waves + rng.normal(0.0, noise, FRAMES))
    values = quiet_values()
    values["samples"] = {"at_s": (np.cumsum(total) / 1e3).tolist(), "total": total.tolist()}
    values["stages"] = {"total": summarize_ms(total)}
    values["throughput"] = FRAMES / (float(np.sum(total)) / 1e3)
    return _merged(values, parts)


def timed_record(total_ms: float = 10.0, **parts: Any) -> BenchRecord:
    """The record of :func:`timed_values`."""
    return BenchRecord.from_dict(timed_values(total_ms, **parts))


@functools.lru_cache(maxsize=None)
def _measured() -> Dict[str, Any]:
    pictures = [np.zeros((64, 96, 3), np.uint8)]
    return benchmark(Segmenter(NumpyEngine()), pictures, warmup_s=0.0, duration_s=0.05).to_dict()


def _merged(values: Dict[str, Any], parts: Dict[str, Any]) -> Dict[str, Any]:
    for name, part in parts.items():
        deeper = isinstance(part, dict) and isinstance(values.get(name), dict)
        values[name] = _merged(values[name], part) if deeper else part
    return values
