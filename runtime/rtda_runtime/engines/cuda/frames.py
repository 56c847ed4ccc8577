"""From the camera's frame to its mask on the GPU: over the bus go the uint8 frame in and the uint8 mask out.

Copy, preprocessing, network, mask and copy are recorded as one CUDA graph for each size of frame. What depends on the
size alone, where each pixel lies in the frame or on the network's grid, is computed here in float64, once, by the
functions that the way over the host uses, and lies on the GPU as tables.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import logging
import math
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import EngineError, RtdaError
from rtda_deploy.spec import ModelSpec
from rtda_runtime.engines.base import FramePath
from rtda_runtime.engines.cuda.context import Cuda, Pinned
from rtda_runtime.engines.cuda.kernels import Kernels
from rtda_runtime.mask.picture_area import grid_region
from rtda_runtime.mask.preprocess import content_box, value_tables
from rtda_runtime.mask.upsample import GridPlan, grid_plan

__all__ = ["INTERPOLATIONS", "CudaFramePath", "Network", "taps"]

_log = logging.getLogger(__name__)

INTERPOLATIONS = ("linear", "nearest")  # that the kernel knows
_BLOCK = (32, 8)  # threads across and down: a warp writes 32 pixels of one row
_CELLS = (8, 4)  # grid cells across and down per block: CELL_COLUMNS and CELL_ROWS of kernels.cu
_MOST_PLANS = 4  # sizes of frames whose buffers and graph are kept
_SHARES = 2048  # of a tap: cv2.resize counts in 11 bits
_LEAD = 2  # frames ahead of one that is timed: the GPU has work meanwhile, and waits for no Python between its steps
_ALIGNED = 16  # bytes; of a tap

Key = Tuple[int, int, Optional[float]]  # height and width of the frame, alpha of its overlay


class Network(NamedTuple):
    """What the way through the GPU needs to know of the engine.

    Attributes:
        name: For messages.
        spec: Of the network.
        input: Address of its input on the GPU, float32 (1, 3, H, W).
        answer: Address of its answer on the GPU: float32 (C, h, w), or uint8 (H, W).
        enqueue: Gives the network to the stream.
    """

    name: str
    spec: ModelSpec
    input: int
    answer: int
    enqueue: Callable[[], None]


class CudaFramePath(FramePath):
    """The way of frames through one GPU; one thread at a time, whichever it is.

    Args:
        classes: uint8 (256,): what stands in the mask for each class of the network.
        palette: RGB of what stands in the mask, for overlays.
        graph: Record it as CUDA graphs where they can be recorded.

    Raises:
        EngineError: If the GPU has no memory for it.
    """

    def __init__(
        self,
        cuda: Cuda,
        kernels: Kernels,
        network: Network,
        *,
        classes: np.ndarray,
        palette: Sequence[Tuple[int, int, int]],
        graph: bool = True,
    ) -> None:
        self._cuda, self._kernels, self._network = cuda, kernels, network
        self._graph = graph
        self._colours = len(palette)
        self._plans: collections.OrderedDict[Key, _Plan] = collections.OrderedDict()
        self._plan: Optional[_Plan] = None
        self._spoilt = cuda.pinned((1,), np.int32, mapped=True)  # the GPU writes it only where a logit is no number
        colours = np.asarray(palette, np.uint8).reshape(-1, 3)[:, ::-1]
        self._values, self._classes, self._palette = _upload(
            cuda, [value_tables(network.spec), classes.astype(np.uint8), colours]
        )

    @property
    def graph(self) -> bool:
        """Whether the frame's size at hand runs as one CUDA graph."""
        return self._plan is not None and self._plan.graph is not None

    def put(self, frame: np.ndarray, *, alpha: Optional[float] = None) -> None:
        plan = self._plan = self._plan_of((frame.shape[0], frame.shape[1], alpha))
        np.copyto(plan.frame.array, frame)

    def run(self) -> None:
        plan = self._ready()
        self._spoilt.array[0] = 0
        try:
            with self._cuda.current():
                plan.start()
                self._cuda.synchronize()
        except RtdaError as err:
            raise type(err)(
                f"{self._network.name}: inference failed", why=err.why or err.message, hint=err.hint
            ) from err
        if self._spoilt.array[0]:
            raise EngineError(
                "the network gave NaN or infinite logits",
                hint="an fp16 overflow? export with --precision fp32 and compare: rtda-deploy verify A B --frames PATH",
            )

    def take(self, mask: np.ndarray, overlay: Optional[np.ndarray] = None) -> None:
        plan = self._ready()
        np.copyto(mask, plan.mask.array)
        if overlay is not None and plan.overlay is not None:
            np.copyto(overlay, plan.overlay.array)

    def times_ms(self) -> Dict[str, float]:
        """Run the frame at hand once more, without the graph, and say how long the GPU took for each step, ms.

        By events on the stream: ``h2d``, ``preprocess``, ``compute``, ``postprocess``, ``d2h``. An integrated GPU
        copies nothing: 0.
        """
        plan = self._ready()
        with self._cuda.current():
            for _ in range(_LEAD):
                plan.start()
            times = self._cuda.times_ms(*plan.steps)
        if self._cuda.integrated:  # what stands between two events is not a copy
            times[0] = times[-1] = 0.0
        return dict(zip(("h2d", "preprocess", "compute", "postprocess", "d2h"), times))

    def close(self) -> None:
        """Let go of everything; the GPU's memory is given back by whoever closes it."""
        self._plan = None
        while self._plans:
            self._plans.popitem()[1].forget()

    def _ready(self) -> _Plan:
        if self._plan is None:
            raise EngineError(f"{self._network.name} was given no frame, or is closed", hint="put() comes first")
        return self._plan

    def _plan_of(self, key: Key) -> _Plan:
        if key not in self._plans:
            self._plan = None
            with self._cuda.current():
                while len(self._plans) >= _MOST_PLANS:
                    self._plans.popitem(last=False)[1].release()
            self._plans[key] = self._new_plan(key)
        self._plans.move_to_end(key)
        return self._plans[key]

    def _new_plan(self, key: Key) -> _Plan:
        with self._cuda.current():
            plan = _Plan(self._cuda)
            try:
                plan.make_buffers(key)
                self._set_up(plan, key)
                plan.warm_up(self._graph, self._network.name)
            except BaseException:
                plan.release()
                raise
        return plan

    def _set_up(self, plan: _Plan, key: Key) -> None:
        """The five steps of a frame of this size."""
        spec = self._network.spec
        height, width, alpha = key
        box = content_box((height, width), spec)
        grid = grid_plan(spec.output_hw, (height, width), grid_region(spec, box))
        target = _Target(
            plan.address(plan.mask),
            self._classes,
            plan.address(plan.frame),
            self._palette,
            None if plan.overlay is None else plan.address(plan.overlay),
            height,
            width,
            self._colours,
            0.0 if alpha is None else alpha,
        )
        prepare = self._prepare(plan, (height, width), box)
        mark = self._mask_from_mask if spec.output == "mask" else self._mask_from_logits
        plan.steps = [plan.copy_in, prepare, self._network.enqueue, mark(plan, grid, target), plan.copy_out]

    def _prepare(self, plan: _Plan, frame_hw: Tuple[int, int], box: Tuple[int, int, int, int]) -> Callable[[], None]:
        spec = self._network.spec
        rows, columns = plan.tables(
            [
                taps(frame_hw[axis], box[2 + axis], linear=spec.interpolation == "linear", across=bool(axis))
                for axis in (0, 1)
            ]
        )
        arguments = [
            *(_pointer(plan.address(plan.frame)), ctypes.c_int(frame_hw[1]), _pointer(rows), _pointer(columns)),
            *(ctypes.c_int(side) for side in box),
            *(_pointer(self._values), ctypes.c_int(spec.channel_order == "rgb"), _pointer(self._network.input)),
            *(ctypes.c_int(side) for side in spec.size_hw),
        ]
        return self._launch("prepare_frame", _blocks(spec.size_hw, _BLOCK), arguments)

    def _mask_from_logits(self, plan: _Plan, grid: GridPlan, target: _Target) -> Callable[[], None]:
        spec = self._network.spec
        cells = spec.output_hw
        starts = [np.searchsorted(first, np.arange(n + 1)) for first, n in zip((grid.top, grid.left), cells)]
        axes = [_int32(grid.top), grid.down, _int32(grid.left), grid.right_share, *(_int32(start) for start in starts)]
        arguments = [
            *(_pointer(self._network.answer), ctypes.c_int(spec.num_classes)),
            *(ctypes.c_int(side) for side in cells),
            *(_pointer(address) for address in plan.tables(axes)),
            *(target, _pointer(self._spoilt.address)),
        ]
        return self._launch("mask_from_logits", _blocks(cells, _CELLS), arguments)

    def _mask_from_mask(self, plan: _Plan, grid: GridPlan, target: _Target) -> Callable[[], None]:
        rows = np.where(grid.down < 0.5, grid.top, grid.bottom)
        columns = np.where(grid.right_share < 0.5, grid.left, grid.right)
        places = (_pointer(address) for address in plan.tables([_int32(rows), _int32(columns)]))
        width = ctypes.c_int(self._network.spec.output_hw[1])
        arguments = [_pointer(self._network.answer), width, *places, target]
        return self._launch("mask_from_mask", _blocks((target.height, target.width), _BLOCK), arguments)

    def _launch(self, name: str, grid: Tuple[int, int], arguments: Sequence[Any]) -> Callable[[], None]:
        kernels = self._kernels
        return lambda: kernels.launch(name, grid, _BLOCK, arguments)


class _Target(ctypes.Structure):
    """``Target`` of ``kernels.cu``."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("mask", "classes", "frame", "palette", "overlay")),
        *((name, ctypes.c_int) for name in ("height", "width", "colours")),
        ("alpha", ctypes.c_float),
    ]


class _Plan:
    """Buffers, tables, steps and graph of one size of frame. Made, run and released within ``with cuda.current():``."""

    frame: Pinned
    mask: Pinned
    overlay: Optional[Pinned] = None

    def __init__(self, cuda: Cuda) -> None:
        self.steps: List[Callable[[], None]] = []
        self.graph: Any = None
        self._cuda = cuda
        self._allocated: List[int] = []
        self._addresses: Dict[int, int] = {}

    def make_buffers(self, key: Key) -> None:
        """Page-locked memory for frame, mask and overlay, and the GPU's for a GPU that has its own."""
        height, width, alpha = key
        self.frame = self._buffer((height, width, 3))
        self.mask = self._buffer((height, width))
        self.overlay = None if alpha is None else self._buffer((height, width, 3))

    def address(self, buffer: Pinned) -> int:
        """Where the GPU finds what a buffer of the host holds."""
        return buffer.address or self._addresses[id(buffer.array)]

    def tables(self, arrays: Sequence[np.ndarray]) -> List[int]:
        """The addresses of arrays on the GPU."""
        addresses = _upload(self._cuda, arrays)
        self._allocated.append(addresses[0])
        return addresses

    def copy_in(self) -> None:
        """Of the frame, unless the GPU reads it where it is."""
        if not self._cuda.integrated:
            self._cuda.to_device(self.address(self.frame), self.frame.array)

    def copy_out(self) -> None:
        """Of the mask, and of the overlay where there is one."""
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
        """Let go of steps and graph, which hold this object."""
        self.steps, self.graph = [], None

    def _buffer(self, shape: Tuple[int, ...]) -> Pinned:
        made = self._cuda.pinned(shape, np.uint8, mapped=self._cuda.integrated)
        if not self._cuda.integrated:
            address = self._cuda.allocate(made.array.nbytes)
            self._allocated.append(address)
            self._addresses[id(made.array)] = address
        return made


def taps(pixels: int, resized: int, *, linear: bool, across: bool) -> np.ndarray:
    """Where the pixels of a resized axis lie in the original one, as ``cv2.resize`` has it.

    Args:
        pixels: Of the original axis.
        resized: Of the resized one.
        linear: ``INTER_LINEAR``; else ``INTER_NEAREST``.
        across: Whether they are columns: beyond the outermost pixel's centre OpenCV takes that pixel, of rows the same
            row twice, which rounds otherwise.

    Returns:
        int32 (resized, 4): first pixel, second pixel, and the shares of both, which add up to 2048.
    """
    scale = 1.0 / (resized / pixels)
    if linear:
        at = ((np.arange(resized) + 0.5) * scale - 0.5).astype(np.float32)
        at = np.clip(at, np.float32(0), np.float32(pixels - 1)) if across else at
        first = np.floor(at).astype(np.int32)
        share = np.rint((at - first.astype(np.float32)) * np.float32(_SHARES)).astype(np.int32)
    else:
        first = np.floor(np.arange(resized) * scale).astype(np.int32)
        share = np.zeros(resized, np.int32)
    both = np.clip(np.stack([first, first + 1], axis=1), 0, pixels - 1)
    return np.concatenate([both, np.stack([_SHARES - share, share], axis=1)], axis=1).astype(np.int32)


def _upload(cuda: Cuda, arrays: Sequence[np.ndarray]) -> List[int]:
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


def _blocks(size_hw: Tuple[int, int], block: Tuple[int, int]) -> Tuple[int, int]:
    return math.ceil(size_hw[1] / block[0]), math.ceil(size_hw[0] / block[1])


def _pointer(address: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(address)


def _int32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.int32)
