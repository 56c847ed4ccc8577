"""Ranges of every activation on real frames, from which the steps of INT8 are made.

One pass over the frames collects a histogram of each tensor; every method reads its ranges from there. Held in memory
are a few tensors of one frame and the histograms, however many frames there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from rtda_deploy.errors import ExportError
from rtda_export.precision.activations import tensors

__all__ = ["METHODS", "Calibration", "calibrate"]

# Method -> share of the values inside the range. Measured on BiSeNet-R18 (ToyTown, CamVid): these three differ by under
# half a point of agreement and which of them is best changes from network to network; Entropy, which ONNX Runtime has
# too, was 12 dB worse on every one (it cuts the rare large values that decide a mask) and took ten times as long.
METHODS = {"minmax": 1.0, "percentile-99.999": 0.99999, "percentile-99.99": 0.9999}
_BINS = 4096  # of a histogram; a step of int8 is then 16 bins or more wide


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Histograms of the activations.

    Attributes:
        frames: How many frames were read.
    """

    frames: int
    _histograms: dict[str, _Histogram] = dataclasses.field(repr=False)
    _known: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict, repr=False)

    def ranges(self, method: str) -> dict[str, tuple[float, float]]:
        """Smallest and largest value to represent, by tensor; a key of ``METHODS``."""
        found = {name: histogram.range(METHODS[method]) for name, histogram in self._histograms.items()}
        return {**found, **self._known}


def calibrate(
    model: Any,
    images: Sequence[np.ndarray],
    names: Collection[str],
    *,
    known: Mapping[str, tuple[float, float]] | None = None,
    threads: int = 0,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """Run the network on frames and collect its activations.

    Args:
        model: ``onnx.ModelProto`` in float32 with fixed shapes.
        images: Preprocessed, float32 (1, 3, H, W) each; read one after the other, several times.
        names: Outputs of nodes to look at; the network's input is always among them.
        known: Ranges, by tensor, that are not measured: those of a picture's pixels.
        threads: Of ONNX Runtime; 0: as many as there are cores.
        tell: Called with (done, total).

    Raises:
        ExportError: If a value is NaN or infinite.
    """
    entry = model.graph.input[0].name
    histograms = {name: _Histogram() for name in (entry, *names)}
    for image in images:
        histograms[entry].add(image, entry)
    total = len(names) * len(images)
    for done, (_, name, values) in enumerate(tensors(model, images, names, threads=threads)):
        if isinstance(values, np.ndarray) and values.dtype.kind == "f" and values.size:
            histograms[name].add(values, name)  # the rest is how a graph computes shapes, such as those of a split
        tell(done + 1, total)
    return Calibration(len(images), histograms, known or {})


class _Histogram:
    """Counts of values between -limit and limit, a power of two that grows by merging bins: no count moves sideways."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)
        self._limit = 2.0**-20
        self._low, self._high = np.inf, -np.inf

    def add(self, values: np.ndarray, name: str) -> None:
        low, high = float(values.min()), float(values.max())
        largest = max(-low, high)
        if not np.isfinite(largest):
            raise ExportError(f"{name} is NaN or infinite on a calibration frame", hint="look for NaN in the weights")
        while self._limit < largest:
            middle = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.pad(middle, _BINS // 4)
            self._limit *= 2
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._counts += np.histogram(values, bins=_BINS, range=(-self._limit, self._limit))[0]

    def range(self, inside: float) -> tuple[float, float]:
        """The smallest range that holds this share of the values and zero, half of the rest cut on either side."""
        if not self._counts.any():
            return 0.0, 0.0
        if inside >= 1:
            return min(self._low, 0.0), max(self._high, 0.0)
        edges = np.linspace(-self._limit, self._limit, _BINS + 1)
        shares = np.cumsum(self._counts) / self._counts.sum()
        cut = (1 - inside) / 2
        low = edges[np.searchsorted(shares, cut, side="right")]
        high = edges[min(_BINS, int(np.searchsorted(shares, 1 - cut)) + 1)]
        return float(min(max(low, self._low), 0.0)), float(max(min(high, self._high), 0.0))
