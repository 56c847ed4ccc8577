"""What the shift alarm costs a frame: the signals in the graph, and the statistics beside the loop.

    python benchmarks/shift_cost.py best.pth --pictures DATA [--precision int8] [--size 1024x512] [--json]

The checkpoint is exported with and without ``--monitor`` and both files segment the same 1280x720 pictures in turns, a
frame each a round; ``ratio`` is the monitored file's time over the other's within a round, with the middle half. Then
the alarm is given blocks like those of its calibration, 300 of them: its time for a block over that of the frames that
pass meanwhile, at the measured time of one, is its share of a CPU. Goal: at most 1 % together.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict

import numpy as np
from rounds import in_turns, recorded, timed, times_as_long

from rtda_export import export_model
from rtda_runtime import Segmenter
from rtda_runtime.bench.samplers import smooth_pictures
from rtda_runtime.shift.alarm import ShiftAlarm, longest_shift_s
from rtda_training.judge.blocks import familiar_of

_BLOCKS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "int8"))
    parser.add_argument("--pictures", required=True, help="that the files are verified, and for int8 calibrated, on")
    parser.add_argument("--size", default="1024x512")
    parser.add_argument("--provider", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with recorded() as record, tempfile.TemporaryDirectory() as folder:
        record.update(_measured(options, Path(folder)))
    if options.json:
        json.dump(record, sys.stdout)
        return
    frame, alarm = record["frame"], record["alarm"]
    print(
        f"signals: {frame['ratio']:.3f} ({frame['low']:.3f} to {frame['high']:.3f}) of a frame's {record['ms']:.1f} ms "
        f"without; alarm: {alarm['ms_a_block']:.3f} ms a block of 3 s, {100 * alarm['share']:.3f} % of a CPU"
    )


def _measured(options: Any, folder: Path) -> Dict[str, Any]:
    int8 = {"precision": "int8", "int8_target": "cpu", "calibrate": options.pictures}

    def exported(name: str, monitor: bool) -> Path:
        width, _, height = options.size.partition("x")
        made = export_model(
            options.checkpoint,
            to=("onnx",),
            out_dir=folder / name,
            size_hw=(int(height), int(width)),
            monitor=monitor,
            verify_path=options.pictures,
            **(int8 if options.precision == "int8" else {}),
        )
        return Path(made.best)

    paths = {"plain": exported("plain", False), "monitored": exported("monitored", True)}
    pictures = smooth_pictures((1280, 720))
    segmenters = {
        name: Segmenter.open(path, options.provider, threads=options.threads or None) for name, path in paths.items()
    }
    widths = tuple(segmenters["monitored"].spec.provenance["export"]["monitor"].values())
    ways: Dict[str, Callable[[int], float]] = {
        name: timed(segmenter.segment, inputs=pictures) for name, segmenter in segmenters.items()
    }
    times = in_turns(ways, options.rounds, warm_up=10)
    for segmenter in segmenters.values():
        segmenter.close()
    random = np.random.default_rng(0)
    blocks = random.normal(1.0, 0.1, (2 * _BLOCKS, sum(widths)))
    familiar = familiar_of([np.repeat(blocks[:_BLOCKS], 3, axis=0)], widths, data="noise", robot=True)
    assert familiar is not None
    alarm = ShiftAlarm(familiar, min(7200.0, longest_shift_s(familiar)))
    given = in_turns({"alarm": timed(alarm.add_block, inputs=list(blocks[_BLOCKS:]))}, _BLOCKS)["alarm"]
    ms = float(np.median(given))
    return {
        "ms": float(np.median(times["plain"])),
        "frame": times_as_long(times["monitored"], times["plain"]),
        "alarm": {"ms_a_block": ms, "share": ms / (1e3 * familiar.block_s)},
        "signals": sum(widths),
        "options": {key: str(value) for key, value in vars(options).items()},
    }


if __name__ == "__main__":
    main()
