"""One frame in, one mask out, at the camera's own size; for programs whose own loop owns the camera."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Callable, Optional, Tuple, Type, Union

import numpy as np

from rtda_deploy.spec import ModelSpec
from rtda_runtime.buffers import BufferPool
from rtda_runtime.engines import Engine, open_engine
from rtda_runtime.preprocess import Box, Preprocessor
from rtda_runtime.result import Result
from rtda_runtime.upsample import Region, resize_mask, upsample_argmax

__all__ = ["Segmenter"]


class Segmenter:
    """An engine with what goes before and after it. Any thread may call it; calls are served one at a time.

    ::

        with Segmenter.open("model.onnx") as segmenter:
            result = segmenter.segment(frame)      # frame uint8 (H, W, 3) BGR
            drive(result.mask)                     # uint8 (H, W) class index

    Args:
        engine: Closed with the segmenter.
        clock: Nanoseconds; the clock of ``captured_ns``.
    """

    def __init__(
        self, engine: Engine, *, path: Optional[Path] = None, clock: Callable[[], int] = time.perf_counter_ns
    ) -> None:
        self.path = path
        self._engine = engine
        self._clock = clock
        self._preprocess = Preprocessor(engine.spec)
        self._masks = BufferPool()
        self._lock = threading.Lock()
        self._count = 0

    @classmethod
    def open(
        cls,
        path: Union[str, Path],
        provider: str = "auto",
        spec: Optional[ModelSpec] = None,
        threads: Optional[int] = None,
    ) -> Segmenter:
        """Open a model file; arguments and errors as in :func:`rtda_runtime.open_engine`."""
        return cls(open_engine(path, provider, spec=spec, threads=threads), path=Path(path))

    @property
    def spec(self) -> ModelSpec:
        """What the network was trained with: classes, palette, size."""
        return self._engine.spec

    @property
    def provider(self) -> str:
        """What the network really runs on: ``cpu``, ``cuda``, ``tensorrt``."""
        return self._engine.provider

    @property
    def description(self) -> str:
        """One line for a person: file, library, provider."""
        return self._engine.description

    def segment(
        self,
        frame: np.ndarray,
        out: Optional[np.ndarray] = None,
        *,
        captured_ns: Optional[int] = None,
        sequence: Optional[int] = None,
    ) -> Result:
        """Segment one frame.

        Args:
            frame: uint8 (H, W, 3) BGR, any size; not modified, and kept in the result without a copy.
            out: uint8 (H, W) array to write the mask into; None: one that nobody holds, whose memory is used again
                when the result, its mask and all views of it are gone.
            captured_ns: When the frame was captured (``time.perf_counter_ns``); None: now.
            sequence: Number of the frame in its source; None: the number of calls before this one.

        Raises:
            FrameError: If ``frame`` or ``out`` has another dtype or shape.
            EngineError: If the segmenter is closed, or the network fails or gives NaN.
        """
        with self._lock:
            clock = self._clock
            start = clock()
            box = self._preprocess(frame, self._engine.input_buffer)
            prepared = clock()
            answer = self._engine.infer()
            inferred = clock()
            mask = self._mask(answer, (frame.shape[0], frame.shape[1]), box, out)
            done = clock()
            number, self._count = self._count, self._count + 1
        return Result(
            frame=frame,
            mask=mask,
            captured_ns=start if captured_ns is None else captured_ns,
            sequence=number if sequence is None else sequence,
            dropped=0,
            timing={
                "preprocess": (prepared - start) / 1e6,
                "infer": (inferred - prepared) / 1e6,
                "postprocess": (done - inferred) / 1e6,
            },
            spec=self.spec,
        )

    def warm_up(self, size_hw: Optional[Tuple[int, int]] = None) -> None:
        """Segment one black frame of ``size_hw``: first runs allocate, compile and tune, and take longer."""
        frame = np.zeros((*(size_hw or self.spec.size_hw), 3), np.uint8)
        with self._lock:
            box = self._preprocess(frame, self._engine.input_buffer)
            self._mask(self._engine.infer(), (frame.shape[0], frame.shape[1]), box, None)

    def close(self) -> None:
        """Give the engine's memory back, after a call in progress. Calling it again does nothing."""
        with self._lock:
            self._engine.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def _mask(self, answer: np.ndarray, size_hw: Tuple[int, int], box: Box, out: Optional[np.ndarray]) -> np.ndarray:
        region = _region(self.spec, box)
        out = self._masks.take(size_hw) if out is None else out
        if self.spec.output == "mask":
            return resize_mask(answer, size_hw, region=region, out=out)
        return upsample_argmax(answer, size_hw, region=region, out=out)


def _region(spec: ModelSpec, box: Box) -> Optional[Region]:
    """The part of the network's output grid that shows the frame; None: all of it."""
    if box == (0, 0, *spec.size_hw):
        return None
    down, across = spec.output_hw[0] / spec.size_hw[0], spec.output_hw[1] / spec.size_hw[1]
    top, left, height, width = box
    return top * down, left * across, height * down, width * across
