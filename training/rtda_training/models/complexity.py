"""How large and how costly a network is, counted without computing anything.

A count means little without its convention, and the papers use four. Ours is multiply-adds of convolutions for ONE
picture. ``count_operations`` gives the other terms too, from which tests/training/models/test_complexity.py rebuilds
every published figure.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rtda_deploy.errors import ModelError
from rtda_training.models.blocks import HasPooled, Reparameterised, fuse_paths
from rtda_training.models.network import SegmentationNetwork

__all__ = ["OperationCount", "count_macs", "count_operations", "count_parameters"]


@dataclass
class OperationCount:
    """Operations for one picture.

    Attributes:
        macs: Multiply-adds of convolutions over maps, without bias.
        pooled_macs: The same of 1x1 convolutions on globally pooled maps; not in ``macs``.
        biases: Additions of convolution biases, one per output value.
        leaky_relus: Values that pass a LeakyReLU.
        upsampled: Values an ``nn.Upsample`` gives; upsampling by a plain function is not seen.
    """

    macs: int = 0
    pooled_macs: int = 0
    biases: int = 0
    leaky_relus: int = 0
    upsampled: int = 0


def count_parameters(module: nn.Module, *, training: bool = False) -> int:
    """Trainable or not, the number of weights of ``module``, whatever its mode.

    Args:
        module: Any network.
        training: Whether to count a segmentation network as it learns: with its auxiliary heads, its blocks not fused.
            Papers print the count at inference. Other modules are counted whole either way.
    """
    if isinstance(module, SegmentationNetwork) and not training and _fusable(module):
        module = _ghost(module)
        fuse_paths(module)
    total = sum(parameter.numel() for parameter in module.parameters())
    if isinstance(module, SegmentationNetwork) and not training:
        total -= sum(parameter.numel() for parameter in module.aux_heads.parameters())
    return total


def count_macs(module: nn.Module, size_hw: tuple[int, int]) -> int:
    """Multiply-adds of convolutions for one picture; no bias, no upsampling.

    A ``BiSeNet`` is counted at inference in its published order (for ``rtda`` the last 1x1 convolution at full
    resolution) and without its 1x1 convolutions on globally pooled maps (0.3 M and 5.2 M, see ``pooled_macs``):
    25.63 G (ResNet-18) and 91.40 G (ResNet-101) at 512x1024, 29.58 G for ``paper``. Count ``model.deploy_view()``
    for what really runs: 0.19 G less.

    Args:
        module: A network of one input whose first convolution tells the input's channels.
        size_hw: Height and width of that input.
    """
    return count_operations(module, size_hw).macs


def count_operations(module: nn.Module, size_hw: tuple[int, int]) -> OperationCount:
    """Count every term for one picture, by running a weightless copy on the meta device; blocks are fused."""
    ghost = _ghost(module)
    fuse_paths(ghost)
    pooled = {id(layer) for part in ghost.modules() if isinstance(part, HasPooled) for layer in part.pooled()}
    count = OperationCount()
    for child in ghost.modules():
        if isinstance(child, nn.Conv2d | nn.ConvTranspose2d):
            term = "pooled_macs" if id(child) in pooled else "macs"
            child.register_forward_hook(partial(_count_convolution, count, term))
        elif isinstance(child, nn.LeakyReLU):
            child.register_forward_hook(partial(_count_values, count, "leaky_relus"))
        elif isinstance(child, nn.Upsample):
            child.register_forward_hook(partial(_count_values, count, "upsampled"))
    picture = torch.empty((1, _in_channels(ghost), *size_hw), device="meta")
    with torch.no_grad():
        if isinstance(ghost, SegmentationNetwork):
            ghost.published_logits(picture)
        else:
            ghost(picture)
    return count


def _fusable(module: nn.Module) -> bool:
    return any(isinstance(part, Reparameterised) for part in module.modules())


def _ghost(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode with shapes only: deepcopy finds every tensor already "copied" to the meta device."""
    tensors = [*module.parameters(), *module.buffers()]
    memo: dict[int, Any] = {}
    for tensor in tensors:
        shell = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(shell) if isinstance(tensor, nn.Parameter) else shell
    ghost: nn.Module = copy.deepcopy(module, memo)
    return ghost.eval()


def _in_channels(module: nn.Module) -> int:
    for child in module.modules():
        if isinstance(child, nn.Conv2d | nn.ConvTranspose2d):
            return child.in_channels
    raise ModelError(f"{type(module).__name__} has no convolution to count", hint="count the network it is a part of")


def _count_convolution(
    count: OperationCount,
    term: str,
    module: nn.Conv2d | nn.ConvTranspose2d,
    inputs: tuple[Tensor, ...],
    output: Tensor,
) -> None:
    # One multiply-add per weight and place; a transposed convolution places its kernel on the input instead.
    places = (inputs[0] if isinstance(module, nn.ConvTranspose2d) else output)[0, 0].numel()
    setattr(count, term, getattr(count, term) + module.weight.numel() * places)
    if module.bias is not None:
        count.biases += output.numel()


def _count_values(
    count: OperationCount, term: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
) -> None:
    setattr(count, term, getattr(count, term) + output.numel())
