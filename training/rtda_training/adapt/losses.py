"""Losses of one picture batch: pixel-wise cross-entropy and the domain loss of the adversary."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as functional
from torch import Tensor

from rtda_training.labels import IGNORE_INDEX
from rtda_training.models import SegOutput

__all__ = ["SOURCE", "TARGET", "domain_loss", "heads_cross_entropy", "pixel_cross_entropy"]

_VECTOR = 16  # float32 in a vector of AVX-512
SOURCE, TARGET = 0.0, 1.0  # the adversary's labels, as in RTDA's code (its text has them the other way round)


def pixel_cross_entropy(
    logits: Tensor,
    label: Tensor,
    weight: Tensor | None = None,
    share: Callable[[Tensor], Tensor] | None = None,
    soft: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy over the labelled pixels; 0, with a gradient of 0, where there is none.

    Args:
        logits: float (N, C, H, W); computed in float32 whatever it comes in.
        label: int64 (N, H, W), 255 where not labelled.
        weight: float (N, H, W), factor of each pixel; the mean is still over the number of labelled pixels.
        share: Mean of a tensor over all processes (``StepContext.share``). With it, the average of the processes'
            losses is the loss of one process that has all pictures, however unevenly labelled pixels are spread.
        soft: float (N, C, H, W), the probability of each class, which is learned in place of ``label``; that says then
            only which pixels count.
    """
    if soft is not None:
        weight = (label != IGNORE_INDEX).float() if weight is None else (label != IGNORE_INDEX) * weight
        total = (functional.cross_entropy(logits.float().contiguous(), soft, reduction="none") * weight).sum()
        return total / _count(label, share)
    scores, labels = _for_softmax(logits.float(), label)
    if weight is None:
        total = functional.cross_entropy(scores, labels, ignore_index=IGNORE_INDEX, reduction="sum")
    else:
        each = functional.cross_entropy(scores, labels, ignore_index=IGNORE_INDEX, reduction="none")
        total = (each.reshape(-1) * weight.reshape(-1)).sum()
    return total / _count(label, share)


def _count(label: Tensor, share: Callable[[Tensor], Tensor] | None) -> Tensor:
    """Labelled pixels, the mean over all processes; 1 where there is none."""
    count = (label != IGNORE_INDEX).sum().float()
    if share is not None:
        count = share(count)
    return torch.where(count > 0, count, torch.ones_like(count))


def _for_softmax(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and labels in the order in which softmax is fastest on CPUs.

    One row of C logits per pixel, in channels_last a view, is half as slow as one plane per class for 19 classes, which
    fill a vector of the processor, and five times as slow for 7, which do not.
    """
    if logits.shape[1] < _VECTOR:
        return logits.contiguous(), label
    return logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1]), label.reshape(-1)


def heads_cross_entropy(
    output: SegOutput,
    label: Tensor,
    aux_weight: float,
    weight: Tensor | None = None,
    share: Callable[[Tensor], Tensor] | None = None,
    soft: Tensor | None = None,
) -> Tensor:
    """:func:`pixel_cross_entropy` of the main head and, each with ``aux_weight``, of the auxiliary ones, summed."""
    losses = [pixel_cross_entropy(output.logits, label, weight, share, soft)]
    losses += [aux_weight * pixel_cross_entropy(logits, label, weight, share, soft) for logits in output.aux]
    return torch.stack(losses).sum()


def domain_loss(logits: Tensor, domain: float, gan: str = "bce") -> Tensor:
    """The adversary's logits against one domain everywhere, mean over the map.

    The slides write two channels and a softmax; one logit with a sigmoid is the same model.

    Args:
        logits: float (N, 1, h, w).
        domain: ``SOURCE`` or ``TARGET``.
        gan: ``bce``, binary cross-entropy as in every paper here, or ``ls``, least squares (Mao et al., ICCV 2017).
    """
    logits = logits.float()
    wanted = torch.full_like(logits, domain)
    if gan == "ls":
        return functional.mse_loss(logits, wanted)
    return functional.binary_cross_entropy_with_logits(logits, wanted)
