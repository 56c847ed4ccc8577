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
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import numpy as np
from rounds import in_turns, recorded, times_as_fast
from small_network import write_network
from speed_sections import report

from rtda_deploy.optional import available, require
from rtda_deploy.sizes import parse_size
from rtda_runtime import open_engine
from rtda_runtime.engines.onnxruntime import OrtEngine
from rtda_runtime.engines.openvino import openvino_core
from rtda_runtime.machine.cores import usable_cores

OWN = "library's own"
_PAUSE_S = 0.015
Way = Callable[[], Any]

_ORT_WAYS: Dict[str, Dict[str, str]] = {
    OWN: {},
    "waits 1 ms": {"session.intra_op.spin_duration_us": "1000"},
    "sleeps at once": {"session.intra_op.allow_spinning": "0"},
    "denormals are 0": {"session.set_denormal_as_zero": "1"},
    "no arena": {},
}


def ways(model: Path, opened: contextlib.ExitStack) -> Dict[Tuple[str, str], Way]:
    """Library and option, to a function that runs the network once; ``opened`` closes them."""
    ort = require("onnxruntime", extra="runtime")
    engines = {("ONNX Runtime", "ours"): opened.enter_context(open_engine(model, "cpu"))}
    if available("openvino"):
        engines["OpenVINO", "ours"] = opened.enter_context(open_engine(model, "openvino"))
    spec, shape = engines["ONNX Runtime", "ours"].spec, engines["ONNX Runtime", "ours"].input_shape
    for name, entries in _ORT_WAYS.items():
        options = ort.SessionOptions()
        for key, value in entries.items():
            options.add_session_config_entry(key, value)
        options.intra_op_num_threads = usable_cores()
        options.enable_cpu_mem_arena = name != "no arena"
        session = ort.InferenceSession(str(model), sess_options=options, providers=["CPUExecutionProvider"])
        engine = OrtEngine(session, spec, path=model, provider="cpu", threads=usable_cores())
        engines["ONNX Runtime", name] = opened.enter_context(engine)
    picture = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found: Dict[Tuple[str, str], Way] = {}
    if available("openvino"):
        found["OpenVINO", OWN] = _openvino(model, picture)
    for named, engine in engines.items():
        engine.input_buffer[...] = picture
        found[named] = engine.infer
    return dict(sorted(found.items(), key=lambda way: (way[0][0], way[0][1] == "ours")))  # ours last of each library


def measure(known: Dict[Tuple[str, str], Way], rounds: int, busy: int) -> List[Dict[str, Any]]:
    """One row per way: median ``ms``, ``cpu_ms`` of all threads, ``ratio`` to the library's own, ``low``, ``high``."""

    def both_clocks(way: Way) -> Callable[[int], Tuple[float, float]]:
        def run(number: int) -> Tuple[float, float]:
            way()
            start, worked = time.perf_counter(), time.process_time()
            way()
            return 1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - worked)

        return run

    with _busy_programs(busy):
        pairs = in_turns({named: both_clocks(way) for named, way in known.items()}, rounds, pause_s=_PAUSE_S)
    times = {named: [wall for wall, _ in both] for named, both in pairs.items()}
    return [
        {
            "busy": busy,
            "library": library,
            "option": option,
            "cpu_ms": statistics.median(spent for _, spent in pairs[library, option]),
            **times_as_fast(own, times[library, OWN]),
        }
        for (library, option), own in times.items()
    ]


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
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="an .onnx with its spec (default: a BiSeNet-R18, random weights)")
    parser.add_argument("--size", default="512x256", help="WIDTHxHEIGHT of that network (default: 512x256)")
    parser.add_argument("--rounds", type=int, default=15, help="of all ways (default: 15)")
    parser.add_argument("--busy", default="0,1", help="numbers of busy programs beside it (default: 0,1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    height, width = parse_size(options.size)
    with tempfile.TemporaryDirectory(prefix="rtda-threads-") as folder, contextlib.ExitStack() as opened:
        model = options.model or write_network(Path(folder) / "model.onnx", (width, height))
        known = ways(model, opened)
        with recorded() as found:
            rows = [row for busy in options.busy.split(",") for row in measure(known, options.rounds, int(busy))]
    found.update(rows=rows, model=options.model and str(options.model), size=options.size)
    found.update(rounds=options.rounds, threads=usable_cores())
    return report("cpu_threads", found, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
