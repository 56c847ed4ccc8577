"""From the camera's frame to its mask on the GPU: over the bus go the uint8 frame in and the uint8 mask out.

Copy, preprocessing, network, mask and copy are recorded as one CUDA graph for each size of frame. What depends on the
size alone, the source position of each pixel in the frame and on the network's grid, is computed once, in float64, by
the functions of the CPU path, and kept on the GPU as tables.
"""

from __future__ import annotations

import collections
import ctypes
import logging
import math
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import EngineError, RtdaError
from rtda_deploy.spec import ModelSpec
from rtda_runtime.engines.base import FramePath
from rtda_runtime.engines.cuda.context import Cuda
from rtda_runtime.engines.cuda.kernels import Kernels
from rtda_runtime.engines.cuda.size_graph import SizeGraph, upload
from rtda_runtime.mask.preprocess import content_box, value_tables
from rtda_runtime.mask.regions import grid_region
from rtda_runtime.mask.upsample import GridPlan, grid_plan

__all__ = ["INTERPOLATIONS", "CudaFramePath", "Network", "taps"]

_log = logging.getLogger(__name__)

INTERPOLATIONS = ("linear", "nearest")  # that the kernel knows
_BLOCK = (32, 8)  # threads across and down: a warp writes 32 pixels of one row
_CELLS = (8, 4)  # grid cells across and down per block: CELL_COLUMNS and CELL_ROWS of kernels.cu
_MOST_SIZES = 4  # sizes of frames whose buffers and graph are kept
_SHARES = 2048  # of a tap: cv2.resize counts in 11 bits
_LEAD = 2  # frames ahead of one that is timed: the GPU has work meanwhile, and waits for no Python between its steps

Key = Tuple[int, int, Optional[float]]  # height and width of the frame, alpha of its overlay


class Network(NamedTuple):
    """What the way through the GPU needs to know of the engine.

    Attributes:
        name: For messages.
        spec: Of the network.
        input: Address of its input on the GPU, float32 (1, 3, H, W).
        answer: Address of its answer on the GPU: float32 (C, h, w), or uint8 (H, W).
        enqueue: Gives the network to the stream.
        copy_beside: Copies what stands beside the answer, such as signals of the shift alarm, to the host's arrays.
    """

    name: str
    spec: ModelSpec
    input: int
    answer: int
    enqueue: Callable[[], None]
    copy_beside: Callable[[], None] = lambda: None


class CudaFramePath(FramePath):
    """The path of frames through one GPU; used by one thread at a time.

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
        self._sizes: collections.OrderedDict[Key, SizeGraph] = collections.OrderedDict()
        self._size: Optional[SizeGraph] = None
        self._spoilt = cuda.pinned((1,), np.int32, mapped=True)  # the GPU writes it only where a logit is no number
        colours = np.asarray(palette, np.uint8).reshape(-1, 3)[:, ::-1]
        self._values, self._classes, self._palette = upload(
            cuda, [value_tables(network.spec), classes.astype(np.uint8), colours]
        )

    @property
    def graph(self) -> bool:
        """Whether the frame's size at hand runs as one CUDA graph."""
        return self._size is not None and self._size.graph is not None

    def put(self, frame: np.ndarray, *, alpha: Optional[float] = None) -> None:
        sized = self._size = self._size_of((frame.shape[0], frame.shape[1], alpha))
        np.copyto(sized.frame.array, frame)

    def run(self) -> None:
        sized = self._ready()
        self._spoilt.array[0] = 0
        try:
            with self._cuda.current():
                sized.start()
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
        sized = self._ready()
        np.copyto(mask, sized.mask.array)
        if overlay is not None and sized.overlay is not None:
            np.copyto(overlay, sized.overlay.array)

    def times_ms(self) -> Dict[str, float]:
        """Run the frame at hand once more, without the graph, and say how long the GPU took for each step, ms.

        By events on the stream: ``h2d``, ``preprocess``, ``compute``, ``postprocess``, ``d2h``. An integrated GPU
        copies nothing: 0.
        """
        sized = self._ready()
        with self._cuda.current():
            for _ in range(_LEAD):
                sized.start()
            times = self._cuda.times_ms(*sized.steps)
        if self._cuda.integrated:  # what stands between two events is not a copy
            times[0] = times[-1] = 0.0
        return dict(zip(("h2d", "preprocess", "compute", "postprocess", "d2h"), times))

    def close(self) -> None:
        """Let go of everything; the GPU's memory is given back by whoever closes it."""
        self._size = None
        while self._sizes:
            self._sizes.popitem()[1].forget()

    def _ready(self) -> SizeGraph:
        if self._size is None:
            raise EngineError(f"{self._network.name} was given no frame, or is closed", hint="put() comes first")
        return self._size

    def _size_of(self, key: Key) -> SizeGraph:
        if key not in self._sizes:
            self._size = None
            with self._cuda.current():
                while len(self._sizes) >= _MOST_SIZES:
                    self._sizes.popitem(last=False)[1].release()
            self._sizes[key] = self._new_size(key)
        self._sizes.move_to_end(key)
        return self._sizes[key]

    def _new_size(self, key: Key) -> SizeGraph:
        with self._cuda.current():
            sized = SizeGraph(self._cuda)
            try:
                sized.make_buffers(key[:2], overlay=key[2] is not None)
                self._set_up(sized, key)
                sized.warm_up(self._graph, self._network.name)
            except BaseException:
                sized.release()
                raise
        return sized

    def _set_up(self, sized: SizeGraph, key: Key) -> None:
        """The five steps of a frame of this size."""
        spec = self._network.spec
        height, width, alpha = key
        box = content_box((height, width), spec)
        grid = grid_plan(spec.output_hw, (height, width), grid_region(spec, box))
        target = _Target(
            sized.address(sized.mask),
            self._classes,
            sized.address(sized.frame),
            self._palette,
            None if sized.overlay is None else sized.address(sized.overlay),
            height,
            width,
            self._colours,
            0.0 if alpha is None else alpha,
        )
        prepare = self._prepare(sized, (height, width), box)
        mark = self._mask_from_mask if spec.output == "mask" else self._mask_from_logits
        beside = self._network.copy_beside

        def copy_out() -> None:
            sized.copy_out()
            beside()

        sized.steps = [sized.copy_in, prepare, self._network.enqueue, mark(sized, grid, target), copy_out]

    def _prepare(
        self, sized: SizeGraph, frame_hw: Tuple[int, int], box: Tuple[int, int, int, int]
    ) -> Callable[[], None]:
        spec = self._network.spec
        rows, columns = sized.tables(
            [
                taps(frame_hw[axis], box[2 + axis], linear=spec.interpolation == "linear", across=bool(axis))
                for axis in (0, 1)
            ]
        )
        arguments = [
            *(_pointer(sized.address(sized.frame)), ctypes.c_int(frame_hw[1]), _pointer(rows), _pointer(columns)),
            *(ctypes.c_int(side) for side in box),
            *(_pointer(self._values), ctypes.c_int(spec.channel_order == "rgb"), _pointer(self._network.input)),
            *(ctypes.c_int(side) for side in spec.size_hw),
        ]
        return self._launch("prepare_frame", _blocks(spec.size_hw, _BLOCK), arguments)

    def _mask_from_logits(self, sized: SizeGraph, grid: GridPlan, target: _Target) -> Callable[[], None]:
        spec = self._network.spec
        cells = spec.output_hw
        starts = [np.searchsorted(first, np.arange(n + 1)) for first, n in zip((grid.top, grid.left), cells)]
        axes = [_int32(grid.top), grid.down, _int32(grid.left), grid.right_share, *(_int32(start) for start in starts)]
        arguments = [
            *(_pointer(self._network.answer), ctypes.c_int(spec.num_classes)),
            *(ctypes.c_int(side) for side in cells),
            *(_pointer(address) for address in sized.tables(axes)),
            *(target, _pointer(self._spoilt.address)),
        ]
        return self._launch("mask_from_logits", _blocks(cells, _CELLS), arguments)

    def _mask_from_mask(self, sized: SizeGraph, grid: GridPlan, target: _Target) -> Callable[[], None]:
        rows = np.where(grid.down < 0.5, grid.top, grid.bottom)
        columns = np.where(grid.right_share < 0.5, grid.left, grid.right)
        places = (_pointer(address) for address in sized.tables([_int32(rows), _int32(columns)]))
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


def _blocks(size_hw: Tuple[int, int], block: Tuple[int, int]) -> Tuple[int, int]:
    return math.ceil(size_hw[1] / block[0]), math.ceil(size_hw[0] / block[1])


def _pointer(address: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(address)


def _int32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.int32)
