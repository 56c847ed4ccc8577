"""Objectives: terms of the network's loss. Each reads the step's shared outputs and gives one scalar.

An objective may own a player of its own, such as a discriminator; the trainer then calls ``play`` after the network's
step. Adding one means a class here or in a file beside this one, its entry in ``OBJECTIVES``, and its
name in ``plan.StageConfig``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from rtda_training.adapt.context import StepContext
from rtda_training.losses import SOURCE, TARGET, domain_loss, pixel_cross_entropy
from rtda_training.models import build_discriminator
from rtda_training.plan import AdversarialConfig, StageConfig

__all__ = ["Adversarial", "Objective", "Supervised", "build_objectives"]


class Objective(Protocol):
    """One term of the loss."""

    name: str
    needs_target: bool

    def network_loss(self, context: StepContext) -> Tensor:
        """Scalar, weighted, with its graph; called with the objective's own players frozen."""
        ...

    def play(self, context: StepContext, learning_rate_factor: float) -> dict[str, float]:
        """Train the objective's own players on this step's outputs, detached; gives what to log."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on; plain tensors and containers."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict()``."""
        ...


class Supervised:
    """Cross-entropy on the labelled domain, summed over the main and the auxiliary heads with weight 1 each.

    Source: Yu et al., BiSeNet (ECCV 2018), section 3.3; RTDA, section IV.
    """

    name = "seg"
    needs_target = False

    def network_loss(self, context: StepContext) -> Tensor:
        output = context.source_output()
        heads = (output.logits, *output.aux)
        return torch.stack([pixel_cross_entropy(logits, context.label) for logits in heads]).sum()

    def play(self, context: StepContext, learning_rate_factor: float) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class Adversarial:
    """RTDA's adversary: a discriminator tells the domains apart by their softmax maps, the network makes it fail.

    The network's term asks the discriminator, frozen, to take target maps for source ones. The discriminator then
    learns from both maps, detached, each half of its loss.

    Source: Tavera et al., RTDA, section III; step order of Tsai et al., AdaptSegNet (CVPR 2018).
    """

    name = "adv"
    needs_target = True

    def __init__(self, config: AdversarialConfig, num_classes: int, fabric: Fabric) -> None:
        module = build_discriminator(config.discriminator, num_classes, bias=config.bias)
        optimizer = torch.optim.Adam(module.parameters(), lr=config.learning_rate, betas=(0.9, 0.99))
        self._config = config
        self._fabric = fabric
        self._discriminator, self._optimizer = fabric.setup(module, optimizer)

    def network_loss(self, context: StepContext) -> Tensor:
        with _frozen(self._discriminator):
            logits = self._discriminator(_softmax(context.target_output().logits))
        return self._config.weight * domain_loss(logits, SOURCE)

    def play(self, context: StepContext, learning_rate_factor: float) -> dict[str, float]:
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * learning_rate_factor
        self._optimizer.zero_grad()
        source = self._discriminator(_softmax(context.source_output().logits.detach()))
        target = self._discriminator(_softmax(context.target_output().logits.detach()))
        loss = 0.5 * (domain_loss(source, SOURCE) + domain_loss(target, TARGET))
        self._fabric.backward(loss)
        self._optimizer.step()
        right = 0.5 * ((source < 0).float().mean() + (target >= 0).float().mean())
        return {"disc": float(loss.detach()), "disc_right": float(right)}

    def state_dict(self) -> dict[str, Any]:
        return {"discriminator": self._discriminator.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._discriminator.load_state_dict(state["discriminator"])
        self._optimizer.load_state_dict(state["optimizer"])


def _adversarial(stage: StageConfig, num_classes: int, fabric: Fabric) -> Objective:
    return Adversarial(stage.adversarial, num_classes, fabric)


def _supervised(stage: StageConfig, num_classes: int, fabric: Fabric) -> Objective:
    return Supervised()


OBJECTIVES: dict[str, Callable[[StageConfig, int, Fabric], Objective]] = {
    "supervised": _supervised,
    "adversarial": _adversarial,
}


def build_objectives(stage: StageConfig, num_classes: int, fabric: Fabric) -> list[Objective]:
    """The objectives a stage names, in its order."""
    return [OBJECTIVES[name](stage, num_classes, fabric) for name in stage.objectives]


def _softmax(logits: Tensor) -> Tensor:
    return torch.softmax(logits.float(), dim=1)


class _frozen:
    """Keep a module's parameters out of the graph; gradients still pass through it to its input."""

    def __init__(self, module: nn.Module) -> None:
        self._parameters = list(module.parameters())

    def __enter__(self) -> None:
        for parameter in self._parameters:
            parameter.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        for parameter in self._parameters:
            parameter.requires_grad_(True)
