"""How fast a network will run on a device that is not here: a roofline over the layers of its ONNX graph.

A layer takes as long as its operations or its bytes, whichever is longer, and a floor. With a data sheet's peaks and no
floor that is a bound which no engine passes; with the shares of the peaks that published engines reached it is what to
expect. The shares and how far off they were: ``devices.toml`` and docs/results/estimate.md. Capture, preprocessing,
copies, upsampling and argmax are not part of it, unless they are part of the graph.

Source: Williams, Waterman and Patterson, Roofline (CACM 2009).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtda_deploy.errors import ConfigError, ExportError
from rtda_deploy.files import readable_file
from rtda_deploy.model_files import is_checkpoint_name
from rtda_export.graph.from_torch import onnx_from_checkpoint, read_onnx
from rtda_export.precision import FP32, PRECISIONS, known_precisions, precision_named
from rtda_export.roofline.devices import Achieved, Device, achieved, device_named
from rtda_export.roofline.layers import Layer, fused_layers

__all__ = ["Estimate", "LayerTime", "PrecisionEstimate", "estimate", "estimate_layers"]

_VALUE_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True)
class LayerTime:
    """What one layer is expected to take.

    Attributes:
        layer: The layer.
        bytes_moved: It reads and writes at this precision.
        bound_ms: At the data sheet's peaks.
        expected_ms: At the shares of them that are reached, floor included.
        limit: ``compute``, ``memory``, or ``floor`` where the floor is longer than both.
    """

    layer: Layer
    bytes_moved: int
    bound_ms: float
    expected_ms: float
    limit: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready.

        ``name``, ``kind``, ``operators``, ``output_shape``: of the layer. ``macs``: multiply-adds. ``bytes``: read and
        written. ``bound_ms``, ``expected_ms``: times. ``limit``: ``compute``, ``memory`` or ``floor``.
        """
        return {
            "name": self.layer.name,
            "kind": self.layer.kind,
            "operators": list(self.layer.operators),
            "output_shape": list(self.layer.output_shape),
            "macs": self.layer.macs,
            "bytes": self.bytes_moved,
            "bound_ms": self.bound_ms,
            "expected_ms": self.expected_ms,
            "limit": self.limit,
        }


@dataclass(frozen=True)
class PrecisionEstimate:
    """How fast an engine of one precision will be.

    Attributes:
        precision: Asked for: ``fp32``, ``fp16`` or ``int8``.
        arithmetic: What the device computes it in; ``tf32`` for fp32 and ``fp16`` for int8 on some.
        batch: Pictures at a time.
        layers: In the order they run.
        error_factor: Published speeds were met within it.
    """

    precision: str
    arithmetic: str
    batch: int
    layers: tuple[LayerTime, ...]
    error_factor: float

    @property
    def bound_ms(self) -> float:
        """Least time of one batch, by the data sheet."""
        return sum(entry.bound_ms for entry in self.layers)

    @property
    def expected_ms(self) -> float:
        """Expected time of one batch."""
        return sum(entry.expected_ms for entry in self.layers)

    @property
    def bound_fps(self) -> float:
        """Pictures a second that no engine passes."""
        return 1e3 * self.batch / self.bound_ms

    @property
    def expected_fps(self) -> float:
        """Expected pictures a second."""
        return 1e3 * self.batch / self.expected_ms

    @property
    def range_fps(self) -> tuple[float, float]:
        """Lowest and highest pictures a second within the error factor; never above the bound."""
        low, high = self.expected_fps / self.error_factor, self.expected_fps * self.error_factor
        return low, min(high, self.bound_fps)

    def slowest(self, count: int) -> tuple[LayerTime, ...]:
        """The layers that dominate, the slowest first."""
        return tuple(sorted(self.layers, key=lambda entry: -entry.expected_ms)[:count])

    def share(self, limit: str) -> float:
        """Share of the expected time, 0..1, in layers with this limit."""
        return sum(entry.expected_ms for entry in self.layers if entry.limit == limit) / self.expected_ms

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready.

        ``precision``, ``arithmetic``: words. ``bound_ms``, ``expected_ms``: of one batch. ``bound_fps``,
        ``expected_fps``, ``low_fps``, ``high_fps``: pictures a second. ``error_factor``: what low and high are made by.
        ``share``: of the expected time under each limit. ``layers``: as ``LayerTime.to_dict``, in the order they run.
        """
        low, high = self.range_fps
        return {
            "precision": self.precision,
            "arithmetic": self.arithmetic,
            "bound_ms": self.bound_ms,
            "expected_ms": self.expected_ms,
            "bound_fps": self.bound_fps,
            "expected_fps": self.expected_fps,
            "low_fps": low,
            "high_fps": high,
            "error_factor": self.error_factor,
            "share": {limit: self.share(limit) for limit in ("compute", "memory", "floor")},
            "layers": [entry.to_dict() for entry in self.layers],
        }


@dataclass(frozen=True)
class Estimate:
    """What to expect of a network on a device.

    Attributes:
        model: The file it was read from.
        device: The device.
        input_shape: Of the network, such as (1, 3, 512, 1024).
        precisions: One entry per precision asked for.
        achieved: Shares of the peaks that were assumed.
        notes: What differs from what the words promise, and what was not understood.
    """

    model: str
    device: Device
    input_shape: tuple[int, ...]
    precisions: tuple[PrecisionEstimate, ...]
    achieved: Achieved
    notes: tuple[str, ...]

    @property
    def macs(self) -> int:
        """Multiply-adds of one batch."""
        return sum(entry.layer.macs for entry in self.precisions[0].layers)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; what ``estimate --json`` prints.

        ``model``: path. ``device``: ``name``, ``title``, ``power_mode``, ``source``. ``input_shape``: (N, C, H, W).
        ``macs``: multiply-adds of one batch. ``achieved``: ``compute`` and ``bandwidth`` (shares of the peaks),
        ``floor_us`` (of each layer), ``error_factor``, ``source``. ``precisions``: as ``PrecisionEstimate.to_dict``.
        ``notes``: sentences.
        """
        device = {key: getattr(self.device, key) for key in ("name", "title", "power_mode", "source")}
        return {
            "model": self.model,
            "device": device,
            "input_shape": list(self.input_shape),
            "macs": self.macs,
            "achieved": dict(vars(self.achieved)),
            "precisions": [entry.to_dict() for entry in self.precisions],
            "notes": list(self.notes),
        }


def estimate(
    model: str | Path,
    device: str,
    *,
    precision: str | Sequence[str] | None = None,
    size_hw: tuple[int, int] | None = None,
) -> Estimate:
    """Estimate how fast a network runs on a device.

    Args:
        model: ``.onnx``; or a checkpoint, which is exported for the purpose.
        device: Name in ``devices.toml``, such as ``"xavier-agx"``.
        precision: Name of a row of :data:`rtda_export.precision.PRECISIONS`, or several; None: all.
        size_hw: Input height and width, of a checkpoint only; None: as trained.

    Raises:
        ConfigError: If the device or the precision is unknown, or a size is given for an ``.onnx``.
        ExportError: If the file is no valid ONNX model of fixed size.
        CheckpointError: If the checkpoint cannot be used.
        FileAccessError: If the file cannot be read.
        MissingPackageError: If onnx, or torch for a checkpoint, is not installed.
    """
    target = device_named(device)
    wanted = _precisions(precision)
    graph = _graph(readable_file(model, what="model"), size_hw)
    layers = fused_layers(graph)
    shape = _input_shape(graph)
    shares = achieved()
    return Estimate(
        model=str(model),
        device=target,
        input_shape=shape,
        precisions=tuple(estimate_layers(layers, target, name, shares, batch=shape[0]) for name in wanted),
        achieved=shares,
        notes=_notes(layers, target, wanted),
    )


def estimate_layers(
    layers: Sequence[Layer], device: Device, precision: str, shares: Achieved, *, batch: int = 1
) -> PrecisionEstimate:
    """The estimate of layers that were read before; ``shares`` need not be the fitted ones."""
    arithmetic = device.arithmetic(precision)
    timed = tuple(_timed(layer, device, arithmetic, shares) for layer in layers)
    return PrecisionEstimate(precision, arithmetic, batch, timed, shares.error_factor)


def _timed(layer: Layer, device: Device, arithmetic: str, shares: Achieved) -> LayerTime:
    moved = layer.bytes_moved(_VALUE_BYTES[arithmetic])
    peak = device.peak(FP32.name if layer.kind == "depthwise" else arithmetic)
    compute_ms = 2 * layer.macs / peak / 1e9  # 10^12 operations a second are 10^9 a millisecond
    memory_ms = moved / device.bandwidth / 1e6
    real_compute_ms, real_memory_ms = compute_ms / shares.compute, memory_ms / shares.bandwidth
    floor_ms = shares.floor_us / 1e3
    longest = max(real_compute_ms, real_memory_ms)
    limit = "floor" if floor_ms > longest else "compute" if real_compute_ms >= real_memory_ms else "memory"
    return LayerTime(layer, moved, max(compute_ms, memory_ms), longest + floor_ms, limit)


def _precisions(asked: str | Sequence[str] | None) -> tuple[str, ...]:
    if asked is None:
        return tuple(precision.name for precision in PRECISIONS)
    names = (asked,) if isinstance(asked, str) else tuple(asked)
    if not names:
        raise ConfigError("no precision to estimate", hint=f"known: {known_precisions()}")
    return tuple(precision_named(name).name for name in names)


def _graph(file: Path, size_hw: tuple[int, int] | None) -> Any:
    if is_checkpoint_name(file):
        with tempfile.TemporaryDirectory(prefix="rtda-estimate-") as folder:
            return read_onnx(onnx_from_checkpoint(file, Path(folder) / "model.onnx", size_hw=size_hw))
    if file.suffix.lower() != ".onnx":
        raise ConfigError(f"{file} is of no kind that an estimate reads", hint="known: .onnx, .pth")
    if size_hw is not None:
        raise ConfigError(
            f"the size of {file.name} is built in", hint="give the .pth with --size, or leave --size away"
        )
    return read_onnx(file)


def _input_shape(graph: Any) -> tuple[int, ...]:
    weights = {weight.name for weight in graph.graph.initializer}
    images = [value for value in graph.graph.input if value.name not in weights]
    shapes = [tuple(side.dim_value or 1 for side in value.type.tensor_type.shape.dim) for value in images]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise ExportError(
            f"inputs {', '.join(value.name for value in images) or 'missing'}: expected one picture (N, C, H, W)",
            why=f"got {shapes}",
            hint="an estimate is for networks that take one batch of pictures",
        )
    return shapes[0]


def _notes(layers: Sequence[Layer], device: Device, precisions: Sequence[str]) -> tuple[str, ...]:
    notes = []
    for precision in precisions:
        note = precision_named(precision).arithmetic[device.arithmetic(precision)]
        notes += [note.format(device=device.title)] if note else []
    strange = sorted({layer.operators[0] for layer in layers if layer.kind == "other"})
    if strange:
        notes.append(f"counted by their bytes alone: {', '.join(strange)}")
    return tuple(notes)
