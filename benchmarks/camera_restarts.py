"""A camera that is switched off and on, again and again: is it back in time, and is anything left behind?

    python benchmarks/camera_restarts.py [--times 20] [--down 1.0] [--json]

A real RTSP server is killed and started on the same port while a Pipeline reads it. Measured each time: from the
moment the server listens again to the first mask of a picture drawn after that (the picture holds its time). Limit: the
delay before an attempt, which doubles, so that it is never longer than the camera was away + 0.25 s, nor than 5 s, plus
two seconds to connect and decode. Threads and file handles must be as after the first connection, memory within 5 %
and without a slope over the last ten. Exit code 1 where one is missed. Needs GStreamer's RTSP server for the system's
Python (.ci/packages.txt).
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
from camera_age import SlowEngine, machine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from system import timecode
from system.camera_servers import CameraServer, rtsp_is_missing

from rtda_runtime import Pipeline, Segmenter
from rtda_runtime.sources.reconnect import FIRST_DELAY_S, MAX_DELAY_S

CONNECT_S = 2.0
_MEMORY_SHARE = 0.05
_WARM = 2  # restarts before memory is compared: the allocator's pools and the libraries' tables fill up
_ENOUGH = 8  # points without which a slope says nothing
_FRAMES_BETWEEN = 25


def main() -> int:
    """Measure, print, and fail if a limit was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=20, help="restarts (default: 20)")
    parser.add_argument("--down", type=float, default=1.0, help="seconds it is off each time (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)  # each loss is a warning, and there are many
    missing = rtsp_is_missing()
    if missing:
        print(f"error  {missing}", file=sys.stderr)
        return 3
    with CameraServer("rtsp") as server, Segmenter(SlowEngine(5)) as segmenter:
        report = _restart(server, segmenter, max(1, options.times), options.down)
    print(json.dumps(report) if options.json else _table(report))
    return 0 if report["ok"] else 1


def _restart(server: CameraServer, segmenter: Segmenter, times: int, down_s: float) -> Dict[str, Any]:
    rows: List[Dict[str, Any]] = []
    with Pipeline.open(segmenter, server.url("/clock")) as pipeline:
        results = iter(pipeline)
        for _ in range(_FRAMES_BETWEEN):
            next(results)
        rows.append({"back_s": None, "limit_s": None, **_held()})
        sequences = []
        for _ in range(times):
            killed = timecode.now()
            server.kill()
            time.sleep(down_s)
            server.start()
            listens = timecode.now()
            while True:
                result = next(results)
                sequences.append(result.sequence)
                drawn = timecode.read(result.frame)
                if drawn is not None and drawn > listens:
                    break
            back_s, away_s = _seconds(listens, timecode.now()), _seconds(killed, listens)
            limit_s = min(MAX_DELAY_S, away_s + FIRST_DELAY_S) + CONNECT_S
            for _ in range(_FRAMES_BETWEEN):
                sequences.append(next(results).sequence)
            del result
            rows.append({"back_s": round(back_s, 2), "limit_s": round(limit_s, 2), **_held()})
        losses = pipeline.stats["losses"]
    return _judge(rows, losses, sequences == sorted(set(sequences)))


def _seconds(start: int, end: int) -> float:
    return (end - start) * timecode.UNIT_NS / 1e9


def _held() -> Dict[str, int]:
    """What the process holds now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "threads": len(os.listdir("/proc/self/task")),
        "python_threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")) - 1,  # the folder itself
        "memory_kib": pages * os.sysconf("SC_PAGE_SIZE") // 1024,
    }


def _judge(rows: List[Dict[str, Any]], losses: int, in_order: bool) -> Dict[str, Any]:
    before, last = rows[0], rows[-1]
    memory = np.array([row["memory_kib"] for row in rows], float)
    warm = memory[min(_WARM, len(memory) - 1)]
    tail = memory[max(min(_WARM, len(memory) - 1), len(memory) - 10) :]
    slope = float(np.polyfit(np.arange(len(tail)), tail, 1)[0]) if len(tail) > 1 else 0.0
    growth = float(memory[-1] / warm - 1)
    checks = {
        "back in time": all(row["back_s"] <= row["limit_s"] for row in rows[1:]),
        "each loss counted once": losses == len(rows) - 1,
        "sequence numbers grow": in_order,
        "threads as before": last["threads"] == before["threads"],
        "file handles as before": last["files"] == before["files"],
        "memory within 5 %": abs(growth) <= _MEMORY_SHARE,
        "no slope": len(tail) < _ENOUGH or bool(slope * len(tail) <= 0.01 * warm),
    }
    return {
        "restarts": len(rows) - 1,
        "machine": machine(),
        "back_s": {
            "median": float(np.median([row["back_s"] for row in rows[1:]])),
            "max": max(row["back_s"] for row in rows[1:]),
            "limit": min(row["limit_s"] for row in rows[1:]),
        },
        "before": before,
        "after": last,
        "memory_growth": round(growth, 4),
        "memory_slope_kib_per_restart": round(slope, 1),
        "rows": rows,
        "checks": checks,
        "ok": all(checks.values()),
    }


def _table(report: Dict[str, Any]) -> str:
    back, before, after = report["back_s"], report["before"], report["after"]
    lines = [
        f"restarts {report['restarts']}: back after {back['median']:.2f} s (median), {back['max']:.2f} s (most)"
        f", limit {back['limit']:.2f} s"
    ]
    lines += [f"{key:<16}{before[key]:>9} before {after[key]:>9} after" for key in before if not key.endswith("_s")]
    lines.append(
        f"memory {100 * report['memory_growth']:+.2f} % since restart {_WARM},"
        f" {report['memory_slope_kib_per_restart']:+.1f} KiB per restart over the last ten"
    )
    lines += [f"{'ok' if good else 'MISSED':<7} {name}" for name, good in report["checks"].items()]
    lines.append(report["machine"])
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
