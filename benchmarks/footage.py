"""What choosing frames of footage costs beside decoding it, and what it chooses of a drive in which everything happens.

    python benchmarks/footage.py [--frames 10000] [--count 500] [--every 0.2] [--rounds 3] [--video FILE] [--json]
    python benchmarks/footage.py --quick

A drive of 720p H.264 is made (minutes; ``--video`` keeps it, and takes it the next time). Two ways go over it in turns:
frames are decoded, and chosen as a training does it: decoded, looked at, written, and those that are not chosen taken
away again. The goal is 1.5 times plain decoding, and the same frames in each round. Wall clock and processor time are
both told: what else runs on a machine moves the first. How long it takes to look at one frame is told alone, too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Sequence

import numpy as np
from footage_drive import FPS, parts_of, write_drive
from rounds import in_turns, middle, recorded
from tables import table, wide

from rtda_runtime.sources.footage.base import Recording, numbers_every
from rtda_runtime.sources.footage.kinds import open_footage
from rtda_training.data.address import DataAddress
from rtda_training.data.footage.asked import AskedFrames
from rtda_training.data.footage.choosing import choose_into
from rtda_training.data.footage.record import SHEET, FootageRecord
from rtda_training.data.footage.select import REASONS, SelectOptions, Selector

GOAL = 1.5
_LOOKS = 200  # frames that are looked at alone


class Took(NamedTuple):
    """One run: seconds on the wall and of the processor, and what it gave."""

    wall_s: float
    cpu_s: float
    gave: Any


def main() -> int:
    """Measure, print the tables, and fail if the goal was missed or two rounds chose different frames."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=10_000, help="of the drive (default: 10000)")
    parser.add_argument("--count", type=int, default=500, help="frames to choose (default: 500)")
    parser.add_argument("--every", type=float, default=0.2, help="seconds between frames that are looked at")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--video", type=Path, help="where the drive is kept")
    parser.add_argument("--sheet", type=Path, help="where the contact sheet is written")
    parser.add_argument("--quick", action="store_true", help="a short drive, one round; for tests")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.quick:
        options.frames, options.count, options.rounds = 200, 10, 1
    with tempfile.TemporaryDirectory(prefix="rtda-footage-") as folder, recorded() as record:
        video = options.video or Path(folder) / "drive.mp4"
        if not video.is_file():
            write_drive(video, options.frames, **({"steps": 1} if options.quick else {}))
        record.update(measure(video, Path(folder), options))
    print(json.dumps(record) if options.json else report(record))
    return int(not record["met"])


def measure(video: Path, folder: Path, options: argparse.Namespace) -> Dict[str, Any]:
    """The three ways in turns, and what the last one chose."""
    (recording,) = open_footage(video)
    numbers = numbers_every(recording, options.every)
    chooser = _Chooser(video, folder, options)
    ways: Dict[str, Callable[[int], Any]] = {
        "decode": lambda number: _decoded(recording, numbers),
        "choose": chooser,
    }
    runs = in_turns({name: _timed(way) for name, way in ways.items()}, options.rounds, warm_up=0)
    chosen = [run.gave for run in runs["choose"]]
    rows = [_row(name, own, runs["decode"]) for name, own in runs.items()]
    same = all(record.frames == chosen[0].frames and record.dropped == chosen[0].dropped for record in chosen)
    if options.sheet:
        shutil.copyfile(str(chooser.sheet), str(options.sheet))
    return {
        "frames": recording.num_frames,
        "looked_at": len(numbers),
        "kept": len(chosen[0].frames),
        "size_mb": round(video.stat().st_size / 1e6, 1),
        "rounds": options.rounds,
        "rows": rows,
        "look_ms": round(_look_ms(recording, numbers), 2),
        "same": same,
        "goal": GOAL,
        "met": same and (options.quick or rows[-1]["ratio"] < GOAL),
        "parts": _parts(recording.num_frames, chosen[0]),
    }


class _Chooser:
    """Chooses as a training does, into an empty folder each time, and deletes it, which is timed, too."""

    def __init__(self, video: Path, folder: Path, options: argparse.Namespace) -> None:
        self._text = f"video:{video}?every={options.every:g}s&count={options.count}"
        self._folder = folder
        self.sheet = folder / SHEET

    def __call__(self, number: int) -> FootageRecord:
        work = self._folder / f"round-{number}"
        work.mkdir()
        found = choose_into(work, AskedFrames.of(DataAddress.parse(self._text)), self._text, "benchmark")
        shutil.copyfile(str(work / SHEET), str(self.sheet))
        shutil.rmtree(str(work))
        return found


def _decoded(recording: Recording, numbers: Sequence[int]) -> int:
    return sum(1 for _ in recording.frames(numbers))


def _look_ms(recording: Recording, numbers: Sequence[int]) -> float:
    """Processor time of a look, of frames that stand in memory."""
    selector = Selector(SelectOptions())
    times = []
    for frame in recording.frames(numbers[:_LOOKS]):
        started = time.process_time()
        selector.look(frame.image)
        times.append(1e3 * (time.process_time() - started))
    return statistics.median(times)


def _timed(way: Callable[[int], Any]) -> Callable[[int], Took]:
    def run(number: int) -> Took:
        wall, cpu = time.perf_counter(), time.process_time()
        gave = way(number)
        return Took(time.perf_counter() - wall, time.process_time() - cpu, gave)

    return run


def _row(name: str, own: List[Took], base: List[Took]) -> Dict[str, Any]:
    walls = [run.wall_s / other.wall_s for run, other in zip(own, base)]
    cpus = [run.cpu_s / other.cpu_s for run, other in zip(own, base)]
    return {
        "name": name,
        "wall_s": round(statistics.median(run.wall_s for run in own), 2),
        "cpu_s": round(statistics.median(run.cpu_s for run in own), 2),
        **middle(walls),
        "walls": [round(ratio, 3) for ratio in walls],
        "cpu_ratio": round(statistics.median(cpus), 3),
        "cpus": [round(ratio, 3) for ratio in cpus],
    }


def _parts(frames: int, chosen: FootageRecord) -> List[Dict[str, Any]]:
    """For each part of the drive how many frames of it were kept, and why the others were dropped."""
    parts = parts_of([np.zeros((1, 1, 3), np.uint8)])
    ends = np.cumsum([frames * part.share // 10_000 for part in parts]) / FPS
    found: Dict[str, Counter[str]] = {part.name: Counter() for part in parts}

    def count(time_s: float, reason: str) -> None:
        place = int(np.searchsorted(ends, time_s + 0.5 / FPS))
        found[parts[min(place, len(parts) - 1)].name][reason] += 1

    for frame in chosen.frames:
        count(frame.time_s, "kept")
    for reason, names in chosen.dropped.items():
        for name in names:
            count(float(name.split("/")[-1].split("s")[0]), reason)
    return [
        {"part": name, "kept": own["kept"], **{reason: own[reason] for reason in REASONS}}
        for name, own in found.items()
    ]


def report(record: Dict[str, Any]) -> str:
    """Both tables, for a terminal."""
    times = {
        "": "{name}",
        ">wall, s": "{wall_s:.1f}",
        ">times decoding": "{row:x2}",
        ">processor, s": "{cpu_s:.1f}",
        ">times decoding ": "{cpu_ratio:.2f}x",
    }
    parts = {"part of the drive": "{part}", ">kept": "{kept}", **{f">{reason}": f"{{{reason}}}" for reason in REASONS}}
    rows = [{**row, **{reason: row[reason] or "" for reason in REASONS}} for row in record["parts"]]
    text = (
        f"{record['frames']:,} frames of 720p H.264 ({record['size_mb']} MB), {record['looked_at']:,} looked at,"
        f" {record['kept']} chosen; {record['rounds']} rounds in turns; the same frames each time:"
        f" {'yes' if record['same'] else 'NO'}; a look takes {record['look_ms']} ms of processor time\n\n"
    )
    return text + wide(f"{table(times, record['rows'])}\n\n{table(parts, rows)}")


if __name__ == "__main__":
    sys.exit(main())
