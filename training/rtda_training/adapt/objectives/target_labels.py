"""Cross-entropy on a few target frames that people labelled (``--labelled-target``)."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from rtda_training.adapt.components import Objective
from rtda_training.adapt.context import StageContext, StepContext
from rtda_training.adapt.losses import heads_cross_entropy
from rtda_training.adapt.objectives.supervised import aux_weight
from rtda_training.adapt.slots import component, number

__all__ = ["TargetLabels", "TargetLabelsConfig", "labelled_batch_size"]

_LEAST = 2  # pictures of a process: batch norms of a pooled map have no variance over one


@dataclasses.dataclass(frozen=True)
class TargetLabelsConfig:
    """How often labelled target frames come, and how much they count.

    Attributes:
        share: Frames of each step as a share of ``batch_size``, at least 2 for each process. Few frames come often:
            20 of them with a share of 0.5 and batches of 8 are all seen in 5 steps.
        weight: Of the term; 0 leaves the frames in the batch norms alone.
        aux_weight: Within it, of each auxiliary head; negative: the network's own.
    """

    share: float = number(0.5, 0.01, 4.0)
    weight: float = number(1.0, 0.0, 100.0)
    aux_weight: float = number(-1.0, -1.0, 10.0)


@component("objectives", "target-labels", TargetLabelsConfig)
class TargetLabels(Objective):
    """Cross-entropy on target frames with labels, a batch beside the source's, each frame augmented anew.

    Every frame comes once before any comes again. They teach beside whatever the recipe does: the unlabelled target,
    its labeler and its mixer are as they were.

    Source: none; the cross-entropy of ``supervised`` on another batch.
    """

    needs_target_labels = True
    log_name = "target_seg"

    def __init__(self, config: TargetLabelsConfig, stage: StageContext) -> None:
        self._weight = config.weight
        self._aux_weight = aux_weight(config.aux_weight, stage)

    def network_loss(self, context: StepContext) -> Tensor:
        output = context.labelled_output()
        assert context.labelled_label is not None
        return self._weight * heads_cross_entropy(output, context.labelled_label, self._aux_weight, None, context.share)


def labelled_batch_size(share: float, batch_size: int, processes: int) -> int:
    """Labelled target frames of a step of all processes together, the same number for each."""
    return processes * max(_LEAST, round(share * batch_size / processes))
