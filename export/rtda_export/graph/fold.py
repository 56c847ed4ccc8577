"""Batch norm of a trained network, folded into the convolution before it.

In evaluation mode a batch norm is a scale and a shift per channel; a convolution can do both. ONNX Runtime and TensorRT
would fold by themselves, each in its own rounding: folded here, every backend runs the same weights.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["fold_batchnorms"]


def fold_batchnorms(network: nn.Module, image: Tensor) -> int:
    """Fold every batch norm that alone reads a convolution's output, directly; in place, computed in float64.

    Which one follows which is observed on ``image`` rather than read from names, so any network folds. A convolution
    that runs twice or whose output others read too, or a batch norm that reads something else, stays as it is, which
    is correct and only slower.

    Args:
        network: In evaluation mode; its batch norms become ``nn.Identity``.
        image: float32 input of the size the network takes.

    Returns:
        How many batch norms were folded.
    """
    pairs = _observed_pairs(network, image)
    names = {module: name for name, module in network.named_modules()}
    for conv, norm in pairs:
        fused = fuse_conv_bn_eval(conv.double(), norm.double()).float()
        _replace(network, names[conv], fused)
        _replace(network, names[norm], nn.Identity())
    return len(pairs)


def _observed_pairs(network: nn.Module, image: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # by id; holding the tensor keeps the id its own
    readers = _Readers()
    runs: dict[nn.Module, int] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after_conv(module: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        runs[module] = runs.get(module, 0) + 1
        outputs[id(output)] = (module, output)
        readers.counts[id(output)] = 0  # an earlier tensor may have had its id

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        runs[module] = runs.get(module, 0) + 1
        if id(inputs[0]) in outputs:
            pairs.append((outputs[id(inputs[0])][0], module))

    handles = [m.register_forward_hook(after_conv) for m in network.modules() if isinstance(m, nn.Conv2d)]
    handles += [m.register_forward_pre_hook(before_norm) for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    try:
        with torch.no_grad(), readers:
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    alone = {conv for key, (conv, _) in outputs.items() if readers.counts[key] == 1}
    return [(conv, norm) for conv, norm in pairs if conv in alone and runs[conv] == 1 and runs[norm] == 1]


class _Readers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts, by a tensor's id, how many operators read it; a ReLU in place and what reads its result are two."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        self.counts.update(id(leaf) for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor))
        return func(*args, **(kwargs or {}))


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)
