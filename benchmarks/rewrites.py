"""What the published network wastes, and what the export's exact rewrites save: same answer, fewer operations.

    python benchmarks/rewrites.py [--size 1024x512] [--backbones resnet18] [--rounds 15] [--json]

Graphs of the same weights, run in turns in each library on the same picture:

- ``published``: as the lineage publishes it, logits at full size; ``rtda`` ends in a 1x1 convolution there;
- ``head first``: that convolution before the last enlargement, logits at full size still;
- ``deployed``: logits at 1/8 (``export --no-rewrite``);
- ``rewritten``: and the fusion convolved before its maps are enlarged (what ``export`` writes).

The ratio is that of a round's two times, ``published`` over this one; its spread is the middle half of the rounds.
``differs`` is the largest difference of the logits at 1/8 from the deployed graph's, as a share of their range. Below
stands where ONNX Runtime spends its time in the published network, by part. Weights are random, which no speed
depends on. Fails if a rewritten graph answers otherwise (1e-4 of the range).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
from peer_ways import onnx_of
from small_network import random_checkpoint

from rtda_export import onnx_from_checkpoint
from rtda_runtime.engines.kinds import libraries
from rtda_runtime.engines.openvino import openvino_core
from rtda_runtime.machine.conditions import ConditionsMonitor
from rtda_runtime.machine.environment import environment

LIMIT = 1e-4  # of the logits' range: the export's own for fp32
NETWORKS = (("resnet18", "rtda"), ("resnet18", "paper"), ("resnet101", "rtda"))
_PAUSE_S = 0.03
_PARTS = ("backbone", "spatial_path", "context_path", "fusion", "head")
Net = Callable[[np.ndarray], np.ndarray]


def measure(backbone: str, variant: str, size_hw: Tuple[int, int], folder: Path, options: Any) -> Dict[str, Any]:
    """One network: ``rows`` by library and graph, ``parts`` in percent of the published network's time."""
    graphs = write_graphs(backbone, variant, size_hw, folder)
    image = np.random.default_rng(0).standard_normal((1, 3, *size_hw)).astype(np.float32)
    rows = []
    for library, opened in (("ONNX Runtime", _ort), ("OpenVINO", _openvino)):
        nets = {name: opened(path, options.threads) for name, path in graphs.items()}
        answers = {name: net(image).copy() for name, net in nets.items()}
        times = _times(nets, image, options.rounds)
        for name in nets:
            ratios = sorted(a / b for a, b in zip(times["published"], times[name]))
            quarter = len(ratios) // 4
            rows.append(
                {
                    "library": library,
                    "graph": name,
                    "gmacs": _macs(graphs[name]) / 1e9,
                    "ms": statistics.median(times[name]),
                    "ratio": statistics.median(ratios),
                    "low": ratios[quarter],
                    "high": ratios[-1 - quarter],
                    "differs": _difference(answers, name),
                }
            )
    met = all(row["differs"] <= LIMIT for row in rows)
    parts = _parts(graphs["published"], image, options.threads)
    return {"backbone": backbone, "variant": variant, "rows": rows, "parts": parts, "met": met}


def write_graphs(backbone: str, variant: str, size_hw: Tuple[int, int], folder: Path) -> Dict[str, Path]:
    """The ``.onnx`` files by name of the graph."""
    from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint

    checkpoint = random_checkpoint(folder / "random.pth", backbone, variant, size_hw[::-1])
    read = read_checkpoint(checkpoint)
    model = model_from_checkpoint(read).eval()
    return {
        "published": onnx_of(model, folder / "published.onnx", read.spec, "logits"),
        "head first": onnx_of(model, folder / "head.onnx", read.spec, "head first"),
        "deployed": onnx_from_checkpoint(checkpoint, folder / "deployed.onnx", rewritten=False),
        "rewritten": onnx_from_checkpoint(checkpoint, folder / "rewritten.onnx"),
    }


def _times(nets: Dict[str, Net], image: np.ndarray, rounds: int) -> Dict[str, List[float]]:
    times: Dict[str, List[float]] = {name: [] for name in nets}
    for number in range(rounds):
        for name in nets if number % 2 == 0 else reversed(nets):
            time.sleep(_PAUSE_S)
            start = time.perf_counter_ns()
            nets[name](image)
            times[name].append((time.perf_counter_ns() - start) / 1e6)
    return times


def _difference(answers: Dict[str, np.ndarray], name: str) -> float:
    """From the graph that gives logits of the same size."""
    partner = {"rewritten": "deployed", "head first": "published"}.get(name, name)
    return float(np.abs(answers[name] - answers[partner]).max() / np.ptp(answers[partner]))


def _macs(path: Path) -> int:
    import onnx

    from rtda_export.roofline.layers import fused_layers

    return sum(layer.macs for layer in fused_layers(onnx.load(str(path))))


def _ort(path: Path, threads: int) -> Net:
    session = _session(path, threads)
    name = session.get_inputs()[0].name
    return lambda image: np.asarray(session.run(None, {name: image})[0])


def _session(path: Path, threads: int, profile: str = "") -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _openvino(path: Path, threads: int) -> Net:

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    request = openvino_core().compile_model(str(path), "CPU", settings).create_infer_request()
    return lambda image: np.asarray(request.infer({0: image})[0])


def _parts(path: Path, image: np.ndarray, threads: int) -> Dict[str, float]:
    """Percent of the time by part of the network, as ONNX Runtime's profiler says; ``other``: what it cannot place."""
    session = _session(path, threads, str(path.parent / "profile"))
    for _ in range(5):
        session.run(None, {session.get_inputs()[0].name: image})
    report = Path(session.end_profiling())
    events = json.loads(report.read_text(encoding="utf-8"))
    report.unlink()
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            part = next((part for part in _PARTS if part in event["name"]), "other")
            kind = "last enlargement" if part == "other" and event["args"]["op_name"] == "Resize" else part
            spent[kind] += event["dur"]
    return {part: round(100 * value / sum(spent.values()), 2) for part, value in spent.most_common()}


def main() -> int:
    """Measure, print, and fail if a rewritten graph answers otherwise."""
    options = _options()
    width, height = (int(side) for side in options.size.split("x"))
    machine = environment(libraries=libraries()).to_dict()
    networks = []
    with ConditionsMonitor() as monitor:
        for backbone, variant in (network for network in NETWORKS if network[0] in options.backbones):
            print(f"{backbone} {variant}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="rtda-rewrites-") as scratch:
                networks.append(measure(backbone, variant, (height, width), Path(scratch), options))
    found = {"networks": networks, "size": options.size, "rounds": options.rounds, "threads": options.threads}
    found = {**found, "environment": machine, "conditions": monitor.conditions.to_dict()}
    print(json.dumps(found) if options.json else _table(found))
    return int(not all(network["met"] for network in networks))


def _table(found: Dict[str, Any]) -> str:
    lines = []
    for network in found["networks"]:
        head = f"{'G MAC':>9}{'median':>12}{'times as fast':>15}{'middle half':>16}{'differs':>10}"
        lines.append(f"{network['backbone']} {network['variant']:<15}{'graph':<13}{head}")
        for row in network["rows"]:
            spread = f"{row['low']:.3f} .. {row['high']:.3f}"
            figures = (
                f"{row['gmacs']:>9.2f}{row['ms']:>9.1f} ms{row['ratio']:>15.3f}{spread:>16}{row['differs']:>10.0e}"
            )
            lines.append(f"  {row['library']:<22}{row['graph']:<13}{figures}")
        parts = ", ".join(f"{part} {value:g} %" for part, value in network["parts"].items())
        lines.append(f"  published, by part: {parts}")
    others = f"others took {found['conditions']['other_cores']} cores meanwhile"
    rounds = f"{found['rounds']} interleaved rounds at {found['size']}, {found['threads']} threads"
    return "\n".join([*lines, f"{rounds} · {found['environment']['cpu']}, {others}"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="1024x512", help="of the input, WIDTHxHEIGHT (default: 1024x512)")
    chosen = sorted({backbone for backbone, _ in NETWORKS})
    parser.add_argument("--backbones", nargs="+", choices=chosen, default=chosen, help="(default: both)")
    parser.add_argument("--rounds", type=int, default=15, help="of all graphs (default: 15)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each library (all cores)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
