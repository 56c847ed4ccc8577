"""What the GPU path needs for one size of frame: buffers, tables, steps, and their CUDA graph."""

from __future__ import annotations

import contextlib
import logging
import math
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import RtdaError
from rtda_runtime.engines.cuda.context import Cuda, Pinned

__all__ = ["SizeGraph", "upload"]

_log = logging.getLogger(__name__)

_ALIGNED = 16  # bytes; of an entry of taps


class SizeGraph:
    """Made, run and released within ``with cuda.current():``.

    Attributes:
        frame: The buffers on the host; those of the GPU are found by :meth:`address`.
        mask: As ``frame``.
        overlay: As ``frame``; None: none is drawn.
        steps: What is done with a frame, in order; each gives its work to the stream.
        graph: The steps as one CUDA graph; None: they are given to the stream one by one.
    """

    frame: Pinned
    mask: Pinned
    overlay: Optional[Pinned] = None

    def __init__(self, cuda: Cuda) -> None:
        self.steps: List[Callable[[], None]] = []
        self.graph: Any = None
        self._cuda = cuda
        self._allocated: List[int] = []
        self._addresses: Dict[int, int] = {}

    def make_buffers(self, size_hw: Tuple[int, int], *, overlay: bool) -> None:
        """Page-locked memory for frame, mask and overlay, and the GPU's for a GPU that has its own."""
        self.frame = self._buffer((*size_hw, 3))
        self.mask = self._buffer(size_hw)
        self.overlay = self._buffer((*size_hw, 3)) if overlay else None

    def address(self, buffer: Pinned) -> int:
        """Where the GPU finds what a buffer of the host holds."""
        return buffer.address or self._addresses[id(buffer.array)]

    def tables(self, arrays: Sequence[np.ndarray]) -> List[int]:
        """The addresses of arrays on the GPU."""
        addresses = upload(self._cuda, arrays)
        self._allocated.append(addresses[0])
        return addresses

    def copy_in(self) -> None:
        """Copy the frame to the GPU, unless the GPU reads it where it is."""
        if not self._cuda.integrated:
            self._cuda.to_device(self.address(self.frame), self.frame.array)

    def copy_out(self) -> None:
        """Copy the mask back, and the overlay where there is one."""
        if not self._cuda.integrated:
            for buffer in (self.mask, self.overlay):
                if buffer is not None:
                    self._cuda.to_host(buffer.array, self.address(buffer))

    def start(self) -> None:
        """Run the frame, asynchronously."""
        if self.graph is None:
            self.enqueue()
        else:
            self._cuda.launch(self.graph)

    def enqueue(self) -> None:
        """Give all steps to the stream."""
        for step in self.steps:
            step()

    def warm_up(self, graph: bool, name: str) -> None:
        """Run once, because first launches load and cannot be recorded; then record the steps if asked to."""
        self.enqueue()
        self._cuda.synchronize()
        if not graph:
            return
        try:
            self.graph = self._cuda.capture(self.enqueue)
        except RtdaError as err:
            _log.warning("%s segments frames without a CUDA graph: %s (%s)", name, err.message, err.why)

    def release(self) -> None:
        """Give the GPU's memory back; page-locked memory goes with this object."""
        with contextlib.suppress(RtdaError):  # after a fault of the GPU nothing can be waited for
            self._cuda.synchronize()
        if self.graph is not None:
            self._cuda.destroy_graph(self.graph)
        while self._allocated:
            self._cuda.free(self._allocated.pop())
        self.forget()

    def forget(self) -> None:
        """Drop steps and graph, which refer to this object."""
        self.steps, self.graph = [], None

    def _buffer(self, shape: Tuple[int, ...]) -> Pinned:
        made = self._cuda.pinned(shape, np.uint8, mapped=self._cuda.integrated)
        if not self._cuda.integrated:
            address = self._cuda.allocate(made.array.nbytes)
            self._allocated.append(address)
            self._addresses[id(made.array)] = address
        return made


def upload(cuda: Cuda, arrays: Sequence[np.ndarray]) -> List[int]:
    """New memory of the GPU that holds the arrays one after the other: the address of each; the first is its own."""
    starts = np.cumsum([0, *(math.ceil(array.nbytes / _ALIGNED) * _ALIGNED for array in arrays)])
    with cuda.current():
        staged = cuda.pinned((int(starts[-1]),), np.uint8).array
        for start, array in zip(starts, arrays):
            staged[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        address = cuda.allocate(staged.nbytes)
        try:
            cuda.to_device(address, staged)
            cuda.synchronize()
        except BaseException:
            cuda.free(address)
            raise
    return [address + int(start) for start in starts[:-1]]
