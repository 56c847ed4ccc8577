"""Whether anything of the size of a frame is allocated per frame, once a loop is warm.

    python benchmarks/memory.py [--model model.onnx] [--frames 60] [--size 1280x720] [--json]

Per frame, the memory that Python and NumPy hold is looked at by ``tracemalloc``: by how much it rose above what was
held before the frame, at its highest moment. Below the size of the mask (one byte per pixel, the smallest thing of
frame size) nothing like it was allocated, not even for a moment. A pool of buffers may still grow when threads meet for
the first time, so one frame in twenty may allocate (goal); more is a leak or a copy per frame. OpenCV's pictures are
NumPy's memory and count; what C++ libraries take for themselves does not, so resident memory is shown too. ``held`` is
what a loop keeps from frame to frame: its growth per frame over the measured ones. Fails if a loop allocates. The claim
is that of an installation with numba; without it NumPy makes the mask, and takes memory for its steps.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any, Callable, ContextManager, Deque, Dict, Iterator, List, Sequence, Tuple

import numpy as np
from small_network import write_network

from rtda_deploy.sizes import parse_size
from rtda_runtime import Overlay, Pipeline, Segmenter, open_source
from rtda_runtime.bench.samplers import smooth_pictures

Loop = Callable[[], ContextManager[Callable[[], Any]]]

ALLOWED = 0.05  # share of the frames that may allocate
_WARM_UP = 20  # frames: pools fill, first runs allocate


def main() -> int:
    """Measure, print, and fail if a loop allocates."""
    options = _options()
    if sys.version_info < (3, 9):
        print("needs Python 3.9 or newer: tracemalloc.reset_peak", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory(prefix="rtda-memory-") as folder:
        model = options.model or write_network(Path(folder) / "bisenet-r18.onnx", (256, 128))
        with Segmenter.open(model, options.provider) as segmenter:
            found = {"model": segmenter.description, **measure(segmenter, options.size, options.frames)}
    print(json.dumps(found) if options.json else _table(found))
    return int(not found["met"])


def measure(segmenter: Segmenter, size_wh: Tuple[int, int], frames: int) -> Dict[str, Any]:
    """Look at each loop.

    Returns:
        JSON-ready: ``mask_bytes``, ``frame_bytes``, ``met``, ``frames``, ``rows``, each with ``name``,
        ``allocating`` (frames that allocated at least a mask), ``peak_bytes``
        (largest rise within a frame), ``typical_bytes`` (median), ``held_bytes`` (growth per frame), ``rss_mb``
        (growth of resident memory over the measured frames), ``goal`` (whether the row must stay below a mask).
    """
    width, height = size_wh
    uri = f"test://bars?fps=0&size={width}x{height}"
    pictures = smooth_pictures(size_wh)
    loops: List[Tuple[str, bool, Loop]] = [
        ("segmenter, out=", True, lambda: _segmenter(segmenter, pictures, reuse=True)),
        ("segmenter, its own masks", True, lambda: _segmenter(segmenter, pictures, reuse=False)),
        ("pipeline", True, lambda: _pipeline(segmenter, uri, held=0)),
        ("pipeline, 5 results held", True, lambda: _pipeline(segmenter, uri, held=5)),
        ("pipeline and overlay, out=", True, lambda: _overlaid(segmenter, uri, size_wh)),
    ]
    rows = [_row(name, goal, loop, frames, width * height) for name, goal, loop in loops]
    return {
        "frames": frames,
        "mask_bytes": width * height,
        "frame_bytes": 3 * width * height,
        "rows": rows,
        "met": all(row["allocating"] <= ALLOWED * frames for row in rows if row["goal"]),
    }


@contextlib.contextmanager
def _segmenter(segmenter: Segmenter, pictures: Sequence[np.ndarray], *, reuse: bool) -> Iterator[Callable[[], Any]]:
    mask = np.empty(pictures[0].shape[:2], np.uint8) if reuse else None
    turn = 0

    def one() -> None:
        nonlocal turn
        turn += 1
        segmenter.segment(pictures[turn % len(pictures)], out=mask)

    yield one


@contextlib.contextmanager
def _pipeline(segmenter: Segmenter, uri: str, *, held: int) -> Iterator[Callable[[], Any]]:
    kept: Deque[Any] = collections.deque(maxlen=max(1, held))
    with Pipeline.open(segmenter, open_source(uri)) as pipeline:
        if held:
            yield lambda: kept.append(next(pipeline))
        else:
            yield lambda: next(pipeline) and None


@contextlib.contextmanager
def _overlaid(segmenter: Segmenter, uri: str, size_wh: Tuple[int, int]) -> Iterator[Callable[[], Any]]:
    overlay, picture = Overlay(segmenter.spec), np.empty((size_wh[1], size_wh[0], 3), np.uint8)
    with Pipeline.open(segmenter, open_source(uri)) as pipeline:
        yield lambda: overlay.draw_result(next(pipeline), out=picture)


def _row(name: str, goal: bool, loop: Loop, frames: int, mask_bytes: int) -> Dict[str, Any]:
    with loop() as one:
        for _ in range(_WARM_UP):
            one()
        rss = resident_mb()
        tracemalloc.start()
        try:
            for _ in range(_WARM_UP // 2):
                one()
            first = tracemalloc.get_traced_memory()[0]
            rises = []
            for _ in range(frames):
                before = tracemalloc.get_traced_memory()[0]
                tracemalloc.reset_peak()
                one()
                rises.append(tracemalloc.get_traced_memory()[1] - before)
            last = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        return {
            "name": name,
            "goal": goal,
            "allocating": sum(rise >= mask_bytes for rise in rises),
            "peak_bytes": max(rises),
            "typical_bytes": int(np.median(rises)),
            "held_bytes": round((last - first) / frames, 1),
            "rss_mb": round(resident_mb() - rss, 2),
        }


def resident_mb() -> float:
    """Resident memory of this process, MB."""
    return status_mb(Path("/proc/self/status").read_text(), "VmRSS")


def status_mb(status: str, field: str) -> float:
    """A field of a ``/proc/<pid>/status``, MB: ``VmRSS`` is resident now, ``VmHWM`` the most it ever was.

    The peak of ``resource.getrusage`` is not for it: a process inherits that of the one that started it.
    """
    for line in status.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"no {field} in /proc/<pid>/status")


def _table(found: Dict[str, Any]) -> str:
    mask = found["mask_bytes"]
    lines = [f"{'':<28}{'peak':>12}{'typical':>12}{'held a frame':>14}{'resident':>12}   of a mask  frames"]
    for row in found["rows"]:
        verdict = "" if not row["goal"] else "  ok" if row["allocating"] <= ALLOWED * found["frames"] else "  ALLOCATES"
        lines.append(
            f"{row['name']:<28}{row['peak_bytes'] / 1e3:>9.1f} kB{row['typical_bytes'] / 1e3:>9.1f} kB"
            f"{row['held_bytes']:>12.0f} B{row['rss_mb']:>+9.2f} MB{100 * row['peak_bytes'] / mask:>10.1f} %"
            f"{row['allocating']:>8}{verdict}"
        )
    lines.append(f"mask {mask / 1e3:.0f} kB, frame {found['frame_bytes'] / 1e3:.0f} kB · {found['frames']} frames each")
    lines.append(str(found["model"]))
    return "\n".join(lines)


def _size_wh(text: str) -> Tuple[int, int]:
    height, width = parse_size(text)
    return width, height


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="an .onnx or .engine (default: BiSeNet-R18 at 256x128)")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--frames", type=int, default=60, help="measured per loop (default: 60)")
    parser.add_argument("--size", type=_size_wh, default=(1280, 720), help="of a frame (default: 1280x720)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
