"""What ``rtda-deploy bench`` shows: what is measured, the result, whether it meets the limit; two results compared."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, Sequence, Tuple

from rtda_deploy.cli.terminal.console import note, print_csv, print_json, print_table, warn
from rtda_deploy.errors import LimitMissedError

if TYPE_CHECKING:
    from rtda_runtime.bench.benchmark import BenchOptions, Frames
    from rtda_runtime.bench.compare import Difference
    from rtda_runtime.bench.record import BenchRecord
    from rtda_runtime.pool import AnySegmenter

__all__ = ["announce", "compare_files", "histogram_line", "hold_against_limit", "show"]

_BLOCKS, _PLAIN_BLOCKS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"
_BINS = 32


def announce(segmenter: AnySegmenter, frames: Frames, options: BenchOptions) -> None:
    """The first line says what is measured."""
    from rtda_runtime import Source

    engine = f"engine  {segmenter.description}"
    if isinstance(frames, Source):
        rate = f" @ {frames.fps:g}" if frames.fps else ""
        note(f"bench   the whole pipeline, camera to mask: {frames.name}, {_size(frames.size_wh)}{rate}")
        note(engine)
    else:
        note("bench   the network, with preprocessing and the mask at the frame's size (--source: the whole pipeline)")
        note(engine)
        size = _size(frames[0].shape[1::-1])
        note(f"frames  {size} synthetic, in memory; reading a camera is not in the figures")
    due = f"frames due at {options.rate_hz:g} Hz, " if options.rate_hz else ""
    until = f"{options.duration_s:g} s" if options.duration_s else "windows until p95 settles"
    note(f"measure {due}warm-up {options.warmup_s:g} s, then {until}")


def show(record: BenchRecord, *, as_json: bool, as_csv: bool) -> None:
    """The result on stdout, the advice on stderr."""
    from rtda_runtime.bench.record import FIGURES

    if as_json:
        print_json(record.to_dict(samples=False))
    elif as_csv:
        rows = [(stage, found.count, *found.times) for stage, found in record.stages.items()]
        print_csv(("stage_ms", "count", *FIGURES), rows)
    else:
        print_table(("ms", *FIGURES), [(stage, *found.times) for stage, found in record.stages.items()])
        print(f"total  {histogram_line(record.samples['total'], plain=not _shows_blocks())}")
        print(f"{record.rate_text()} · total = {record.settings.includes}")
        print(" · ".join(_machine_texts(record)))
    for sentence in record.advice:
        warn(sentence)


def hold_against_limit(record: BenchRecord) -> None:
    """Say whether the limit that was typed is met.

    Raises:
        LimitMissedError: If it is not.
    """
    if record.limit is None:
        return
    p95, limit = record.total.p95, record.limit.max_p95_ms
    if not record.limit.met:
        raise LimitMissedError(
            f"p95 is {p95:.1f} ms, the limit is {limit:g} ms", hint="a smaller --size at export, or a faster provider"
        )
    note(f"  ✓ p95 {p95:.1f} ms <= {limit:g} ms")


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


def _shows_blocks() -> bool:
    try:
        _BLOCKS.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _machine_texts(record: BenchRecord) -> Iterator[str]:
    conditions, jetson = record.conditions, record.conditions.jetson
    yield f"memory {conditions.memory_peak_mb:.0f} MB"
    yield f"{conditions.own_cores:.1f} cores busy"
    power, heat = jetson.power_w if jetson else None, conditions.temperature_end_c
    if jetson and jetson.gpu_percent is not None:
        yield f"gpu busy {jetson.gpu_percent:.0f} %"
    for gpu in conditions.gpus:
        if gpu.clock_mhz is not None:
            yield f"{gpu.name} at {gpu.clock_mhz:.0f} MHz"
        power = power if power is not None else gpu.power_w
        heat = heat if heat is not None else gpu.temperature_c
    if power is not None:
        yield f"power {power:.1f} W"
    if heat is not None:
        yield f"{heat:.0f} °C"
    change = record.windows[-1].change
    if record.settled and change is not None:
        yield f"p95 settled after {len(record.windows)} windows ({100 * change:.1f} %)"


def _size(wh: Sequence[int]) -> str:
    return f"{wh[0]}x{wh[1]}"


def compare_files(first: Path, second: Path, *, force: bool, as_json: bool, as_csv: bool) -> None:
    """Print what differs from ``first`` to ``second``; each a ``times.json`` or the folder that holds one.

    Raises:
        ConfigError: If they are of different devices, sizes or kinds, and ``force`` does not allow that.
        DataError: If a file is no result of ``bench``.
    """
    from rtda_deploy.cli.terminal.console import note, print_csv, print_json, print_table, warn
    from rtda_runtime.bench.compare import compare_records
    from rtda_runtime.bench.record import load_record

    paths = (first, second)
    records = [load_record(path) for path in paths]
    found = compare_records(*records, force=force)
    if as_json:
        values = dataclasses.asdict(found)
        unlike = values.pop("different_setup")
        print_json({**values, "a": str(first), "b": str(second), "different_setup": unlike})
    elif as_csv:
        keys = [field.name for field in dataclasses.fields(found.rows[0])]
        print_csv(keys, [dataclasses.astuple(row) for row in found.rows])
    else:
        for name, path, record in zip("AB", paths, records):
            model = record.model
            note(f"{name}       {path}   {model.file or model.description} on {model.provider}, {record.created}")
        rows = [(row.stage, row.figure, row.a, row.b, *_change_texts(row)) for row in found.rows]
        print_table(("ms", "", "A", "B", "B against A", "95 % interval", ""), rows)
        for sentence in found.changed:
            print(sentence)
    for sentence in found.different_setup:
        warn(f"different: {sentence}")
    for path, record in zip(paths, records):
        if not record.settled:
            warn(f"{path}: p95 did not settle")


def _change_texts(row: Difference) -> Tuple[str, str, str]:
    if row.change is None:
        return "-", "-", row.verdict
    interval = "too few frames"
    if row.low is not None and row.high is not None:
        interval = f"{100 * row.low:+.1f} .. {100 * row.high:+.1f} %"
    return f"{100 * row.change:+.1f} %", interval, row.verdict
