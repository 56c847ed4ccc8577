"""``rtda-deploy bench --compare A.json B.json``: what differs between two results, and whether that is more than noise.

Times of neighbouring frames resemble each other, so the interval of a difference comes from blocks of frames drawn
with replacement (a block bootstrap), not from single ones, which would make every difference look certain.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Tuple

if TYPE_CHECKING:
    import numpy as np

__all__ = ["compare_files", "compare_records", "differences_of_setup"]

Interval = Tuple[float, float]

_PERCENTILES = {"p50": 50.0, "p95": 95.0}
_BLOCKS = 20  # of frames, in time order
_DRAWS = 1000
_LEAST_FRAMES = 4 * _BLOCKS
_MOST_FRAMES = 20_000  # of a long result every second, third ... frame is drawn from, or it takes minutes
_INTERVAL = (2.5, 97.5)  # percent: a 95 % interval


def compare_files(first: Path, second: Path, *, force: bool, as_json: bool, as_csv: bool) -> None:
    """Print what differs from ``first`` to ``second``; each a ``times.json`` or the folder that holds one.

    Raises:
        ConfigError: If they are of different devices, sizes or kinds, and ``force`` does not allow that.
        DataError: If a file is no result of ``bench``.
    """
    from rtda_deploy.border import parsing
    from rtda_deploy.cli.bench.verb import print_csv
    from rtda_deploy.cli.terminal.console import note, print_json, print_table, warn
    from rtda_deploy.errors import ConfigError, DataError

    a, b = _read(first), _read(second)
    unlike = differences_of_setup(a, b)
    if unlike and not force:
        raise ConfigError(
            "these two results cannot be compared",
            why="; ".join(unlike),
            hint="measure both on one device with one setting, or add --force to compare nevertheless",
        )
    with parsing(
        DataError, f"{first} and {second} cannot be compared", hint="measure both again: rtda-deploy bench MODEL"
    ):
        differences = compare_records(a, b)
    found = {**differences, "a": str(first), "b": str(second), "different_setup": unlike}
    rows = [(row["stage"], row["figure"], row["a"], row["b"], *_change_texts(row)) for row in found["rows"]]
    if as_json:
        print_json(found)
    elif as_csv:
        keys = ("stage", "figure", "a", "b", "change", "low", "high", "verdict")
        print_csv(keys, [[row[key] for key in keys] for row in found["rows"]])
    else:
        note(f"A       {_title(a, first)}")
        note(f"B       {_title(b, second)}")
        print_table(("ms", "", "A", "B", "B against A", "95 % interval", ""), rows)
        for name in found["changed"]:
            print(name)
    for sentence in unlike:
        warn(f"different: {sentence}")
    for path, record in ((first, a), (second, b)):
        if not record["settled"]:
            warn(f"{path}: p95 did not settle")


def compare_records(a: Dict[str, Any], b: Dict[str, Any]) -> Dict[str, Any]:
    """What differs between two records.

    Returns:
        JSON-ready: ``rows``, one per stage and figure (``p50``, ``p95``; and the throughput, frames per second), each
        with ``a``, ``b``, ``change`` (relative to a), ``low`` and ``high`` (its 95 % interval; None where the frames
        are too few, or there are none) and ``verdict``: "faster", "slower", "same" (the interval holds zero), or
        "unknown" (no interval); ``changed``: sentences on what else is not the same, such as a version.
    """
    rows = []
    for stage in a["stages"]:
        if stage in b["stages"]:
            rows += _rows(a, b, stage)
    rows.append(_throughput_row(a, b))
    return {"rows": rows, "changed": list(_changed(a, b))}


def differences_of_setup(a: Dict[str, Any], b: Dict[str, Any]) -> List[str]:
    """What makes two results no comparison: other devices, power modes, sizes, rates, or another thing measured."""
    mine, other = dict(_setup(a)), dict(_setup(b))
    return [f"{name}: {mine[name]} and {other[name]}" for name in mine if mine[name] != other[name]]


def _setup(record: Dict[str, Any]) -> Iterator[Tuple[str, Any]]:
    environment, settings = record["environment"], record["settings"]
    jetson = environment.get("jetson") or {}
    yield "device", f"{jetson.get('model') or environment['cpu']} ({environment['machine']})"
    yield "cores", environment["cores"]
    yield "GPU", ", ".join(gpu["name"] for gpu in environment.get("gpus", [])) or "none"
    yield "power mode", (jetson.get("power_mode") or {}).get("name") or "none"
    yield "network size", _size(record["model"]["size_hw"])
    yield "frame size", _size(record["frame_hw"])
    yield "rate", f"{settings['rate_hz']:g} Hz" if settings["rate_hz"] else "the highest"
    yield "frames in flight", settings.get("in_flight", 1)
    yield "measured", settings.get("measures", "network")


def _changed(a: Dict[str, Any], b: Dict[str, Any]) -> Iterator[str]:
    for name in ("file", "sha256", "provider", "description", "threads"):
        before, after = a["model"].get(name), b["model"].get(name)
        if before != after:
            short = 12 if name == "sha256" else None
            yield f"{name}: {str(before)[:short]} -> {str(after)[:short]}"
    ignored = ("load_1min", "memory_mb", "temperatures_c", "cpu_mhz", "gpus", "jetson")
    for name in a["environment"]:
        before, after = a["environment"][name], b["environment"].get(name)
        if name not in ignored and before != after:
            yield f"{name}: {before} -> {after}"


def _rows(a: Dict[str, Any], b: Dict[str, Any], stage: str) -> List[Dict[str, Any]]:
    intervals = _intervals(_values(a, stage), _values(b, stage))
    rows = []
    for figure, interval in zip(_PERCENTILES, intervals):
        before, after = float(a["stages"][stage][figure]), float(b["stages"][stage][figure])
        row = {"stage": stage, "figure": figure, "a": before, "b": after}
        rows.append(_judged(row, interval, more_is="slower"))
    return rows


def _throughput_row(a: Dict[str, Any], b: Dict[str, Any]) -> Dict[str, Any]:
    row = {"stage": "frames/s", "figure": "mean", "a": float(a["throughput"]), "b": float(b["throughput"])}
    return _judged(row, _rate_interval(a, b), more_is="faster")


def _judged(row: Dict[str, Any], interval: Optional[Interval], *, more_is: str) -> Dict[str, Any]:
    change = row["b"] / row["a"] - 1.0 if row["a"] else None
    low, high = interval if interval is not None else (None, None)
    if low is None or high is None or change is None:
        verdict = "unknown"
    elif low <= 0.0 <= high:
        verdict = "same"
    else:
        verdict = more_is if low > 0 else {"slower": "faster", "faster": "slower"}[more_is]
    return {**row, "change": change, "low": low, "high": high, "verdict": verdict}


def _values(record: Dict[str, Any], stage: str) -> List[float]:
    return list(record.get("samples", {}).get(stage, []))


def _intervals(a: List[float], b: List[float]) -> List[Optional[Interval]]:
    """95 % interval of the relative difference of each percentile; None: too few frames."""
    import numpy as np

    if min(len(a), len(b)) < _LEAST_FRAMES:
        return [None] * len(_PERCENTILES)
    rng = np.random.default_rng(0)  # the same answer every time
    before, after = (_drawn(np.asarray(values), rng) for values in (a, b))
    found: List[Optional[Interval]] = []
    for index in range(len(_PERCENTILES)):
        if not before[:, index].all():
            found.append(None)
            continue
        low, high = np.percentile(after[:, index] / before[:, index] - 1.0, _INTERVAL)
        found.append((float(low), float(high)))
    return found


def _drawn(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Percentiles of ``_DRAWS`` results that could have been: blocks of frames drawn with replacement."""
    import numpy as np

    values = values[:: -(-len(values) // _MOST_FRAMES)]
    size = len(values) // _BLOCKS
    blocks = values[: size * _BLOCKS].reshape(_BLOCKS, size)
    picks = rng.integers(0, _BLOCKS, (_DRAWS, _BLOCKS))
    return np.array([np.percentile(blocks[pick], list(_PERCENTILES.values())) for pick in picks])


def _rate_interval(a: Dict[str, Any], b: Dict[str, Any]) -> Optional[Interval]:
    """The same of frames per second, from the time that each block of frames took."""
    import numpy as np

    rng = np.random.default_rng(0)
    rates = []
    for record in (a, b):
        at_s = np.asarray(_values(record, "at_s"))
        if len(at_s) < _LEAST_FRAMES:
            return None
        size = len(at_s) // _BLOCKS
        spent_s = np.diff(np.concatenate([[0.0], at_s[size - 1 :: size][:_BLOCKS]]))
        rates.append(_BLOCKS * size / spent_s[rng.integers(0, _BLOCKS, (_DRAWS, _BLOCKS))].sum(axis=1))
    low, high = np.percentile(rates[1] / rates[0] - 1.0, _INTERVAL)
    return float(low), float(high)


def _change_texts(row: Dict[str, Any]) -> Tuple[str, str, str]:
    if row["change"] is None:
        return "-", "-", row["verdict"]
    interval = f"{100 * row['low']:+.1f} .. {100 * row['high']:+.1f} %" if row["low"] is not None else "too few frames"
    return f"{100 * row['change']:+.1f} %", interval, row["verdict"]


def _title(record: Dict[str, Any], path: Path) -> str:
    model = record["model"]
    return f"{path}   {model['file'] or model['description']} on {model['provider']}, {record['created']}"


def _size(size_hw: List[int]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}"


def _read(path: Path) -> Dict[str, Any]:
    from rtda_deploy.border import json_values, parsing
    from rtda_deploy.errors import DataError
    from rtda_deploy.files import readable_file
    from rtda_runtime.bench.benchmark import FORMAT

    file = path / "times.json" if path.is_dir() else path
    hint = "name a times.json that rtda-deploy bench has saved, or its folder"
    record = json_values(readable_file(file, what="result").read_bytes(), str(file), DataError, hint=hint)
    kind = record.get("format") if isinstance(record, dict) else None
    if kind != FORMAT:
        raise DataError(f"{file} is no result of bench: format {kind!r}, expected {FORMAT!r}", hint=hint)
    missing = {"model", "environment", "settings", "stages", "throughput", "frame_hw", "settled"} - set(record)
    if missing:
        raise DataError(f"{file} is not whole: no {', '.join(sorted(missing))}", hint=hint)
    with parsing(DataError, f"{file} is not what bench has written", hint=hint):
        _try_all(record, file)
    return dict(record)


def _try_all(record: Dict[str, Any], file: Path) -> None:
    """Read everything that a comparison reads, so that a broken value is found with the file that holds it."""
    import numpy as np

    if not record["stages"]:
        raise ValueError("it has no stages")
    for stage, figures in record["stages"].items():
        numbers = [float(figures[name]) for name in _PERCENTILES]
        if min(numbers) < 0:
            raise ValueError(f"{stage} took {min(numbers)} ms")
        np.asarray(_values(record, stage), np.float64)
    at_s = np.asarray(_values(record, "at_s"), np.float64)
    if at_s.ndim != 1 or float(record["throughput"]) < 0:
        raise ValueError("its times are none")
    list(_setup(record))
    list(_changed(record, record))
    _title(record, file)
