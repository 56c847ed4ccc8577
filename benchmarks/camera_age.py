"""How old a picture is when its mask is there: a 25 fps RTSP camera and a network slowed to 10 fps.

    python benchmarks/camera_age.py [--seconds 120] [--model-ms 100] [--json]

The age is read from a time code that the camera's server draws into each picture, not from a stamp of ours. Measured
in one run, against one server on 127.0.0.1: the decoder alone, with no network behind it; then, side by side, our
Pipeline and the loop most programs have, ``cv2.VideoCapture.read()`` and inference in turns. Limits: 95 % of our masks
are at most one frame period + one inference + 10 ms + what the decoder alone needs old, and the age has no trend. Exit
code 1 where one is missed. Needs GStreamer's RTSP server for the system's Python (.ci/packages.txt).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
from tables import table, wide

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from system import timecode
from system.camera_servers import CameraServer, rtsp_is_missing

from rtda_deploy.spec import ModelSpec
from rtda_runtime import Pipeline, Segmenter, open_source
from rtda_runtime.engines import Engine

PERIOD_MS = 40.0
SLACK_MS = 10.0
_SETTLE_S = 2.0  # not counted: both clients fill their buffers
_SIZE_HW = (64, 128)  # of the network's input: its work is sleeping

Aged = List[Tuple[float, float]]  # seconds since the start, age in ms


class SlowEngine(Engine):
    """Gives the same logits every time, after the time that a real network would take."""

    def __init__(self, milliseconds: float) -> None:
        spec = ModelSpec(
            size_hw=_SIZE_HW, class_names=("road", "other"), palette=((128, 64, 128), (0, 0, 0)), output_stride=8
        )
        super().__init__(spec, provider="cpu", description=f"sleeps {milliseconds:g} ms")
        self._seconds = milliseconds / 1e3
        self._answer = np.zeros(self.output_shape, np.float32)

    def _infer(self) -> np.ndarray:
        time.sleep(self._seconds)
        return self._answer

    def _release(self) -> None: ...


def main() -> int:
    """Measure, print, and fail if a limit was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="of the comparison (default: 120)")
    parser.add_argument("--model-ms", type=float, default=100.0, help="what one inference takes (default: 100)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plain-loop", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain_loop:
        print(json.dumps(_plain_loop(options.plain_loop, options.seconds, options.model_ms)))
        return 0
    missing = rtsp_is_missing()
    if missing:
        print(f"error  {missing}", file=sys.stderr)
        return 3
    with CameraServer("rtsp") as server:
        report = _compare(server.url("/clock"), options.seconds, options.model_ms)
    print(json.dumps(report) if options.json else _table(report))
    return 0 if report["ok"] else 1


def _compare(url: str, seconds: float, model_ms: float) -> Dict[str, Any]:
    decoder = _decoder_alone(url, min(20.0, max(5.0, seconds / 4)))
    command = [sys.executable, __file__, "--plain-loop", url, f"--seconds={seconds}", f"--model-ms={model_ms}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as plain:  # its own process: nobody's GIL
        ours, stats = _pipeline(url, seconds, model_ms)
        said, _ = plain.communicate(timeout=seconds + 60)
    rows = {"decoder alone": _summary(decoder), "Pipeline": _summary(ours), "cv2 loop": _summary(json.loads(said))}
    infer_ms = stats["stages"]["infer"]["p50"]
    limit_ms = PERIOD_MS + infer_ms + SLACK_MS + rows["decoder alone"]["p95_ms"]
    trend_ms = rows["Pipeline"]["trend_ms_per_s"] * seconds
    return {
        "seconds": seconds,
        "model_ms": model_ms,
        "machine": machine(),
        "rows": rows,
        "captured": stats["captured"],
        "dropped": stats["dropped"],
        "infer_ms": round(infer_ms, 1),
        "limit_ms": round(limit_ms, 1),
        "growth_ms": round(trend_ms, 1),
        "ok": bool(rows["Pipeline"]["p95_ms"] <= limit_ms and abs(trend_ms) <= SLACK_MS),
    }


def _decoder_alone(url: str, seconds: float) -> Aged:
    aged: Aged = []
    with open_source(url) as source:
        start = time.monotonic()
        while time.monotonic() < start + _SETTLE_S + seconds:
            frame = source.read(5.0)
            assert frame is not None
            _note(aged, frame.image, start)
    return aged


def _pipeline(url: str, seconds: float, model_ms: float) -> Tuple[Aged, Dict[str, Any]]:
    aged: Aged = []
    with Segmenter(SlowEngine(model_ms)) as segmenter, Pipeline.open(segmenter, url) as pipeline:
        start = time.monotonic()
        for result in pipeline:
            _note(aged, result.frame, start)
            if time.monotonic() > start + _SETTLE_S + seconds:
                break
        return aged, pipeline.stats


def _plain_loop(url: str, seconds: float, model_ms: float) -> Aged:
    """What ``while True: read, infer`` sees."""
    import cv2

    aged: Aged = []
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG)
    start = time.monotonic()
    while time.monotonic() < start + _SETTLE_S + seconds:
        good, image = capture.read()
        if not good:
            break
        time.sleep(model_ms / 1e3)
        _note(aged, image, start)
    capture.release()
    return aged


def _note(aged: Aged, image: np.ndarray, start: float) -> None:
    age_ms = timecode.age_ms(image)
    now = time.monotonic() - start
    if age_ms is not None and now > _SETTLE_S:
        aged.append((now, age_ms))


def _summary(aged: Aged) -> Dict[str, float]:
    times, ages = np.array(aged).T
    slope = np.polyfit(times, ages, 1)[0]
    return {
        "frames": len(aged),
        "fps": round(len(aged) / (times[-1] - times[0]), 1),
        "p50_ms": round(float(np.percentile(ages, 50)), 1),
        "p95_ms": round(float(np.percentile(ages, 95)), 1),
        "max_ms": round(float(ages.max()), 1),
        "first_ms": round(float(np.median(ages[:20])), 1),
        "last_ms": round(float(np.median(ages[-20:])), 1),
        "trend_ms_per_s": round(float(slope), 3),
    }


def machine() -> str:
    """Where it was measured, in words."""
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def _table(report: Dict[str, Any]) -> str:
    columns = {"age of the picture, ms": "{name}", ">fps": "{fps}", ">p50": "{p50_ms}", ">p95": "{p95_ms}"}
    columns.update({">first": "{first_ms}", ">last": "{last_ms}", ">trend, ms/s": "{trend_ms_per_s}"})
    lines = [wide(table(columns, [{"name": name, **row} for name, row in report["rows"].items()])), ""]
    verdict = "within" if report["ok"] else "MISSED"
    lines.append(
        f"limit {report['limit_ms']} ms = {PERIOD_MS:g} period + {report['infer_ms']} inference + {SLACK_MS:g}"
        f" + {report['rows']['decoder alone']['p95_ms']} decoder (p95), growth {report['growth_ms']} ms: {verdict}"
    )
    lines.append(f"{report['seconds']:g} s, network {report['model_ms']:g} ms, {report['machine']}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
