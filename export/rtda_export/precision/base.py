"""What a precision is: how its file is made, how far it may move, how TensorRT builds it, what an estimate calls it."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Callable, Mapping, NamedTuple, Optional, Sequence, Tuple

if TYPE_CHECKING:
    import numpy as np

    from rtda_deploy.onnx_file import OnnxFacts
    from rtda_deploy.spec import ModelSpec

__all__ = ["EngineRules", "Limit", "Made", "Precision", "Work"]

Score = Callable[[], Optional[Tuple[float, float]]]


class Limit(NamedTuple):
    """How far a step of an export may move.

    Attributes:
        name: Precision it is for.
        agreement: Least share of pixels with the same class, 0..1.
        logit: Largest logit difference as a share of the reference's logit range; None: not limited, because
            rounding every weight moves every logit and only the mask counts.
    """

    name: str
    agreement: float
    logit: Optional[float] = None


class Work(NamedTuple):
    """What the file of a precision is made from.

    Attributes:
        reference: ``.onnx`` in float32 with plain logits.
        out: ``.onnx`` to write.
        spec: Of the new file.
        images: Preprocessed pictures float32 (1, 3, H, W) that the file will be verified on.
        calibration: The same of what the robot sees; empty where nothing is calibrated.
        target: What the file is for, of ``Precision.targets``.
        progress: Called with (what is being done, done, total).
        score: mIoU in percent of the reference and of ``out`` as it stands; None where there are no labelled pictures.
    """

    reference: Path
    out: Path
    spec: ModelSpec
    images: Sequence[np.ndarray]
    calibration: Sequence[np.ndarray]
    target: str
    progress: Callable[[str, int, int], None]
    score: Score


class Made(NamedTuple):
    """What making the file found.

    Attributes:
        kept_fp32: Reason by name of the layers that were kept in float32.
        notes: Sentences for people.
        miou: As ``Work.score`` gave it of the file that was written.
        for_parent: JSON values for ``rtda.precision`` of the float32 file, from which a builder with flags makes this
            precision itself; empty: nothing.
    """

    kept_fp32: Mapping[str, str]
    notes: Tuple[str, ...] = ()
    miou: Optional[Tuple[float, float]] = None
    for_parent: Mapping[str, Any] = MappingProxyType({})


class EngineRules(NamedTuple):
    """How a TensorRT engine of a precision is built.

    Attributes:
        flags: Names of ``BuilderFlag`` to set where flags choose the precision (TensorRT 8 and 10).
        cleared: Names of ``BuilderFlag`` to clear, always.
        from_float32: Whether it can be built from the float32 file where flags choose the precision.
        float32_refused: Message, reason and hint where it cannot be built from a float32 file; ``{name}`` and
            ``{stem}`` of the file and ``{tensorrt}``'s version are filled in.
        dla_refused: What a DLA does not take; empty: a DLA takes it.
    """

    flags: Tuple[str, ...] = ()
    cleared: Tuple[str, ...] = ()
    from_float32: bool = False
    float32_refused: Tuple[str, str, str] = ("", "", "")
    dla_refused: str = ""


class Precision(NamedTuple):
    """One row of the table :data:`rtda_export.precision.PRECISIONS`; everything that depends on a precision asks it.

    Attributes:
        name: As typed after ``--precision`` and ``--limit``, and in file names: ``best.fp16.onnx``.
        agreement: Least share of pixels, 0..1, that must keep their class.
        logit: Largest logit difference as a share of the logit range; None: not limited.
        make: Writes the file; None: this is the float32 file itself.
        content: What a file of it is or holds, after the file's name in a sentence.
        holds: Whether a file is of it; None: what ``rtda.precision`` in the metadata says.
        arithmetic: What a device can compute it in (a peak of ``devices.toml``), the first that it has; with a note for
            the estimate (``{device}`` is filled in) or an empty text.
        engine: How an engine of it is built.
        targets: What its file can be for; where the name does not say it, the first.
        needs_calibration: Whether making the file needs pictures of what the robot sees.
        least_opset: Of the float32 file it is made from.
        max_miou_loss: Percent points of mIoU that the file may lose on labelled pictures; None: not limited.
        as_computed: Gives the ``onnx.ModelProto`` that computes on a CPU what a file computes on a GPU; None: the file
            itself does.
    """

    name: str
    agreement: float
    make: Optional[Callable[[Work], Made]]
    content: str
    arithmetic: Mapping[str, str]
    logit: Optional[float] = None
    holds: Optional[Callable[[OnnxFacts], bool]] = None
    engine: EngineRules = EngineRules()
    targets: Tuple[str, ...] = ("tensorrt",)
    needs_calibration: bool = False
    least_opset: int = 13
    max_miou_loss: Optional[float] = None
    as_computed: Optional[Callable[[Any], Any]] = None

    @property
    def title(self) -> str:
        """Its name at the start of a sentence: ``FP16``."""
        return self.name.upper()

    @property
    def limit(self) -> Limit:
        """How far its file and its engine may move."""
        return Limit(self.name, self.agreement, self.logit)

    @property
    def reduced(self) -> bool:
        """Whether its file is made from the float32 one."""
        return self.make is not None

    def is_of(self, facts: OnnxFacts) -> bool:
        """Whether a file is of this precision."""
        if self.holds is not None:
            return self.holds(facts)
        from rtda_deploy.onnx_file import precision_from_metadata

        return bool(precision_from_metadata(facts.metadata)["precision"] == self.name)

    def ending(self, target: str) -> str:
        """What stands between stem and ``.onnx``: ``fp16``, or ``cpu.int8`` where it is for another target."""
        return self.name if target == self.targets[0] else f"{target}.{self.name}"

    @property
    def endings(self) -> Tuple[str, ...]:
        """For every target, the longest first."""
        return tuple(sorted((self.ending(target) for target in self.targets), key=len, reverse=True))
