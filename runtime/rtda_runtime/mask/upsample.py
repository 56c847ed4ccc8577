"""The class of every camera pixel from the network's coarse logits, without upsampling the logits.

Bilinear upsampling followed by argmax is what segmentation papers evaluate, and at camera size it costs more than many
networks. An upsampled logit is a convex combination of the four coarse logits around it; so where the same class wins
at all four, it wins everywhere between them and nothing has to be interpolated. Only the pixels of mixed cells are
evaluated, and there only the classes that can win: those whose best corner reaches the best worst corner of any class.

Sampling follows ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`` and ``cv2.resize``: pixel
centres at half steps, clamped at the edges. The result is that of resize-then-argmax except where the two best logits
are equal to float32 rounding. Compiled by numba where that is installed, NumPy elsewhere.

Also how sure the network is of each of these pixels: :func:`confidence_from_logits`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import logging
import math
from typing import Callable, Optional, Tuple

import numpy as np

from rtda_deploy.errors import EngineError, FrameError
from rtda_deploy.optional import available

__all__ = [
    "INSTALL",
    "GridPlan",
    "Region",
    "compiles",
    "confidence_from_logits",
    "grid_plan",
    "mask_maker",
    "resize_mask",
    "slow_mask",
    "target_array",
    "upsample_argmax",
    "whether_compiled",
]

_log = logging.getLogger(__name__)

Region = Tuple[float, float, float, float]  # top, left, height, width in cells of the coarse grid

_MOST_CLASSES = 255  # 255 is no class: it means unlabelled


def upsample_argmax(
    logits: np.ndarray,
    size_hw: Tuple[int, int],
    *,
    region: Optional[Region] = None,
    out: Optional[np.ndarray] = None,
) -> np.ndarray:
    """Class index per pixel at ``size_hw``: bilinear resize of the logits, then argmax.

    Args:
        logits: float32 (C, h, w), at most 255 classes.
        size_hw: Height and width of the mask, any; smaller than the logits too.
        region: Part of the grid that the mask covers: (top, left, height, width) in grid cells, fractions allowed;
            cells whose centre lies outside are not looked at. None: all of it. A letterboxed frame uses this.
        out: uint8 ``size_hw`` to write into; None: a new array.

    Returns:
        uint8 ``size_hw``. Where two classes tie, either may win.

    Raises:
        EngineError: If the logits hold NaN or infinity; a mask made of those would look like any other.
        FrameError: If ``logits``, ``size_hw`` or ``out`` is not as said.
    """
    if logits.ndim != 3 or 0 in logits.shape or logits.shape[0] > _MOST_CLASSES:
        raise FrameError(
            f"logits are {logits.shape}, expected (classes, h, w) with 1 to 255 classes",
            hint="one picture's logits without a batch: logits[0]",
        )
    if logits.dtype != np.float32:
        raise FrameError(f"logits are {logits.dtype}, expected float32", hint="logits.astype(np.float32)")
    mask = target_array(size_hw, out)
    plan = grid_plan(logits.shape[1:], mask.shape, region)
    if not _kernel()(logits, plan, mask):
        raise EngineError(
            "the network gave NaN or infinite logits",
            hint="an fp16 overflow? export with --precision fp32 and compare: rtda-deploy verify A B --frames PATH",
        )
    return mask


def resize_mask(
    mask: np.ndarray, size_hw: Tuple[int, int], *, region: Optional[Region] = None, out: Optional[np.ndarray] = None
) -> np.ndarray:
    """Nearest-neighbour resize of a class mask uint8 (h, w), for networks that give a mask; arguments as above."""
    target = target_array(size_hw, out)
    plan = grid_plan(mask.shape, target.shape, region)
    # The nearer of the two neighbours of each pixel, per axis.
    rows = np.where(plan.down < 0.5, plan.top, plan.bottom)
    columns = np.where(plan.right_share < 0.5, plan.left, plan.right)
    np.take(mask.take(columns, axis=1), rows, axis=0, out=target, mode="clip")
    return target


def compiles() -> bool:
    """Whether masks of logits are made by compiled code here; compiles it where no earlier start kept it."""
    from rtda_runtime.mask import _upsample_numba

    return _kernel() is _upsample_numba.fill_mask


def mask_maker() -> Optional[str]:
    """What made this process's masks of logits on the CPU: ``"numba"``, ``"numpy"``, or None: there were none yet."""
    if _kernel.cache_info().currsize == 0:
        return None
    return "numba" if compiles() else "numpy"


@functools.lru_cache(maxsize=1)
def _kernel() -> Callable[[np.ndarray, GridPlan, np.ndarray], bool]:
    """The compiled kernel where numba is installed and works here, else NumPy's."""
    from rtda_runtime.mask import _upsample_numba, _upsample_numpy

    if importlib.util.find_spec("numba") is None:
        return _upsample_numpy.fill_mask
    try:
        _upsample_numba.compiled()
    except Exception as err:  # an installed numba that does not go with this numpy raises whatever it meets
        _log.warning("numba does not load (%s): masks are made by NumPy, about ten times slower", err)
        return _upsample_numpy.fill_mask
    return _upsample_numba.fill_mask


@dataclasses.dataclass(frozen=True, eq=False)
class GridPlan:
    """Which four cells every row and column of the mask lies between, and how far along."""

    top: np.ndarray  # intp (H,)
    bottom: np.ndarray  # intp (H,)
    down: np.ndarray  # float32 (H,) share of the bottom row
    left: np.ndarray  # intp (W,)
    right: np.ndarray  # intp (W,)
    right_share: np.ndarray  # float32 (W,)

    @functools.cached_property
    def row_cells(self) -> np.ndarray:
        """intp (cells, 4): first row, the row after the last one, and the grid's rows above and below, of each cell."""
        return _cells(self.top, self.bottom)

    @functools.cached_property
    def column_cells(self) -> np.ndarray:
        """intp (cells, 4): the same across."""
        return _cells(self.left, self.right)


@functools.lru_cache(maxsize=16)
def grid_plan(grid_hw: Tuple[int, int], size_hw: Tuple[int, int], region: Optional[Region]) -> GridPlan:
    """Where the pixels of a ``size_hw`` picture lie on a grid, or on a ``region`` of it."""
    top, left, height, width = region or (0.0, 0.0, float(grid_hw[0]), float(grid_hw[1]))
    rows = _axis(grid_hw[0], size_hw[0], top, height)
    columns = _axis(grid_hw[1], size_hw[1], left, width)
    return GridPlan(*rows, *columns)


def _axis(cells: int, pixels: int, start: float, extent: float) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower neighbour, upper neighbour and share of the upper one for every pixel of one axis."""
    first = min(cells - 1, max(0, math.ceil(start - 0.5)))  # first and last cell whose centre lies in the region
    last = min(cells - 1, max(first, math.floor(start + extent - 0.5)))
    at = start + (np.arange(pixels) + 0.5) * (extent / pixels) - 0.5
    at = np.clip(at, first, last)
    lower = np.floor(at).astype(np.intp)
    return lower, np.minimum(lower + 1, last), (at - lower).astype(np.float32)


def _cells(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The pixels of one axis, gathered by the cell of the grid in which they lie."""
    first = np.flatnonzero(np.diff(lower, prepend=-1))
    end = np.append(first[1:], lower.size)
    # The last cell of a region: pixels on its edge have no upper neighbour, those before them do.
    return np.stack([first, end, lower[first], np.maximum.reduceat(upper, first)], axis=1)


def target_array(size_hw: Tuple[int, int], out: Optional[np.ndarray]) -> np.ndarray:
    """``out`` if it is a uint8 array of that size, a new one if it is None.

    Raises:
        FrameError: If it is neither.
    """
    height, width = size_hw
    if height < 1 or width < 1:
        raise FrameError(
            f"size_hw is {tuple(size_hw)}, both must be positive", hint="height and width of the mask: frame.shape[:2]"
        )
    if out is None:
        return np.empty((height, width), np.uint8)
    if out.dtype != np.uint8 or out.shape != (height, width) or not out.flags.c_contiguous:
        raise FrameError(
            f"out is {out.dtype} {out.shape}, expected C-contiguous uint8 ({height}, {width})",
            hint="leave out away, or give np.empty((height, width), np.uint8)",
        )
    return out


INSTALL = "pip install numba"
_NOTABLE_MS = 5.0
_NOTABLE_SHARE = 0.2  # of the work on a frame
_TIMES = "10 to 20 times"  # NumPy against numba, masks of 1280x720 and 1920x1080 of 19 classes


def whether_compiled() -> Tuple[str, str, str]:
    """State, detail and fix for ``doctor``: the kernel is loaded, and compiled where no earlier start kept it."""
    if not available("numba"):
        return "missing", f"no: the mask at camera size takes NumPy {_TIMES} as long as with numba", INSTALL
    if not compiles():
        return "problem", "no: numba is installed but does not load with this NumPy", "pip install --upgrade numba"
    return "ok", "yes, by numba: the mask at camera size takes milliseconds", ""


def slow_mask(maker: Optional[str], postprocess_ms: float, work_ms: float) -> Optional[str]:
    """The sentence that names the cause, or None where postprocess is quick or was no work of NumPy's.

    Args:
        maker: As :func:`rtda_runtime.mask.upsample.mask_maker`.
        postprocess_ms: Median.
        work_ms: Of all stages of a frame.
    """
    if maker != "numpy" or postprocess_ms < max(_NOTABLE_MS, _NOTABLE_SHARE * work_ms):
        return None
    return (
        f"postprocess takes {postprocess_ms:.1f} of {work_ms:.1f} ms: without numba NumPy makes the mask,"
        f" {_TIMES} as slowly: {INSTALL}"
    )


_BAND_VALUES = 1 << 19  # logits worked on at a time: 2 MiB, stays in the cache


def confidence_from_logits(
    logits: np.ndarray,
    size_hw: Tuple[int, int],
    *,
    region: Optional[Region] = None,
    out: Optional[np.ndarray] = None,
) -> np.ndarray:
    """How sure the network is of each pixel: the softmax probability of the class that won, in steps of 1/255.

    The logits are interpolated first and turned into probabilities then, as an exported graph's ``confidence`` output
    does it. That is an exponential per class and camera pixel, far more than the mask costs; so it is made on demand.

    Args:
        logits: float32 (C, h, w), finite.
        size_hw: Height and width of the answer.
        region: As in :func:`rtda_runtime.upsample_argmax`.
        out: uint8 ``size_hw`` to write into; None: a new array.

    Returns:
        uint8 ``size_hw``: 255 is certain; with C classes it is never below 255 / C.

    Raises:
        FrameError: If ``logits``, ``size_hw`` or ``out`` is not as said.
    """
    if logits.ndim != 3 or 0 in logits.shape or logits.dtype != np.float32:
        raise FrameError(
            f"logits are {logits.dtype} {logits.shape}, expected float32 (classes, h, w)",
            hint="give what Engine.infer gave, one picture's logits without a batch",
        )
    target = target_array(size_hw, out)
    count = logits.shape[0]
    plan = grid_plan(logits.shape[1:], target.shape, region)
    # Across first: the coarse grid has few rows.
    left, right = logits.take(plan.left, axis=2), logits.take(plan.right, axis=2)  # (C, h, W)
    wide = left + (right - left) * plan.right_share
    rows_at_once = max(1, _BAND_VALUES // (count * target.shape[1]))
    for start in range(0, target.shape[0], rows_at_once):
        band = slice(start, min(start + rows_at_once, target.shape[0]))
        upper, lower = wide.take(plan.top[band], axis=1), wide.take(plan.bottom[band], axis=1)
        lower -= upper
        lower *= plan.down[band, None]
        lower += upper  # (C, rows, W)
        lower -= lower.max(axis=0)
        np.exp(lower, out=lower)
        target[band] = np.rint(255.0 / lower.sum(axis=0))
    return target
