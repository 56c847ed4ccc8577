"""Everything that needs a GPU, in one command: ``make gpu-check``; results in docs/results/gpu.md.

    python benchmarks/gpu_check.py prepare --out FILES [--checkpoint best.pth]      anywhere with torch
    python benchmarks/gpu_check.py run --in FILES --out RESULTS                     on the machine with the GPU

``prepare`` writes ONNX files of a BiSeNet-R18 (fp32, typed fp16, int8; 1024x512 and 2048x1024), pictures and the logits
that ONNX Runtime computes from them in float32. ``run`` builds engines, compares their answers with those logits and
measures them. It needs numpy, TensorRT (8.5 to 11) and PyCUDA or cuda-python, no torch, no onnx, no OpenCV, and no
installation: it finds the packages beside itself. Each phase's line is printed when it ends, and kept in
``RESULTS/state.json``: the same command goes on where it was cut off, and tries again what failed. Exit codes: 0 all
passed, 1 a phase failed, 3 no GPU, driver or package.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import platform
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

_ROOT = Path(__file__).resolve().parent.parent
if importlib.util.find_spec("rtda_runtime") is None:  # a GPU host that has only a copy of the repository
    sys.path[:0] = [str(_ROOT / folder) for folder in (".", "training", "export", "runtime")]

import numpy as np  # noqa: E402

from rtda_deploy.errors import ConfigError, DeviceError, FileAccessError, RtdaError  # noqa: E402
from rtda_deploy.files import readable_file, writable_folder, write_bytes, write_text  # noqa: E402
from rtda_deploy.spec import ModelSpec  # noqa: E402
from rtda_runtime.mask.upsample import upsample_argmax  # noqa: E402
from rtda_runtime.timing import summarize_ms  # noqa: E402

FORMAT = 1  # of manifest.json and state.json
SIZES = "1024x512,2048x1024"  # width x height; the first is what a Xavier is asked to do
PRECISIONS = "fp16,int8"
LIMITS = {"fp16": 0.995, "int8": 0.98}  # agreeing pixels: rtda_export.parity.compare.LIMITS, of trained networks
_SEED = 20261121  # of the random network
_PICTURES = 4
_HOST_GROWTH_MIB = 16.0  # a soak may add: the allocator's slack, not 5,000 of anything
_GPU_GROWTH_MIB = 8.0  # a soak may add: other programs' share of the GPU is in the figure
_THREADS = 4
_LEAST_AGREEMENT = 0.999  # pixels of the mask made on the GPU and of the one made on the CPU, from the same network
_MOST_OVER_BARE = 1.15  # goal: frame to mask of the network alone and the two copies ...
_MOST_BESIDE_BARE_MS = 0.2  # ... or so much more
_LEAST_OVER_PEERS = 3.0  # goal: the peers' way of frame to mask
_ROUNDS_PER_REPEAT = 0.1  # of frames: the peers' way takes tens of milliseconds
_TURNS = 5  # of the quick ways in each round


class Phase(NamedTuple):
    """One step: its name, the engine it is about (or none), and what does it; its facts, ``passed`` among them."""

    name: str
    about: str
    work: Callable[[], Dict[str, Any]]


class Files(NamedTuple):
    """What ``prepare`` made for one size."""

    name: str
    onnx: Dict[str, Path]
    frames: Path


class Backend(NamedTuple):
    """The seam to the machine: the tests put a GPU of NumPy here."""

    machine: Callable[[], Dict[str, str]]
    build: Callable[[Dict[str, Path], Path, str], Dict[str, Any]]
    open: Callable[[Path], Any]
    torch: Callable[[], Optional[Any]]
    cuda: Callable[[], Any]


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Do what the command line says; errors of users become ``error``, ``why`` and ``fix``, and an exit code."""
    options = _options(arguments)
    try:
        if options.command == "prepare":
            prepare(options)
            return 0
        backend = tensorrt_backend(external_tactics=not options.no_external_tactics)
        return run(Path(options.files), Path(options.out), backend, frames=options.frames, repeats=options.repeats)
    except RtdaError as err:
        lines = (("error", err.message), ("why", err.why), ("fix", err.hint))
        print("\n".join(f"{word:<6} {text}" for word, text in lines if text), file=sys.stderr)
        return err.exit_code


def _options(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    before = commands.add_parser("prepare", help="write the files that run needs (torch, onnx, onnxruntime, OpenCV)")
    before.add_argument("--out", required=True)
    before.add_argument("--checkpoint", help="a BiSeNet-R18's .pth (default: random weights, whose masks are noise)")
    before.add_argument("--sizes", default=SIZES, help=f"width x height (default: {SIZES})")
    before.add_argument("--precisions", default=PRECISIONS, help=f"beside fp32 (default: {PRECISIONS})")
    before.add_argument("--pictures", type=int, default=_PICTURES)
    go = commands.add_parser("run", help="build, compare, measure (numpy, TensorRT and a CUDA binding)")
    go.add_argument("--in", dest="files", required=True, help="what prepare wrote")
    go.add_argument("--out", required=True, help="engines, state.json, gpu.json, gpu.md")
    go.add_argument("--no-external-tactics", action="store_true", help="build without cuBLAS and cuDNN")
    go.add_argument("--frames", type=int, default=5000, help="of the soak (default: 5000)")
    go.add_argument("--repeats", type=int, default=500, help="of each latency (default: 500)")
    return parser.parse_args(arguments)


# --- prepare -------------------------------------------------------------------------------------------------------


def prepare(options: argparse.Namespace) -> None:
    """Write ONNX files, pictures and reference logits of each size, and ``manifest.json`` last."""
    from rtda_export.graph.from_torch import onnx_from_checkpoint
    from rtda_runtime.engines import open_engine

    out = writable_folder(options.out)
    precisions = [name for name in options.precisions.split(",") if name]
    checkpoint = Path(options.checkpoint) if options.checkpoint else _random_checkpoint(out / "random.pth")
    sizes: List[Dict[str, Any]] = []
    for text in options.sizes.split(","):
        width, height = _size(text)
        name = f"r18-{width}x{height}"
        pictures = _pictures(out / f"{name}-pictures", options.pictures, (height, width))
        onnx = {"fp32": f"{name}.onnx", **{precision: f"{name}.{precision}.onnx" for precision in precisions}}
        onnx_from_checkpoint(checkpoint, out / onnx["fp32"], size_hw=(height, width))
        for precision in precisions:
            reduce = _reduced if options.checkpoint else _reduced_random
            reduce(out / onnx["fp32"], precision, pictures, out / onnx[precision])
        for file in onnx.values():
            print(f"{file:<32} {(out / file).stat().st_size / 2**20:6.1f} MiB", flush=True)
        with open_engine(out / onnx["fp32"], "cpu") as engine:
            frames = np.stack([_read_picture(path, engine.spec) for path in sorted(pictures.glob("*.png"))])
            logits = np.stack([_answer(engine, frame) for frame in frames])
        with tempfile.TemporaryFile() as stream:
            np.savez_compressed(stream, frames=frames, logits=logits)
            stream.seek(0)
            write_bytes(out / f"{name}.npz", stream.read())
        print(f"{name}.npz: {len(frames)} pictures with the logits of ONNX Runtime in float32", flush=True)
        sizes.append({"name": name, "onnx": onnx, "frames": f"{name}.npz"})
    manifest = {"format": FORMAT, "checkpoint": checkpoint.name, "trained": bool(options.checkpoint), "sizes": sizes}
    write_text(out / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    print(f"next: python benchmarks/gpu_check.py run --in {out} --out runs/gpu-check", flush=True)


def _size(text: str) -> Tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise ConfigError(f"size {text!r} is none", hint="width x height, such as 1024x512")
    return int(width), int(height)


def _reduced(onnx: Path, precision: str, pictures: Path, out: Path) -> None:
    """As ``rtda-deploy export`` makes it: what loses too much stays in float; ``run`` holds it to the limit."""
    from rtda_export.export import export_model

    calibrate = pictures if precision == "int8" else None
    options = {"verify_path": pictures, "calibrate": calibrate, "force": True, "out_dir": out.parent, "name": onnx.stem}
    export_model(onnx, to=("onnx",), precision=precision, **options)


def _reduced_random(onnx: Path, precision: str, pictures: Path, out: Path) -> None:
    """All of it in FP16 or INT8: what random masks agree to says nothing of what should stay in float."""
    from rtda_deploy.onnx_file import onnx_spec
    from rtda_export.graph.from_torch import read_onnx
    from rtda_export.precision.fp16_graph import fp16_onnx
    from rtda_export.precision.quantize import int8_onnx

    if precision == "fp16":
        write_bytes(out, fp16_onnx(read_onnx(onnx)).SerializeToString(deterministic=True))
        return
    spec = onnx_spec(onnx)
    images = [_prepared(_read_picture(path, spec), spec) for path in sorted(pictures.glob("*.png"))]
    int8_onnx(onnx, images, out, limit=1e-6, method="minmax", check=images[:1])


def _random_checkpoint(path: Path) -> Path:
    import torch

    from rtda_training.checkpoint import Checkpoint, write_checkpoint
    from rtda_training.labels import CITYSCAPES
    from rtda_training.models import BiSeNet

    torch.manual_seed(_SEED)
    model = BiSeNet("resnet18", "rtda", CITYSCAPES.num_classes).eval()
    facts = {"architecture": {"name": "BiSeNet", "backbone": "resnet18", "variant": "rtda"}}
    spec = ModelSpec((512, 1024), CITYSCAPES.names, CITYSCAPES.palette, provenance=facts)
    return write_checkpoint(path, Checkpoint(spec, model.state_dict()))


def _pictures(folder: Path, count: int, size_hw: Tuple[int, int]) -> Path:
    """ToyTown's target at the network's size, as PNG: what calibration and verification read too."""
    import cv2

    from rtda_training.data import toytown

    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        frame, _ = toytown.render("target", "test", index, size_hw)
        if not cv2.imwrite(str(folder / f"{index}.png"), frame):
            raise FileAccessError(f"cannot write {folder / f'{index}.png'}", hint="is the disk full? df -h")
    return folder


def _read_picture(path: Path, spec: ModelSpec) -> np.ndarray:
    """uint8 (H, W, 3) in the network's channel order."""
    import cv2

    frame = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return np.ascontiguousarray(frame[..., ::-1] if spec.channel_order == "rgb" else frame)


# --- run -----------------------------------------------------------------------------------------------------------


def run(files: Path, out: Path, backend: Backend, *, frames: int = 5000, repeats: int = 500) -> int:
    """Do every phase that is not done; 0 where all passed, else 1.

    Raises:
        DeviceError: If there is no GPU or driver.
        ConfigError: If ``out`` holds the results of other files or of another machine.
    """
    manifest = read_manifest(files)
    folder = writable_folder(out)
    machine = backend.machine()
    state = State(folder / "state.json", machine, _digest(files))
    print(" · ".join(machine.values()), flush=True)
    started = time.perf_counter()
    phases = all_phases(manifest, files, folder, backend, frames=frames, repeats=repeats)
    for phase in phases:
        if state.done(phase.name):
            print(f"{phase.name:<32} done before", flush=True)
            continue
        facts = _run_phase(phase)
        state.keep(phase, facts)
        print(f"{phase.name:<32} {line_of(facts)}", flush=True)
        write_text(folder / "gpu.json", json.dumps(state.values, indent=2) + "\n")
        write_text(folder / "gpu.md", table(state.values) + "\n")
    failed = [phase.name for phase in phases if not state.done(phase.name)]
    seconds = time.perf_counter() - started
    print(f"{len(phases) - len(failed)} of {len(phases)} phases passed, {seconds:.0f} s now · {folder / 'gpu.md'}")
    if failed:
        print(f"failed: {', '.join(failed)}   (the same command tries them again)", file=sys.stderr)
    return int(bool(failed))


def _run_phase(phase: Phase) -> Dict[str, Any]:
    started = time.perf_counter()
    try:
        facts = phase.work()
    except RtdaError as err:
        facts = {"passed": False, "error": " · ".join(text for text in (err.message, err.why) if text)}
    except Exception as err:  # a library's own; what comes after must still be tried
        facts = {"passed": False, "error": f"{type(err).__name__}: {err}"}
    return {**facts, "seconds": round(time.perf_counter() - started, 2)}


def read_manifest(files: Path) -> Dict[str, Any]:
    """What ``prepare`` wrote.

    Raises:
        ConfigError: If it is of another format.
        FileAccessError: If it is not there.
    """
    path = files / "manifest.json"
    if not path.exists():
        raise FileAccessError(
            f"{files} holds no manifest.json", hint=f"python benchmarks/gpu_check.py prepare --out {files}"
        )
    manifest: Dict[str, Any] = json.loads(readable_file(path).read_text(encoding="utf-8"))
    if manifest.get("format") != FORMAT:
        raise ConfigError(f"{path} is format {manifest.get('format')!r}, this reads {FORMAT}", hint="prepare again")
    return manifest


def _digest(files: Path) -> str:
    return hashlib.sha256((files / "manifest.json").read_bytes()).hexdigest()


class State:
    """What is done, on the disk after every phase."""

    def __init__(self, path: Path, machine: Dict[str, str], manifest: str) -> None:
        self._path = path
        key = {"format": FORMAT, "machine": machine, "manifest": manifest}
        self.values: Dict[str, Any] = {**key, "phases": {}}
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            if {name: found.get(name) for name in key} != key:
                raise ConfigError(
                    f"{path} holds the results of another machine, another TensorRT or other files",
                    hint="name another folder with --out",
                )
            self.values = found

    def done(self, name: str) -> bool:
        """Whether the phase passed."""
        return bool(self.values["phases"].get(name, {}).get("passed"))

    def keep(self, phase: Phase, facts: Dict[str, Any]) -> None:
        """Write down how a phase ended."""
        self.values["phases"][phase.name] = {"about": phase.about, **facts}
        write_text(self._path, json.dumps(self.values, indent=2) + "\n")


def all_phases(
    manifest: Dict[str, Any], files: Path, out: Path, backend: Backend, *, frames: int, repeats: int
) -> List[Phase]:
    """In the order of their worth: whoever is cut off has FP16 at the first size, whole, before anything else."""
    sizes = [
        Files(s["name"], {p: files / n for p, n in s["onnx"].items()}, files / s["frames"]) for s in manifest["sizes"]
    ]
    precisions = [name for name in ("fp16", "int8") if name in manifest["sizes"][0]["onnx"]]
    phases: List[Phase] = []
    for size in sizes:
        for precision in precisions:
            about = f"{size.name}.{precision}"
            engine = out / f"{about}.engine"
            check = Check(engine, size, precision, backend, trained=bool(manifest["trained"]))
            steps = [("build", check.build), ("parity", check.parity), ("latency", lambda c=check: c.latency(repeats))]
            steps.append(("frames", lambda c=check: c.frames(repeats)))
            if not phases:
                steps += [
                    ("threads", check.threads),
                    (f"soak-{frames}", lambda c=check: c.soak(frames)),
                    ("torch", check.torch),
                ]
            phases += [Phase(f"{step} {about}", about, work) for step, work in steps]
    return phases


class Check:
    """The phases of one engine."""

    def __init__(self, engine: Path, files: Files, precision: str, backend: Backend, *, trained: bool) -> None:
        self._path, self._files, self._precision = engine, files, precision
        self._backend, self._trained = backend, trained

    def build(self) -> Dict[str, Any]:
        """Seconds and MiB of the engine."""
        return {"passed": True, **self._backend.build(self._files.onnx, self._path, self._precision)}

    def parity(self) -> Dict[str, Any]:
        """Against ONNX Runtime in float32: agreeing pixels of the masks, largest logit difference of the range."""
        stored = self._stored()
        agreeing: List[float] = []
        worst = 0.0
        with self._backend.open(self._path) as engine:
            for frame, expected in zip(stored["frames"], stored["logits"]):
                logits = _answer(engine, frame)
                size_hw = engine.spec.size_hw
                agreeing.append(float(np.mean(upsample_argmax(logits, size_hw) == upsample_argmax(expected, size_hw))))
                worst = max(worst, float(np.abs(logits - expected).max() / np.ptp(expected)))
        agreement = float(np.mean(agreeing))
        facts = {"agreement": agreement, "logit_difference": worst, "pictures": len(agreeing)}
        if not self._trained:
            return {"passed": True, **facts, "note": "random weights: no limit"}
        return {"passed": agreement >= LIMITS[self._precision], **facts, "limit": LIMITS[self._precision]}

    def latency(self, repeats: int) -> Dict[str, Any]:
        """p50, p95, p99 in ms of the copies and the network on the GPU's clock, of ``infer`` on the wall's."""
        before = self._gpu_mib_without()
        times: Dict[str, List[float]] = {"h2d": [], "compute": [], "d2h": [], "end_to_end": []}
        with self._backend.open(self._path) as engine:
            used = engine.device_memory_used() / 2**20
            engine.input_buffer[:] = _prepared(self._stored()["frames"][0], engine.spec)
            for _ in range(max(10, repeats // 10)):  # clocks rise, caches fill
                engine.infer()
            for _ in range(repeats):
                started = time.perf_counter()
                engine.infer()
                times["end_to_end"].append(1e3 * (time.perf_counter() - started))
            for _ in range(repeats):
                for part, value_ms in engine.device_times().items():
                    times[part].append(value_ms)
            graph = engine.graph
        figures = {name: _percentiles(values) for name, values in times.items()}
        gpu_mib = None if before is None else round(used - before, 1)
        return {"passed": True, "ms": figures, "repeats": repeats, "cuda_graph": graph, "gpu_mib": gpu_mib}

    def frames(self, repeats: int) -> Dict[str, Any]:
        """Camera frame to mask on the GPU, beside the network alone with the two copies and beside the peers' way.

        The frame has the network's size. ``bare``: the network as one CUDA graph, the frame's copy in and the mask's
        copy out, each on the GPU's clock. ``peers``: normalise with NumPy, engine, logits of the full size to the
        host, NumPy argmax; enlarging the logits is not even counted. Taken in turns, a ratio per round.
        """
        stored = self._stored()["frames"][0]
        with self._backend.open(self._path) as engine:
            frame = np.ascontiguousarray(stored[..., ::-1] if engine.spec.channel_order == "rgb" else stored)
            path = engine.frame_path()
            if path is None:
                return {"passed": False, "error": "the kernels cannot be compiled here; the log says why"}
            mask = np.empty(frame.shape[:2], np.uint8)
            peers = Peers(engine, self._backend.cuda())
            try:
                _to_mask(path, frame, mask)
                expected = upsample_argmax(_answer(engine, stored), frame.shape[:2])
                agreement = float(np.mean(mask == expected))
                rounds = [
                    _round(engine, path, peers, frame, mask) for _ in range(max(3, int(repeats * _ROUNDS_PER_REPEAT)))
                ]
            finally:
                peers.close()
            steps, graph = path.times_ms(), path.graph
        ours, bare, others = (np.array(column) for column in zip(*rounds))
        beside = float(np.median(ours - bare))
        over_bare, over_peers = _quartiles(ours / bare), _quartiles(others / ours)
        met = over_bare["median"] <= _MOST_OVER_BARE or beside <= _MOST_BESIDE_BARE_MS
        figures = {name: _percentiles(column) for name, column in (("frame", ours), ("bare", bare), ("peers", others))}
        return {
            "passed": agreement >= _LEAST_AGREEMENT,
            "frame_ms": figures,
            "over_bare": over_bare,
            "beside_bare_ms": round(beside, 4),
            "over_peers": over_peers,
            "goal_met": bool(met and over_peers["median"] >= _LEAST_OVER_PEERS),
            "mask_agreement": agreement,
            "steps_ms": {name: round(value, 4) for name, value in steps.items()},
            "cuda_graph": graph,
            "rounds": len(rounds),
        }

    def threads(self) -> Dict[str, Any]:
        """One engine used by several threads in turn gives each the same answers."""
        frames = self._stored()["frames"]
        wrong: List[str] = []
        with self._backend.open(self._path) as engine:
            expected = [_answer(engine, frame) for frame in frames]
            lock = threading.Lock()

            def use(number: int) -> None:
                try:
                    for turn in range(50):
                        index = (number + turn) % len(frames)
                        with lock:
                            same = np.array_equal(_answer(engine, frames[index]), expected[index])
                        if not same:
                            wrong.append(f"thread {number}, turn {turn}: another answer")
                except RtdaError as err:
                    wrong.append(f"thread {number}: {err.message} · {err.why}")

            workers = [threading.Thread(target=use, args=(number,)) for number in range(_THREADS)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(120)
        return {"passed": not wrong, "threads": _THREADS, **({"error": wrong[0]} if wrong else {})}

    def soak(self, frames: int) -> Dict[str, Any]:
        """Memory of the host and the GPU after ``frames`` frames against after a tenth of them."""
        with self._backend.open(self._path) as engine:
            engine.input_buffer[:] = _prepared(self._stored()["frames"][0], engine.spec)
            for _ in range(max(1, frames // 10)):
                engine.infer()
            before = _host_mib(), engine.device_memory_used() / 2**20
            started = time.perf_counter()
            for _ in range(frames):
                engine.infer()
            seconds = time.perf_counter() - started
            host, gpu = _host_mib() - before[0], engine.device_memory_used() / 2**20 - before[1]
        passed = host <= _HOST_GROWTH_MIB and gpu <= _GPU_GROWTH_MIB
        facts = {"host_growth_mib": round(host, 2), "gpu_growth_mib": round(gpu, 2), "frames": frames}
        return {"passed": passed, **facts, "fps": round(frames / seconds, 1)}

    def torch(self) -> Dict[str, Any]:
        """torch and the engine compute in one process, before, between and after one another."""
        torch = self._backend.torch()
        if torch is None:
            return {"passed": True, "note": "no torch with CUDA here: not tried"}
        frame = self._stored()["frames"][0]
        a = torch.randn(512, 512, device="cuda")
        product = a @ a
        with self._backend.open(self._path) as engine:
            first = _answer(engine, frame)
            between = bool(torch.equal(a @ a, product))
            again = bool(np.array_equal(_answer(engine, frame), first))
        after = bool(torch.equal(a @ a, product))
        return {"passed": between and again and after, "torch": str(torch.__version__)}

    def _stored(self) -> Dict[str, np.ndarray]:
        with np.load(str(readable_file(self._files.frames))) as stored:
            return {name: stored[name] for name in ("frames", "logits")}

    def _gpu_mib_without(self) -> Optional[float]:
        """The GPU's memory in use while only CUDA's context is there, MiB."""
        from rtda_runtime.engines.cuda.context import open_cuda

        try:
            cuda = open_cuda()
        except RtdaError:
            return None
        try:
            return cuda.memory_used() / 2**20
        finally:
            cuda.close()


class Peers:
    """What users do around an engine that gives logits of the full size, which are copied here but not computed."""

    def __init__(self, engine: Any, cuda: Any) -> None:
        self._engine, self._cuda = engine, cuda
        self._logits = cuda.pinned((engine.spec.num_classes, *engine.spec.size_hw), np.float32).array
        with cuda.current():
            self._memory = cuda.allocate(self._logits.nbytes)

    def segment(self, frame: np.ndarray) -> np.ndarray:
        """From uint8 (H, W, 3) BGR to uint8 (H, W)."""
        ordered = frame[..., ::-1] if self._engine.spec.channel_order == "rgb" else frame
        self._engine.input_buffer[:] = _prepared(ordered, self._engine.spec)
        self._engine.infer()
        with self._cuda.current():
            self._cuda.to_host(self._logits, self._memory)
            self._cuda.synchronize()
        mask: np.ndarray = self._logits.argmax(axis=0).astype(np.uint8)
        return mask

    def close(self) -> None:
        """Give the memory back."""
        self._cuda.close()


def _to_mask(path: Any, frame: np.ndarray, mask: np.ndarray) -> None:
    path.put(frame)
    path.run()
    path.take(mask)


def _round(engine: Any, path: Any, peers: Peers, frame: np.ndarray, mask: np.ndarray) -> Tuple[float, float, float]:
    """One turn of each way, ms: ours, the network with two copies, the peers'."""
    ours = [_wall_ms(lambda: _to_mask(path, frame, mask)) for _ in range(_TURNS)]
    bare = []
    for _ in range(_TURNS):
        copies = path.times_ms()
        bare.append(copies["h2d"] + engine.device_times()["compute"] + copies["d2h"])
    return float(np.median(ours)), float(np.median(bare)), _wall_ms(lambda: peers.segment(frame))


def _wall_ms(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - started)


def _quartiles(ratios: np.ndarray) -> Dict[str, float]:
    """Median and the ends of the middle half."""
    low, median, high = np.percentile(ratios, [25, 50, 75])
    return {"median": round(float(median), 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def _answer(engine: Any, frame: np.ndarray) -> np.ndarray:
    engine.input_buffer[:] = _prepared(frame, engine.spec)
    logits: np.ndarray = engine.infer().copy()
    return logits


def _prepared(frame: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """float32 (1, 3, H, W) of a picture uint8 (H, W, 3) that has the network's size and channel order; numpy alone."""
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    values = (frame.astype(np.float32) * np.float32(spec.pixel_scale) - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def _percentiles(values_ms: Sequence[float]) -> Dict[str, float]:
    summary = summarize_ms(values_ms)
    return {name: round(summary[name], 4) for name in ("p50", "p95", "p99")}


def _host_mib() -> float:
    """Memory of this process that is in RAM, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise DeviceError("this system does not say how much memory a process has", hint="Linux does")


# --- the real machine ----------------------------------------------------------------------------------------------


def tensorrt_backend(*, external_tactics: bool = True) -> Backend:
    """TensorRT on the first GPU."""

    def machine() -> Dict[str, str]:
        from rtda_export.tensorrt import this_machine
        from rtda_runtime.engines.cuda.context import open_cuda

        here = this_machine()
        cuda = open_cuda()
        try:
            binding, memory = cuda.binding, cuda.total_memory
        finally:
            cuda.close()
        major, minor = here.compute_capability
        return {
            "gpu": f"{here.gpu} ({major}.{minor}, {memory / 2**30:.0f} GiB)",
            "tensorrt": f"TensorRT {here.tensorrt}" + ("" if external_tactics else " without cuBLAS and cuDNN"),
            "binding": binding,
            "python": f"Python {platform.python_version()}",
        }

    def build(onnx: Dict[str, Path], engine: Path, precision: str) -> Dict[str, Any]:
        import tensorrt

        from rtda_export.tensorrt import engine_from_onnx

        # A TensorRT with an FP16 switch is given the float32 file, as rtda-deploy export does; others the typed one.
        switch = precision == "fp16" and hasattr(tensorrt.BuilderFlag, "FP16") and onnx["fp32"].exists()
        source = onnx["fp32" if switch else precision]
        sources = None if external_tactics else ()
        made = engine_from_onnx(source, engine, precision=precision, tactic_sources=sources)
        facts = {"build_s": round(made.seconds, 1), "engine_mib": round(made.size_bytes / 2**20, 1)}
        return {**facts, "onnx": source.name}

    def open_(path: Path) -> Any:
        from rtda_runtime.engines.tensorrt import open_tensorrt

        return open_tensorrt(path)

    def cuda() -> Any:
        from rtda_runtime.engines.cuda.context import open_cuda

        return open_cuda()

    return Backend(machine, build, open_, _torch_with_cuda, cuda)


def _torch_with_cuda() -> Optional[Any]:
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


# --- what is printed -----------------------------------------------------------------------------------------------


def line_of(facts: Dict[str, Any]) -> str:
    """One phase's line."""
    if "error" in facts:
        return f"FAILED  {facts['error']}"
    parts = [] if facts["passed"] else ["FAILED"]
    if "build_s" in facts:
        parts.append(f"{facts['build_s']} s, {facts['engine_mib']} MiB, from {facts['onnx']}")
    if "agreement" in facts:
        parts.append(
            f"{100 * facts['agreement']:.3f} % of pixels agree, logits {facts['logit_difference']:.1e} of range"
        )
    if "ms" in facts:
        words = {"h2d": "H2D", "compute": "compute", "d2h": "D2H", "end_to_end": "end to end"}
        parts += [f"{word} {'/'.join(f'{v:.3f}' for v in facts['ms'][key].values())}" for key, word in words.items()]
        parts.append(f"ms p50/p95/p99, GPU memory {facts['gpu_mib']} MiB")
    if "frame_ms" in facts:
        bare, peers = facts["over_bare"], facts["over_peers"]
        middle = "{median:.2f}x ({low:.2f}..{high:.2f})"
        parts.append(f"frame to mask {facts['frame_ms']['frame']['p50']:.3f} ms")
        parts.append(f"{middle.format(**bare)} of the network and two copies, {facts['beside_bare_ms']:+.3f} ms")
        parts.append(f"{middle.format(**peers)} as quick as the peers' way")
        parts.append(f"goal {'met' if facts['goal_met'] else 'missed'}")
        parts.append(f"{100 * facts['mask_agreement']:.3f} % of pixels as made on the CPU")
    if "frames" in facts:
        parts.append(f"{facts['fps']} fps, memory +{facts['host_growth_mib']} host, +{facts['gpu_growth_mib']} GPU MiB")
    parts += [f"{facts[key]} {key}" for key in ("threads",) if key in facts]
    parts += [f"torch {facts['torch']}"] if "torch" in facts else []
    parts += [facts["note"]] if "note" in facts else []
    return " · ".join(parts)


def table(values: Dict[str, Any]) -> str:
    """What is there so far as the Markdown of docs/results/gpu.md."""
    phases = values["phases"]
    lines = [f"Measured on: {', '.join(values['machine'].values())}.", ""]
    head = ["engine", "build s", "MiB", "pixels agreeing", "H2D ms", "compute ms", "D2H ms", "end to end ms", "GPU MiB"]
    lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for about in dict.fromkeys(facts["about"] for facts in phases.values()):
        build, parity, latency = (phases.get(f"{step} {about}", {}) for step in ("build", "parity", "latency"))
        agreement = f"{100 * parity['agreement']:.3f} %" if "agreement" in parity else "-"
        ms = latency.get("ms", {})
        times = [
            " / ".join(f"{value:.3f}" for value in ms[part].values()) if part in ms else "-"
            for part in ("h2d", "compute", "d2h", "end_to_end")
        ]
        cells = [about, build.get("build_s", "-"), build.get("engine_mib", "-"), agreement, *times]
        lines.append("| " + " | ".join(str(cell) for cell in (*cells, latency.get("gpu_mib", "-"))) + " |")
    lines += ["", "Times are p50 / p95 / p99.", ""]
    others = [(name, facts) for name, facts in phases.items() if name.split()[0] not in ("build", "parity", "latency")]
    lines += [f"- {name}: {line_of(facts)}" for name, facts in others]
    failed = [(name, facts) for name, facts in phases.items() if not facts["passed"]]
    lines += [f"- {name} {line_of(facts)}" for name, facts in failed if (name, facts) not in others]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
