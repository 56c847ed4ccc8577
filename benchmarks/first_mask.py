"""What a robot's program takes from its start to its first mask, by phase, and the memory it needs.

    python benchmarks/first_mask.py [--model model.onnx] [--starts 5] [--masks 50] [--threads 2] [--json]

New processes are started in turns on ONNX Runtime, on OpenVINO where that is installed, and on ``auto``: each a first
time, which finds nothing that an earlier start kept (compiled code, what ``auto`` found to be the quickest), and a
second time. The disk's cache is warm in both. Memory is the most that was ever resident, after one mask and after
``--masks``. Without --model a BiSeNet-R18 at 1024x512 with random weights is made, which needs torch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from memory import status_mb
from rounds import middle, recorded
from small_network import write_network
from speed_sections import report

from rtda_deploy.errors import RtdaError
from rtda_deploy.optional import available, require

# The frame is made while no phase is timed; Linux has one monotonic clock for all processes.
_PROGRAM = """
import time
began = time.perf_counter_ns()
import json
import sys
import numpy as np
from rtda_runtime import Segmenter
imported = time.perf_counter_ns()

model, provider, width, height, masks, threads = sys.argv[1:]
rows, columns = np.arange(int(height)), np.arange(int(width))
frame = np.stack([np.add.outer(rows * step, columns) % 256 for step in (1, 2, 3)], axis=2).astype(np.uint8)
ready = time.perf_counter_ns()
segmenter = Segmenter.open(model, provider, threads=int(threads) or None)
opened = time.perf_counter_ns()
count = segmenter.segment(frame).sequence + 1
first = time.perf_counter_ns()


def status():
    with open("/proc/self/status") as file:
        return file.read()


after_one = status()
for _ in range(int(masks) - 1):
    count = segmenter.segment(frame).sequence + 1
stamps = [began, imported, ready, opened, first]
print(json.dumps({"stamps": stamps, "one": after_one, "all": status(), "masks": count}))
"""
PHASES = ("python_ms", "import_ms", "open_ms", "mask_ms", "total_ms")
LIBRARIES = {"cpu": "ONNX Runtime", "openvino": "OpenVINO", "auto": "auto"}
_FRAME_WH = (1280, 720)
_TIMEOUT_S = 600.0


def measure(model: Path, starts: int, masks: int, threads: Optional[int]) -> List[Dict[str, Any]]:
    """Rows of ``library``, ``start`` (``first`` or ``second``), the medians of :data:`PHASES`, ``low`` and ``high``
    (the middle half of the total), ``masks``, ``peak_1_mb`` and ``peak_mb`` (after so many), ``resident_mb``.
    """
    providers = ["cpu", "openvino", "auto"] if available("openvino") else ["cpu"]
    seen: Dict[Tuple[str, str], List[Dict[str, float]]] = {
        (provider, which): [] for provider in providers for which in ("first", "second")
    }
    for number in range(starts):
        for provider in providers if number % 2 == 0 else reversed(providers):
            with tempfile.TemporaryDirectory(prefix="rtda-start-") as empty:
                for which in ("first", "second"):
                    count = masks if number == 0 else 1
                    found = first_mask(model, provider, _FRAME_WH, cache=Path(empty), masks=count, threads=threads)
                    seen[provider, which].append(found)
    return [
        {
            "library": LIBRARIES[provider],
            "start": which,
            **{phase: statistics.median(entry[phase] for entry in times) for phase in PHASES},
            **middle([entry["total_ms"] for entry in times], "total_ms"),
            **{name: times[0][name] for name in ("masks", "peak_1_mb", "peak_mb", "resident_mb")},
        }
        for (provider, which), times in seen.items()
    ]


def first_mask(
    model: Path, provider: str, frame_wh: Tuple[int, int], *, cache: Path, masks: int = 1, threads: Optional[int] = None
) -> Dict[str, float]:
    """Start a new process, open a model in it and segment ``masks`` frames.

    Args:
        model: What ``Segmenter.open`` takes.
        provider: As for it.
        frame_wh: Width and height of the frames.
        cache: Folder of all that is kept for the next start (compiled code, what ``auto`` measured); an empty one makes
            a first start.
        masks: At least 1.
        threads: CPU threads of the network; None: one per core.

    Returns:
        ``python_ms`` (start of the process to the first line of its program), ``import_ms`` (of NumPy and the names
        it uses), ``open_ms``, ``mask_ms`` (the first), ``total_ms``; ``masks``, how many were made; ``peak_1_mb`` and
        ``peak_mb``, the most memory it had resident after the first mask and after all, and ``resident_mb``, what it
        had in the end.

    Raises:
        RtdaError: If the process failed, with its last words.
    """
    facts = [str(model), provider, *(str(side) for side in frame_wh), str(masks), str(threads or 0)]
    kept = {name: str(cache) for name in ("NUMBA_CACHE_DIR", "RTDA_CACHE", "XDG_CACHE_HOME")}
    start = time.perf_counter_ns()
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *facts],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        env={**os.environ, **kept},
    )
    if done.returncode != 0:
        words = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise RtdaError(f"a new process made no mask with {model}", why=words)
    said = json.loads(done.stdout)
    began, imported, ready, opened, first = said["stamps"]
    ends = {"python_ms": (start, began), "import_ms": (began, imported), "open_ms": (ready, opened)}
    phases = {name: (end - begin) / 1e6 for name, (begin, end) in {**ends, "mask_ms": (opened, first)}.items()}
    memory = {
        "peak_1_mb": status_mb(said["one"], "VmHWM"),
        "peak_mb": status_mb(said["all"], "VmHWM"),
        "resident_mb": status_mb(said["all"], "VmRSS"),
    }
    return {**phases, "total_ms": sum(phases.values()), "masks": said["masks"], **memory}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="an .onnx with its spec (default: a BiSeNet-R18, random weights)")
    parser.add_argument("--starts", type=int, default=5, help="of each, first and second (default: 5)")
    parser.add_argument("--masks", type=int, default=50, help="before memory is read again (default: 50)")
    parser.add_argument("--threads", type=int, help="CPU threads of the network (default: one per core)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    for package in ("onnxruntime", *(["openvino"] if available("openvino") else [])):
        require(package, extra="all")  # loaded before, so that the environment names its version
    with tempfile.TemporaryDirectory(prefix="rtda-first-mask-") as folder:
        model = options.model or write_network(Path(folder) / "bisenet-r18.onnx", (1024, 512))
        with recorded() as found:
            rows = measure(model, options.starts, options.masks, options.threads)
    found.update(rows=rows, starts=options.starts, threads=options.threads)
    return report("first_mask", found, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
