"""Does a lower precision pay on this machine? Two files of one network, timed in turns in one library.

On a shared machine times vary by a factor of two within seconds; the ratio of two runs that follow each other does not.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from rtda_deploy.errors import ConfigError, ExportError
from rtda_deploy.files import readable_file
from rtda_deploy.optional import available, require

__all__ = ["LIBRARIES", "PAYS_FROM", "Worth", "libraries_here", "worth"]

LIBRARIES = ("onnxruntime", "openvino")
PAYS_FROM = 1.1  # below a tenth, the loss of agreement and one more file to keep are not worth it
_WARM_UP = 2  # runs of each before the first that counts: memory is allocated and weights are packed then

Run = Callable[[np.ndarray], object]


@dataclasses.dataclass(frozen=True)
class Worth:
    """How many times faster ``b`` is than ``a``.

    Attributes:
        library: What ran both, with its version.
        threads: How many it used.
        rounds: Pairs of runs.
        ratio: Median of time of ``a`` / time of ``b`` over the pairs.
        ratio_low: Lower quartile of it.
        ratio_high: Upper quartile of it.
        a_ms: Median time of the reference, inference only.
        b_ms: Median time of the other.
    """

    library: str
    threads: int
    rounds: int
    ratio: float
    ratio_low: float
    ratio_high: float
    a_ms: float
    b_ms: float

    @property
    def pays(self) -> bool:
        """Whether three of four pairs gained something worth having."""
        return self.ratio_low >= PAYS_FROM

    def sentence(self, precision: str) -> str:
        """For people, such as "int8 pays here: 3.2x (...)"."""
        verdict = "pays here" if self.pays else "does not pay here"
        spread = f"{self.ratio_low:.1f} to {self.ratio_high:.1f}"
        return f"{precision} {verdict}: {self.ratio:.1f}x ({spread}; {self.library}, {self.threads} thread(s))"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; times in ms, inference only."""
        return {**dataclasses.asdict(self), "pays": self.pays}


def worth(
    a: str | Path,
    b: str | Path,
    *,
    library: str = "onnxruntime",
    threads: int = 1,
    rounds: int = 15,
    progress: Callable[[int, int], None] | None = None,
) -> Worth:
    """Time two ``.onnx`` files in turns on the CPU: one of each, again and again.

    Args:
        a: The reference, in float32.
        b: The same network in another precision.
        library: One of ``LIBRARIES``; OpenVINO is told to compute in float32 what is not quantised (by itself it would
            take bfloat16 where the CPU has it, and the comparison would be of something else).
        threads: Of the library.
        rounds: Pairs that are timed, at least 4.
        progress: Called with (done, total).

    Raises:
        ConfigError: If the library is unknown, or there are too few rounds for a spread.
        ExportError: If the files do not take the same input.
        MissingPackageError: If the library is not installed.
    """
    if library not in LIBRARIES:
        raise ConfigError(f"unknown library {library!r}", hint=f"known: {', '.join(LIBRARIES)}")
    if rounds < 4 or threads < 1:
        raise ConfigError(
            f"rounds must be at least 4 and threads at least 1, got {rounds} and {threads}",
            hint="such as rounds=8, threads=2",
        )
    opened = _ort if library == "onnxruntime" else _openvino
    (run_a, shape_a), (run_b, shape_b) = (opened(readable_file(path, what="model"), threads) for path in (a, b))
    if shape_a != shape_b:
        raise ExportError(
            f"the networks take different inputs: {shape_a} and {shape_b}", hint="export both at one size"
        )
    image = np.random.default_rng(0).standard_normal(shape_a, dtype=np.float32)
    times: list[tuple[float, float]] = []
    for done in range(-_WARM_UP, rounds):
        pair = (_seconds(run_a, image), _seconds(run_b, image))
        if done >= 0:
            times.append(pair)
            if progress is not None:
                progress(done + 1, rounds)
    ratios = [first / second for first, second in times]
    low, _, high = quantiles(ratios, n=4)
    return Worth(
        library=f"{library} {require(library, extra='openvino').__version__.split('-')[0]}",
        threads=threads,
        rounds=rounds,
        ratio=median(ratios),
        ratio_low=low,
        ratio_high=high,
        a_ms=1e3 * median(first for first, _ in times),
        b_ms=1e3 * median(second for _, second in times),
    )


def libraries_here() -> Sequence[str]:
    """Those of ``LIBRARIES`` that are installed."""
    return tuple(name for name in LIBRARIES if available(name))


def _seconds(run: Run, image: np.ndarray) -> float:
    started = time.perf_counter_ns()
    run(image)
    return (time.perf_counter_ns() - started) / 1e9


def _ort(path: Path, threads: int) -> tuple[Run, tuple[int, ...]]:
    from rtda_export.precision.activations import open_session

    session = open_session(str(path), threads, spinning=True)
    entry = session.get_inputs()[0]
    return lambda image: session.run(None, {entry.name: image}), tuple(entry.shape)


def _openvino(path: Path, threads: int) -> tuple[Run, tuple[int, ...]]:
    from rtda_runtime.engines.openvino import openvino_core

    options = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino_core().compile_model(str(path), "CPU", options)
    request = compiled.create_infer_request()
    return lambda image: request.infer([image]), tuple(compiled.input(0).shape)
