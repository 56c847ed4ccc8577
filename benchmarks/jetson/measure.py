"""One case on this machine: latency, frames per second, power, energy and heat, or the same over many minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from rtda_deploy.optional import require
from rtda_runtime.bench.benchmark import benchmark
from rtda_runtime.engines import Engine, open_engine
from rtda_runtime.machine.tegrastats import Tegrastats, summarize_readings
from rtda_runtime.segmenter import Segmenter
from rtda_runtime.timing import summarize_ms

_DEVICE_RUNS = 50
_LAG_S = 0.25  # the first reading of a window still shows the moment before it
_SHARES = ("count", "mean", "p50", "p95", "p99", "max")


class Settings(NamedTuple):
    """How long and with which frames.

    Attributes:
        frame_wh: Of the camera's pictures, pixels.
        warmup_s: Not measured.
        seconds: Measured.
        idle_s: How long the idle board is watched.
        threads: Of the CPU provider; None: as many as cores.
    """

    frame_wh: Tuple[int, int] = (1280, 720)
    warmup_s: float = 3.0
    seconds: float = 10.0
    idle_s: float = 5.0
    threads: Optional[int] = None


def build(source: Path, folder: Path, precision: str, say: Callable[[str], None]) -> Tuple[Path, float]:
    """The engine of an ``.onnx``, built here or found as built before; its file and the seconds it took.

    Raises:
        DeviceError: If TensorRT is not there or does not build.
        EngineError: If it does not read the ``.onnx``.
    """
    from rtda_export.tensorrt import engine_from_onnx

    stem = source.name.split(".")[0]
    target = folder / f"{stem}.{precision}.engine"
    started = time.perf_counter()
    say(f"        building {target.name} (minutes the first time)")
    engine_from_onnx(source, target, precision=precision)
    return target, time.perf_counter() - started


def measure(model: Path, provider: str, settings: Settings, watch: Optional[Tegrastats]) -> Dict[str, Any]:
    """Measure a model file, frames one after the other, in memory.

    Returns:
        JSON-ready: ``engine`` (a line for people), ``fps``, ``engine_ms`` (one call of the network, copies included,
        by the host's clock), ``device_ms`` (h2d, compute, d2h by the GPU's events; None where the engine has none),
        ``end_to_end_ms`` (preprocessing, network, mask at the frame's size), ``stages_ms``, ``border_share`` of the
        masks, which the last stage's time depends on, ``telemetry`` (None without tegrastats), ``energy_j`` (per
        frame; None without power), ``environment``.

    Raises:
        RtdaError: If the file cannot be run.
    """
    engine = open_engine(model, provider, threads=settings.threads if provider == "cpu" else None)
    with Segmenter(engine, path=model) as segmenter:
        pictures = frames(settings.frame_wh)
        benchmark(segmenter, pictures, warmup_s=0.0, duration_s=max(settings.warmup_s, 0.001))
        started = watch.now_s() if watch is not None else 0.0
        found = benchmark(segmenter, pictures, warmup_s=0.0, duration_s=settings.seconds)
        measured_s = sum(window.seconds for window in found.windows)
        telemetry = None
        if watch is not None:
            telemetry = summarize_readings(watch.between(started + min(_LAG_S, measured_s / 4), started + measured_s))
        device = _device_times(engine)
        borders = float(np.mean([border_share(segmenter.segment(picture).mask) for picture in pictures]))
    power = telemetry["power_w"] if telemetry is not None else None
    stages = {name: {key: getattr(figures, key) for key in _SHARES} for name, figures in found.stages.items()}
    return {
        "engine": engine.description,
        "fps": found.throughput,
        "engine_ms": stages["infer"],
        "device_ms": device,
        "end_to_end_ms": stages["total"],
        "stages_ms": {name: values for name, values in stages.items() if name not in ("infer", "total")},
        "border_share": borders,
        "frame_wh": list(settings.frame_wh),
        "measured_s": measured_s,
        "telemetry": telemetry,
        "energy_j": power / found.throughput if power is not None else None,
        "environment": found.environment.to_dict(),
    }


def idle(watch: Optional[Tegrastats], seconds: float) -> Optional[Dict[str, Any]]:
    """The board with nothing to do, after it settled for half the time; None without tegrastats."""
    if watch is None:
        return None
    time.sleep(seconds / 2)
    started = watch.now_s()
    time.sleep(seconds)
    return summarize_readings(watch.between(started, watch.now_s()))


def sustain(
    model: Path,
    provider: str,
    settings: Settings,
    watch: Optional[Tegrastats],
    minutes: float,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Dict[str, Any]:
    """Run without a pause and see whether the board slows down as it heats up.

    Returns:
        JSON-ready: ``minutes``, ``buckets`` (each ``at_s``, ``fps``, ``p50_ms``, ``p95_ms``, ``temperature_c``,
        ``gpu_mhz``, ``power_w``, the last three None without tegrastats), ``fps_first`` and ``fps_last`` (medians of
        the first and the last fifth), ``change`` (their relative difference; below 0: it slowed down).
    """
    length_s = minutes * 60.0
    bucket_s = min(5.0, length_s / 10)
    buckets: List[Dict[str, Any]] = []
    engine = open_engine(model, provider, threads=settings.threads if provider == "cpu" else None)
    with Segmenter(engine, path=model) as segmenter:
        pictures = frames(settings.frame_wh)
        mask = np.empty(pictures[0].shape[:2], np.uint8)
        for picture in pictures[:2]:
            segmenter.segment(picture, out=mask)
        began = clock()
        count = 0
        while not buckets or clock() - began < length_s:
            start = clock()
            times: List[float] = []
            watched = watch.now_s() if watch is not None else 0.0
            while not times or clock() - start < bucket_s:
                before = clock()
                segmenter.segment(pictures[count % len(pictures)], out=mask)
                times.append(1e3 * (clock() - before))
                count += 1
            elapsed_s = clock() - start
            seen = summarize_readings(watch.between(watched, watch.now_s())) if watch is not None else {}
            shares = summarize_ms(times)
            buckets.append(
                {
                    "at_s": round(clock() - began, 1),
                    "fps": len(times) / elapsed_s,
                    "p50_ms": shares["p50"],
                    "p95_ms": shares["p95"],
                    "temperature_c": seen.get("temperature_max_c"),
                    "gpu_mhz": seen.get("gpu_mhz"),
                    "power_w": seen.get("power_w"),
                }
            )
            say(_bucket_text(buckets[-1], length_s))
    fifth = max(1, len(buckets) // 5)
    first, last = (float(np.median([b["fps"] for b in part])) for part in (buckets[:fifth], buckets[-fifth:]))
    return {
        "minutes": minutes,
        "frame_wh": list(settings.frame_wh),
        "buckets": buckets,
        "fps_first": first,
        "fps_last": last,
        "change": last / first - 1.0,
    }


def frames(size_wh: Tuple[int, int], count: int = 4) -> List[np.ndarray]:
    """Different smooth coloured pictures, uint8 (H, W, 3).

    A constant picture would flatter every cache and branch on the way, and on noise a network of random weights sees
    the same everywhere: its mask has hardly a border, and borders are what upsampling takes its time for.
    """
    cv2 = require("cv2", extra="runtime", purpose="to make pictures")
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (9, 16, 3), dtype=np.uint8) for _ in range(count)]
    return [np.asarray(cv2.resize(picture, size_wh, interpolation=cv2.INTER_CUBIC)) for picture in coarse]


def border_share(mask: np.ndarray) -> float:
    """Share of a mask's pixels whose class is not that of the pixel above or to the left."""
    here = mask[1:, 1:]
    return float(np.mean((here != mask[:-1, 1:]) | (here != mask[1:, :-1])))


def _device_times(engine: Engine) -> Optional[Dict[str, Dict[str, float]]]:
    ask = getattr(engine, "device_times", None)
    if ask is None:
        return None
    runs = [ask() for _ in range(_DEVICE_RUNS)]
    summaries = {part: summarize_ms([run[part] for run in runs]) for part in runs[0]}
    return {part: {key: values[key] for key in _SHARES} for part, values in summaries.items()}


def _bucket_text(bucket: Dict[str, Any], length_s: float) -> str:
    text = f"        {bucket['at_s']:.0f}/{length_s:.0f} s  {bucket['fps']:.1f} fps  p95 {bucket['p95_ms']:.1f} ms"
    for key, unit in (("temperature_c", "C"), ("gpu_mhz", "MHz"), ("power_w", "W")):
        if bucket[key] is not None:
            text += f"  {bucket[key]:.0f} {unit}"
    return text
