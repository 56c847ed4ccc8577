"""How cost grows on the CPU: with the batch, the picture's size, the network, and what a first mask costs.

    python benchmarks/growth.py [--part batch,size,backbone,start] [--threads 2] [--rounds 9] [--quick] [--json]

Networks are BiSeNets with random weights in float32 (``--quick``: at a quarter of every side), on ONNX Runtime and on
OpenVINO where that is installed. Within a part the networks of a library run in turns, so that whatever else the
machine does falls on all of them. A ratio is that of two times of one round, its spread the middle half of the rounds.

- ``batch``: R18 at 1024x512, 1 to 8 pictures at a time, on bare sessions of both libraries (this project's runtime
  takes one frame at a time); ms per picture.
- ``size``: R18 from a quarter to four times the pixels of 1024x512, frames of 1280x720 through ``Segmenter``: the
  network alone and the whole way to the mask. The exponent is the slope of the logarithms of ms over pixels: 1 where
  time is proportional to pixels, below where something does not shrink with them.
- ``backbone``: R18 of both variants and R101 at 1024x512, the network alone, beside their operations.
- ``start``: a new process from its start to the first mask, by phase, and the most memory it ever had resident, after
  one mask and after 50. A first start finds nothing that an earlier one kept (compiled code, what ``auto`` found to be
  the quickest); the disk's cache is warm in both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from small_network import write_network
from startup import first_mask

from rtda_deploy.errors import ConfigError
from rtda_deploy.optional import available, require
from rtda_runtime import Segmenter
from rtda_runtime.bench.samplers import smooth_pictures
from rtda_runtime.engines.kinds import libraries
from rtda_runtime.engines.openvino import openvino_core
from rtda_runtime.machine.conditions import ConditionsMonitor
from rtda_runtime.machine.cores import usable_cores
from rtda_runtime.machine.environment import environment

Times = Dict[str, float]
Way = Callable[[], Times]
Size = Tuple[int, int]

PARTS = ("batch", "size", "backbone", "start")
BATCHES = (1, 2, 4, 8)
BACKBONES = (("resnet18", "rtda"), ("resnet18", "paper"), ("resnet101", "rtda"))
PHASES = ("python_ms", "import_ms", "open_ms", "mask_ms", "total_ms")
LIBRARIES = {"cpu": "ONNX Runtime", "openvino": "OpenVINO", "auto": "auto"}
_FRAME: Size = (1280, 720)
_WARM_UP = 2  # runs of each before the first that counts: memory is allocated and weights are packed then
_PAUSE_S = 0.02  # the threads of a session wait busily for a moment after a run, and would slow the next one


class Plan(NamedTuple):
    """What is measured: ``sizes`` holds ``size``, the one that ratios refer to."""

    size: Size
    sizes: Sequence[Size]
    rounds: int
    starts: int
    masks: int
    threads: int


FULL = Plan((1024, 512), ((512, 256), (768, 384), (1024, 512), (1408, 704), (2048, 1024)), 9, 5, 50, usable_cores())
QUICK = Plan((256, 128), ((128, 64), (192, 96), (256, 128), (384, 192), (512, 256)), 5, 2, 10, usable_cores())


class Networks:
    """The files of a folder, each written when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def file(self, size_wh: Size, backbone: str = "resnet18", variant: str = "rtda", batch: int = 1) -> Path:
        path = self._folder / f"{backbone}-{variant}-{size_wh[0]}x{size_wh[1]}-{batch}.onnx"
        if not path.exists():
            print(f"writing {path.name}", file=sys.stderr)
            write_network(path, size_wh, backbone=backbone, variant=variant, batch=batch)
        return path


def measure(parts: Sequence[str], plan: Plan, networks: Networks, providers: Sequence[str]) -> Dict[str, Any]:
    """The parts asked for, each under its name; see :func:`batch`, :func:`size`, :func:`backbone`, :func:`start`."""
    known = {"batch": batch, "size": size, "backbone": backbone, "start": start}
    return {name: known[name](plan, networks, providers) for name in PARTS if name in parts}


def batch(plan: Plan, networks: Networks, providers: Sequence[str]) -> List[Dict[str, Any]]:
    """Rows of ``library``, ``batch``, ``ms`` (per picture), ``ratio`` to one at a time, its ``low`` and ``high``."""
    rows: List[Dict[str, Any]] = []
    for provider in providers:
        ways = {count: _bare(provider, networks.file(plan.size, batch=count), count, plan.threads) for count in BATCHES}
        times = interleaved(ways, plan.rounds)
        rows += [{"library": LIBRARIES[provider], "batch": count, **_row(times, count, 1, "ms")} for count in BATCHES]
    return rows


def size(plan: Plan, networks: Networks, providers: Sequence[str]) -> Dict[str, Any]:
    """How time grows with the pixels of the network's input.

    Returns:
        ``rows``: ``library``, ``size``, ``pixels`` (times those of ``base``), ``network_ms``, ``frame_ms`` (the whole
        way), ``ratio`` (of the network's time to that at ``base``), ``low``, ``high``. ``fits``: per library the
        ``network_exponent`` and ``frame_exponent`` of ms over pixels. ``base``, ``frame``: as WIDTHxHEIGHT.
    """
    rows: List[Dict[str, Any]] = []
    fits: List[Dict[str, Any]] = []
    picture = smooth_pictures(_FRAME, 1)[0]
    for provider in providers:
        opened = {wh: Segmenter.open(networks.file(wh), provider, threads=plan.threads) for wh in plan.sizes}
        times = interleaved({wh: _segment(segmenter, picture) for wh, segmenter in opened.items()}, plan.rounds)
        for segmenter in opened.values():
            segmenter.close()
        mine: List[Dict[str, Any]] = [
            {
                "library": LIBRARIES[provider],
                "size": _text(wh),
                "pixels": wh[0] * wh[1] / (plan.size[0] * plan.size[1]),
                "frame_ms": _median(times[wh], "frame_ms"),
                **_row(times, wh, plan.size, "network_ms"),
            }
            for wh in plan.sizes
        ]
        rows += mine
        fits.append({"library": LIBRARIES[provider], **_slopes(mine)})
    return {"rows": rows, "fits": fits, "base": _text(plan.size), "frame": _text(_FRAME)}


def backbone(plan: Plan, networks: Networks, providers: Sequence[str]) -> List[Dict[str, Any]]:
    """Rows of ``library``, ``backbone``, ``variant``, ``gflop`` (None without onnx), ``ms`` of the network, ``ratio``
    to R18 ``rtda``, ``low``, ``high``, ``gflop_ratio`` (what the operations alone would make of it)."""
    rows: List[Dict[str, Any]] = []
    base = BACKBONES[0]
    files = {named: networks.file(plan.size, *named) for named in BACKBONES}
    gflop = {named: _gflop(path) for named, path in files.items()}
    for provider in providers:
        ways = {named: _bare(provider, path, 1, plan.threads) for named, path in files.items()}
        times = interleaved(ways, plan.rounds)
        for named in BACKBONES:
            own, first = gflop[named], gflop[base]
            facts = {"gflop": own, "gflop_ratio": None if own is None or first is None else own / first}
            row = {"library": LIBRARIES[provider], "backbone": named[0], "variant": named[1], **facts}
            rows.append({**row, **_row(times, named, base, "ms")})
    return rows


def start(plan: Plan, networks: Networks, providers: Sequence[str]) -> List[Dict[str, Any]]:
    """A first and a second start of each library, and of ``auto`` where there are two, again and again.

    Returns:
        Rows of ``library``, ``start`` (``first`` or ``second``), the medians of :data:`PHASES`, ``low`` and ``high``
        (the middle half of the total), ``masks``, ``peak_1_mb``, ``peak_mb`` (after so many masks), ``resident_mb``.
    """
    file = networks.file(plan.size)
    known = [*providers, *(["auto"] if len(providers) > 1 else [])]
    seen: Dict[Tuple[str, str], List[Times]] = {}
    for number in range(plan.starts):
        for provider in known if number % 2 == 0 else list(reversed(known)):
            with tempfile.TemporaryDirectory(prefix="rtda-start-") as empty:
                for which in ("first", "second"):
                    masks = plan.masks if number == 0 else 1
                    found = first_mask(file, provider, _FRAME, cache=Path(empty), masks=masks, threads=plan.threads)
                    seen.setdefault((provider, which), []).append(found)
    rows = []
    for (provider, which), times in sorted(seen.items(), key=lambda entry: (known.index(entry[0][0]), entry[0][1])):
        low, high = _middle_half([entry["total_ms"] for entry in times])
        memory = {name: times[0][name] for name in ("masks", "peak_1_mb", "peak_mb", "resident_mb")}
        phases = {name: _median(times, name) for name in PHASES}
        row = {"library": LIBRARIES[provider], "start": which, **phases, "low": low, "high": high}
        rows.append({**row, **memory})
    return rows


def interleaved(ways: Dict[Any, Way], rounds: int) -> Dict[Any, List[Times]]:
    """Run all ways once a round, forwards and backwards in turn; what each gave, round by round."""
    times: Dict[Any, List[Times]] = {name: [] for name in ways}
    for way in ways.values():
        for _ in range(_WARM_UP):
            way()
    for number in range(rounds):
        for name in ways if number % 2 == 0 else list(reversed(ways)):
            time.sleep(_PAUSE_S)
            times[name].append(ways[name]())
    return times


def _slopes(rows: Sequence[Dict[str, Any]]) -> Dict[str, float]:
    pixels = [row["pixels"] for row in rows]
    return {f"{part}_exponent": exponent(pixels, [row[f"{part}_ms"] for row in rows]) for part in ("network", "frame")}


def exponent(pixels: Sequence[float], times_ms: Sequence[float]) -> float:
    """Slope of the line through the logarithms."""
    return float(np.polyfit(np.log(pixels), np.log(times_ms), 1)[0])


def _row(times: Dict[Any, List[Times]], name: Any, base: Any, field: str) -> Dict[str, float]:
    ratios = [own[field] / first[field] for own, first in zip(times[name], times[base])]
    low, high = _middle_half(ratios)
    return {field: _median(times[name], field), "ratio": statistics.median(ratios), "low": low, "high": high}


def _middle_half(values: Sequence[float]) -> Tuple[float, float]:
    ordered = sorted(values)
    return ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]


def _median(times: Sequence[Times], field: str) -> float:
    return statistics.median(entry[field] for entry in times)


def _segment(segmenter: Segmenter, picture: np.ndarray) -> Way:
    mask = np.empty(picture.shape[:2], np.uint8)

    def run() -> Times:
        timing = segmenter.segment(picture, out=mask).timing
        return {"network_ms": timing["infer"], "frame_ms": sum(timing.values())}

    return run


def _bare(provider: str, path: Path, count: int, threads: int) -> Way:
    """One inference of a session as the library opens it; ms per picture."""
    opened = _ort_session if provider == "cpu" else _openvino_request
    run, shape = opened(path, threads)
    pictures = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    if shape[0] != count:
        raise ConfigError(f"{path.name} takes {shape[0]} pictures at a time, expected {count}")

    def timed() -> Times:
        begin = time.perf_counter_ns()
        run(pictures)
        return {"ms": (time.perf_counter_ns() - begin) / 1e6 / count}

    return timed


def _ort_session(path: Path, threads: int) -> Tuple[Callable[[np.ndarray], Any], Tuple[int, ...]]:
    ort: Any = require("onnxruntime", extra="runtime")
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    return lambda pictures: session.run(None, {entry.name: pictures}), tuple(entry.shape)


def _openvino_request(path: Path, threads: int) -> Tuple[Callable[[np.ndarray], Any], Tuple[int, ...]]:
    options: Dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    options["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino_core().compile_model(str(path), "CPU", options)
    request = compiled.create_infer_request()
    return lambda pictures: request.infer([pictures], share_inputs=True), tuple(compiled.input(0).shape)


def _gflop(path: Path) -> Optional[float]:
    """Operations of the convolutions and matrix products: two per multiply-add."""
    if not available("onnx"):
        return None
    from rtda_export.graph.from_torch import read_onnx
    from rtda_export.roofline.layers import fused_layers

    return 2 * sum(layer.macs for layer in fused_layers(read_onnx(path))) / 1e9


def main() -> int:
    """Measure and print."""
    options = _options()
    plan = QUICK if options.quick else FULL
    plan = plan._replace(rounds=options.rounds or plan.rounds, threads=options.threads or plan.threads)
    providers = ["cpu", *(["openvino"] if available("openvino") else [])]
    for package in ("onnxruntime", "openvino")[: len(providers)]:
        require(package, extra="all")  # loaded before, so that the environment names its version
    machine = environment(libraries=libraries()).to_dict()
    with tempfile.TemporaryDirectory(prefix="rtda-growth-") as folder:
        networks = Networks(Path(folder))
        with ConditionsMonitor() as monitor:
            found = measure(options.part, plan, networks, providers)
    settings = {"quick": options.quick, "rounds": plan.rounds, "starts": plan.starts, "threads": plan.threads}
    found = {**found, **settings, "network": _text(plan.size)}
    found = {**found, "environment": machine, "conditions": monitor.conditions.to_dict()}
    print(json.dumps(found) if options.json else "\n".join(_tables(found)))
    return 0


def _tables(found: Dict[str, Any]) -> List[str]:
    parts: Dict[str, Callable[[Any], List[str]]] = {
        "batch": _batch_table,
        "size": _size_table,
        "backbone": _backbone_table,
        "start": _start_table,
    }
    lines: List[str] = []
    for name, table in parts.items():
        if name in found:
            lines += [*table(found[name]), ""]
    machine, threads = found["environment"], found["threads"]
    return [
        *lines,
        f"{found['rounds']} interleaved rounds, {found['starts']} starts, {threads} thread(s) ·"
        f" {machine['cpu']}, {machine['cores']} cores, others took {found['conditions']['other_cores']} meanwhile",
    ]


def _batch_table(rows: Sequence[Dict[str, Any]]) -> List[str]:
    lines = [f"{'batch':<26}{'per picture':>14}{'of one at a time':>18}{'middle half':>16}"]
    for row in rows:
        name = f"{row['library']}, {row['batch']}"
        lines.append(f"{name:<26}{row['ms']:>11.1f} ms{row['ratio']:>17.2f}x{_spread(row):>16}")
    return lines


def _size_table(found: Dict[str, Any]) -> List[str]:
    base = f"of {found['base']}"
    lines = [f"{'size':<26}{'pixels':>8}{'network':>12}{'whole way':>12}{base:>14}{'middle half':>16}"]
    for row in found["rows"]:
        name = f"{row['library']}, {row['size']}"
        times = f"{row['network_ms']:>9.1f} ms{row['frame_ms']:>9.1f} ms"
        lines.append(f"{name:<26}{row['pixels']:>7.2f}x{times}{row['ratio']:>13.2f}x{_spread(row):>16}")
    for fit in found["fits"]:
        lines.append(
            f"{fit['library']}: ms grow with pixels to the power of {fit['network_exponent']:.2f} (network),"
            f" {fit['frame_exponent']:.2f} (whole way of a {found['frame']} frame)"
        )
    return lines


def _backbone_table(rows: Sequence[Dict[str, Any]]) -> List[str]:
    lines = [f"{'network':<34}{'GFLOP':>8}{'':>8}{'ms':>10}{'of R18 rtda':>14}{'middle half':>16}"]
    for row in rows:
        name = f"{row['library']}, {row['backbone']} {row['variant']}"
        work = f"{'-':>16}" if row["gflop"] is None else f"{row['gflop']:>8.1f}{row['gflop_ratio']:>7.2f}x"
        lines.append(f"{name:<34}{work}{row['ms']:>10.1f}{row['ratio']:>13.2f}x{_spread(row):>16}")
    return lines


def _start_table(rows: Sequence[Dict[str, Any]]) -> List[str]:
    heads = ("python", "import", "open", "mask", "total", "middle half", "peak, 1", f"peak, {rows[0]['masks']}")
    lines = [f"{'start, ms':<24}" + "".join(f"{head:>{14 if 'half' in head else 9}}" for head in heads)]
    for row in rows:
        name = f"{row['library']}, {row['start']}"
        times = "".join(f"{row[phase]:>9.0f}" for phase in PHASES)
        spread = f"{row['low']:.0f} .. {row['high']:.0f}"
        lines.append(f"{name:<24}{times}{spread:>14}{row['peak_1_mb']:>6.0f} MB{row['peak_mb']:>6.0f} MB")
    return lines


def _spread(row: Dict[str, Any]) -> str:
    return f"{row['low']:.2f} .. {row['high']:.2f}"


def _text(size_wh: Size) -> str:
    return f"{size_wh[0]}x{size_wh[1]}"


def _parts(text: str) -> List[str]:
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in PARTS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"unknown part {', '.join(unknown)!r}; known: {', '.join(PARTS)}")
    return names


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", type=_parts, default=list(PARTS), help=f"some of {','.join(PARTS)} (default: all)")
    parser.add_argument("--threads", type=int, help="CPU threads of the networks (default: one per core)")
    parser.add_argument("--rounds", type=int, help="of each part (default: 9; quick: 5)")
    parser.add_argument("--quick", action="store_true", help="a quarter of every side, fewer rounds: a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
