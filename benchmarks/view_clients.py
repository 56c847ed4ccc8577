"""What the browser view costs the loop, with clients that look and one that never reads.

    python benchmarks/view_clients.py [--clients 5] [--seconds 5] [--rounds 5] [--size 1280x720] [--json]

A pipeline on a test picture, its network replaced by a wait of ``--work-ms``, runs with and without the view in turns,
so that whatever else the machine does falls on both. With the view, ``--clients`` raw sockets, in a process of their
own, ask for the stream of the overlay; all but the last read it, the last never does. The loop's rate is that of its
results; the fall is the median of the pairs' falls, with the middle half of them as its spread (goal: at most 5 %).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import threading
import time
from typing import Any, Dict, List

import numpy as np
from rounds import in_turns, middle

from rtda_deploy.spec import ModelSpec
from rtda_runtime import Pipeline, Segmenter, open_source
from rtda_runtime.engines import Engine
from rtda_runtime.sinks.view import ViewSink

GOAL = 0.05
_CLASSES = 19
_WARM_UP_S = 1.0
_REQUEST = b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Waiting(Engine):
    """Logits that were there before, given after a wait: a network on a device that leaves the CPU alone."""

    def __init__(self, work_s: float) -> None:
        colours = tuple((7 * n % 256, 53 * n % 256, 255 - 11 * n) for n in range(_CLASSES))
        names = tuple(f"class {n}" for n in range(_CLASSES))
        spec = ModelSpec(size_hw=(256, 512), class_names=names, palette=colours, output_stride=8)
        super().__init__(spec, provider="cpu", description=f"a wait of {1e3 * work_s:g} ms")
        self._work_s = work_s
        self._logits = np.random.default_rng(0).standard_normal(self.output_shape).astype(np.float32)

    def _infer(self) -> np.ndarray:
        time.sleep(self._work_s)
        self._logits = np.roll(self._logits, 1, axis=2)  # so that no picture is like the last
        return self._logits

    def _release(self) -> None: ...


def main() -> int:
    """Measure, print, and fail if the goal was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=5, help="of which the last never reads (default: 5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run (default: 5)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs (default: 5)")
    parser.add_argument("--work-ms", type=float, default=30.0, help="what the network takes (default: 30)")
    parser.add_argument("--size", default="1280x720", help="of the camera (default: 1280x720)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--be-clients", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be_clients:
        return _be_clients(options.be_clients, options.clients)
    ways = {view: lambda number, view=view: _run(options, view=view) for view in (False, True)}
    runs = in_turns(ways, max(1, options.rounds), warm_up=0)
    pairs = [_pair(*pair) for pair in zip(runs[False], runs[True])]
    found = {**_summary(pairs), "settings": vars(options), "machine": _machine()}
    print(json.dumps(found) if options.json else _text(found))
    return int(found["fall"] > GOAL)


def _pair(without: Dict[str, float], view: Dict[str, float]) -> Dict[str, float]:
    return {
        "without_fps": without["fps"],
        "with_fps": view["fps"],
        "fall": 1.0 - view["fps"] / without["fps"],
        "pictures_per_s": view["pictures_per_s"],
        "read_per_client_per_s": view["read_per_s"],
        "write_p50_ms": view["write_p50_ms"],
        "write_p95_ms": view["write_p95_ms"],
    }


def _run(options: argparse.Namespace, *, view: bool) -> Dict[str, float]:
    """Results per second of the loop, and what its viewers got."""
    engine = Waiting(options.work_ms / 1e3)
    stats: Dict[str, Any] = {}
    with Segmenter(engine) as segmenter, open_source(f"test://bars?fps=60&size={options.size}") as source:
        sinks = [_Timed("127.0.0.1:0", engine.spec, stats=lambda: stats, title="benchmark")] if view else []
        with Pipeline.open(segmenter, source, sinks=sinks) as pipeline:
            viewers = _start_clients(sinks[0].port, options.clients) if sinks else None
            try:
                fps, drawn = _rate(pipeline, sinks, options.seconds)
            finally:
                read = _stop_clients(viewers) if viewers else 0.0
    times_ms = sinks[0].times_ms if sinks else [0.0]
    return {
        "fps": fps,
        "pictures_per_s": drawn / options.seconds,
        "read_per_s": read,
        "write_p50_ms": float(np.percentile(times_ms, 50)),
        "write_p95_ms": float(np.percentile(times_ms, 95)),
    }


class _Timed(ViewSink):
    """Also notes how long the loop's side of a result takes."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.times_ms: List[float] = []

    def write(self, result: Any) -> Any:
        start = time.perf_counter_ns()
        spent = super().write(result)
        self.times_ms.append((time.perf_counter_ns() - start) / 1e6)
        return spent


def _rate(pipeline: Pipeline, sinks: List[_Timed], seconds: float) -> Any:
    begin = time.perf_counter() + _WARM_UP_S
    count, first, drawn = 0, 0.0, 0
    for _ in pipeline:
        now = time.perf_counter()
        if now < begin:
            continue
        if count == 0:
            first, drawn = now, sum(sink.encoded for sink in sinks)
        count += 1
        if now - first >= seconds:
            return (count - 1) / (now - first), sum(sink.encoded for sink in sinks) - drawn
    raise RuntimeError("the test picture ended")


def _start_clients(port: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--be-clients", str(port), "--clients", str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _stop_clients(process: subprocess.Popen[str]) -> float:
    """Pictures a second of a client that read."""
    said, _ = process.communicate("", timeout=30)
    return float(said)


def _be_clients(port: int, count: int) -> int:
    """Look until stdin is closed; print the pictures a second that each reader got."""
    stop, got = threading.Event(), [0] * count
    connections = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(count)]
    for connection in connections:
        connection.sendall(_REQUEST)

    def read(number: int) -> None:
        while not stop.is_set():
            content = connections[number].recv(1 << 18)
            if not content:
                return
            got[number] += content.count(b"--rtda-frame")

    readers = [threading.Thread(target=read, args=(number,), daemon=True) for number in range(count - 1)]
    start = time.monotonic()
    for reader in readers:
        reader.start()
    sys.stdin.read()
    seconds = time.monotonic() - start
    stop.set()
    print(statistics.mean(got[:-1]) / seconds if count > 1 else 0.0)
    return 0


def _summary(pairs: List[Dict[str, float]]) -> Dict[str, Any]:
    values = {name: statistics.median(pair[name] for pair in pairs) for name in pairs[0]}
    values.update(middle([pair["fall"] for pair in pairs], "fall"))
    return {**{name: round(value, 4) for name, value in values.items()}, "goal": GOAL, "pairs": pairs}


def _text(found: Dict[str, Any]) -> str:
    options = found["settings"]
    return "\n".join(
        (
            f"without view {found['without_fps']:8.2f} fps",
            f"with view    {found['with_fps']:8.2f} fps   {options['clients']} clients, one of which never reads",
            f"fall         {100 * found['fall']:8.2f} %     middle half {100 * found['low']:.2f} .. "
            f"{100 * found['high']:.2f} %, goal {100 * found['goal']:g} %",
            f"encoded {found['pictures_per_s']:.1f} pictures a second; each reader got "
            f"{found['read_per_client_per_s']:.1f}; write() p50 "
            f"{1e3 * found['write_p50_ms']:.0f}, p95 {1e3 * found['write_p95_ms']:.0f} µs",
            f"{options['rounds']} interleaved pairs of {options['seconds']:g} s, {options['size']}, "
            f"network {options['work_ms']:g} ms · {found['machine']}",
        )
    )


def _machine() -> str:
    cores, load = os.cpu_count(), os.getloadavg()[0]
    return f"Python {platform.python_version()}, {platform.machine()}, {cores} cores, load {load:.1f}"


if __name__ == "__main__":
    sys.exit(main())
