"""Batch-norm statistics for the domain that is deployed in."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["reestimate"]


@torch.no_grad()
def reestimate(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace the running statistics of every batch norm by their plain average over ``batches``; weights stay.

    A network that saw both domains in turn carries statistics of both; the robot meets only the target. No label is
    needed.

    Args:
        model: Changed in place; left in the mode it was in.
        batches: float32 (N, 3, H, W) normalised target pictures, N at least 2.

    Returns:
        The number of batches averaged.

    Source: AdaBN (Li et al., 2018); cumulative averaging as in UBNA (Klingner et al., arXiv 2011.08502).
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    training = model.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative moving average
    model.train()
    count = 0
    for pictures in batches:
        model(pictures)
        count += 1
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(training)
    return count
