"""``rtda-deploy bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import typer

__all__ = ["bench", "stage_rows"]

_DEFAULT_FRAME_WH = (1280, 720)  # a common camera mode; printed with the result


def bench(
    model: Path = typer.Argument(..., help="An .onnx file."),
    source: str = typer.Option("", "--source", "--camera", help="Measure with this source, its reading included."),
    provider: str = typer.Option("auto", help="auto, cpu, cuda, tensorrt or openvino."),
    rate: Optional[float] = typer.Option(None, help="Frames come at this rate, Hz (default: one after the other)."),
    duration: Optional[float] = typer.Option(None, help="Measure this long, s (default: until p95 settles)."),
    warmup: float = typer.Option(1.0, min=0.0, help="Not measured, s."),
    window: float = typer.Option(2.0, min=0.05, help="Length of a window, s."),
    frame_size: Optional[str] = typer.Option(None, help="Frame WIDTHxHEIGHT without --source (default: 1280x720)."),
    threads: Optional[int] = typer.Option(None, min=1, help="CPU threads (default: one per core)."),
    spec: Optional[Path] = typer.Option(None, help="spec.json for a model without one."),
    max_p95_ms: Optional[float] = typer.Option(None, help="Exit 4 if the total's p95 is above this."),
    save: Optional[Path] = typer.Option(None, help="Also write the JSON to this file."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Measure how long a frame takes here: warm-up, then windows until p95 settles.

    Example: rtda-deploy bench model.onnx --duration 10 --max-p95-ms 33
    """
    import json

    from rtda_deploy.cli.console import note, print_json, print_next, print_table, warn
    from rtda_deploy.errors import LimitMissedError
    from rtda_deploy.files import write_text
    from rtda_deploy.spec import ModelSpec
    from rtda_runtime import Segmenter, open_source
    from rtda_runtime.benchmark import benchmark

    frames: Any = open_source(source) if source else _frames(frame_size)
    try:
        with Segmenter.open(model, provider, spec=ModelSpec.load(spec) if spec else None, threads=threads) as segmenter:
            note(f"engine  {segmenter.description}")
            note(f"frames  {frames.name if source else _frames_text(frames)}")
            note(
                f"measure warm-up {warmup:g} s, then "
                + (f"{duration:g} s" if duration else "windows until p95 settles")
            )
            found = benchmark(segmenter, frames, warmup_s=warmup, window_s=window, duration_s=duration, rate_hz=rate)
    finally:
        if source:
            frames.close()
    if save:
        write_text(save, json.dumps(found, indent=2) + "\n")
        note(f"wrote   {save}")
    if json_:
        print_json(found)
    else:
        print_table(("ms", "mean", "p50", "p90", "p95", "p99", "max"), _rows(found["stages"]))
        how = f"at {rate:g} Hz, {found['late']} late" if rate else "one frame after the other"
        print(f"{found['throughput']:.1f} frames/s, {how} · total = {found['settings']['includes']}")
    if not duration and not found["settled"]:
        warn(f"p95 did not settle in {len(found['windows'])} windows: is this machine busy? try --duration 30")
    p95 = found["stages"]["total"]["p95"]
    if max_p95_ms is not None:
        if p95 > max_p95_ms:
            raise LimitMissedError(
                f"p95 is {p95:.1f} ms, the limit is {max_p95_ms:g} ms",
                hint="a smaller --size at export, or a faster provider",
            )
        note(f"  ✓ p95 {p95:.1f} ms <= {max_p95_ms:g} ms")
    print_next(f"rtda-deploy run {model} --camera 0")


def stage_rows(stages: Dict[str, Dict[str, float]], policy: str) -> List[Tuple[Any, ...]]:
    """Rows stage, p50, p95, p99, max for the table that ``run`` prints.

    Under ``every`` frames of a recording are read ahead, so their age is mostly waiting, not delay: it is called so.
    """
    names = {"age": "age at output" if policy == "newest" else "read to mask"}
    return [
        (names.get(stage, stage), *(round(values[key], 2) for key in ("p50", "p95", "p99", "max")))
        for stage, values in stages.items()
    ]


def _rows(stages: Dict[str, Dict[str, float]]) -> List[Tuple[Any, ...]]:
    keys = ("mean", "p50", "p90", "p95", "p99", "max")
    return [(stage, *(round(values[key], 2) for key in keys)) for stage, values in stages.items()]


def _frames(size: Optional[str]) -> List[Any]:
    """A few different noisy frames; a constant one would flatter every cache and branch on the way."""
    import numpy as np

    from rtda_training.data.address import parse_size

    height, width = parse_size(size) if size else (_DEFAULT_FRAME_WH[1], _DEFAULT_FRAME_WH[0])
    rng = np.random.default_rng(0)
    blocks = [rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8) for _ in range(4)]
    return [np.ascontiguousarray(np.kron(b, np.ones((8, 8, 1), np.uint8))[:height, :width]) for b in blocks]


def _frames_text(frames: List[Any]) -> str:
    height, width = frames[0].shape[:2]
    return f"{width}x{height} synthetic, in memory; reading a camera is not in the figures (--source includes it)"
