"""What labelers share whose labels are there before the first step: the batch brings them along."""

from __future__ import annotations

import abc

from rtda_training.adapt.components import Labeler
from rtda_training.adapt.context import PseudoLabels, StageContext, StepContext
from rtda_training.adapt.labelers.label_dump import label_paths
from rtda_training.data.pseudo_set import PseudoLabelledSet
from rtda_training.readers import UnlabelledSet

__all__ = ["PreparedLabels", "WrittenLabels"]


class PreparedLabels(Labeler):
    """``prepare()`` gives a set that has the labels; each step takes those of its batch."""

    def label(self, context: StepContext) -> PseudoLabels:
        if context.target_label is None:
            raise RuntimeError("the target batch carries no labels: prepare() gives the set that has them")
        return PseudoLabels(context.target_label, None)


class WrittenLabels(PreparedLabels):
    """Labels that the first process writes into the stage's folder, as ``labels/<place>.png``, while others wait."""

    _stage: StageContext

    def prepare(self, target: UnlabelledSet) -> PseudoLabelledSet:
        stage = self._stage
        if stage.fabric.is_global_zero:
            self._write(target)
        stage.fabric.barrier()
        return PseudoLabelledSet(target, label_paths(stage.folder, len(target)), stage.classes)

    @abc.abstractmethod
    def _write(self, target: UnlabelledSet) -> None:
        """Write what is not written yet."""
