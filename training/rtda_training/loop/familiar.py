"""Blocks of the calibration card of a network that was just trained: what the shift alarm takes to be familiar.

They are of the robot's own footage where the run saw some, else of the source. Its pictures were chosen to differ or
are in no order, so each is a block by itself: blocks of neighbours, which a robot makes, spread no further.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from rtda_deploy.familiar import MOST_APPEARANCE, MOST_FEATURES, Familiar, cells_step, familiar_from_json, with_familiar
from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint, write_checkpoint
from rtda_training.data.batches import normalise
from rtda_training.data.config import InputConfig
from rtda_training.judge.blocks import familiar_of
from rtda_training.loop.validate import evaluating, spread_places, usable_frame
from rtda_training.models import SegmentationNetwork
from rtda_training.readers import UnlabelledSet

__all__ = ["give_footage", "measure_familiar"]

_PICTURES = 300  # that are looked at, spread over the set


def measure_familiar(
    network: SegmentationNetwork,
    pictures: UnlabelledSet,
    size_hw: tuple[int, int],
    contract: InputConfig,
    *,
    robot: bool,
    most: int = _PICTURES,
) -> Familiar | None:
    """The signals that the network's exported file will give, on pictures; None where these are fewer than ten.

    Args:
        network: Left in the mode it was in.
        pictures: In the order in which they were filmed, if in any.
        size_hw: Of the network's input.
        contract: How pixels become that input.
        robot: Whether it is the robot's own footage.
        most: How many are looked at.
    """
    rows = []
    device = next(network.parameters()).device
    with evaluating(network):
        for index in spread_places(most, len(pictures)):
            frame = np.ascontiguousarray(usable_frame(pictures, index))
            image = normalise(torch.from_numpy(frame).to(device)[None], contract)
            if tuple(image.shape[2:]) != size_hw:
                image = torch.nn.functional.interpolate(image, size=size_hw, mode="bilinear", align_corners=False)
            output = network(image)
            pooled = (
                _pooled(output.features[1], MOST_APPEARANCE),
                _pooled(output.features[3], MOST_FEATURES),
            )
            logits = output.coarse[0].float()
            every = cells_step((logits.shape[1], logits.shape[2]))
            sure = logits[:, ::every, ::every].softmax(dim=0)
            parts = (*pooled, sure.mean(dim=(1, 2)), sure.amax(dim=0).mean()[None])
            rows.append([part.cpu().numpy() for part in parts])
    values = np.stack([np.concatenate(parts) for parts in rows])
    if not np.isfinite(values).all():
        return None  # it diverged, which its maker says
    widths = tuple(len(part) for part in rows[0])
    return familiar_of([values], widths, data=str(pictures.address), robot=robot, frames_per_block=1)


def _pooled(features: torch.Tensor, most: int) -> torch.Tensor:
    """float32 (C,) of a map (1, C, H, W): as ``rtda_export.graph.monitor`` pools it."""
    means = features.float().mean(dim=(2, 3))[0]
    return means[:: -(-len(means) // most)]


def give_footage(path: Path, footage: UnlabelledSet, size_hw: tuple[int, int], contract: InputConfig) -> None:
    """Give a checkpoint the blocks of a robot's footage in the place of others; nothing where it has these already."""
    checkpoint = read_checkpoint(path)
    there = familiar_from_json(checkpoint.card)
    if there is not None and there.robot and there.data == str(footage.address):
        return
    found = measure_familiar(model_from_checkpoint(checkpoint), footage, size_hw, contract, robot=True)
    if found is not None:
        write_checkpoint(path, dataclasses.replace(checkpoint, card=with_familiar(checkpoint.card, found)))
