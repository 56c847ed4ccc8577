"""Alignment of class priors: how often a teacher gives each class is drawn towards the source's shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["ClassPriors"]

_MOMENTUM = 0.99  # of both averages; less in the first steps, so that they start without a bias
_LEAST = 1e-4  # share that a class counts with at least, so that a class that vanished is raised by a finite factor


class ClassPriors:
    """Running shares of the classes: of the source's labels, and of the teacher's answers on the target.

    A teacher that answers ``building`` too often gives it less probability from then on, and others more. It assumes
    that both domains hold the classes in about the same shares; ``power`` below 1 believes that less.

    Args:
        num_classes: C.
        power: Exponent of the ratio of the shares; 1 is the method, 0 changes nothing.

    Attributes:
        source: float32 (C,), sum 1.
        target: float32 (C,), sum 1.

    Source: Berthelot et al., AdaMatch (ICLR 2022), section 3.3; there the source's share is that of the network's own
    answers on it.
    """

    def __init__(self, num_classes: int, power: float = 1.0) -> None:
        self._power = power
        self._seen = 0
        self.source = torch.full((num_classes,), 1.0 / num_classes)
        self.target = torch.full((num_classes,), 1.0 / num_classes)

    def align(self, probabilities: Tensor, label: Tensor, share: Callable[[Tensor], Tensor]) -> Tensor:
        """Count a step, then the probabilities times ``(source / target) ** power``, of sum 1 again.

        Args:
            probabilities: float32 (N, C, H, W), the teacher's on the target, before any alignment.
            label: int64 (N, H, W), the source's; 255 where not labelled.
            share: Mean of a tensor over all processes.
        """
        num_classes, device = self.source.numel(), probabilities.device
        counts = torch.bincount(label[label < num_classes].reshape(-1), minlength=num_classes).float()
        momentum = min(1.0 - 1.0 / (self._seen + 1), _MOMENTUM)
        counts = share(counts)
        if float(counts.sum()) > 0:
            self.source = torch.lerp(counts / counts.sum(), self.source.to(device), momentum)
        self.target = torch.lerp(share(probabilities.mean(dim=(0, 2, 3))), self.target.to(device), momentum)
        self._seen += 1
        ratio = (self.source.to(device).clamp(min=_LEAST) / self.target.clamp(min=_LEAST)) ** self._power
        aligned = probabilities * ratio[None, :, None, None]
        return aligned / aligned.sum(dim=1, keepdim=True)

    def state_dict(self) -> dict[str, Any]:
        """Both averages and how often they were moved."""
        return {"source": self.source, "target": self.target, "seen": self._seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict()``."""
        self.source, self.target, self._seen = state["source"], state["target"], int(state["seen"])
