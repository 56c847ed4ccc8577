"""Base classes of the components of a stage: sampler, style, labeler, mixer, objective."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor, nn

from rtda_training.adapt.context import MixedBatch, PseudoLabels, StepContext
from rtda_training.adapt.slots import Component, NoSettings
from rtda_training.data.batches import PictureOrder
from rtda_training.readers import LabelledSet, UnlabelledSet

__all__ = ["TARGET_FORWARD", "DomainsObjective", "Labeler", "Mixer", "Objective", "Sampler", "Style"]

# What an objective is silenced to whose only forward is the target batch's; in adapt/objectives/target_forward.py.
TARGET_FORWARD: tuple[str, NoSettings] = ("target-forward", NoSettings())


class Sampler(Component):
    """Chooses the order of the source's pictures."""

    @classmethod
    def needs_source(cls, config: Any) -> bool:
        del config
        return True

    def order(self, source: LabelledSet, seed: tuple[int, ...]) -> PictureOrder:
        """The order for one stage."""
        return PictureOrder(len(source), seed)


class Style(Component):
    """Changes the source batch before the network sees it; works on raw pixels."""

    @classmethod
    def needs_source(cls, config: Any) -> bool:
        del config
        return True

    def apply(self, context: StepContext) -> Tensor:
        """``context.source_frames`` (still plain) and ``context.target_frames`` -> float32 (N, H, W, 3) BGR 0..255."""
        raise NotImplementedError


class Labeler(Component):
    """Labels the target batch of each step. It cannot read a label of the target set: an ``UnlabelledSet`` has none."""

    needs_target = True

    def prepare(self, target: UnlabelledSet) -> UnlabelledSet:
        """Work before the first step (skipped where it is already done); gives the set that target batches come from.

        A labeler that writes labels to disk gives a ``LabelledSet`` of the same pictures with *its* labels; they
        arrive as ``StepContext.target_label``, cropped and flipped as their pictures are.
        """
        return target

    def label(self, context: StepContext) -> PseudoLabels:
        """Labels of ``context.target_frames``; no gradient."""
        raise NotImplementedError

    def after_step(self, context: StepContext) -> dict[str, Any]:
        """Called after the network's step; gives what to log, as numbers or scalar tensors."""
        del context
        return {}

    def finish(self, network: nn.Module) -> None:
        """Called after the last step; may change the network that the stage leaves."""
        del network


class Mixer(Component):
    """Makes one batch of the source batch with its labels and the target batch with its pseudo labels."""

    needs_target = True
    requires = ("labeler",)

    @classmethod
    def needs_source(cls, config: Any) -> bool:
        del config
        return True

    def mix(self, context: StepContext) -> MixedBatch:
        """The mixed batch; no gradient."""
        raise NotImplementedError


class Objective(Component):
    """One term of the loss.

    It may own players, such as a discriminator: they are frozen in ``network_loss`` and trained in ``play``.

    Attributes:
        log_name: What its loss is called in logs; the recipe's name where empty.
    """

    log_name: str = ""

    @classmethod
    def silenced(cls, config: Any) -> tuple[str, Any] | None:
        """The objective that takes its place in a control: the same forwards, and nothing told to the network.

        Args:
            config: Its settings.

        Returns:
            Name and settings: by default its own with ``weight = 0``. None where it has no weight: a control keeps it.
        """
        if not any(field.name == "weight" for field in dataclasses.fields(config)):
            return None
        return cls.key, dataclasses.replace(config, weight=0.0)

    def network_loss(self, context: StepContext) -> Tensor:
        """Scalar, weighted, with its graph; called with the objective's own players frozen."""
        raise NotImplementedError

    def play(self, context: StepContext, learning_rate_factor: float) -> dict[str, Any]:
        """Train the objective's own players on this step's outputs, detached.

        Gives what to log, as numbers or scalar tensors; a tensor on a GPU is read only when it is logged.
        """
        del context, learning_rate_factor
        return {}


class DomainsObjective(Objective):
    """An objective that compares both domains' batches; in a control the target passes through alone."""

    needs_target = True

    @classmethod
    def needs_source(cls, config: Any) -> bool:
        del config
        return True

    @classmethod
    def silenced(cls, config: Any) -> tuple[str, Any]:
        del config
        return TARGET_FORWARD
