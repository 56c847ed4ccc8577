"""What the backbone's batch norms start from, where a file's statistics are not to be believed.

A file made for inference has its batch norms folded into the convolutions; whoever writes it in the published names
again makes statistics up. In training every batch has its own, so that they do no harm there; but frozen batch norms, a
teacher's and the first validation go by what is stored.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rtda_training.plan import PlanConfig
from rtda_training.readers import LabelledSet
from rtda_training.stages.base import norm_batches
from rtda_training.stages.segmentation import reestimate

__all__ = ["measure_norms"]


def measure_norms(
    backbone: nn.Module, source: LabelledSet, plan: PlanConfig, normalise: Callable[[Tensor], Tensor]
) -> int:
    """Replace the backbone's running statistics by their average over the source's pictures; weights stay.

    The pictures are scaled to the network's input and not augmented. Which ones they are is decided by the seed.

    Args:
        backbone: Changed in place; on the device that it will be trained on.
        source: At least two pictures of it are used.
        plan: Its size, batch size and seed.
        normalise: From float32 (N, H, W, 3) BGR 0..255 to what the network takes.

    Returns:
        The number of pictures; 0 for a backbone without batch norms.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules()):
        return 0
    device = next(backbone.parameters()).device
    batches = norm_batches(source, plan, normalise, device)
    with torch.random.fork_rng(devices=[]):
        return reestimate(backbone, batches) * max(2, plan.batch_size)
