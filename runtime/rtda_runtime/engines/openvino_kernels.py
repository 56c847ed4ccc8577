"""Which kernels OpenVINO runs a file's layers on, and how long each takes: what stayed in float is seen here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from rtda_runtime.engines.openvino import OpenvinoEngine, open_openvino
from rtda_runtime.engines.pictures import smooth_input

__all__ = ["Layer", "by_kernel", "convolutions_sentence", "layers_of"]

_CONVOLUTIONS = ("Convolution", "GroupConvolution", "FullyConnected", "Deconvolution")
_NAMED = 6  # layers that a sentence names


class Layer(NamedTuple):
    """A layer as it runs, after OpenVINO has joined several nodes of the graph.

    Attributes:
        name: Of the last node of the graph in it.
        kind: ``Convolution``, ``Pooling``, ``Reorder`` …, as OpenVINO calls it.
        kernel: Such as ``brgconv_avx512_I8``: what it is made with, the instructions, the type of its input.
        ms: The least of the runs: what else the machine does only adds to it.
    """

    name: str
    kind: str
    kernel: str
    ms: float

    @property
    def in_8_bits(self) -> bool:
        """Whether it takes 8-bit numbers."""
        return self.kernel.upper().endswith(("_I8", "_U8"))

    @property
    def is_convolution(self) -> bool:
        """Whether it multiplies by weights."""
        return self.kind in _CONVOLUTIONS


def layers_of(
    path: Union[str, Path], *, provider: str = "openvino", threads: Optional[int] = None, runs: int = 10
) -> List[Layer]:
    """Run a file a few times on the CPU and list its layers in the order in which they run.

    Args:
        path: An ``.onnx`` with a spec.
        provider: ``openvino``, or ``openvino-bf16``.
        threads: Of OpenVINO; None: as many as the cores this process may use.
        runs: That are timed, after one that is not.

    Raises:
        DeviceError: If the processor does not compute in bfloat16.
        EngineError: If OpenVINO cannot run the file.
        MissingPackageError: If OpenVINO is not installed.
    """
    with open_openvino(Path(path), provider=provider, threads=threads, profile=True) as engine:
        engine.input_buffer[...] = smooth_input(engine.spec)
        engine.infer()
        least: Dict[Tuple[str, str, str], float] = {}
        for _ in range(runs):
            engine.infer()
            for layer, ms in _of_one_run(engine):  # a layer that OpenVINO need not run in each is not in each
                least[layer] = min(ms, least.get(layer, ms))
    return [Layer(*layer, ms) for layer, ms in least.items()]


def _of_one_run(engine: OpenvinoEngine) -> List[Tuple[Tuple[str, str, str], float]]:
    return [
        ((node.node_name, node.node_type, node.exec_type), node.real_time.total_seconds() * 1e3)
        for node in engine.profile()
        if not str(node.status).endswith("NOT_RUN")
    ]


def by_kernel(layers: Sequence[Layer]) -> List[Dict[str, Any]]:
    """One row for a kind and kernel, the slowest first: ``kind``, ``kernel``, ``layers``, ``ms``, ``share``."""
    whole = sum(layer.ms for layer in layers) or 1.0
    found: Dict[Tuple[str, str], List[float]] = {}
    for layer in layers:
        found.setdefault((layer.kind, layer.kernel), []).append(layer.ms)
    rows = [
        {"kind": kind, "kernel": kernel, "layers": len(times), "ms": sum(times), "share": sum(times) / whole}
        for (kind, kernel), times in found.items()
    ]
    return sorted(rows, key=lambda row: -row["ms"])


def convolutions_sentence(layers: Sequence[Layer]) -> str:
    """How many convolutions run in 8 bits, and which do not; empty where there are none."""
    all_of_them = [layer for layer in layers if layer.is_convolution]
    if not all_of_them:
        return ""
    rest = sorted((layer for layer in all_of_them if not layer.in_8_bits), key=lambda layer: -layer.ms)
    whole = sum(layer.ms for layer in layers) or 1.0
    text = f"OpenVINO runs {len(all_of_them) - len(rest)} of {len(all_of_them)} convolutions in 8 bits"
    if not rest:
        return text
    names = ", ".join(layer.name for layer in rest[:_NAMED]) + (" …" if len(rest) > _NAMED else "")
    return f"{text}; not {names} ({100 * sum(layer.ms for layer in rest) / whole:.0f} % of the time)"
