"""What the CPU engines' options are worth: each beside the library's own, on free cores and beside busy programs.

    python benchmarks/cpu_threads.py [--model model.onnx] [--size 512x256] [--rounds 15] [--busy 0,1] [--json]

Sessions of ONNX Runtime and compiled models of OpenVINO that differ in one option run the same network in turns; after
a pause, so that no library's waiting threads disturb the next, and after one inference that does not count. ``--busy``
says beside how many endless loops, each a process of its own. The ratio is how many times as fast a round's inference
is as the library's own; its spread is the middle half of the rounds. ``ours`` is what ``open_engine`` makes.

Without --model a BiSeNet-R18 with random weights is made, which needs torch.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import numpy as np
from small_network import write_network

from rtda_deploy.optional import available, require
from rtda_runtime import open_engine
from rtda_runtime.engines.kinds import libraries
from rtda_runtime.engines.onnxruntime import OrtEngine
from rtda_runtime.engines.openvino import openvino_core
from rtda_runtime.machine.conditions import ConditionsMonitor
from rtda_runtime.machine.cores import usable_cores
from rtda_runtime.machine.environment import environment

OWN = "library's own"
_PAUSE_S = 0.015
Way = Callable[[], Any]

_ORT_WAYS: Dict[str, Dict[str, str]] = {
    "waits 1 ms": {"session.intra_op.spin_duration_us": "1000"},
    "sleeps at once": {"session.intra_op.allow_spinning": "0"},
    "denormals are 0": {"session.set_denormal_as_zero": "1"},
}


def ways(model: Path, opened: contextlib.ExitStack) -> Dict[Tuple[str, str], Way]:
    """Library and option, to a function that runs the network once; ``opened`` closes them."""
    reference = opened.enter_context(open_engine(model, "cpu"))
    picture = np.random.default_rng(0).standard_normal(reference.input_shape).astype(np.float32)
    found: Dict[Tuple[str, str], Way] = {}
    ort = require("onnxruntime", extra="runtime")
    for name, entries in {OWN: {}, **_ORT_WAYS, "no arena": {}}.items():
        options = ort.SessionOptions()
        for key, value in entries.items():
            options.add_session_config_entry(key, value)
        options.intra_op_num_threads = usable_cores()
        options.enable_cpu_mem_arena = name != "no arena"
        session = ort.InferenceSession(str(model), sess_options=options, providers=["CPUExecutionProvider"])
        engine = OrtEngine(session, reference.spec, path=model, provider="cpu", threads=usable_cores())
        engine.input_buffer[...] = picture
        found["ONNX Runtime", name] = opened.enter_context(engine).infer
    reference.input_buffer[...] = picture
    found["ONNX Runtime", "ours"] = reference.infer
    if available("openvino"):
        found["OpenVINO", OWN] = _openvino(model, picture)
        ours = opened.enter_context(open_engine(model, "openvino"))
        ours.input_buffer[...] = picture
        found["OpenVINO", "ours"] = ours.infer
    return found


def measure(known: Dict[Tuple[str, str], Way], rounds: int, busy: int) -> List[Dict[str, Any]]:
    """One row per way: median ``ms``, ``cpu_ms`` of all threads, ``ratio`` to the library's own, ``low``, ``high``."""
    times: Dict[Tuple[str, str], List[float]] = {key: [] for key in known}
    work: Dict[Tuple[str, str], List[float]] = {key: [] for key in known}
    with _busy_programs(busy):
        for number in range(rounds):
            order = list(known)[number % len(known) :] + list(known)[: number % len(known)]
            for key in order if number % 2 == 0 else reversed(order):
                time.sleep(_PAUSE_S)
                known[key]()
                start, worked = time.perf_counter(), time.process_time()
                known[key]()
                times[key].append((time.perf_counter() - start) * 1e3)
                work[key].append((time.process_time() - worked) * 1e3)
    rows = []
    for (library, option), values in times.items():
        ratios = sorted(own / value for own, value in zip(times[library, OWN], values))
        rows.append(
            {
                "busy": busy,
                "library": library,
                "option": option,
                "ms": statistics.median(values),
                "cpu_ms": statistics.median(work[library, option]),
                "ratio": statistics.median(ratios),
                "low": ratios[len(ratios) // 4],
                "high": ratios[-1 - len(ratios) // 4],
            }
        )
    return rows


def _openvino(model: Path, picture: np.ndarray) -> Way:
    """Float32 and one frame at a time as ours; to which cores they are bound is OpenVINO's choice."""
    ov = require("openvino", extra="openvino")
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    settings["INFERENCE_NUM_THREADS"] = usable_cores()
    request = openvino_core().compile_model(str(model), "CPU", settings).create_infer_request()
    request.set_input_tensor(0, ov.Tensor(picture, shared_memory=True))
    run: Way = request.infer
    return run


@contextlib.contextmanager
def _busy_programs(count: int) -> Iterator[None]:
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def main() -> int:
    """Measure and print."""
    options = _options()
    width, height = (int(side) for side in options.size.split("x"))
    with tempfile.TemporaryDirectory(prefix="rtda-threads-") as folder, contextlib.ExitStack() as opened:
        model = options.model or write_network(Path(folder) / "model.onnx", (width, height))
        known = ways(model, opened)
        for run in known.values():
            run()
        machine = environment(libraries=libraries()).to_dict()
        with ConditionsMonitor() as monitor:
            rows = [row for busy in options.busy.split(",") for row in measure(known, options.rounds, int(busy))]
    found = {"rows": rows, "model": options.model and str(options.model), "size": options.size}
    found = {**found, "rounds": options.rounds, "threads": usable_cores()}
    found = {**found, "environment": machine, "conditions": monitor.conditions.to_dict()}
    print(json.dumps(found) if options.json else _table(found))
    return 0


def _table(found: Dict[str, Any]) -> str:
    lines = [
        f"{'beside':<10}{'library':<14}{'option':<17}{'median':>11}{'CPU time':>12}{'times':>8}{'middle half':>16}"
    ]
    for row in found["rows"]:
        spread = f"{row['low']:.2f} .. {row['high']:.2f}"
        times = f"{row['ms']:>8.1f} ms{row['cpu_ms']:>9.1f} ms{row['ratio']:>8.2f}{spread:>16}"
        lines.append(f"{row['busy']:<2}busy    {row['library']:<14}{row['option']:<17}{times}")
    machine, others = found["environment"], found["conditions"]["other_cores"]
    model = found["model"] or f"BiSeNet-R18 at {found['size']}"
    lines.append(
        f"{model}, {found['threads']} threads, {found['rounds']} interleaved rounds"
        f" · {machine['cpu']}, others took {others} cores meanwhile"
    )
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="an .onnx with its spec (default: a BiSeNet-R18, random weights)")
    parser.add_argument("--size", default="512x256", help="WIDTHxHEIGHT of that network (default: 512x256)")
    parser.add_argument("--rounds", type=int, default=15, help="of all ways (default: 15)")
    parser.add_argument("--busy", default="0,1", help="numbers of busy programs beside it (default: 0,1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
