"""A network that learns from its own answers may come to say the same of everything: noticed while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from rtda_training.data.batches import normalise
from rtda_training.loop.validate import evaluating, spread_places, usable_frame
from rtda_training.models import SegmentationNetwork
from rtda_training.plan import PlanConfig, StageConfig
from rtda_training.readers import UnlabelledSet

__all__ = ["CollapseWatch", "TargetGlance"]

_PICTURES = 16  # looked at again and again
# As in the ranking's guards none is published: [E] of our own, before anything was measured.
_THERE = 0.01  # share of the pixels: a class that the network saw at first
_VANISHED = 0.2  # of that share: less is gone
_ENTROPY_LOST = 0.15  # of the entropy of the mean prediction


class TargetGlance:
    """What a network answers to a few pictures of the target, always the same ones, not augmented.

    Args:
        pictures: The target.
        plan: Its size and input.
        fabric: Device and precision.
    """

    def __init__(self, pictures: UnlabelledSet, plan: PlanConfig, fabric: Fabric) -> None:
        self._fabric = fabric
        batch = [
            torch.from_numpy(np.ascontiguousarray(usable_frame(pictures, place))).to(fabric.device)[None]
            for place in spread_places(_PICTURES, len(pictures))
        ]
        self._inputs = [
            torch.nn.functional.interpolate(
                normalise(frame, plan.input), size=plan.size_hw, mode="bilinear", align_corners=False
            )
            for frame in batch
        ]

    def of(self, network: SegmentationNetwork) -> dict[str, Any]:
        """``target_entropy``: of the mean prediction, 0..1; ``target_shares``: of the cells that have each class.

        Args:
            network: In whatever mode; left as it was.
        """
        total = torch.zeros(network.num_classes, dtype=torch.float64)
        won = torch.zeros(network.num_classes, dtype=torch.float64)
        with evaluating(network), self._fabric.autocast():
            for picture in self._inputs:
                probabilities = network(picture).coarse.float().softmax(dim=1)[0]
                total += probabilities.mean(dim=(1, 2)).double().cpu()
                counts = torch.bincount(probabilities.argmax(dim=0).flatten(), minlength=network.num_classes)
                won += (counts / counts.sum()).double().cpu()
        mean = total / total.sum()
        entropy = float(-(mean * mean.clamp_min(1e-12).log()).sum()) / float(np.log(max(2, len(mean))))
        return {"target_entropy": entropy, "target_shares": [round(value, 6) for value in (won / won.sum()).tolist()]}


class CollapseWatch:
    """Finds a collapse in logged rows, against the first row that holds a glance.

    Args:
        stage: Its settings; the advice names their keys and values.
        classes: Names of the network's classes; numbers where they are not known.
    """

    def __init__(self, stage: StageConfig, classes: Sequence[str] = ()) -> None:
        self._rate = stage.optimizer.learning_rate
        self._classes = classes
        self._first: Mapping[str, Any] | None = None

    def see(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Warnings of this row by their kinds."""
        shares = row.get("target_shares")
        if not shares:
            return {}
        if self._first is None:
            self._first = row
        found = {}
        advice = f"lower optimizer.learning_rate (now {self._rate:g}) or take fewer steps; the ranking has to tell"
        for place, (was, now) in enumerate(zip(self._first["target_shares"], shares, strict=False)):
            name = self._classes[place] if place < len(self._classes) else f"class {place}"
            if was >= _THERE and now < _VANISHED * was:
                found[f"vanished {name}"] = (
                    f"{name} vanishes: {100 * now:.1f} % of the target's pixels, {100 * was:.1f} % at first: {advice}"
                )
        before, entropy = float(self._first["target_entropy"]), float(row["target_entropy"])
        if entropy < (1.0 - _ENTROPY_LOST) * before:
            found["few-classes"] = (
                f"the entropy of the mean prediction fell from {before:.2f} to {entropy:.2f}: the network says fewer"
                f" classes, or is only surer of them: {advice}"
            )
        return found
