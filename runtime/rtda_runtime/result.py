"""What the runtime gives for one frame."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Mapping

if TYPE_CHECKING:
    import numpy as np

    from rtda_deploy.spec import ModelSpec

__all__ = ["Result"]


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """One segmented frame.

    ``frame`` is the caller's or the source's own array, not a copy; ``mask`` is a new array unless the caller gave
    ``out=`` to :meth:`Segmenter.segment`, in which case the next call overwrites it. :meth:`copy` keeps both.

    Attributes:
        frame: uint8 (H, W, 3) BGR, as captured.
        mask: uint8 (H, W) class index per pixel, camera size.
        captured_ns: When the frame was captured, on the clock of ``time.perf_counter_ns``.
        sequence: Number of the frame in its source, from 0; a gap means that frames were dropped.
        dropped: Frames captured but not segmented since the pipeline started.
        timing: Milliseconds per stage: preprocess, infer, postprocess; in a pipeline also capture (reading the
            frame) and age (capture to mask).
        spec: What the network was trained with.
    """

    frame: np.ndarray
    mask: np.ndarray
    captured_ns: int
    sequence: int
    dropped: int
    timing: Mapping[str, float]
    spec: ModelSpec

    def copy(self) -> Result:
        """A result whose arrays belong to it alone."""
        return dataclasses.replace(self, frame=self.frame.copy(), mask=self.mask.copy(), timing=dict(self.timing))
