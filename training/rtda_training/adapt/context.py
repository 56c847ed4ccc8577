"""What components are given: a stage's surroundings when it starts, and each step's batches and outputs.

Every forward of a step is computed once, when first asked for, and shared by all objectives.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from lightning_fabric import Fabric
from torch import Tensor, nn

from rtda_training.judge import Candidate
from rtda_training.labels import ClassList
from rtda_training.models import SegOutput
from rtda_training.readers import LabelledSet, UnlabelledSet

if TYPE_CHECKING:
    from rtda_training.adapt.components import Labeler, Mixer

__all__ = ["MixedBatch", "OpenModel", "PseudoLabels", "StageContext", "StepContext"]


# Opens a model file; what it gives is used inside the ``with`` block.
OpenModel = Callable[[Path], AbstractContextManager[Candidate]]


class PseudoLabels(NamedTuple):
    """Labels that a labeler gives the target batch.

    Attributes:
        label: int64 (N, H, W), 255 where it gives none.
        weight: float32 (N, H, W) in 0..1, how much each pixel counts; None: 1 everywhere.
        soft: float32 (N, C, H, W), the probability of each class; None: ``label`` alone is meant.
    """

    label: Tensor
    weight: Tensor | None
    soft: Tensor | None = None


class MixedBatch(NamedTuple):
    """Pictures made of both domains.

    Attributes:
        pictures: float32 (N, 3, H, W), normalised.
        label: int64 (N, H, W), 255 where not labelled.
        weight: float32 (N, H, W) in 0..1; None: 1 everywhere.
        soft: float32 (N, C, H, W), the probability of each class, 1 for that of a true label; None: ``label`` alone is
            meant.
    """

    pictures: Tensor
    label: Tensor
    weight: Tensor | None
    soft: Tensor | None = None


def _forget(name: str, network: nn.Module) -> None:
    """Of what is made, nothing more than the stage's own network is kept."""


def _as_it_is(pictures: UnlabelledSet) -> UnlabelledSet:
    return pictures


@dataclass(frozen=True)
class StageContext:
    """What a component is given when its stage starts.

    Attributes:
        num_classes: C of the network.
        fabric: Devices, precision and processes.
        network: The network of the stage, not wrapped; its parameters are what the stage trains.
        size_hw: Input size of the network.
        batch_size: Pictures per step and domain of this process.
        first_place: Position of this process's first picture in the global batch.
        seed: The plan's seed and the stage's number.
        steps: Length of the stage.
        folder: Where the component may keep files of this stage (made when first used).
        run_folder: The run's folder; a finished stage ``NAME`` left ``stage-NAME.pth`` there.
        normalise: Raw pixels (N, H, W, 3) BGR 0..255 -> the network's input (N, 3, H, W).
        finished: Network of a finished stage by its name, frozen, in evaluation mode, on the device.
        classes: What the network tells apart.
        source: The labelled set; None where the plan has no source.
        target: The unlabelled set; None where the plan has none.
        tell: A line for people.
        labelled_target: Target frames that people labelled; None where the plan has none.
        keep: Called at the end of the stage with a name and a network that it made and does not leave, such as a
            teacher: it may be chosen when networks are ranked.
        as_stored: A set as it was opened, without the smaller copies that a training caches.
        open_model: Opens a file that training itself does not run (``.onnx``, an engine); None where nobody can.
    """

    num_classes: int
    fabric: Fabric
    network: nn.Module
    size_hw: tuple[int, int]
    batch_size: int
    first_place: int
    seed: tuple[int, int]
    steps: int
    folder: Path
    run_folder: Path
    normalise: Callable[[Tensor], Tensor]
    finished: Callable[[str], nn.Module]
    classes: ClassList
    source: LabelledSet | None
    target: UnlabelledSet | None
    tell: Callable[[str], None]
    labelled_target: LabelledSet | None = None
    keep: Callable[[str, nn.Module], None] = _forget
    as_stored: Callable[[UnlabelledSet], UnlabelledSet] = _as_it_is
    open_model: OpenModel | None = None


def _alone(value: Tensor) -> Tensor:
    """The mean over one process."""
    return value


@dataclass
class StepContext:
    """One step's batches and outputs.

    Attributes:
        step: Number of the step, from 0.
        source_frames: float32 (N, H, W, 3) BGR 0..255, the labelled domain, after its style; N is 0 where the plan has
            no source.
        label: int64 (N, H, W), 255 where not labelled.
        target_frames: float32 (N, H, W, 3) BGR 0..255, the unlabelled domain; None where nothing asks for it.
        forward: The network in training mode.
        normalise: Raw pixels (N, H, W, 3) -> the network's input (N, 3, H, W).
        target_label: int64 (N, H, W) pseudo labels made before the stage; None where there are none.
        labelled_frames: float32 (M, H, W, 3) BGR 0..255, target frames that people labelled; None where nothing asks
            for them.
        labelled_label: int64 (M, H, W), their labels; 255 where not labelled.
        labeler: What labels the target.
        mixer: What mixes both domains.
        seed: The plan's seed and the stage's number.
        first_place: Position of this process's first picture in the global batch.
        share: A tensor -> its mean over all processes.
    """

    step: int
    source_frames: Tensor
    label: Tensor
    target_frames: Tensor | None
    forward: Callable[[Tensor], SegOutput]
    normalise: Callable[[Tensor], Tensor]
    target_label: Tensor | None = None
    labelled_frames: Tensor | None = None
    labelled_label: Tensor | None = None
    labeler: Labeler | None = None
    mixer: Mixer | None = None
    seed: tuple[int, int] = (0, 0)
    first_place: int = 0
    share: Callable[[Tensor], Tensor] = field(default=_alone)
    _pictures: dict[str, Tensor] = field(default_factory=dict)
    _outputs: dict[str, SegOutput] = field(default_factory=dict)
    _pseudo: PseudoLabels | None = None
    _mixed: MixedBatch | None = None

    @property
    def source(self) -> Tensor:
        """float32 (N, 3, H, W), the labelled domain, normalised."""
        if "source" not in self._pictures:
            self._pictures["source"] = self.normalise(self.source_frames)
        return self._pictures["source"]

    @property
    def target(self) -> Tensor:
        """float32 (N, 3, H, W), the unlabelled domain, normalised."""
        if self.target_frames is None:
            raise RuntimeError("this step has no target batch: no component declared that it needs one")
        if "target" not in self._pictures:
            self._pictures["target"] = self.normalise(self.target_frames)
        return self._pictures["target"]

    def source_output(self) -> SegOutput:
        """The network on the source batch."""
        return self.output_of("source", self.source)

    def target_output(self) -> SegOutput:
        """The network on the target batch.

        Batch norms see the domains in batches of their own, as in RTDA's code.
        """
        return self.output_of("target", self.target)

    def labelled_output(self) -> SegOutput:
        """The network on the target frames that people labelled, a batch of their own for batch norms too."""
        if self.labelled_frames is None:
            raise RuntimeError("this step has no labelled target frames: no component declared that it needs them")
        if "labelled" not in self._pictures:
            self._pictures["labelled"] = self.normalise(self.labelled_frames)
        return self.output_of("labelled", self._pictures["labelled"])

    def pseudo_labels(self) -> PseudoLabels:
        """Labels that the stage's labeler gives the target batch."""
        if self.labeler is None:
            raise RuntimeError("this stage has no labeler: an objective must declare requires = ('labeler',)")
        if self._pseudo is None:
            self._pseudo = self.labeler.label(self)
        return self._pseudo

    def mixed(self) -> MixedBatch:
        """The batch that the stage's mixer makes of both domains."""
        if self.mixer is None:
            raise RuntimeError("this stage has no mixer: an objective must declare requires = ('mixer',)")
        if self._mixed is None:
            self._mixed = self.mixer.mix(self)
        return self._mixed

    def mixed_output(self) -> SegOutput:
        """The network on the mixed batch."""
        return self.output_of("mixed", self.mixed().pictures)

    def output_of(self, name: str, pictures: Tensor) -> SegOutput:
        """The network on any pictures, computed once a step under this name."""
        if name not in self._outputs:
            self._outputs[name] = self.forward(pictures)
        return self._outputs[name]

    def rng(self, purpose: str, place: int | None = None) -> np.random.Generator:
        """Random numbers of this step for one purpose, and for one picture of this process's batch.

        A pure function of seed, stage, step and the picture's place in the global batch: a resumed run, or one on
        another number of processes, draws the same. Without ``place``, all processes draw the same.
        """
        entropy = [*self.seed, zlib.crc32(purpose.encode()), self.step]
        return np.random.default_rng(entropy if place is None else [*entropy, 1 + self.first_place + place])
