"""How many steps fit into so many minutes, by timing a few."""

from __future__ import annotations

import time

import torch
from lightning_fabric import Fabric

from rtda_training.models import SegmentationNetwork

__all__ = ["seconds_per_step", "steps_in"]

_TIMED = 3  # steps, after one that is not counted
_LEAST_STEPS = 2  # one a stage


@torch.enable_grad()
def seconds_per_step(network: SegmentationNetwork, size_hw: tuple[int, int], batch_size: int, fabric: Fabric) -> float:
    """About what a step of the recipe ``adapt`` takes: a labelling forward, a forward and a backward.

    Args:
        network: A copy that may be changed, on the device.
        size_hw: Of its input.
        batch_size: Pictures of a step.
        fabric: Device and precision.
    """
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    pictures = torch.zeros((batch_size, 3, *size_hw), device=fabric.device).contiguous(
        memory_format=torch.channels_last
    )
    began = 0.0
    for step in range(_TIMED + 1):
        if step == 1:
            began = time.perf_counter()
        with fabric.autocast():
            with torch.no_grad():
                network(pictures)
            output = network(pictures)
            loss = sum(logits.float().square().mean() for logits in (output.logits, *output.aux))
        loss.backward()
        network.zero_grad(set_to_none=True)
    if fabric.device.type == "cuda":
        torch.cuda.synchronize(fabric.device)
    return (time.perf_counter() - began) / _TIMED


def steps_in(minutes: float, each_s: float) -> int:
    """Steps that take so long, at least one a stage."""
    return max(_LEAST_STEPS, int(60.0 * minutes / each_s))
