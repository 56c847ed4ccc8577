"""What is checked on a GPU, phase by phase: engines are built, held against ONNX Runtime's logits, and measured.

It needs numpy, TensorRT (8.5 to 11) and PyCUDA or cuda-python; no torch, no onnx, no OpenCV and no pytest. The files
are those of :mod:`gpu.prepare`; :mod:`gpu.run` goes through the phases and keeps what they found.
"""

from __future__ import annotations

import contextlib
import platform
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

import numpy as np

from rtda_deploy.files import readable_file
from rtda_deploy.spec import ModelSpec
from rtda_export.parity import LIMITS
from rtda_runtime.mask.upsample import upsample_argmax
from rtda_runtime.timing import summarize_ms

Facts = Dict[str, Any]
STEPS = ("build", "parity", "latency", "frames")
FIRST_STEPS = ("threads", "soak", "torch")  # of the first engine only
_HOST_GROWTH_MIB = 16.0  # a soak may add: the allocator's slack, not 5,000 of anything
_GPU_GROWTH_MIB = 8.0  # a soak may add: other programs' share of the GPU is in the figure
_THREADS = 4
_LEAST_AGREEMENT = 0.999  # pixels of the mask made on the GPU and of the one made on the CPU, from the same network
_MOST_OVER_BARE = 1.15  # goal: frame to mask of the network alone and the two copies ...
_MOST_BESIDE_BARE_MS = 0.2  # ... or so much more
_LEAST_OVER_PEERS = 3.0  # goal: the peers' way of frame to mask
_ROUNDS_PER_REPEAT = 0.1  # of frames: the peers' way takes tens of milliseconds
_TURNS = 5  # of the quick ways in each round


class Backend(NamedTuple):
    """The seam to the machine: the tests put a GPU of NumPy here."""

    machine: Callable[[], Dict[str, str]]
    build: Callable[[Dict[str, Path], Path, str], Facts]
    open: Callable[[Path], Any]
    cuda: Callable[[], Any]
    torch: Callable[[], Optional[Any]]


class Check(NamedTuple):
    """The phases of one engine: each method gives its facts, ``passed`` and a sentence, ``says``, among them.

    Attributes:
        engine: The file.
        onnx: The ``.onnx`` files by precision.
        stored: ``.npz`` of ``frames`` and the ``logits`` that ONNX Runtime computes from them in float32.
        precision: ``fp16`` or ``int8``.
        trained: Whether the network is held to the export's limits.
        frames_soaked: How many a soak takes.
        repeats: Of each latency.
    """

    engine: Path
    onnx: Dict[str, Path]
    stored: Path
    precision: str
    trained: bool
    backend: Backend
    frames_soaked: int = 5000
    repeats: int = 500

    def build(self) -> Facts:
        """Seconds and MiB of the engine."""
        facts = self.backend.build(self.onnx, self.engine, self.precision)
        says = "{build_s} s, {engine_mib} MiB, from {onnx}".format(**facts)
        return {"passed": True, "says": says, **facts}

    def parity(self) -> Facts:
        """Against ONNX Runtime in float32: agreeing pixels of the masks, largest logit difference of the range."""
        frames, logits = self._stored()
        agreeing: List[float] = []
        worst = 0.0
        with self.backend.open(self.engine) as engine:
            for frame, expected in zip(frames, logits):
                own = answer(engine, frame)
                size_hw = engine.spec.size_hw
                agreeing.append(float(np.mean(upsample_argmax(own, size_hw) == upsample_argmax(expected, size_hw))))
                worst = max(worst, float(np.abs(own - expected).max() / np.ptp(expected)))
        agreement = float(np.mean(agreeing))
        limit = LIMITS[self.precision].agreement if self.trained else None
        says = f"{100 * agreement:.3f} % of pixels agree, logits {worst:.1e} of range"
        says += "" if self.trained else " · random weights: no limit"
        facts = {"agreement": agreement, "logit_difference": worst, "pictures": len(agreeing), "limit": limit}
        return {"passed": limit is None or agreement >= limit, "says": says, **facts}

    def latency(self) -> Facts:
        """p50, p95, p99 in ms of the copies and the network on the GPU's clock, of ``infer`` on the wall's."""
        with contextlib.closing(self.backend.cuda()) as cuda:
            before = cuda.memory_used()  # while only CUDA's context is there
        times: Dict[str, List[float]] = {"h2d": [], "compute": [], "d2h": [], "end_to_end": []}
        with self._loaded() as engine:
            used = engine.device_memory_used()
            for _ in range(max(10, self.repeats // 10)):  # clocks rise, caches fill
                engine.infer()
            times["end_to_end"] = [_wall_ms(engine.infer) for _ in range(self.repeats)]
            for _ in range(self.repeats):
                for part, value_ms in engine.device_times().items():
                    times[part].append(value_ms)
            graph = engine.graph
        figures = {name: _percentiles(values) for name, values in times.items()}
        facts = {"ms": figures, "repeats": self.repeats, "cuda_graph": graph, "gpu_mib": _mib(used - before)}
        parts = [f"{name} {shares(values)}" for name, values in figures.items()]
        return {"passed": True, "says": f"{', '.join(parts)} ms, GPU memory {facts['gpu_mib']} MiB", **facts}

    def frames(self) -> Facts:
        """Camera frame to mask on the GPU, beside the network alone with the two copies and beside the peers' way.

        The frame has the network's size. ``bare``: the network as one CUDA graph, the frame's copy in and the mask's
        copy out, each on the GPU's clock. ``peers``: normalise with NumPy, engine, logits of the full size to the
        host, NumPy argmax; enlarging the logits is not even counted. Taken in turns, a ratio per round.
        """
        stored = self._stored()[0][0]
        with self.backend.open(self.engine) as engine:
            frame = np.ascontiguousarray(stored[..., ::-1] if engine.spec.channel_order == "rgb" else stored)
            path = engine.frame_path()
            if path is None:
                return {"passed": False, "says": "the kernels cannot be compiled here; the log says why"}
            mask = np.empty(frame.shape[:2], np.uint8)
            rounds: List[List[float]] = []
            with _peers(engine, self.backend.cuda()) as peers:
                path.put(frame)
                path.run()
                path.take(mask)
                agreement = float(np.mean(mask == upsample_argmax(answer(engine, stored), mask.shape)))
                for _ in range(max(3, int(self.repeats * _ROUNDS_PER_REPEAT))):
                    ours = [_wall_ms(lambda: (path.put(frame), path.run(), path.take(mask))) for _ in range(_TURNS)]
                    bare = [_bare_ms(path, engine) for _ in range(_TURNS)]
                    rounds.append([float(np.median(ours)), float(np.median(bare)), _wall_ms(lambda: peers(stored))])
            steps, graph = path.times_ms(), path.graph
        facts = {**compared(rounds), "mask_agreement": agreement, "cuda_graph": graph, "rounds": len(rounds)}
        facts["steps_ms"] = {name: round(value, 4) for name, value in steps.items()}
        says = f"{facts['says']} · {100 * agreement:.3f} % of pixels as made on the CPU"
        return {"passed": agreement >= _LEAST_AGREEMENT, **facts, "says": says}

    def threads(self) -> Facts:
        """One engine used by several threads in turn gives each the same answers."""
        frames, lock = self._stored()[0], threading.Lock()
        with self.backend.open(self.engine) as engine, ThreadPoolExecutor(_THREADS) as pool:
            expected = [answer(engine, frame) for frame in frames]

            def same(turn: int) -> bool:
                with lock:
                    return np.array_equal(answer(engine, frames[turn % len(frames)]), expected[turn % len(frames)])

            wrong = list(pool.map(same, range(50 * _THREADS))).count(False)
        return {"passed": not wrong, "threads": _THREADS, "says": f"{_THREADS} threads, {wrong} other answers"}

    def soak(self) -> Facts:
        """Memory of the host and the GPU after so many frames against after a tenth of them."""
        with self._loaded() as engine:
            for _ in range(max(1, self.frames_soaked // 10)):
                engine.infer()
            before = _host_mib(), engine.device_memory_used()
            seconds = _wall_ms(lambda: [engine.infer() for _ in range(self.frames_soaked)] and None) / 1e3
            host, gpu = round(_host_mib() - before[0], 2), _mib(engine.device_memory_used() - before[1])
        facts = {"host_growth_mib": host, "gpu_growth_mib": gpu, "frames": self.frames_soaked}
        says = f"{self.frames_soaked / seconds:.1f} fps, memory +{host} host, +{gpu} GPU MiB"
        return {"passed": host <= _HOST_GROWTH_MIB and gpu <= _GPU_GROWTH_MIB, "says": says, **facts}

    def torch(self) -> Facts:
        """torch and the engine compute in one process, before, between and after one another."""
        torch = self.backend.torch()
        if torch is None:
            return {"passed": True, "says": "no torch with CUDA here: not tried"}
        frame = self._stored()[0][0]
        a = torch.randn(512, 512, device="cuda")
        product = a @ a
        with self.backend.open(self.engine) as engine:
            first = answer(engine, frame)
            between = bool(torch.equal(a @ a, product))
            again = bool(np.array_equal(answer(engine, frame), first))
        after = bool(torch.equal(a @ a, product))
        return {"passed": between and again and after, "says": f"torch {torch.__version__}"}

    def _stored(self) -> List[np.ndarray]:
        with np.load(str(readable_file(self.stored))) as stored:
            return [stored["frames"], stored["logits"]]

    @contextlib.contextmanager
    def _loaded(self) -> Iterator[Any]:
        """The engine with the first frame in its input."""
        with self.backend.open(self.engine) as engine:
            engine.input_buffer[:] = prepared(self._stored()[0][0], engine.spec)
            yield engine


def compared(rounds: Sequence[Sequence[float]]) -> Facts:
    """Our way against the bare network and the peers' way, from rounds of the three times in ms."""
    ours, bare, peers = (np.array(column) for column in zip(*rounds))
    low, over_bare, high = (round(float(value), 3) for value in np.percentile(ours / bare, (25, 50, 75)))
    least, over_peers, most = (round(float(value), 3) for value in np.percentile(peers / ours, (25, 50, 75)))
    beside = round(float(np.median(ours - bare)), 4)
    met = (over_bare <= _MOST_OVER_BARE or beside <= _MOST_BESIDE_BARE_MS) and over_peers >= _LEAST_OVER_PEERS
    figures = {name: _percentiles(column) for name, column in (("frame", ours), ("bare", bare), ("peers", peers))}
    says = (
        f"frame to mask {figures['frame']['p50']:.3f} ms · {over_bare:.2f}x ({low:.2f}..{high:.2f}) of the network and"
        f" two copies, {beside:+.3f} ms · {over_peers:.2f}x ({least:.2f}..{most:.2f}) as quick as the peers' way"
        f" · goal {'met' if met else 'missed'}"
    )
    ratios = {"over_bare": [low, over_bare, high], "over_peers": [least, over_peers, most], "beside_bare_ms": beside}
    return {"frame_ms": figures, **ratios, "goal_met": bool(met), "says": says}


@contextlib.contextmanager
def _peers(engine: Any, cuda: Any) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """What users do around an engine that gives logits of the full size, which are copied here but not computed."""
    logits = cuda.pinned((engine.spec.num_classes, *engine.spec.size_hw), np.float32).array
    with cuda.current():
        memory = cuda.allocate(logits.nbytes)

    def segment(frame: np.ndarray) -> np.ndarray:
        answer(engine, frame)
        with cuda.current():
            cuda.to_host(logits, memory)
            cuda.synchronize()
        return np.asarray(logits.argmax(axis=0).astype(np.uint8))

    with contextlib.closing(cuda):
        yield segment


def _bare_ms(path: Any, engine: Any) -> float:
    copies = path.times_ms()
    return float(copies["h2d"] + engine.device_times()["compute"] + copies["d2h"])


def answer(engine: Any, frame: np.ndarray) -> np.ndarray:
    """The logits of a picture uint8 (H, W, 3) that has the network's size and channel order."""
    engine.input_buffer[:] = prepared(frame, engine.spec)
    return np.array(engine.infer())


def prepared(frame: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """float32 (1, 3, H, W) of such a picture; numpy alone."""
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    values = (frame.astype(np.float32) * np.float32(spec.pixel_scale) - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def shares(values: Dict[str, float]) -> str:
    """``1.000 / 1.200 / 1.300`` of p50, p95 and p99."""
    return " / ".join(f"{value:.3f}" for value in values.values())


def _percentiles(values_ms: Sequence[float]) -> Dict[str, float]:
    summary = summarize_ms(values_ms)
    return {name: round(summary[name], 4) for name in ("p50", "p95", "p99")}


def _wall_ms(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - started)


def _mib(count: float) -> float:
    return round(count / 2**20, 1)


def _host_mib() -> float:
    """Memory of this process that is in RAM, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def tensorrt_backend(*, external_tactics: bool = True) -> Backend:
    """TensorRT on the first GPU; ``external_tactics``: whether it has cuBLAS and cuDNN to build with."""
    from rtda_export.tensorrt import engine_from_onnx, this_machine
    from rtda_runtime.engines.cuda.context import open_cuda
    from rtda_runtime.engines.tensorrt import open_tensorrt

    def machine() -> Dict[str, str]:
        here = this_machine()
        with contextlib.closing(open_cuda()) as cuda:
            binding, memory = cuda.binding, cuda.total_memory
        major, minor = here.compute_capability
        return {
            "gpu": f"{here.gpu} ({major}.{minor}, {memory / 2**30:.0f} GiB)",
            "tensorrt": f"TensorRT {here.tensorrt}" + ("" if external_tactics else " without cuBLAS and cuDNN"),
            "binding": binding,
            "python": f"Python {platform.python_version()}",
        }

    def build(onnx: Dict[str, Path], engine: Path, precision: str) -> Facts:
        import tensorrt

        # A TensorRT with an FP16 switch is given the float32 file, as rtda-deploy export does; others the typed one.
        switch = precision == "fp16" and hasattr(tensorrt.BuilderFlag, "FP16") and onnx["fp32"].exists()
        source = onnx["fp32" if switch else precision]
        sources = None if external_tactics else ()
        made = engine_from_onnx(source, engine, precision=precision, tactic_sources=sources)
        return {"build_s": round(made.seconds, 1), "engine_mib": _mib(made.size_bytes), "onnx": source.name}

    return Backend(machine, build, open_tensorrt, open_cuda, _torch_with_cuda)


def _torch_with_cuda() -> Optional[Any]:
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None
