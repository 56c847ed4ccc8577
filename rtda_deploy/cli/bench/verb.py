"""``rtda-deploy bench``."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Sequence, Tuple

import typer

from rtda_runtime.engines.kinds import one_of, providers

if TYPE_CHECKING:
    from rtda_runtime import Source
    from rtda_runtime.pool import AnySegmenter

__all__ = ["bench", "histogram_line", "result_line", "stage_rows"]

_DEFAULT_FRAME_WH = (1280, 720)  # a common camera mode; printed with the result
_FIGURES = ("mean", "p50", "p90", "p95", "p99", "max")
_BLOCKS, _PLAIN_BLOCKS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"
_BINS = 32


def bench(
    model: Optional[Path] = typer.Argument(None, help="An .onnx file or an engine."),
    source: str = typer.Option("", "--source", "--camera", help="Measure the whole pipeline with this source."),
    provider: str = typer.Option("auto", help=f"{one_of(providers())}."),
    rate: Optional[float] = typer.Option(None, help="Frames are due at this rate, Hz (default: the highest rate)."),
    duration: Optional[float] = typer.Option(None, help="Measure this long, s (default: until p95 settles)."),
    warmup: float = typer.Option(1.0, min=0.0, help="Not measured, s."),
    window: float = typer.Option(2.0, min=0.05, help="Length of a window, s."),
    frame_size: Optional[str] = typer.Option(None, help="Frame WIDTHxHEIGHT without --source (default: 1280x720)."),
    threads: Optional[int] = typer.Option(None, min=1, help="CPU threads (default: one per core)."),
    in_flight: int = typer.Option(
        1, min=1, help="Frames to segment at once, each on its own engine; not for a camera."
    ),
    spec: Optional[Path] = typer.Option(None, help="spec.json for a model without one."),
    max_p95_ms: Optional[float] = typer.Option(None, help="Exit 4 if the total's p95 is above this."),
    out: Optional[Path] = typer.Option(None, help="Folder of times.json and report.html (default: runs/bench/<time>)."),
    save: Optional[Path] = typer.Option(None, help="Also write the object of --json to this file."),
    compare: Optional[Tuple[Path, Path]] = typer.Option(
        None, help="Measure nothing; print what differs between two times.json."
    ),
    force: bool = typer.Option(
        False, "--force", help="Overwrite earlier results; compare those of different devices or sizes too."
    ),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
    csv_: bool = typer.Option(False, "--csv", help="Print comma-separated values."),
) -> None:
    """Measure how long a frame takes here: warm-up, then windows until p95 settles.

    Two results: the highest rate, and with --rate 30 the latency at that rate, counted from when a frame was due.

    Example: rtda-deploy bench model.onnx --duration 10 --max-p95-ms 33
    """
    from rtda_deploy.errors import ConfigError

    if json_ and csv_:
        raise ConfigError("--json and --csv both want stdout", hint="take one; times.json is saved in any case")
    if compare is not None:
        from rtda_deploy.cli.bench.compare import compare_files

        compare_files(*compare, force=force, as_json=json_, as_csv=csv_)
        return
    if model is None:
        raise ConfigError("no model was named", hint="rtda-deploy bench model.onnx   (or --compare A.json B.json)")

    from rtda_deploy.cli.bench.advice import advice
    from rtda_deploy.cli.outputs import check_bench
    from rtda_deploy.cli.terminal.console import note, print_next, warn
    from rtda_deploy.spec import ModelSpec
    from rtda_runtime import open_source
    from rtda_runtime.pool import check_in_flight, open_segmenter

    check_bench(model, source, spec, out, save)
    opened = open_source(source) if source else None
    frames = _frames(frame_size) if opened is None else []
    try:
        check_in_flight(in_flight, "newest" if opened is not None and opened.live else "every", rate)
        asked: Dict[str, Any] = {"spec": ModelSpec.load(spec) if spec else None, "threads": threads}
        with open_segmenter(model, provider, in_flight=in_flight, **asked) as segmenter:
            _announce(segmenter, opened, frames, rate, duration, warmup)
            with _folder(out, save, force) as folder:
                settings = {"warmup_s": warmup, "window_s": window, "duration_s": duration, "rate_hz": rate}
                found = _measure(segmenter, opened, frames, {**settings, "threads": threads})
                found["limit"] = _limit(found, max_p95_ms)
                found["advice"] = advice(found)
                found["folder"] = str(folder)
                _save(found, folder, save)
    finally:
        if opened is not None:
            opened.close()
    if json_:
        from rtda_deploy.cli.terminal.console import print_json

        print_json(_without_samples(found))
    elif csv_:
        print_csv(("stage_ms", "count", *_FIGURES), [(s, v["count"], *_figures(v)) for s, v in found["stages"].items()])
    else:
        _print_result(found)
    for sentence in found["advice"]:
        warn(sentence)
    note(f"saved   {folder}/{{times.json,report.html}}" + (f", {save}" if save else ""))
    _end(found)
    print_next(f"rtda-deploy run {shlex.quote(str(model))} --camera 0")


def stage_rows(stages: Dict[str, Dict[str, float]], *, live: bool) -> List[Tuple[Any, ...]]:
    """Rows stage, p50, p95, p99, max for the table that ``run`` prints.

    Frames of a recording are read ahead, so the time to their mask is mostly waiting and no age: it is called so.
    """
    names = {"age": "age at output" if live else "file to mask"}
    return [
        (names.get(stage, stage), *(round(values[key], 2) for key in ("p50", "p95", "p99", "max")))
        for stage, values in stages.items()
    ]


def histogram_line(values_ms: Sequence[float], *, plain: bool = False) -> str:
    """A histogram in one line, from the least value to the 99.5th percentile: ``9.0 ▂▃█▇▃▂▁▁▁ 15.6 ms``.

    What lies beyond is counted in the last bin. ``plain``: in ASCII.
    """
    import numpy as np

    values = np.asarray(values_ms, np.float64)
    low, high = float(values.min()), float(np.percentile(values, 99.5))
    high = high if high > low else low + max(1e-3, 0.01 * abs(low))
    counts, _ = np.histogram(np.minimum(values, high), bins=_BINS, range=(low, high))
    blocks = _PLAIN_BLOCKS if plain else _BLOCKS
    heights = np.ceil(counts / counts.max() * (len(blocks) - 1)).astype(int)  # one frame is seen
    return f"{low:.1f} {''.join(blocks[height] for height in heights)} {high:.1f} ms"


def result_line(found: Dict[str, Any]) -> str:
    """The rate in a sentence: the highest, or what became of the one that was asked for."""
    rate, got, offered = found["settings"]["rate_hz"], found["throughput"], found["offered"]
    told = ""
    if offered is not None:
        share = 100 * found["missed"] / max(1, offered)
        told = f", missed {found['missed']} of {offered} frames ({share:.2g} %)"
    if rate:
        return f"at {rate:g} Hz: {got:.1f} frames/s achieved{told}, {found['late']} late"
    if found["settings"]["measures"] == "pipeline" and offered is not None:
        return f"{got:.1f} frames/s, as they come{told}"
    at_once = found["settings"].get("in_flight", 1)
    how = "read and segmented at once" if found["settings"]["measures"] == "pipeline" else "one frame after the other"
    how = how if at_once == 1 else f"{at_once} frames in flight"
    return f"highest rate {got:.1f} frames/s, {how}"


def print_csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Comma-separated values on stdout; numbers with four places after the point."""
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{value:.4f}" if isinstance(value, float) else value for value in row] for row in rows)


@contextlib.contextmanager
def _folder(wanted: Optional[Path], save: Optional[Path], force: bool) -> Iterator[Path]:
    """The folder of the results, made and locked before the work starts; it goes again if nothing came of it.

    Raises:
        ConfigError: If earlier results would be overwritten.
    """
    from rtda_deploy.cli.train.folder import working_in
    from rtda_deploy.cli.train.progress import run_folder
    from rtda_deploy.errors import ConfigError
    from rtda_deploy.files import writable_folder

    folder = wanted or run_folder("bench")
    with working_in(folder):
        writable_folder(folder)
        for path in (folder / "times.json", folder / "report.html", *((save,) if save else ())):
            if os.path.exists(path) and not force:
                raise ConfigError(
                    f"{path} is there already, and a new result would overwrite it",
                    hint="choose another name or --out, or --force",
                )
        yield folder


def _announce(
    segmenter: AnySegmenter,
    source: Optional[Source],
    frames: List[Any],
    rate: Optional[float],
    duration: Optional[float],
    warmup: float,
) -> None:
    """The first line says what is measured."""
    from rtda_deploy.cli.terminal.console import note

    if source is not None:
        note(f"bench   the whole pipeline, camera to mask: {source.name}, {_size_text(source)}")
    else:
        note("bench   the network, with preprocessing and the mask at the frame's size (--source: the whole pipeline)")
    note(f"engine  {segmenter.description}")
    if source is None:
        height, width = frames[0].shape[:2]
        note(f"frames  {width}x{height} synthetic, in memory; reading a camera is not in the figures")
    due = f"frames due at {rate:g} Hz, " if rate else ""
    note(f"measure {due}warm-up {warmup:g} s, then " + (f"{duration:g} s" if duration else "windows until p95 settles"))


def _measure(
    segmenter: AnySegmenter, source: Optional[Source], frames: List[Any], settings: Dict[str, Any]
) -> Dict[str, Any]:
    from rtda_runtime.bench.benchmark import benchmark, benchmark_pipeline

    if source is not None:
        return benchmark_pipeline(segmenter, source, **settings)
    return benchmark(segmenter, frames, **settings)


def _limit(found: Dict[str, Any], max_p95_ms: Optional[float]) -> Optional[Dict[str, Any]]:
    if max_p95_ms is None:
        return None
    return {"max_p95_ms": max_p95_ms, "met": found["stages"]["total"]["p95"] <= max_p95_ms}


def _save(found: Dict[str, Any], folder: Path, save: Optional[Path]) -> None:
    """``times.json`` with every sample, ``report.html``, and what ``--json`` prints into the file of ``--save``."""
    import json

    from rtda_deploy.cli.bench.page import save_page
    from rtda_deploy.files import write_text

    write_text(folder / "times.json", json.dumps(found) + "\n")
    save_page(found, folder / "report.html")
    if save is not None:
        write_text(save, json.dumps(_without_samples(found), indent=2) + "\n")


def _without_samples(found: Dict[str, Any]) -> Dict[str, Any]:
    return {key: value for key, value in found.items() if key != "samples"}


def _print_result(found: Dict[str, Any]) -> None:
    from rtda_deploy.cli.terminal.console import print_table

    print_table(("ms", *_FIGURES), [(s, *_figures(v)) for s, v in found["stages"].items()])
    encoding = sys.stdout.encoding or "utf-8"
    try:
        _BLOCKS.encode(encoding)
        plain = False
    except UnicodeEncodeError:
        plain = True
    print(f"total  {histogram_line(found['samples']['total'], plain=plain)}")
    print(f"{result_line(found)} · total = {found['settings']['includes']}")
    print(_machine_line(found))


def _machine_line(found: Dict[str, Any]) -> str:
    conditions, jetson = found["conditions"], found["conditions"]["jetson"] or {}
    parts = [f"memory {conditions['memory_peak_mb']:.0f} MB", f"{conditions['own_cores']:.1f} cores busy"]
    power, heat = jetson.get("power_w"), conditions["temperature_end_c"]
    if jetson.get("gpu_percent") is not None:
        parts.append(f"gpu busy {jetson['gpu_percent']:.0f} %")
    for gpu in conditions["gpus"]:
        if gpu["clock_mhz"] is not None:
            parts.append(f"{gpu['name']} at {gpu['clock_mhz']:.0f} MHz")
        power = power if power is not None else gpu["power_w"]
        heat = heat if heat is not None else gpu["temperature_c"]
    if power is not None:
        parts.append(f"power {power:.1f} W")
    if heat is not None:
        parts.append(f"{heat:.0f} °C")
    if found["settled"]:
        change = found["windows"][-1]["change"]
        parts.append(f"p95 settled after {len(found['windows'])} windows ({100 * change:.1f} %)")
    return " · ".join(parts)


def _end(found: Dict[str, Any]) -> None:
    """Hold the result against the limit that was typed."""
    from rtda_deploy.cli.terminal.console import note
    from rtda_deploy.errors import LimitMissedError

    if found["limit"] is None:
        return
    p95, limit = found["stages"]["total"]["p95"], found["limit"]["max_p95_ms"]
    if not found["limit"]["met"]:
        raise LimitMissedError(
            f"p95 is {p95:.1f} ms, the limit is {limit:g} ms", hint="a smaller --size at export, or a faster provider"
        )
    note(f"  ✓ p95 {p95:.1f} ms <= {limit:g} ms")


def _figures(values: Dict[str, float]) -> List[float]:
    return [float(values[key]) for key in _FIGURES]


def _frames(size: Optional[str]) -> List[Any]:
    """A few different smooth coloured pictures.

    A constant picture would flatter every cache and branch on the way; noise would give a mask that is all border or
    has none, and the borders are what the last stage takes its time for.
    """
    import numpy as np

    from rtda_deploy.optional import require
    from rtda_training.data.address import parse_size

    cv2 = require("cv2", extra="runtime", purpose="to make pictures")
    height, width = parse_size(size) if size else (_DEFAULT_FRAME_WH[1], _DEFAULT_FRAME_WH[0])
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (9, 16, 3), dtype=np.uint8) for _ in range(4)]
    return [np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)) for picture in coarse]


def _size_text(source: Source) -> str:
    return f"{source.size_wh[0]}x{source.size_wh[1]}" + (f" @ {source.fps:g}" if source.fps else "")
