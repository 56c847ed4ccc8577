"""Several cameras on one engine, and two frames in flight of a file: frames per second, fairness, age.

    python benchmarks/cameras.py [--model model.onnx | --size 256x128] [--provider cpu] [--rounds 5] [--quick] [--json]

Frames are pictures of 1280x720 in memory, so no decoder is in the figures. Without --model: BiSeNet-R18 with random
weights at --size (needs torch). Every row is the median of the rounds; the rows of a round run in turns, so that
whatever else the machine does falls on all of them.

- ``cameras``: 1 to 8 pipelines share one ``Segmenter``; each has a camera of 30 frames a second and the policy
  ``newest``. Frames per second of all, of the camera that got fewest and of the one that got most, and the 95th
  percentile of the age (capture to mask) over the frames of all. Fails if a camera starves: of the frames of all rounds
  the camera with fewest must have at least 80 % of what the one with most has (one frame per round is allowed for,
  which may lie on either side of its end; below ten frames a round ``fair`` is null).
- ``free``: the same where a frame is there whenever one is wanted (policy ``every``); the age is mostly waiting then,
  because two frames of each camera are read ahead.
- ``in_flight``: one recording through a pipeline, with one frame in flight (one engine, all cores) and with two (two
  engines, the cores divided), on each provider that runs here. The ratio is that of a round's two rates, its spread
  the middle half of the rounds. Nothing is asked of it: where other programs take part of the cores it is larger,
  because one engine on all cores waits for the slowest of them.

``--json`` prints one object: ``cameras`` and ``free``, lists of ``{"cameras", "total_fps", "least_fps", "most_fps",
"age_p95_ms", "fair"}``; ``in_flight``, a list of ``{"in_flight", "fps", "ratio", "low", "high", "provider",
"engine"}``, the first of each provider with ratio 1; ``camera_fps``, ``fair`` (the least of all), ``goal``, ``met``,
``rounds``, ``seconds`` (of a row and round), ``frames`` (of the recording), ``model``, ``environment``, ``conditions``.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from rounds import in_turns, middle, recorded
from small_network import write_network
from speed_sections import report

from rtda_deploy.optional import available
from rtda_deploy.sizes import parse_size
from rtda_runtime import Pipeline, Segmenter, SegmenterPool
from rtda_runtime.bench.samplers import smooth_pictures
from rtda_runtime.pool import AnySegmenter
from rtda_runtime.result import Result
from rtda_runtime.sources import Frame, Source

_TELLING = 10  # frames of the busiest camera in a round below which one frame more or less says nothing
GOAL = 0.8  # of the rate of the camera that got most
CAMERAS = (1, 2, 3, 4, 5, 6, 7, 8)
IN_FLIGHT = (1, 2)
CAMERA_FPS = 30.0
_FRAME = (1280, 720)
_BEGUN = 2  # results of each camera before it counts
_LONGEST_S = 60.0  # for a camera's first results
_PAUSE_S = 0.02  # the threads of a session wait busily for a moment after a run, and would slow the next one


class Camera(Source):
    """Pictures in memory: ``fps`` of them a second, or, None, one whenever it is read; without an end."""

    live = True

    def __init__(self, pictures: Sequence[np.ndarray], fps: Optional[float]) -> None:
        self.name = "memory"
        self.fps = fps
        self.size_wh = (pictures[0].shape[1], pictures[0].shape[0])
        self._pictures = pictures
        self._next = 0
        self._due_s = time.perf_counter()
        self._closed = threading.Event()

    def read(self, timeout_s: float = 2.0) -> Optional[Frame]:
        if self.fps is not None:
            self._due_s = max(self._due_s + 1.0 / self.fps, time.perf_counter() - timeout_s)
            self._closed.wait(max(0.0, self._due_s - time.perf_counter()))
        picture = self._pictures[self._next % len(self._pictures)]
        self._next += 1
        return Frame(image=picture, captured_ns=time.perf_counter_ns(), sequence=self._next - 1)

    def interrupt(self) -> None:
        self._closed.set()

    def close(self) -> None:
        self._closed.set()


class Recording(Source):
    """Pictures in memory, as fast as they are read, and then its end."""

    live = False

    def __init__(self, pictures: Sequence[np.ndarray], count: int) -> None:
        self.name = "memory"
        self.size_wh = (pictures[0].shape[1], pictures[0].shape[0])
        self.num_frames = count
        self._pictures = pictures
        self._next = 0

    def read(self, timeout_s: float = 2.0) -> Optional[Frame]:
        if self._next == self.num_frames:
            return None
        picture = self._pictures[self._next % len(self._pictures)]
        self._next += 1
        return Frame(image=picture, captured_ns=time.perf_counter_ns(), sequence=self._next - 1)

    def close(self) -> None:
        """Nothing to let go."""


class Watch:
    """What a camera's callback saw: ages in ms; it counts from :meth:`begin` on."""

    def __init__(self) -> None:
        self.seen = 0
        self.ages: List[float] = []
        self._counts = False

    def __call__(self, result: Result) -> None:
        self.seen += 1
        if self._counts:
            self.ages.append(result.timing["age"])

    def begin(self) -> None:
        self._counts = True

    def end(self) -> None:
        self._counts = False


def measure_cameras(
    segmenter: AnySegmenter,
    pictures: Sequence[np.ndarray],
    counts: Sequence[int],
    rounds: int,
    seconds: float,
    fps: Optional[float],
) -> List[Dict[str, Any]]:
    """One row per number of cameras, as ``--json`` describes it."""
    ways = {count: lambda number, c=count: _together(segmenter, pictures, c, seconds, fps) for count in counts}
    figures = ("total_fps", "least_fps", "most_fps", "age_p95_ms")
    return [
        {
            "cameras": count,
            **{key: statistics.median(row[key] for row in rows) for key in figures},
            "fair": _fair(rows),
        }
        for count, rows in in_turns(ways, rounds, warm_up=0).items()
    ]


def _fair(rows: Sequence[Dict[str, float]]) -> Optional[float]:
    """Share of the busiest camera's frames that the one with fewest has; None: too few frames to tell."""
    most = sum(row["most"] for row in rows)
    if most < _TELLING * len(rows):
        return None
    return min(1.0, sum(row["least"] + 1 for row in rows) / most)


def measure_in_flight(
    segmenters: Sequence[AnySegmenter], pictures: Sequence[np.ndarray], rounds: int, frames: int
) -> List[Dict[str, Any]]:
    """One row per segmenter; ratios refer to the first."""
    ways = {index: lambda number, one=one: _rate(one, pictures, frames) for index, one in enumerate(segmenters)}
    rates = in_turns(ways, rounds, pause_s=_PAUSE_S)
    return [
        {
            "in_flight": segmenter.in_flight,
            "fps": statistics.median(own),
            **middle([rate / first for rate, first in zip(own, rates[0])]),
            "provider": segmenter.provider,
            "engine": segmenter.description,
        }
        for segmenter, own in zip(segmenters, rates.values())
    ]


def _together(
    segmenter: AnySegmenter, pictures: Sequence[np.ndarray], count: int, seconds: float, fps: Optional[float]
) -> Dict[str, float]:
    """Rates and age of ``count`` cameras at once."""
    policy = "newest" if fps is not None else "every"
    watches = [Watch() for _ in range(count)]
    with contextlib.ExitStack() as stack:
        for watch in watches:
            camera = Camera(pictures, fps)
            stack.enter_context(Pipeline(segmenter, camera, policy=policy, on_result=watch)).start()
        deadline = time.monotonic() + _LONGEST_S
        while min(watch.seen for watch in watches) < _BEGUN:
            if time.monotonic() > deadline:
                raise SystemExit(f"a camera of {count} had no {_BEGUN} results in {_LONGEST_S:g} s: it starves")
            time.sleep(0.001)
        start = time.perf_counter()
        for watch in watches:
            watch.begin()
        time.sleep(seconds)
        while not any(watch.ages for watch in watches):
            time.sleep(0.001)
        for watch in watches:
            watch.end()
        spent = time.perf_counter() - start
    rates = [len(watch.ages) / spent for watch in watches]
    ages = [age for watch in watches for age in watch.ages]
    return {
        "total_fps": sum(rates),
        "least_fps": min(rates),
        "most_fps": max(rates),
        "age_p95_ms": float(np.percentile(ages, 95)),
        "least": min(len(watch.ages) for watch in watches),
        "most": max(len(watch.ages) for watch in watches),
    }


def _rate(segmenter: AnySegmenter, pictures: Sequence[np.ndarray], frames: int) -> float:
    """Frames per second of a recording, from the second result to the last."""
    with Pipeline(segmenter, Recording(pictures, frames + 2)) as pipeline:
        times = [time.perf_counter() for _ in pipeline]
    return (len(times) - 2) / (times[-1] - times[1])


def main() -> int:
    """Measure, print, and fail if a camera starved."""
    options = _options()
    counts = CAMERAS[:: 3 if options.quick else 1]
    rounds = options.rounds or (2 if options.quick else 5)
    seconds = options.seconds or (0.5 if options.quick else 2.0)
    frames = options.frames or (10 if options.quick else 30)
    pictures = smooth_pictures(_FRAME)
    with tempfile.TemporaryDirectory(prefix="rtda-cameras-") as folder, contextlib.ExitStack() as stack:
        model = options.model or write_network(Path(folder) / "bisenet-r18.onnx", options.size)
        found = stack.enter_context(recorded())
        segmenter = stack.enter_context(Segmenter.open(model, options.provider))
        for name, fps in (("cameras", CAMERA_FPS), ("free", None)):
            found[name] = measure_cameras(segmenter, pictures, counts, rounds, seconds, fps)
        found["in_flight"] = []
        for provider in _providers(options.provider, model):
            with Segmenter.open(model, provider) as one, SegmenterPool.open(model, provider, in_flight=2) as two:
                found["in_flight"] += measure_in_flight((one, two), pictures, 3 * rounds, frames)
    shares = [row["fair"] for row in (*found["cameras"], *found["free"]) if row["fair"] is not None]
    fair = min(shares, default=None)
    found.update(camera_fps=CAMERA_FPS, fair=fair, goal=GOAL, met=fair is None or fair >= GOAL)
    found.update(rounds=rounds, seconds=seconds, frames=frames, model=segmenter.description)
    return report("cameras", found, as_json=options.json)


def _providers(asked: str, model: Path) -> List[str]:
    """Where two frames in flight are tried: on what was asked, and for the CPU on OpenVINO too, where it is there."""
    both = asked == "cpu" and model.suffix == ".onnx" and available("openvino")
    return [asked, "openvino"] if both else [asked]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="an .onnx or .engine (default: BiSeNet-R18 with random weights)")
    parser.add_argument("--size", type=_size_wh, default=(256, 128), help="of that, WIDTHxHEIGHT (default: 256x128)")
    parser.add_argument("--provider", default="cpu", help="default: cpu")
    parser.add_argument("--rounds", type=int, help="of all rows, three times as many in flight (default: 5; quick: 2)")
    parser.add_argument("--seconds", type=float, help="of a row and round (default: 2; quick: 0.5)")
    parser.add_argument("--frames", type=int, help="of the recording (default: 30; quick: 10)")
    parser.add_argument(
        "--quick", action="store_true", help="1, 4 and 7 cameras, short rounds: a minute (else about five)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def _size_wh(text: str) -> Tuple[int, int]:
    height, width = parse_size(text)
    return width, height


if __name__ == "__main__":
    sys.exit(main())
