"""From a camera's frame to a mask of its size, as people do it today, and as this project does: for ``peers.py``.

Each way is written here from the documented behaviour of the libraries and of the deployment code that BiSeNet's users
publish; nobody's code is in it. All ways run the same weights on the same frames. The peers run the network as it is
published (``published_logits``: the lineage of RTDA ends in a 1x1 convolution at full resolution); the tuned form of
each uses what its library's own performance guide advises: ``cv2.dnn.blobFromImage``, all cores, buffers bound once, a
``uint8`` mask made in the graph.
"""

from __future__ import annotations

import io
import time
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import cv2
import numpy as np

from rtda_deploy.optional import require
from rtda_deploy.spec import ModelSpec
from rtda_runtime import Segmenter
from rtda_runtime.engines.openvino import openvino_core

__all__ = ["Run", "Way", "onnx_of", "openvino_network", "ort_network", "our_way", "peer_ways"]

Stage = Callable[[Any], Any]


class Run(NamedTuple):
    """One frame: milliseconds of its three stages, and the mask uint8 (H, W)."""

    preprocess_ms: float
    network_ms: float
    postprocess_ms: float
    mask: np.ndarray

    @property
    def ms(self) -> float:
        """The whole way."""
        return self.preprocess_ms + self.network_ms + self.postprocess_ms


class Way(NamedTuple):
    """A way from frame to mask; ``group`` is ``ours``, ``peer``, ``peer, tuned`` or ``bare``."""

    name: str
    group: str
    precision: str
    library: str
    run: Callable[[np.ndarray], Run]


def our_way(name: str, segmenter: Segmenter, precision: str) -> Way:
    """``Segmenter.segment``, whole: its own clock is not asked for the total."""

    def run(frame: np.ndarray) -> Run:
        start = time.perf_counter_ns()
        result = segmenter.segment(frame)
        whole = (time.perf_counter_ns() - start) / 1e6
        before, network = result.timing["preprocess"], result.timing["infer"]
        return Run(before, network, whole - before - network, result.mask)

    return Way(name, "ours", precision, segmenter.description, run)


def peer_ways(model: Any, folder: Path, spec: ModelSpec, threads: int) -> List[Way]:
    """What users do today.

    Args:
        model: The network, a ``SegmentationNetwork`` in evaluation mode.
        folder: Where its ONNX files go: logits at full size, mask int64, mask uint8.
        spec: Its input; ``resize`` is ``stretch``.
        threads: CPU threads of every library.
    """
    by_numpy, by_blob = _numpy_input(spec), _blob_input(spec)
    logits = onnx_of(model, folder / "published.onnx", spec, "logits")
    int64 = onnx_of(model, folder / "published.int64.onnx", spec, "int64")
    uint8 = onnx_of(model, folder / "published.uint8.onnx", spec, "uint8")
    slow, fast = "peer", "peer, tuned"
    ways = [
        ("torch eager + NumPy", slow, "fp32", "torch", by_numpy, _torch(model, threads), _numpy_mask),
        ("torch eager, tuned", fast, "fp32", "torch", by_blob, _torch(model, threads, tuned=True), _resized),
        ("ONNX Runtime + NumPy", slow, "fp32", "ONNX Runtime", by_numpy, ort_network(logits, threads), _numpy_mask),
        ("ONNX Runtime, int64 mask", slow, "fp32", "ONNX Runtime", by_numpy, ort_network(int64, threads), _as_uint8),
        ("ONNX Runtime, tuned", fast, "fp32", "ONNX Runtime", by_blob, _ort_bound(uint8, threads), _resized),
        ("OpenVINO + NumPy", slow, "fp32", "OpenVINO", by_numpy, openvino_network(logits, threads), _numpy_mask),
        ("OpenVINO, int64 mask", slow, "fp32", "OpenVINO", by_numpy, openvino_network(int64, threads), _as_uint8),
        ("OpenVINO, tuned", fast, "fp32", "OpenVINO", by_blob, openvino_network(uint8, threads), _resized),
    ]
    if _computes_bf16():  # what OpenVINO takes by itself where the processor has it
        network = openvino_network(uint8, threads, "bf16")
        ways.append(("OpenVINO, tuned", fast, "bf16", "OpenVINO", by_blob, network, _resized))
    return [
        Way(name if precision == "fp32" else f"{name}, {precision}", group, precision, library, _timed(*stages))
        for name, group, precision, library, *stages in ways
    ]


def _timed(before: Stage, network: Stage, after: Callable[[Any, Tuple[int, int]], np.ndarray]) -> Any:
    def run(frame: np.ndarray) -> Run:
        times = [time.perf_counter_ns()]
        image = before(frame)
        times.append(time.perf_counter_ns())
        answer = network(image)
        times.append(time.perf_counter_ns())
        mask = after(answer, (frame.shape[0], frame.shape[1]))
        times.append(time.perf_counter_ns())
        return Run(*((b - a) / 1e6 for a, b in zip(times, times[1:])), mask)

    return run


def _numpy_input(spec: ModelSpec) -> Stage:
    """Resize, cast, normalise and transpose as tutorials do."""
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)

    def make(frame: np.ndarray) -> np.ndarray:
        small = cv2.resize(frame, spec.size_hw[::-1])
        if spec.channel_order == "rgb":
            small = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
        image = (small.astype(np.float32) * np.float32(spec.pixel_scale) - mean) / std
        return np.ascontiguousarray(image.transpose(2, 0, 1)[None])

    return make


def _blob_input(spec: ModelSpec) -> Stage:
    """``blobFromImage``; it knows one factor and no std per channel, so these are divided in place."""
    mean = [float(value / spec.pixel_scale) for value in spec.mean]
    std = np.array(spec.std, np.float32).reshape(1, 3, 1, 1)
    plain = bool((std == 1).all())

    def make(frame: np.ndarray) -> np.ndarray:
        swap = spec.channel_order == "rgb"
        blob = cv2.dnn.blobFromImage(frame, spec.pixel_scale, spec.size_hw[::-1], mean, swapRB=swap)
        if not plain:
            np.divide(blob, std, out=blob)
        return np.asarray(blob)

    return make


def _numpy_mask(logits: np.ndarray, size_hw: Tuple[int, int]) -> np.ndarray:
    """argmax over float logits at full size, then the camera's size."""
    return _resized(logits.argmax(1).astype(np.uint8), size_hw)


def _as_uint8(mask: np.ndarray, size_hw: Tuple[int, int]) -> np.ndarray:
    return _resized(mask.astype(np.uint8), size_hw)


def _resized(mask: np.ndarray, size_hw: Tuple[int, int]) -> np.ndarray:
    """uint8 (1, h, w) to the camera's size."""
    return np.asarray(cv2.resize(mask[0], size_hw[::-1], interpolation=cv2.INTER_NEAREST))


def _torch(model: Any, threads: int, *, tuned: bool = False) -> Stage:
    import torch

    torch.set_num_threads(threads)
    network = model
    if tuned:
        import copy

        network = copy.deepcopy(model).to(memory_format=torch.channels_last)

    def run(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            tensor = torch.from_numpy(image)
            if not tuned:
                return np.asarray(network.published_logits(tensor))
            logits = network.published_logits(tensor.to(memory_format=torch.channels_last))
            return np.asarray(logits.argmax(1).to(torch.uint8))

    return run


def _ort_session(path: Path, threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def ort_network(path: Path, threads: int) -> Stage:
    """A plain session: float32 image to what the file answers first."""
    session = _ort_session(path, threads)
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})[0]


def _ort_bound(path: Path, threads: int) -> Stage:
    session = _ort_session(path, threads)
    binding, shape = session.io_binding(), session.get_outputs()[0].shape
    mask = np.zeros(shape, np.uint8)
    binding.bind_output("answer", "cpu", 0, np.uint8, mask.shape, mask.ctypes.data)

    def run(image: np.ndarray) -> np.ndarray:
        binding.bind_cpu_input("image", image)
        session.run_with_iobinding(binding)
        return mask

    return run


def openvino_network(path: Path, threads: int, precision: str = "f32") -> Stage:
    """A compiled model, one request at a time: float32 image to what the file answers first."""
    ov = require("openvino", extra="openvino")
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    request = openvino_core().compile_model(str(path), "CPU", {**settings, "NUM_STREAMS": 1}).create_infer_request()

    def run(image: np.ndarray) -> np.ndarray:
        request.infer({0: ov.Tensor(image, shared_memory=True)})
        return np.asarray(request.get_output_tensor(0).data)

    return run


def _computes_bf16() -> bool:

    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def onnx_of(model: Any, path: Path, spec: ModelSpec, answer: str) -> Path:
    """The published network as ``torch.onnx.export`` writes it.

    Args:
        model: The network.
        path: Written where it is not there yet.
        spec: For the input's size.
        answer: ``logits`` float32 (1, C, H, W) at full size; ``head first``, the same with the rtda lineage's last
            convolution before the last enlargement; or the mask (1, H, W), ``int64`` or ``uint8``.
    """
    import torch

    if path.exists():
        return path

    class Published(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor
            if answer == "head first":
                logits = self.network(image, aux=False).logits
                return logits
            logits = self.network.published_logits(image)
            if answer == "logits":
                return logits
            mask = logits.argmax(1)
            return mask if answer == "int64" else mask.to(torch.uint8)

    buffer = io.BytesIO()
    options: Dict[str, Any] = {"opset_version": 17, "input_names": ["image"], "output_names": ["answer"]}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(Published().eval(), (torch.zeros(1, 3, *spec.size_hw),), buffer, dynamo=False, **options)
    path.write_bytes(buffer.getvalue())
    return path
