"""FP16 rescue: which layers must stay in float32, found on real frames before an engine shows NaN on the robot.

Two causes are told apart. *Overflow*: a value, a weight or a sum inside a reduction that float16 cannot hold; these
nodes are kept whatever the masks say, because another GPU may sum in another order. *Agreement*: rounding that changes
the masks; the nodes that introduce most of it are searched for, and those that prove not to be needed are given back.
The float16 answers come from ``rounding_onnx``, in which ONNX Runtime really rounds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rtda_deploy.errors import ConfigError
from rtda_export.graph.nodes import named
from rtda_export.parity.report import percent
from rtda_export.precision.activations import answers, check_images, check_rounding, reference_answers, tensors
from rtda_export.precision.fp16_graph import FP16_MAX, fp16_onnx, rounding_onnx
from rtda_export.precision.metadata import with_precision
from rtda_export.precision.sensitivity import Progress, Sensitivity

__all__ = ["Overflow", "Rescue", "rescue_fp16"]

# An unseen frame may reach further than the few that were looked at: one bit of the exponent is left free.
HEADROOM = 2.0


@dataclasses.dataclass(frozen=True)
class Overflow:
    """Something that float16 does not hold, or only just.

    Attributes:
        node: Name of the node it belongs to.
        what: ``output``, ``input``, ``weight``, or ``sum`` inside a reduction.
        tensor: Its name in the graph.
        largest: Largest magnitude over all frames.
    """

    node: str
    what: str
    tensor: str
    largest: float

    def __str__(self) -> str:
        inner = "sums inside reach" if self.what == "sum" else f"its {self.what} reaches"
        return f"{inner} {self.largest:.3g}, float16 ends at {FP16_MAX:.0f}"


@dataclasses.dataclass(frozen=True)
class Rescue:
    """What was kept in float32, why, and what it changed.

    Attributes:
        model: The float16 ``onnx.ModelProto`` with these nodes in float32 and all this in ``rtda.precision``.
        keep_fp32: Names of the nodes, in the order of the graph.
        reasons: Why each is kept, by name.
        overflows: What was found beyond float16 (by less than the headroom), the largest first.
        agreement_before: Share of pixels that agree with float32, all nodes in float16; worst frame. 0 where a logit
            is NaN or infinite, or a weight cannot be written.
        agreement_after: The same with ``keep_fp32``.
        limit: What was asked for.
        nodes: How many nodes the network has.
        frames: How many frames were looked at.
    """

    model: Any = dataclasses.field(repr=False)
    keep_fp32: tuple[str, ...]
    reasons: dict[str, str]
    overflows: tuple[Overflow, ...]
    agreement_before: float
    agreement_after: float
    limit: float
    nodes: int
    frames: int

    @property
    def report(self) -> list[str]:
        """For people, a sentence a line."""
        before, after = percent(self.agreement_before), percent(self.agreement_after)
        lines = [f"float16: {before} of the pixels agree with float32 on the worst of {self.frames} frames"]
        if self.keep_fp32:
            lines.append(f"{len(self.keep_fp32)} of {self.nodes} nodes stay in float32, and {after} agree")
            lines += [f"{name}: {self.reasons[name]}" for name in self.keep_fp32]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; shares are 0..1, ``overflows`` have ``node``, ``what``, ``tensor``, ``largest``."""
        return {
            "keep_fp32": list(self.keep_fp32),
            "why": dict(self.reasons),
            "overflows": [dataclasses.asdict(entry) for entry in self.overflows],
            "agreement_before": self.agreement_before,
            "agreement_after": self.agreement_after,
            "limit": self.limit,
            "nodes": self.nodes,
            "frames": self.frames,
        }


def rescue_fp16(
    model: Any,
    images: Sequence[np.ndarray],
    *,
    limit: float = 0.995,
    headroom: float = HEADROOM,
    threads: int = 0,
    progress: Progress | None = None,
) -> Rescue:
    """Find the nodes that float16 would spoil, on real frames.

    Args:
        model: ``onnx.ModelProto`` in float32 with fixed shapes; not modified.
        images: Preprocessed frames, float32 (1, 3, H, W) each.
        limit: Least share of pixels, 0..1, that must agree with float32 on every frame.
        headroom: A value is too large when it is beyond float16's largest divided by this.
        threads: Of ONNX Runtime; 0: as many as there are cores.
        progress: Called with (``ranges``, ``rank`` or ``drop``, done, total); the total of a search is a guess.

    Returns:
        The nodes to keep, and the model that keeps them. Where even all nodes in float32 would be needed, all are.

    Raises:
        ConfigError: If ``limit`` or ``headroom`` makes no sense.
        ExportError: If there is no frame, it does not fit, or the network cannot be converted.
    """
    if not 0 < limit <= 1 or headroom < 1:
        raise ConfigError(
            f"limit must be in 0..1 and headroom at least 1, got {limit} and {headroom}",
            hint="such as limit=0.995, headroom=4",
        )
    check_rounding()
    source = named(model)
    size_hw = check_images(source, images)
    tell: Progress = progress or (lambda step, done, total: None)
    names = [node.name for node in source.graph.node if node.op_type != "Constant"]

    def respond(keep: frozenset[str], frames: Sequence[int]) -> list[np.ndarray]:
        halves = rounding_onnx(fp16_onnx(source, keep_fp32=keep))
        return answers(halves, [images[index] for index in frames], threads=threads)

    reference = reference_answers(source, images, threads=threads)
    search = Sensitivity(names, respond, reference, size_hw, limit=limit, score=min, tell=tell)
    overflows = _overflows(source, images, FP16_MAX / headroom, threads, tell)
    reasons: dict[str, str] = {}
    for overflow in overflows:
        reasons.setdefault(overflow.node, str(overflow))
    unwritable = any(entry.what == "weight" and entry.largest > FP16_MAX for entry in overflows)
    before = 0.0 if unwritable else min(search.shares(frozenset()))
    after = min(search.shares(frozenset(reasons))) if reasons else before
    if after < limit:
        for name, error in search.needed(frozenset(reasons), most=len(names)).items():
            reasons[name] = f"alone in float16 it moves the logits by {error:.1e} of their size, and the limit needs it"
        after = min(search.shares(frozenset(reasons)))
    kept = tuple(node.name for node in source.graph.node if node.name in reasons)
    ordered = {name: reasons[name] for name in kept}
    rescue = Rescue(
        model=fp16_onnx(source, keep_fp32=kept, why=ordered),
        keep_fp32=kept,
        reasons=ordered,
        overflows=tuple(overflows),
        agreement_before=before,
        agreement_after=after,
        limit=limit,
        nodes=len(names),
        frames=len(images),
    )
    with_precision(rescue.model, {"precision": "fp16", **rescue.to_dict()})
    return rescue


def _overflows(
    source: Any, images: Sequence[np.ndarray], largest: float, threads: int, tell: Progress
) -> list[Overflow]:
    """All that float16 would not hold, the largest first."""
    from onnx import numpy_helper

    weights = {weight.name: numpy_helper.to_array(weight) for weight in source.graph.initializer}
    ranges, sums = _ranges(source, images, weights, threads, tell)
    found: list[Overflow] = []
    for node in source.graph.node:
        for what, names in (("output", node.output), ("input", node.input)):
            found += [
                Overflow(node.name, what, name, ranges[name]) for name in names if ranges.get(name, 0.0) > largest
            ]
        for name in node.input:
            values = weights.get(name)
            if values is not None and values.dtype == np.float32 and np.abs(values).max(initial=0.0) > largest:
                found.append(Overflow(node.name, "weight", name, float(np.abs(values).max())))
        if sums.get(node.name, 0.0) > largest:
            found.append(Overflow(node.name, "sum", node.input[0], sums[node.name]))
    return sorted(found, key=lambda entry: (-entry.largest, entry.what != "output"))


def _ranges(
    source: Any, images: Sequence[np.ndarray], weights: dict[str, np.ndarray], threads: int, tell: Progress
) -> tuple[dict[str, float], dict[str, float]]:
    """Largest magnitude of every tensor by its name, and of the sums inside reductions by the node's."""
    readers: dict[str, list[Any]] = {}
    for node in source.graph.node:
        if node.op_type in _SUMS and node.input:
            readers.setdefault(node.input[0], []).append(node)
    wanted = [name for node in source.graph.node for name in node.output if node.op_type != "Constant"]
    entry = source.graph.input[0].name
    ranges: dict[str, float] = {}
    sums: dict[str, float] = {}

    def add(name: str, values: np.ndarray) -> None:
        if values.dtype != np.float32 or values.size == 0:
            return
        ranges[name] = max(ranges.get(name, 0.0), float(np.abs(values).max()))
        for node in readers.get(name, []):
            sums[node.name] = max(sums.get(node.name, 0.0), _SUMS[node.op_type](np.abs(values), node, weights))

    for image in images:
        add(entry, image)
    total = len(wanted) * len(images)
    for done, (_, name, values) in enumerate(tensors(source, images, wanted, threads=threads)):
        add(name, values)
        tell("ranges", done + 1, total)
    return ranges, sums


def _axes(node: Any, weights: dict[str, np.ndarray], rank: int) -> tuple[int, ...]:
    """Axes of a reduction: an attribute, or an input from opset 13 (ReduceSum) and 18 on; all where none are given."""
    given = next((list(entry.ints) for entry in node.attribute if entry.name == "axes"), None)
    if given is None and len(node.input) > 1 and node.input[1] in weights:
        given = [int(axis) for axis in weights[node.input[1]]]
    return tuple(axis % rank for axis in given) if given else tuple(range(rank))


def _whole_picture(values: np.ndarray, node: Any, weights: dict[str, np.ndarray]) -> float:
    return float(values.sum(axis=tuple(range(2, values.ndim)), dtype=np.float64).max())


def _reduced(values: np.ndarray, node: Any, weights: dict[str, np.ndarray]) -> float:
    return float(values.sum(axis=_axes(node, weights, values.ndim), dtype=np.float64).max())


def _squares(values: np.ndarray, node: Any, weights: dict[str, np.ndarray]) -> float:
    return float(np.square(values, dtype=np.float64).sum(axis=_axes(node, weights, values.ndim)).max())


def _window(values: np.ndarray, node: Any, weights: dict[str, np.ndarray]) -> float:
    """An upper bound: the largest value everywhere in a window."""
    kernel = next((list(entry.ints) for entry in node.attribute if entry.name == "kernel_shape"), [1])
    return float(values.max()) * float(np.prod(kernel))


# Operators that add many values before they divide or take a root, and the largest such sum of magnitudes. A Softmax
# is not among them: its largest term is 1, its sum at most the number of its terms.
_SUMS: dict[str, Callable[[np.ndarray, Any, dict[str, np.ndarray]], float]] = {
    "AveragePool": _window,
    "GlobalAveragePool": _whole_picture,
    "ReduceL1": _reduced,
    "ReduceL2": _squares,
    "ReduceMean": _reduced,
    "ReduceSum": _reduced,
    "ReduceSumSquare": _squares,
}
