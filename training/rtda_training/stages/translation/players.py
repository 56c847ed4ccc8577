"""The players of a translation stage: two generators, and two discriminators of real and translated pictures."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from rtda_training.models.cyclegan import Generator, PatchDiscriminator

__all__ = ["Discriminators", "Generators", "Translated"]


class Translated(NamedTuple):
    """What both generators make of a source and a target batch; all float32 (N, 3, H, W) in -1..1."""

    target: Tensor  # of the source batch
    source: Tensor  # of the target batch
    source_again: Tensor
    target_again: Tensor
    source_kept: Tensor  # source by the generator of source pictures; a copy of the batch where nobody asks
    target_kept: Tensor


class Generators(nn.Module):
    """Both generators as one module: one forward a step, as several processes need it."""

    def __init__(self, width: int, blocks: int, *, keeps: bool) -> None:
        super().__init__()
        self.to_target = Generator(width, blocks)
        self.to_source = Generator(width, blocks)
        self._keeps = keeps

    def forward(self, source: Tensor, target: Tensor) -> Translated:
        made_target = self.to_target(source)
        made_source = self.to_source(target)
        source_again = self.to_source(made_target)
        target_again = self.to_target(made_source)
        source_kept = self.to_source(source) if self._keeps else source
        target_kept = self.to_target(target) if self._keeps else target
        return Translated(made_target, made_source, source_again, target_again, source_kept, target_kept)


class Discriminators(nn.Module):
    """Both discriminators as one module, one forward a step; scores of real and made pictures of each domain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_source = PatchDiscriminator(width)
        self.of_target = PatchDiscriminator(width)

    def forward(
        self, source: Tensor, made_source: Tensor, target: Tensor, made_target: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return (
            self.of_source(source),
            self.of_source(made_source),
            self.of_target(target),
            self.of_target(made_target),
        )
