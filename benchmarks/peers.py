"""The whole way from a camera's frame to a mask of its size: ours beside what users do today, in one run.

    python benchmarks/peers.py [--checkpoint rtda=A.pth --checkpoint paper=B.pth] [--frames PATH] [--json]
    python benchmarks/peers.py --quick --json

Every way (``peer_ways.py`` says what each does) runs in turns in one process on the same frames, 1280x720, and the same
weights, BiSeNet R18 at 1024x512 in both variants; the order of the ways is turned round each round, and each way begins
after a pause in which the threads of the one before fall asleep. The ratio is that of a round's two times: the best
tuned fp32 peer's and this way's; median, and the middle half as spread. Agreement is with the mask of the same network
computed in float64, its logits enlarged to the camera's size.

The floor is the published network's operations over the best speed at which the same libraries compute a large
convolution, measured here too. ``bare`` is our network alone, without what stands before and behind it.

Without --checkpoint the weights are random, which no speed depends on but that of making the mask: random answers have
more borders. INT8 is calibrated on the frames. Fails if a goal is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import cv2
import numpy as np
from peer_ways import Run, Way, our_way, peer_ways
from rounds import in_turns, middle, recorded
from small_network import random_checkpoint
from speed_sections import report

from rtda_deploy.files import readable_file
from rtda_deploy.spec import ModelSpec
from rtda_runtime import Segmenter, open_engine
from rtda_runtime.bench.samplers import smooth_pictures
from rtda_runtime.engines.kinds import cpu_providers
from rtda_runtime.engines.openvino import openvino_core
from rtda_runtime.mask.preprocess import preprocess

SIZE_HW, FRAME_HW = (512, 1024), (720, 1280)
VARIANTS = ("rtda", "paper")
FASTER = {"rtda": 1.11, "paper": 1.05}  # ours fp32 than the best fp32 peer
_PAUSE_S = 0.03  # longer than the libraries' threads spin after their work
_PEAK = (256, 64, 128, 4)  # channels, height, width, layers of the convolutions that measure the peak


def measure(variant: str, checkpoint: Path, frames: Sequence[np.ndarray], folder: Path, options: Any) -> Dict[str, Any]:
    """One network: its row of the report, see ``--json``."""
    from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint
    from rtda_training.models import count_macs

    read = read_checkpoint(checkpoint)
    model = model_from_checkpoint(read).eval().requires_grad_(False)
    spec = read.spec.replace(size_hw=SIZE_HW)
    gflop = 2 * count_macs(model, SIZE_HW) / 1e9
    _say(f"{variant}: making the files")
    files = _our_files(checkpoint, frames, folder, quick=options.quick)
    ways = [*peer_ways(model, folder, spec, options.threads), *_ours(files, options.threads)]
    reference = [_reference(model, spec, frame) for frame in frames[: 1 if options.quick else 2]]
    _say(f"{variant}: measuring, {options.rounds} rounds of {len(ways)} ways")
    named = {way.name: lambda number, way=way: way.run(frames[number % len(frames)]) for way in ways}
    runs = in_turns(named, options.rounds, pause_s=_PAUSE_S)  # first runs compile and allocate
    rows = _rows(ways, runs)
    for row, way in zip(rows, ways):
        if way.group != "bare":
            masks = [way.run(frame).mask for frame in frames[: len(reference)]]
            row["agreement"] = float(np.mean([(a == b).mean() for a, b in zip(masks, reference)]))
    peak = options.peak
    return {
        "variant": variant,
        "backbone": "resnet18",
        "gflop": round(gflop, 2),
        "floor_ms": 1e3 * gflop / peak["fp32"],
        "peak_gflops": peak,
        "ways": rows,
        "goals": _goals(variant, rows, runs, 1e3 * gflop / peak["fp32"]),
    }


def _rows(ways: Sequence[Way], runs: Dict[str, List[Run]]) -> List[Dict[str, Any]]:
    best = min(
        (way for way in ways if (way.group, way.precision) == ("peer, tuned", "fp32")),
        key=lambda way: statistics.median(run.ms for run in runs[way.name]),
    )
    rows = []
    for way in ways:
        ratio = middle([peer.ms / own.ms for peer, own in zip(runs[best.name], runs[way.name])])
        stages = {
            name: statistics.median(getattr(run, name) for run in runs[way.name])
            for name in ("ms", "preprocess_ms", "network_ms", "postprocess_ms")
        }
        rows.append({**way._asdict(), **stages, **ratio})
        rows[-1].update(way=rows[-1].pop("name"), agreement=None, best_peer=way is best)
        del rows[-1]["run"]
    return rows


def _goals(
    variant: str, rows: Sequence[Dict[str, Any]], runs: Dict[str, List[Run]], floor_ms: float
) -> List[Dict[str, Any]]:
    best = next(row["way"] for row in rows if row["best_peer"])

    def ratio(a: str, b: str) -> float:
        return statistics.median(x.ms / y.ms for x, y in zip(runs[a], runs[b]))

    def outside(name: str) -> float:
        return statistics.median(1 - run.network_ms / run.ms for run in runs[name])

    def goal(text: str, sign: str, limit: float, value: float) -> Dict[str, Any]:
        met = value >= limit if sign == ">=" else value <= limit
        return {"goal": text, "wanted": f"{sign} {limit:g}", "value": round(value, 4), "met": met}

    eager = "torch eager, tuned"
    most = statistics.median(run.ms for run in runs[eager]) / floor_ms  # what a network at the peak would reach
    goals = [
        goal(f"ours fp32, times the best fp32 peer ({best})", ">=", FASTER[variant], ratio(best, "ours fp32")),
        goal(f"ours fp32, times {eager} (at the floor: {most:.2f})", ">=", 2.0, ratio(eager, "ours fp32")),
        goal("share of an fp32 frame outside the network", "<=", 0.06, outside("ours fp32")),
    ]
    if "ours int8" in runs:
        goals += [
            goal(f"ours INT8, times the best fp32 peer ({best})", ">=", 3.5, ratio(best, "ours int8")),
            goal("ours INT8 over the bare INT8 network", "<=", 1.15, ratio("ours int8", "bare int8")),
            goal("share of an INT8 frame outside the network", "<=", 0.12, outside("ours int8")),
        ]
    return goals


def _ours(files: Dict[str, Path], threads: int) -> List[Way]:
    """``Segmenter`` in every precision this machine computes, and the networks alone."""
    from rtda_deploy.errors import DeviceError

    ways = []
    for precision, file, provider in (
        ("fp32", files["fp32"], "auto"),
        ("bf16", files["fp32"], "openvino-bf16"),
        ("int8", files["int8"], "auto"),
    ):
        try:
            segmenter = Segmenter.open(file, provider, threads=threads)
            if segmenter.provider not in cpu_providers():  # a GPU: the peers have none
                segmenter.close()
                segmenter = Segmenter.open(file, "cpu", threads=threads)
        except DeviceError as err:
            _say(f"ours {precision}: left out, {err.message}")
            continue
        ways.append(our_way(f"ours {precision}", segmenter, precision))
        engine = open_engine(file, segmenter.provider if provider == "auto" else provider, threads=threads)
        ways.append(Way(f"bare {precision}", "bare", precision, engine.description, _bare(engine)))
    return ways


def _bare(engine: Any) -> Any:
    """The network of ``engine`` on the frame, whose preparation is not timed."""

    def run(frame: np.ndarray) -> Run:
        preprocess(frame, engine.spec, engine.input_buffer)
        start = time.perf_counter_ns()
        engine.infer()
        return Run(0.0, (time.perf_counter_ns() - start) / 1e6, 0.0, np.zeros((1, 1), np.uint8))

    return run


def _our_files(checkpoint: Path, frames: Sequence[np.ndarray], folder: Path, *, quick: bool) -> Dict[str, Path]:
    from rtda_deploy.onnx_file import onnx_spec
    from rtda_export import onnx_from_checkpoint
    from rtda_export.graph.from_torch import read_onnx, stamped
    from rtda_export.precision.quantize import int8_onnx

    plain, reduced = folder / "ours.onnx", folder / "ours.int8.onnx"
    if not plain.exists():
        onnx_from_checkpoint(checkpoint, plain, size_hw=SIZE_HW)
    if not reduced.exists():
        spec = onnx_spec(plain)
        images = []
        for frame in frames[: 4 if quick else 16]:
            images.append(np.zeros((1, 3, *SIZE_HW), np.float32))
            preprocess(frame, spec, images[-1])
        made = folder / "unfinished.int8.onnx"
        int8_onnx(plain, images, made, target="cpu", check=images[:2], method="percentile-99.99" if quick else "auto")
        made.write_bytes(stamped(read_onnx(made), spec))
        made.replace(reduced)
    return {"fp32": plain, "int8": reduced}


def _reference(model: Any, spec: ModelSpec, frame: np.ndarray) -> np.ndarray:
    """The mask at the frame's size, from logits in float64."""
    import copy

    import torch
    from torch.nn import functional

    image = np.zeros((1, 3, *spec.size_hw), np.float32)
    preprocess(frame, spec, image)
    with torch.inference_mode():
        coarse = copy.deepcopy(model).double()(torch.from_numpy(image).double(), aux=False).coarse
        large = functional.interpolate(coarse, frame.shape[:2], mode="bilinear", align_corners=False)
        return np.asarray(large.argmax(1)[0].to(torch.uint8))


def peak_gflops(threads: int) -> Dict[str, float]:
    """The best speed of four 3x3 convolutions of 256 channels, G operations per second, by precision."""
    from onnx import TensorProto, helper, numpy_helper

    channels, height, width, layers = _PEAK
    weight = np.random.default_rng(0).standard_normal((channels, channels, 3, 3)).astype(np.float32) / 48
    window = {"kernel_shape": [3, 3], "pads": [1] * 4}

    def graph(int8: bool) -> bytes:
        nodes: List[Any] = []
        weights = [numpy_helper.from_array(weight, "w")]
        name = "x0"
        kernel = "w"
        if int8:
            weights = [
                numpy_helper.from_array(np.clip(np.rint(weight * 1024), -127, 127).astype(np.int8), "w8"),
                numpy_helper.from_array(np.float32(1 / 1024), "ws"),
                numpy_helper.from_array(np.int8(0), "w0"),
                numpy_helper.from_array(np.float32(1 / 64), "s"),
                numpy_helper.from_array(np.uint8(0), "z"),
            ]
            nodes.append(helper.make_node("DequantizeLinear", ["w8", "ws", "w0"], ["w"]))
        for layer in range(layers):
            if int8:
                nodes.append(helper.make_node("QuantizeLinear", [name, "s", "z"], [f"q{layer}"]))
                nodes.append(helper.make_node("DequantizeLinear", [f"q{layer}", "s", "z"], [f"d{layer}"]))
                name = f"d{layer}"
            nodes.append(helper.make_node("Conv", [name, kernel], [f"c{layer}"], **window))
            nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"x{layer + 1}"]))
            name = f"x{layer + 1}"
        ends = [
            [helper.make_tensor_value_info(end, TensorProto.FLOAT, [1, channels, height, width])]
            for end in ("x0", name)
        ]
        model = helper.make_model(
            helper.make_graph(nodes, "peak", *ends, weights), opset_imports=[helper.make_opsetid("", 17)]
        )
        model.ir_version = 8
        content: bytes = model.SerializeToString()
        return content

    gflop = 2 * 9 * channels**2 * height * width * layers / 1e9
    runners = _peak_runners(graph(False), graph(True), threads)
    best: Dict[str, float] = {}
    for _ in range(6):
        for precision, run in runners:
            time.sleep(_PAUSE_S)
            start = time.perf_counter()
            run()
            best[precision] = max(best.get(precision, 0.0), gflop / (time.perf_counter() - start))
    return {precision: round(value, 1) for precision, value in best.items()}


def _peak_runners(plain: bytes, int8: bytes, threads: int) -> List[Tuple[str, Any]]:
    import onnxruntime as ort

    image = np.random.default_rng(1).random((1, *_PEAK[:3]), dtype=np.float32)
    runners: List[Tuple[str, Any]] = []
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    for precision, content in (("fp32", plain), ("int8", int8)):
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        runners.append((precision, lambda session=session: session.run(None, {"x0": image})))
    core = openvino_core()
    kinds = [("fp32", "f32", plain), ("int8", "f32", int8)]
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        kinds.append(("bf16", "bf16", plain))
    for precision, hint, content in kinds:
        settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        request = core.compile_model(core.read_model(content), "CPU", settings).create_infer_request()
        runners.append((precision, lambda request=request: request.infer({0: image})))
    return runners


def _frames(path: Optional[Path], count: int) -> List[np.ndarray]:
    """Frames of 1280x720, spread over a folder or a video; smooth random ones without."""
    if path is None:
        return smooth_pictures(FRAME_HW[::-1], count)
    from rtda_export.parity.frames import read_frames

    return [np.asarray(cv2.resize(frame, FRAME_HW[::-1])) for _, frame in read_frames(readable(path), count)]


def readable(path: Path) -> Path:
    """A folder, or a file that can be read."""
    return path if path.is_dir() else readable_file(path, what="pictures")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print, and fail if a goal was missed."""
    options = _options()
    frames = _frames(options.frames, 4 if options.quick else 16)
    with tempfile.TemporaryDirectory(prefix="rtda-peers-") as scratch, recorded() as found:
        os.environ["RTDA_CACHE"] = scratch  # which engine "auto" takes is measured here and now
        _say("measuring the peak of a convolution")
        options.peak = peak_gflops(options.threads)
        networks = []
        for variant in options.variants:
            folder = (options.work or Path(scratch)) / variant
            folder.mkdir(parents=True, exist_ok=True)
            checkpoint = options.checkpoints.get(variant)
            if checkpoint is None:
                checkpoint = random_checkpoint(folder / "random.pth", "resnet18", variant, SIZE_HW[::-1])
            networks.append(measure(variant, checkpoint, frames, folder, options))
    weights = {variant: "trained" if variant in options.checkpoints else "random" for variant in options.variants}
    found.update(rounds=options.rounds, threads=options.threads, weights=weights, networks=networks)
    found.update(frame=f"{FRAME_HW[1]}x{FRAME_HW[0]}", size=f"{SIZE_HW[1]}x{SIZE_HW[0]}")
    return report("peers", found, as_json=options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", action="append", default=[], metavar="VARIANT=PATH", help="trained weights")
    parser.add_argument("--frames", type=Path, help="a video or a folder of pictures (default: smooth random ones)")
    parser.add_argument("--work", type=Path, help="keep the networks' files here, and use those that are there")
    parser.add_argument("--variants", default=None, help="such as rtda,paper (default: both; --quick: rtda)")
    parser.add_argument("--rounds", type=int, default=None, help="of all ways (default: 15; --quick: 5)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each library (all cores)")
    parser.add_argument("--quick", action="store_true", help="one variant, fewer rounds and calibration frames")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    options.checkpoints = {}
    for text in options.checkpoint:
        variant, _, path = text.partition("=")
        if variant not in VARIANTS or not path:
            parser.error(f"--checkpoint {text}: expected rtda=PATH or paper=PATH")
        options.checkpoints[variant] = readable_file(path, what="checkpoint")
    options.variants = (options.variants or ("rtda" if options.quick else ",".join(VARIANTS))).split(",")
    if set(options.variants) - set(VARIANTS):
        parser.error(f"--variants: known are {', '.join(VARIANTS)}")
    options.rounds = options.rounds or (5 if options.quick else 15)
    return options


if __name__ == "__main__":
    sys.exit(main())
