"""Batch norms moved by what differs between two domains: the target's statistics less the source's.

A network whose norms are of neither domain, such as ImageNet's kept as they were, loses something when they are mixed
with the target's: what the target shares with the source goes into them as well. The difference alone leaves a network
as it is where the domains are alike, and needs the source's statistics: a training measures them, and its checkpoints
carry them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["NormInputs", "norm_inputs", "shifted_statistics"]

NormInputs = Mapping[str, Tensor]
"""What enters each batch norm: float32 (2, C), mean and variance of every channel, by the name of its module."""

_MOST = 10.0  # a variance grows or shrinks at most by so much: a channel that is silent in one domain has next to none


class _Sums:
    """Mean and variance of what passes one batch norm, over all batches."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, values: Tensor) -> Tensor:
        """Count one batch; gives its own mean and variance, (2, C)."""
        wide = values.detach().double()
        axes = [axis for axis in range(wide.ndim) if axis != 1]
        count = wide.numel() // wide.shape[1]
        total, squares = wide.sum(dim=axes), (wide * wide).sum(dim=axes)
        self._sum, self._squares = self._sum.to(total.device) + total, self._squares.to(total.device) + squares
        self._count += count
        return _moments(total, squares, count)

    def moments(self) -> Tensor:
        return _moments(self._sum, self._squares, self._count)


def _moments(total: Tensor, squares: Tensor, count: int) -> Tensor:
    mean = total / count
    return torch.stack([mean, (squares / count - mean * mean).clamp(min=0)]).float()


@torch.no_grad()
def norm_inputs(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Measure what enters every batch norm of a network as it is deployed, its norms as they are stored.

    Args:
        model: Left as it was.
        batches: float32 (N, 3, H, W) normalised pictures, such as the source's.

    Returns:
        As :data:`NormInputs`, on the CPU; empty for a network without batch norms that keep statistics, and where there
        is no batch.
    """
    sums: dict[str, _Sums] = {}

    def count(name: str, norm: _BatchNorm, values: Tensor) -> None:
        sums.setdefault(name, _Sums()).add(values)

    _run(model, batches, count)
    return {name: found.moments().cpu() for name, found in sums.items()}


@torch.no_grad()
def shifted_statistics(model: nn.Module, source: NormInputs, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """The running statistics with which target pictures pass a network as the source's do.

    Every mean moves by the target's less the source's, every variance by their ratio (a tenth to ten times). A layer
    sees what the layers before it make of the target when they are moved already, batch by batch.

    Args:
        model: Left as it was.
        source: Of the same network, as :func:`norm_inputs` measures it on the source.
        batches: float32 (N, 3, H, W) normalised target pictures, N at least 2.

    Returns:
        By the names of the buffers, on the CPU: ``NAME.running_mean`` and ``NAME.running_var`` of every batch norm
        that ``source`` has.
    """
    sums: dict[str, _Sums] = {}
    before: dict[str, tuple[Tensor, Tensor]] = {}

    def move(name: str, norm: _BatchNorm, values: Tensor) -> None:
        if name not in source:
            return
        own = before.setdefault(name, (_buffer(norm.running_mean).clone(), _buffer(norm.running_var).clone()))
        batch = sums.setdefault(name, _Sums()).add(values)
        mean, variance = _moved(own, source[name].to(batch.device), batch, norm.eps)
        _buffer(norm.running_mean).copy_(mean)
        _buffer(norm.running_var).copy_(variance)

    norms = dict(_norms(model))
    try:
        _run(model, batches, move)
    finally:
        for name, (mean, variance) in before.items():
            _buffer(norms[name].running_mean).copy_(mean)
            _buffer(norms[name].running_var).copy_(variance)
    found: dict[str, Tensor] = {}
    for name, own in before.items():
        moments = sums[name].moments().to(own[0].device)
        mean, variance = _moved(own, source[name].to(own[0].device), moments, norms[name].eps)
        found[f"{name}.running_mean"], found[f"{name}.running_var"] = mean.cpu(), variance.cpu()
    return found


def _moved(own: tuple[Tensor, Tensor], source: Tensor, target: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    ratio = ((target[1] + eps) / (source[1] + eps)).clamp(1 / _MOST, _MOST)
    return own[0] + target[0] - source[0], own[1] * ratio


def _run(model: nn.Module, batches: Iterable[Tensor], seen: Callable[[str, _BatchNorm, Tensor], None]) -> None:
    """Run batches through a network in evaluation mode; ``seen`` is called before every batch norm."""
    training = model.training
    model.eval()
    with contextlib.ExitStack() as hooks:
        hooks.callback(model.train, training)
        for name, norm in _norms(model):
            handle = norm.register_forward_pre_hook(lambda module, given, name=name: seen(name, module, given[0]))
            hooks.callback(handle.remove)
        for pictures in batches:
            model(pictures)


def _norms(model: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            yield name, module


def _buffer(value: Tensor | None) -> Tensor:
    assert value is not None
    return value
