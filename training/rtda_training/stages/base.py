"""The base class of every kind of stage, and its batches: on the device, with a count of what could not be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rtda_deploy.errors import DataError
from rtda_training.adapt.context import StageContext
from rtda_training.adapt.slots import Component
from rtda_training.data.batches import PictureOrder, StepBatches, batches_from
from rtda_training.data.config import AugmentConfig
from rtda_training.plan import PlanConfig, StageConfig
from rtda_training.readers import UnlabelledSet

__all__ = [
    "BN_STREAM",
    "LABELLED_STREAM",
    "SOURCE_STREAM",
    "TARGET_STREAM",
    "DeviceBatch",
    "StageRun",
    "Stream",
    "decay",
    "norm_batches",
    "step_batches",
]


class StageRun(Component):
    """One stage while it runs. The trainer owns the loop, the log, validation and checkpoints.

    Attributes:
        trains_network: Whether the network changes, so that validating it makes sense.
    """

    trains_network: bool = True

    def __init__(self, config: Any, stage: StageContext, plan: PlanConfig, stage_config: StageConfig) -> None:
        raise NotImplementedError

    def begin(self, step: int) -> None:
        """Prepare for ``step`` as the next one; where there is a state, it has been loaded before."""
        raise NotImplementedError

    def step(self, step: int) -> dict[str, Any]:
        """Do one step; gives what to log, as numbers or scalar tensors."""
        raise NotImplementedError

    def finish(self) -> None:
        """Called once after the last step, before the network is validated and saved."""

    def close(self) -> None:
        """Release what the stage holds; called however it ends."""


def decay(stage_config: StageConfig, step: int) -> float:
    """The factor ``(1 - step / steps) ** power`` on every learning rate."""
    return float((1.0 - step / stage_config.steps) ** stage_config.optimizer.power)


SOURCE_STREAM, TARGET_STREAM, BN_STREAM, LABELLED_STREAM = 0, 1, 2, 3  # independent random streams of one seed
_BN_PICTURES = 400  # that batch-norm statistics are averaged over


class DeviceBatch(NamedTuple):
    """One batch on the training device.

    Attributes:
        frames: float32 (N, H, W, 3) BGR 0..255.
        labels: int64 (N, H, W), 255 where not labelled; None for an unlabelled set.
    """

    frames: Tensor
    labels: Tensor | None


def norm_batches(
    pictures: UnlabelledSet, plan: PlanConfig, normalise: Callable[[Tensor], Tensor], device: torch.device
) -> Iterator[Tensor]:
    """Batches that batch-norm statistics are averaged over: up to 400 pictures, scaled to the input, not augmented.

    Which they are is decided by the plan's seed; a batch has at least two.

    Args:
        pictures: Of either domain.
        plan: Its size, batch size and seed.
        normalise: From float32 (N, H, W, 3) BGR 0..255 to what the network takes.
        device: Where the network is.

    Yields:
        float32 (N, 3, H, W).
    """
    size = max(2, plan.batch_size)
    steps = max(1, min(len(pictures), _BN_PICTURES) // size)
    plain = step_batches(pictures, plan, steps, BN_STREAM, augment=AugmentConfig(flip=False))
    for step in range(steps):
        yield normalise(plain[step].frames.to(device).float())


def step_batches(
    pictures: UnlabelledSet,
    plan: PlanConfig,
    steps: int,
    stream: int,
    *,
    part: tuple[int, int] = (0, 1),
    augment: AugmentConfig | None = None,
    order: PictureOrder | None = None,
    batch_size: int = 0,
) -> StepBatches:
    """The batches of one domain as the plan wants them; ``batch_size`` 0: the plan's."""
    return StepBatches(
        pictures,
        size_hw=plan.size_hw,
        batch_size=batch_size or plan.batch_size,
        seed=plan.seed,
        stream=stream,
        augment=augment or plan.augment,
        interpolation=plan.input.interpolation,
        steps=steps,
        order=order,
        part=part,
    )


class Stream:
    """Batches from a step on; pictures that cannot be used are named once, and too many of them are an error."""

    def __init__(
        self,
        pictures: UnlabelledSet,
        plan: PlanConfig,
        stage: StageContext,
        start: int,
        stream: int,
        order: PictureOrder | None = None,
        batch_size: int = 0,
    ) -> None:
        part = (stage.fabric.global_rank, stage.fabric.world_size)
        data = step_batches(pictures, plan, stage.steps, stream, part=part, order=order, batch_size=batch_size)
        workers = plan.workers if plan.workers >= 0 else (4 if stage.fabric.device.type == "cuda" else 0)
        self._batches = batches_from(data, start, workers)
        self._device = stage.fabric.device
        self._tell = stage.tell
        self._pictures = pictures
        self._allowed = plan.max_corrupt
        self._faults: dict[str, str] = {}

    def next(self) -> DeviceBatch:
        """The next step's batch.

        Raises:
            DataError: If more than ``max_corrupt`` of the set's pictures could not be used.
        """
        batch = next(self._batches)
        for name, fault, hint in batch.skipped:
            self._count(name, fault, hint)
        frames = batch.frames.to(self._device, non_blocking=True).float()
        if not batch.labels.numel():
            return DeviceBatch(frames, None)
        return DeviceBatch(frames, batch.labels.to(self._device, non_blocking=True).long())

    def _count(self, name: str, fault: str, hint: str) -> None:
        if name in self._faults:
            return
        self._faults[name] = fault
        self._tell(f"skipped {fault}")
        share = len(self._faults) / len(self._pictures)
        if share > self._allowed:
            raise DataError(
                f"{fault}; {len(self._faults)} of {len(self._pictures)} pictures of {self._pictures.address} cannot be"
                f" used, more than max_corrupt = {self._allowed:g}",
                hint=f"{hint}; all faults: {self._pictures.check_command}",
            )
