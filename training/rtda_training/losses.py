"""Losses of one picture batch: pixel-wise cross-entropy and the domain loss of the adversary."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from rtda_training.labels import IGNORE_INDEX

__all__ = ["SOURCE", "TARGET", "domain_loss", "pixel_cross_entropy"]

SOURCE, TARGET = 0.0, 1.0  # the adversary's labels, as in RTDA's code (its text has them the other way round)


def pixel_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Mean cross-entropy over the labelled pixels; 0, with a gradient of 0, where there is none.

    Args:
        logits: float (N, C, H, W); computed in float32 whatever it comes in.
        label: int64 (N, H, W), 255 where not labelled.
    """
    # One row of C logits per pixel: in channels_last this is a view, and softmax is 3x faster on CPUs.
    rows = logits.float().permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
    total = functional.cross_entropy(rows, label.reshape(-1), ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (label != IGNORE_INDEX).sum().clamp(min=1)


def domain_loss(logits: Tensor, domain: float) -> Tensor:
    """Binary cross-entropy of the adversary's logits against one domain everywhere, mean over the map.

    The slides write two channels and a softmax; one logit with a sigmoid is the same model.

    Args:
        logits: float (N, 1, h, w).
        domain: ``SOURCE`` or ``TARGET``.
    """
    logits = logits.float()
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, domain))
