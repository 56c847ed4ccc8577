"""Scoring a network while it trains. ``rtda-deploy eval`` scores files with the runtime's own code."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as functional

from rtda_training.data.batches import normalise
from rtda_training.metrics import ConfusionMatrix, Scores
from rtda_training.models import SegmentationNetwork
from rtda_training.plan import InputConfig
from rtda_training.readers import LabelledSet

__all__ = ["validate"]


@torch.no_grad()
def validate(
    model: SegmentationNetwork,
    data: LabelledSet,
    size_hw: tuple[int, int],
    contract: InputConfig,
    *,
    max_pictures: int = 0,
    confusion: ConfusionMatrix | None = None,
    stop: Callable[[], bool] | None = None,
) -> Scores | None:
    """IoU and pixel accuracy at each label's own size, logits upsampled bilinearly (``align_corners=False``).

    Args:
        model: Put into evaluation mode for the time and back.
        data: Pictures and labels.
        size_hw: Input size of the network; pictures are stretched to it.
        contract: How pixels become its input.
        max_pictures: Spread evenly over the set; 0: all.
        confusion: Counted into where given, for those who want more than scores.
        stop: Looked at before each picture; where it says so, the validation is given up.

    Returns:
        The scores; None where it was given up.
    """
    device = next(model.parameters()).device
    modes = [(module, module.training) for module in model.modules()]  # fixed batch norms are not as the rest
    model.eval()
    confusion = ConfusionMatrix(model.num_classes) if confusion is None else confusion
    count = min(len(data), max_pictures or len(data))
    stopped = False
    for index in np.linspace(0, len(data) - 1, count).round().astype(int):
        stopped = stop is not None and stop()
        if stopped:
            break
        frame = torch.from_numpy(data.frame(int(index))).to(device)
        label = data.label(int(index))
        pictures = normalise(frame[None], contract)
        if tuple(pictures.shape[2:]) != size_hw:
            pictures = functional.interpolate(pictures, size=size_hw, mode="bilinear", align_corners=False)
        logits = model(pictures).coarse
        full = functional.interpolate(logits, size=label.shape, mode="bilinear", align_corners=False)
        confusion.add(label, full.argmax(dim=1)[0].to(torch.uint8).cpu().numpy())
    for module, mode in modes:
        module.training = mode
    return None if stopped else confusion.scores(data.classes.names)
