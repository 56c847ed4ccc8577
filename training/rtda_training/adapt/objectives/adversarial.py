"""RTDA's adversary on the network's softmax maps."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rtda_training.adapt.components import DomainsObjective
from rtda_training.adapt.context import StageContext, StepContext
from rtda_training.adapt.losses import SOURCE, TARGET, domain_loss
from rtda_training.adapt.slots import choice, component, number
from rtda_training.models import DISCRIMINATORS, build_discriminator

__all__ = ["Adversarial", "AdversarialConfig", "frozen", "standardised"]


@dataclasses.dataclass(frozen=True)
class AdversarialConfig:
    """The adversary. RTDA's text has weight 0.01 and rate 1e-5, its code 0.001 and 1e-4 times the batch size.

    Attributes:
        discriminator: Its layers.
        bias: Whether its convolutions have biases.
        init: Its first weights. ``torch``: PyTorch's own, as in the papers' code; each layer then passes on a third of
            its input's variance or less, so that six separable ones see next to nothing at first. ``he`` passes all on.
        sees: ``softmax`` maps, as in the papers, or each picture's ``logits`` with mean 0 and deviation 1, which also
            tell regions apart that the network is sure of.
        weight: Of what the network is told.
        learning_rate: Of the discriminator.
        start_step: The first step at which the network is told anything; the discriminator learns before.
        gan: Its loss: binary cross-entropy, or least squares.
    """

    discriminator: str = choice("light-thin", *(name for name in DISCRIMINATORS if name != "light-thin"))
    bias: bool = True
    init: str = choice("torch", "he")
    sees: str = choice("softmax", "logits")
    weight: float = number(0.001, 0.0, 10.0)
    learning_rate: float = number(1e-4, 0.0, 1.0)
    start_step: int = number(0, 0, 1e9)
    gan: str = choice("bce", "ls")


@component("objectives", "adversarial", AdversarialConfig)
class Adversarial(DomainsObjective):
    """A discriminator tells the domains apart by their softmax maps, the network makes it fail.

    The network's term asks the discriminator, frozen, to take target maps for source ones. The discriminator then
    learns from both maps, detached, each half of its loss.

    Attributes:
        discriminator: As built; it is trained through Fabric's wrapper of it.

    Source: Tavera et al., RTDA, section III; step order of Tsai et al., AdaptSegNet (CVPR 2018).
    """

    log_name = "adv"

    def __init__(self, config: AdversarialConfig, stage: StageContext) -> None:
        module = build_discriminator(config.discriminator, stage.num_classes, bias=config.bias, init=config.init)
        optimizer = torch.optim.Adam(module.parameters(), lr=config.learning_rate, betas=(0.9, 0.99))
        self._config = config
        self._fabric = stage.fabric
        self.discriminator: nn.Module = module
        self._wrapped, self._optimizer = stage.fabric.setup(module, optimizer)

    def view(self, logits: Tensor) -> Tensor:
        """What the discriminator is shown: float32 (N, C, H, W) of the network's logits."""
        if self._config.sees == "logits":
            return standardised(logits)
        return torch.softmax(logits.float(), dim=1)

    def network_loss(self, context: StepContext) -> Tensor:
        if context.step < self._config.start_step:
            context.target_output()  # its batch norms see the target from the first step on
            return torch.zeros((), device=context.source_frames.device, requires_grad=True)
        # Past the wrapper of several processes: nothing of the discriminator is to be synchronised here.
        with frozen(self.discriminator), self._fabric.autocast():
            logits = self.discriminator(self.view(context.target_output().logits))
        return self._config.weight * domain_loss(logits, SOURCE, self._config.gan)

    def play(self, context: StepContext, learning_rate_factor: float) -> dict[str, Any]:
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * learning_rate_factor
        self._optimizer.zero_grad()
        source = self._wrapped(self.view(context.source_output().logits.detach()))
        target = self._wrapped(self.view(context.target_output().logits.detach()))
        loss = 0.5 * (domain_loss(source, SOURCE, self._config.gan) + domain_loss(target, TARGET, self._config.gan))
        self._fabric.backward(loss)
        self._optimizer.step()
        middle = 0.5 if self._config.gan == "ls" else 0.0
        right = 0.5 * ((source < middle).float().mean() + (target >= middle).float().mean())
        return {"disc": loss.detach(), "disc_right": right}

    def state_dict(self) -> dict[str, Any]:
        return {"discriminator": self.discriminator.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.discriminator.load_state_dict(state["discriminator"])
        self._optimizer.load_state_dict(state["optimizer"])


def standardised(logits: Tensor) -> Tensor:
    """Logits of each picture with mean 0 and deviation 1 over its classes and places: float32 (N, C, H, W).

    The scale is a number, not a path for gradients: the network cannot fool anyone by shrinking its logits.
    """
    logits = logits.float()
    mean = logits.detach().mean(dim=(1, 2, 3), keepdim=True)
    deviation = logits.detach().std(dim=(1, 2, 3), keepdim=True)
    return (logits - mean) / deviation.clamp_min(1e-6)


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Keep a module's parameters out of the graph; gradients still pass through it to its input."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
