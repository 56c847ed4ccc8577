"""What the runtime gives for one frame."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Mapping, Optional

if TYPE_CHECKING:
    import numpy as np

    from rtda_deploy.spec import ModelSpec

__all__ = ["Result"]


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """One segmented frame.

    Its arrays are valid for as long as it, or any of them or of their views, is held: their memory is used again only
    afterwards. ``frame`` is the caller's or the source's own array, not a copy. Where the caller gave ``out=`` to
    :meth:`Segmenter.segment`, ``mask`` is that array, and the next call overwrites it. :meth:`copy` keeps everything.

    Attributes:
        frame: uint8 (H, W, 3) BGR, as captured.
        mask: uint8 (H, W) class index per pixel, camera size.
        captured_ns: When the frame was captured, on the clock of ``time.perf_counter_ns``.
        sequence: Number of the frame in its source, from 0; a gap means that frames were dropped.
        dropped: Frames captured but not segmented since the pipeline started.
        timing: Milliseconds per stage: preprocess, infer, postprocess; in a pipeline also capture (reading the
            frame), compare (the second network) and age (capture to mask).
        spec: What the network was trained with.
        confidence: uint8 (H, W), how sure the network is of each pixel, 255 is 1.0; None where it was not asked for.
        compared: uint8 (H, W) mask of a second network with the same classes; None where there is none.
        recorded_ns: Where the recording shows the frame, nanoseconds after its first one; None: a camera, or pictures.
        state: ``live``, or ``stale``: the frame is older than frames of this source should be.
        monitor: float32 (D,), signals of the frame for the shift alarm, of a network exported with ``--monitor``; a
            copy of its own. Else None.
        live: Whether the frame comes from something live, or from a recording: then its age counts from reading it,
            which tells nothing about a camera, and no picture shows it.
    """

    frame: np.ndarray
    mask: np.ndarray
    captured_ns: int
    sequence: int
    dropped: int
    timing: Mapping[str, float]
    spec: ModelSpec
    confidence: Optional[np.ndarray] = None
    compared: Optional[np.ndarray] = None
    state: str = "live"
    recorded_ns: Optional[int] = None
    live: bool = True
    monitor: Optional[np.ndarray] = None

    def plot(self, *, alpha: float = 0.5, legend: bool = True, outline: Optional[bool] = None) -> np.ndarray:
        """The frame with the mask over it in the classes' colours: uint8 (H, W, 3) BGR, a new array.

        For one picture now and then, as ``cv2.imwrite("seen.jpg", result.plot())``; a loop that draws every frame keeps
        an :class:`Overlay`, which uses its memory again. With the mask of a second network it is twice as wide.

        Args:
            alpha: 0: the frame alone, 1: the mask alone.
            legend: Whether to list the classes seen.
            outline: True: a line around every region; False: none; None: where regions are hard to see.

        Raises:
            ConfigError: If alpha is not between 0 and 1.
        """
        from rtda_runtime.sinks.overlay import Overlay

        return Overlay(self.spec, alpha, legend=legend, outline=outline).draw_result(self)

    def copy(self) -> Result:
        """A result whose arrays belong to it alone."""
        return dataclasses.replace(
            self,
            frame=self.frame.copy(),
            mask=self.mask.copy(),
            timing=dict(self.timing),
            confidence=None if self.confidence is None else self.confidence.copy(),
            compared=None if self.compared is None else self.compared.copy(),
        )
