"""State dicts written down layer by layer, and the layers computed from them with plain functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


class Keys:
    """Writes a state dict layer by layer, with random weights and statistics, in float64."""

    def __init__(self, seed: int = 0) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._random = torch.Generator().manual_seed(seed)

    def conv(self, name: str, i: int, o: int, kernel: int, bias: bool = False, groups: int = 1) -> None:
        spread = (2 / (i // groups * kernel * kernel)) ** 0.5
        self.tensors[f"{name}.weight"] = self.normal(o, i // groups, kernel, kernel) * spread
        if bias:
            self.tensors[f"{name}.bias"] = self.normal(o) * 0.1

    def norm(self, name: str, channels: int) -> None:
        self.tensors[f"{name}.weight"] = 1 + 0.1 * self.normal(channels)
        self.tensors[f"{name}.bias"] = 0.1 * self.normal(channels)
        self.tensors[f"{name}.running_mean"] = 0.1 * self.normal(channels)
        self.tensors[f"{name}.running_var"] = 1 + 0.1 * self.normal(channels).abs()
        self.tensors[f"{name}.num_batches_tracked"] = torch.tensor(5)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._random, dtype=torch.float64)


def plain_conv(tensors: dict[str, Tensor], name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    """Padded so that stride 1 keeps the size."""
    kernel = tensors[f"{name}.weight"]
    return F.conv2d(x, kernel, tensors.get(f"{name}.bias"), stride, kernel.shape[2] // 2, groups=groups)


def plain_norm(tensors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """In evaluation mode."""
    mean, variance, scale, shift = (
        tensors[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return F.batch_norm(x, mean, variance, scale, shift)


def plain_norm_relu_conv(tensors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """A batch norm ``.bn``, a ReLU, a convolution ``.conv``."""
    return plain_conv(tensors, f"{name}.conv", plain_norm(tensors, f"{name}.bn", x).relu())
