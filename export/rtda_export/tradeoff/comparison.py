"""Makes, scores and times the variants: here in turns, or by an estimate for a device that is not here."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import ExportError, RtdaError
from rtda_export.precision.bf16 import BF16_PROVIDER
from rtda_export.tradeoff.making import Maker, told
from rtda_export.tradeoff.points import Point, Variant, frontier, sentence
from rtda_export.tradeoff.timing import in_turns

__all__ = ["Comparison", "compare", "estimated", "timed_here"]

Tell = Callable[[str], None]
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What came of it.

    Attributes:
        points: The fastest first.
        where: ``here``, or ``on`` and the name of the device.
        machine: The processor, or the device's title.
        whole_way: Whether times are those of a frame to its mask; else of the network alone.
        frame_hw: Size of the frames; None of an estimate.
        data: Address of what was scored on; empty: nothing.
        pictures: How many of it.
        per_second: Masks wanted each second.
        left_out: Sentences on variants that could not be made.
    """

    points: Tuple[Point, ...]
    where: str
    machine: str
    whole_way: bool
    frame_hw: Optional[Tuple[int, int]]
    data: str
    pictures: int
    per_second: float
    left_out: Tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Which one to take."""
        return sentence(self.points, self.per_second, self.where)

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready: ``choice`` (a sentence), ``rate``, ``machine``, ``where``, ``times`` (``frame to mask`` or
        ``network alone, estimated``), ``frame`` (WxH or null), ``data``, ``pictures``, ``left_out``, and ``points``
        as of ``Point.to_dict`` with ``frontier`` (whether no other beats it)."""
        best = frontier(self.points)
        return {
            "choice": self.sentence,
            "rate": self.per_second,
            "machine": self.machine,
            "where": self.where,
            "times": "frame to mask" if self.whole_way else "network alone, estimated",
            "frame": None if self.frame_hw is None else f"{self.frame_hw[1]}x{self.frame_hw[0]}",
            "data": self.data,
            "pictures": self.pictures,
            "left_out": list(self.left_out),
            "points": [{**point.to_dict(), "frontier": point in best} for point in self.points],
        }


def compare(
    wanted: Sequence[Variant],
    maker: Maker,
    *,
    data: Any,
    address: str,
    max_pictures: int,
    frame: np.ndarray,
    device: str,
    per_second: float,
    rounds: int,
    tell: Tell,
    progress: Progress = lambda name, done, total: None,
) -> Comparison:
    """Make every variant, score it where there are labels, and time all of them.

    Args:
        wanted: What to compare.
        maker: Of the files.
        data: Labelled set, or None.
        address: Of the data.
        max_pictures: Of it, spread evenly; 0: all.
        frame: uint8 (H, W, 3) BGR, what a camera gives.
        device: Name of a device to estimate for; empty: they are timed here.
        per_second: Masks wanted each second.
        rounds: In which each is timed.
        tell: Lines for people.
        progress: Called with (what, done, total) while files are opened and timed.

    Raises:
        ExportError: If none could be made.
        ConfigError: If the device is unknown.
    """
    if device:
        from rtda_export.roofline.devices import device_named

        device_named(device)  # a mistyped one is told before anything is made
    files: List[Tuple[Variant, Path, Optional[float]]] = []
    left_out: List[str] = []
    for variant in wanted:
        try:
            file = maker.file(variant)
            miou = None
            if data is not None:
                runs_in = "" if device else _in_bf16(file)
                miou = maker.score(variant, file, data, address, max_pictures, provider=runs_in)
            files.append((variant, file, miou))
        except RtdaError as err:
            left_out.append(told(variant, err))
            tell(left_out[-1])
    if not files:
        raise ExportError("none of the variants could be made", why="; ".join(left_out), hint="the reasons stand above")
    if device:
        points, machine = estimated(files, device, tell)
    else:
        points, machine = timed_here(files, frame, rounds, progress), _processor()
    return Comparison(
        points=tuple(sorted(points, key=lambda point: point.ms)),
        where=f"on {device}" if device else "here",
        machine=machine,
        whole_way=not device,
        frame_hw=None if device else (frame.shape[0], frame.shape[1]),
        data=address if data is not None else "",
        pictures=0 if data is None else min(len(data), max_pictures or len(data)),
        per_second=per_second,
        left_out=tuple(left_out),
    )


def timed_here(
    files: Sequence[Tuple[Variant, Path, Optional[float]]], frame: np.ndarray, rounds: int, progress: Progress
) -> List[Point]:
    """Time the whole way of a frame to its mask, as ``run`` goes it, all files in turns."""
    from rtda_runtime import Segmenter

    with contextlib.ExitStack() as opened:
        runs = []
        for done, (_, file, _) in enumerate(files):
            progress("open", done, len(files))
            segmenter = opened.enter_context(Segmenter.open(file))
            runs.append((segmenter, _once(segmenter, frame)))
        found = in_turns(
            [run for _, run in runs], rounds=rounds, tell=lambda done, total: progress("time", done, total)
        )
        return [
            Point(variant, file, miou, timed.ms, timed.low_ms, timed.high_ms, segmenter.description)
            for (variant, file, miou), timed, (segmenter, _) in zip(files, found, runs)
        ]


def _in_bf16(file: Path) -> str:
    """The provider of a float32 file that ``auto`` runs in bfloat16 here, so that it is scored as timed; else empty."""
    from rtda_deploy.onnx_file import precision_from_metadata, read_onnx_metadata
    from rtda_runtime import Segmenter
    from rtda_runtime.engines.bf16 import verified

    found = verified(precision_from_metadata(read_onnx_metadata(file))) if file.suffix == ".onnx" else None
    if found is None or not found.passed:
        return ""
    with Segmenter.open(file) as segmenter:
        return segmenter.provider if segmenter.provider == BF16_PROVIDER else ""


def _once(segmenter: Any, frame: np.ndarray) -> Callable[[], object]:
    mask = np.empty(frame.shape[:2], np.uint8)
    return lambda: segmenter.segment(frame, mask)


def estimated(
    files: Sequence[Tuple[Variant, Path, Optional[float]]], device: str, tell: Tell = lambda line: None
) -> Tuple[List[Point], str]:
    """What an engine of each is expected to take on a device, the network alone; and the device's title.

    What the estimates assume is told, once each, such as that the device computes a precision in another.

    Raises:
        ConfigError: If the device is unknown.
    """
    from rtda_export.roofline.estimator import estimate

    points, title = [], device
    notes: Dict[str, None] = {}
    for variant, file, miou in files:
        found = estimate(file, device, precision=variant.precision)
        entry, title = found.precisions[0], found.device.title
        notes.update(dict.fromkeys(found.notes))
        low, high = entry.range_fps
        runs_on = f"estimated, {entry.arithmetic}, within a factor {entry.error_factor:g} of published engines"
        points.append(Point(variant, file, miou, 1e3 / entry.expected_fps, 1e3 / high, 1e3 / low, runs_on))
    for note in notes:
        tell(note)
    return points, title


def _processor() -> str:
    from rtda_runtime.machine.cores import cpu_model, usable_cores

    return f"{cpu_model()}, {usable_cores()} cores"
