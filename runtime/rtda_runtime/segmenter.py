"""One frame in, one mask out, at the camera's own size; for programs whose own loop owns the camera.

Its threads and memory belong to the process that opened it; other processes open their own.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Callable, ContextManager, Dict, NamedTuple, NoReturn, Optional, Sequence, Tuple, Type, Union

import numpy as np

from rtda_deploy.errors import ConfigError, RtdaError
from rtda_deploy.spec import ModelSpec
from rtda_runtime.engines import Engine, open_engine
from rtda_runtime.engines.base import FramePath
from rtda_runtime.mask.groups import ClassGroups
from rtda_runtime.mask.preprocess import Box, Preprocessor, check_frame
from rtda_runtime.mask.regions import RegionOfInterest, grid_region
from rtda_runtime.mask.upsample import confidence_from_logits, resize_mask, target_array, upsample_argmax
from rtda_runtime.result import Result
from rtda_runtime.threads.buffers import BufferPool
from rtda_runtime.threads.fair_lock import FairLock

__all__ = ["OfOneProcess", "Segmenter"]


class _NotPicklableError(RtdaError, TypeError):
    """A ``TypeError`` too, which is what ``pickle`` and its users expect."""


class OfOneProcess:
    """Cannot be pickled, nor copied, and says what to do instead."""

    def __reduce__(self) -> NoReturn:
        name = type(self).__name__
        raise _NotPicklableError(
            f"a {name} can be neither pickled nor copied",
            why="its engine, memory and threads belong to the process that opened it",
            hint=f"give the other process the path of the model, and call {name}.open(path) there",
        )


Place = Tuple[slice, slice]  # rows and columns of a frame


class _Seen(NamedTuple):
    mask: np.ndarray
    confidence: Optional[np.ndarray]
    started_ns: int
    timing: Dict[str, float]


class Segmenter(OfOneProcess):
    """An engine with what goes before and after it. Any thread may call it; calls are served one at a time, in order.

    ::

        with Segmenter.open("model.onnx") as segmenter:
            result = segmenter.segment(frame)      # frame uint8 (H, W, 3) BGR
            drive(result.mask)                     # uint8 (H, W) class index

    Args:
        engine: Closed with the segmenter.
        region: The part of each frame that the network sees, at its full resolution; the rest of the mask is
            ``spec.ignore_index``. None: all of it.
        groups: Classes to join: masks and :attr:`spec` are of the groups then. None: the network's own classes.
        confidence: Whether results say how sure the network is of each pixel, which costs an exponential per class and
            pixel.
        clock: Nanoseconds; the clock of ``captured_ns``.

    Attributes:
        in_flight: Frames worked on at once.
        path: The model file, where it was opened from one.
        region: As given.
        spec: What the network was trained with: classes (or the groups asked for), palette, size.
        provider: What the network really runs on: ``cpu``, ``cuda``, ``tensorrt``, ``openvino``,
            ``openvino-bf16``.
        description: One line for a person: file, library, provider.
        advice: A sentence on what would be faster here, for people; empty: nothing is known of.

    Raises:
        ConfigError: If ``confidence`` is asked of a network that gives finished masks and no confidence.
    """

    in_flight = 1

    def __init__(
        self,
        engine: Engine,
        *,
        path: Optional[Path] = None,
        region: Optional[RegionOfInterest] = None,
        groups: Optional[ClassGroups] = None,
        confidence: bool = False,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        if confidence and engine.spec.output != "logits" and engine.confidence is None:
            raise ConfigError(
                "this network gives finished masks without saying how sure it is",
                hint="rtda-deploy export MODEL --output mask --confidence, or --output logits",
            )
        self.path, self.region = path, region
        self._groups = groups
        self._confidence = confidence
        self.spec: ModelSpec = engine.spec if groups is None else groups.spec(engine.spec)
        self.provider, self.description, self.advice = engine.provider, engine.description, engine.advice
        self._engine = engine
        self._clock = clock
        self._preprocess = Preprocessor(engine.spec)
        self._masks = BufferPool()
        self._lock = FairLock()
        self._count = 0
        self._path: Optional[Tuple[Optional[FramePath]]] = None  # the engine's own path, once it was asked for one

    @classmethod
    def open(
        cls,
        path: Union[str, Path],
        provider: str = "auto",
        spec: Optional[ModelSpec] = None,
        threads: Optional[int] = None,
        *,
        region: Union[str, RegionOfInterest, None] = None,
        groups: Sequence[str] = (),
        confidence: bool = False,
    ) -> Segmenter:
        """Open a model file; arguments and errors as in :func:`rtda_runtime.open_engine` and of the class.

        Args:
            region: Such as ``0,0.5,1,1``, the lower half: left, top, right, bottom as fractions.
            groups: Such as ``["walkable=road,sidewalk"]``.
        """
        part = RegionOfInterest.parse(region) if isinstance(region, str) else region
        engine = open_engine(path, provider, spec=spec, threads=threads)
        try:
            joined = ClassGroups.parse(groups, engine.spec) if groups else None
            return cls(engine, path=Path(path), region=part, groups=joined, confidence=confidence)
        except BaseException:
            engine.close()
            raise

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
            out: uint8 (H, W) array to write the mask into; None: one that is not in use, whose memory is used again
                when the result, its mask and all views of it are gone.
            captured_ns: When the frame was captured (``time.perf_counter_ns``); None: now.
            sequence: Number of the frame in its source; None: the number of calls before this one.

        Raises:
            FrameError: If ``frame`` or ``out`` has another dtype or shape.
            EngineError: If the segmenter is closed, or the network fails or gives NaN.
        """
        with self._lock:
            seen = self._segment(frame, out)
            monitor = self._engine.monitor
            monitor = None if monitor is None else monitor.copy()  # some hundred numbers
            number, self._count = self._count, self._count + 1
        return Result(
            frame=frame,
            mask=seen.mask,
            captured_ns=seen.started_ns if captured_ns is None else captured_ns,
            sequence=number if sequence is None else sequence,
            dropped=0,
            timing=seen.timing,
            spec=self.spec,
            confidence=seen.confidence,
            monitor=monitor,
        )

    @property
    def waiting(self) -> int:
        """Threads that wait for their turn."""
        return self._lock.waiting

    def turn(self) -> ContextManager[int]:
        """``with segmenter.turn():`` waits for exclusive use; no other thread's frame runs before the block ends."""
        return self._lock.kept()

    def warm_up(self, size_hw: Optional[Tuple[int, int]] = None) -> None:
        """Segment one black frame of ``size_hw``: first runs allocate, compile and tune, and take longer."""
        frame = np.zeros((*(size_hw or self._engine.spec.size_hw), 3), np.uint8)
        with self._lock:
            self._segment(frame, None)

    def close(self) -> None:
        """Free the engine's memory, after a call in progress. Calling it again does nothing."""
        with self._lock:
            self._engine.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def _segment(self, frame: np.ndarray, out: Optional[np.ndarray]) -> _Seen:
        clock = self._clock
        start = clock()
        check_frame(frame)
        path = self._path_of_engine()
        if path is not None:
            return self._segment_on_device(path, frame, out, start)
        size_hw = frame.shape[0], frame.shape[1]
        place = None if self.region is None else self.region.slices(size_hw)
        box = self._preprocess(frame if place is None else frame[place], self._engine.input_buffer)
        prepared = clock()
        answer = self._engine.infer()
        inferred = clock()
        mask = self._mask(answer, size_hw, place, box, out)
        confidence = self._sure(answer, size_hw, place, box) if self._confidence else None
        timing = {
            "preprocess": (prepared - start) / 1e6,
            "infer": (inferred - prepared) / 1e6,
            "postprocess": (clock() - inferred) / 1e6,
        }
        return _Seen(mask, confidence, start, timing)

    def _path_of_engine(self) -> Optional[FramePath]:
        """The engine's own way from frame to mask, where it has one that does what is asked; looked for once."""
        if self._path is None:
            table = None if self._groups is None else self._groups.table
            whole = self.region is None and not self._confidence
            self._path = (self._engine.frame_path(table, self.spec.palette) if whole else None,)
        return self._path[0]

    def _segment_on_device(self, path: FramePath, frame: np.ndarray, out: Optional[np.ndarray], start: int) -> _Seen:
        """``preprocess`` is handing over the frame, ``infer`` all that the device does, ``postprocess`` the mask."""
        size_hw = frame.shape[0], frame.shape[1]
        mask = self._masks.take(size_hw) if out is None else target_array(size_hw, out)
        path.put(frame)
        prepared = self._clock()
        path.run()
        inferred = self._clock()
        path.take(mask)
        timing = {
            "preprocess": (prepared - start) / 1e6,
            "infer": (inferred - prepared) / 1e6,
            "postprocess": (self._clock() - inferred) / 1e6,
        }
        return _Seen(mask, None, start, timing)

    def _mask(
        self,
        answer: np.ndarray,
        size_hw: Tuple[int, int],
        place: Optional[Place],
        box: Box,
        out: Optional[np.ndarray],
    ) -> np.ndarray:
        mask = self._masks.take(size_hw) if out is None else target_array(size_hw, out)
        grid = grid_region(self._engine.spec, box)
        resized = resize_mask if self._engine.spec.output == "mask" else upsample_argmax
        if place is None:
            resized(answer, size_hw, region=grid, out=mask)
        else:
            part = mask[place]
            seen = resized(answer, part.shape, region=grid, out=self._masks.take(part.shape))
            mask.fill(self._engine.spec.ignore_index)
            part[...] = seen
        return mask if self._groups is None else self._groups.mask(mask, out=mask)

    def _sure(self, answer: np.ndarray, size_hw: Tuple[int, int], place: Optional[Place], box: Box) -> np.ndarray:
        """uint8 (H, W): probability of the winning class, 255 is 1.0; 0 outside the region."""
        confidence = self._masks.take(size_hw)
        if place is not None:
            confidence.fill(0)
        part = confidence if place is None else confidence[place]
        target = part if place is None else self._masks.take(part.shape)
        grid = grid_region(self._engine.spec, box)
        if self._engine.spec.output == "mask":
            given = self._engine.confidence
            assert given is not None  # checked when it was opened
            scaled = given if given.dtype == np.uint8 else np.rint(given * 255.0).astype(np.uint8)
            resize_mask(scaled, part.shape, region=grid, out=target)
        else:
            confidence_from_logits(answer, part.shape, region=grid, out=target)
        if place is not None:
            part[...] = target
        return confidence
