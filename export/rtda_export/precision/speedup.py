"""Whether a lower precision pays on this CPU: both files of a network, timed in turns in ONNX Runtime."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np

from rtda_deploy.optional import require
from rtda_export.precision.activations import open_session
from rtda_runtime.engines.contest import race

__all__ = ["PAYS_FROM", "Speedup", "speedup"]

PAYS_FROM = 1.1  # a smaller gain is not worth the loss of agreement and one more file to keep
_WARM_UP = 2  # runs of each before the first that counts: memory is allocated and weights are packed then
_ROUNDS = 15


@dataclasses.dataclass(frozen=True)
class Speedup:
    """How many times as fast one file is as another, inference only.

    Attributes:
        library: What ran both, with its version, and its threads.
        ratio: Median over the rounds.
        ratio_low: Lower quartile.
        ratio_high: Upper quartile.
    """

    library: str
    ratio: float
    ratio_low: float
    ratio_high: float

    @classmethod
    def of(cls, library: str, ratios: list[float]) -> Speedup:
        """From the ratios of at least two rounds."""
        low, median, high = quantiles(ratios, n=4)
        return cls(library, median, low, high)

    def sentence(self, precision: str) -> str:
        """For people, such as "int8 pays here: 3.2x (...)"; it pays where three of four rounds gained enough."""
        verdict = "pays here" if self.ratio_low >= PAYS_FROM else "does not pay here"
        return (
            f"{precision} {verdict}: {self.ratio:.1f}x ({self.ratio_low:.1f} to {self.ratio_high:.1f}; {self.library})"
        )


def speedup(reference: Path, other: Path) -> Speedup:
    """How many times as fast ``other`` is as ``reference``: two ``.onnx`` files that take the same input.

    Raises:
        ExportError: If ONNX Runtime does not run one of them.
    """
    version = require("onnxruntime", extra="export").__version__
    runs = [_run(path) for path in (reference, other)]
    for run in runs:
        for _ in range(_WARM_UP):
            run()
    return Speedup.of(f"onnxruntime {version}, 1 thread(s)", race(*runs, rounds=(_ROUNDS, _ROUNDS)))


def _run(path: Path) -> Any:
    session = open_session(str(path), 1)
    entry = session.get_inputs()[0]
    image = np.random.default_rng(0).standard_normal(entry.shape, dtype=np.float32)
    return lambda: session.run(None, {entry.name: image})
