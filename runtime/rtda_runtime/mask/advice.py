"""Whether masks are made by compiled code: a line of ``doctor``, and the cause of a slow postprocess."""

from __future__ import annotations

from typing import Optional, Tuple

from rtda_deploy.optional import available
from rtda_runtime.mask.upsample import compiles

__all__ = ["INSTALL", "slow_mask", "whether_compiled"]

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
