"""Masked consistency: the target's pseudo labels, learned from pictures of which most is hidden."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.context import StageContext, StepContext
from rtda_training.adapt.mixers.appearance import AppearanceConfig, changed
from rtda_training.adapt.objectives.pseudo import LabelledTerm, LabelledTermConfig
from rtda_training.adapt.slots import component, number

__all__ = ["Masked", "MaskedConfig"]

_BLOCK = 64  # pixels; MIC's, for crops of 512 pixels and more
_LEAST_BLOCKS = 8  # along the shorter side: what MIC's block is of its smallest crop


@dataclasses.dataclass(frozen=True)
class MaskedConfig(LabelledTermConfig, AppearanceConfig):
    """The numbers are MIC's; colours and sharpness of the pictures change as in DACS before they are masked.

    Attributes:
        block: Side of a block in input pixels; 0: 64, or an eighth of the input's shorter side where that is less.
        ratio: Share of the blocks that is hidden, on average.
    """

    block: int = number(0, 0, 4096)
    ratio: float = number(0.7, 0.0, 1.0)


@component("objectives", "masked", MaskedConfig)
class Masked(LabelledTerm):
    """The network must give a target picture its pseudo labels everywhere, though it sees a few blocks of it only.

    The pseudo labels are those of the whole picture, as it was. A hidden pixel has the value 0
    after normalisation, the mean colour. Running statistics of batch norms do not take in these pictures, which the
    deployed network never meets.

    Attributes:
        block: Side of a block, pixels.

    Source: Hoyer et al., MIC (CVPR 2023), section 3.
    """

    def __init__(self, config: MaskedConfig, stage: StageContext) -> None:
        super().__init__(config, stage)
        height, width = stage.size_hw
        shorter = min(height, width)
        if config.block > shorter:
            raise ConfigError(
                f"masked.block {config.block} is larger than the network's input, {width}x{height}",
                hint="set masked.block to 0: it then follows the input's size",
            )
        self.block = config.block or max(1, min(_BLOCK, shorter // _LEAST_BLOCKS))
        self._config = config
        self._network = stage.network

    def network_loss(self, context: StepContext) -> Tensor:
        labels = context.pseudo_labels()
        with _forgetful(self._network):
            output = context.output_of("masked", self._pictures(context))
        return self._cross_entropy(output, labels, context)

    def _pictures(self, context: StepContext) -> Tensor:
        frames = context.target_frames
        assert frames is not None
        generators = [context.rng("masked", place) for place in range(len(frames))]
        size_hw = (frames.shape[1], frames.shape[2])
        visible = np.stack([_visible(size_hw, self.block, self._config.ratio, rng) for rng in generators])
        mask = torch.from_numpy(visible).to(frames.device)  # bool (N, H, W)
        return context.normalise(changed(frames, self._config, generators)) * mask[:, None]


def _visible(size_hw: tuple[int, int], block: int, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """bool (H, W), false in each block with the probability ``ratio``; blocks at the far edges may be cut."""
    height, width = size_hw
    grid = rng.random((-(-height // block), -(-width // block))) >= ratio
    return np.asarray(grid.repeat(block, axis=0).repeat(block, axis=1)[:height, :width])


@contextlib.contextmanager
def _forgetful(network: nn.Module) -> Iterator[None]:
    """Batch norms that normalise by what they see and keep no memory of it."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
