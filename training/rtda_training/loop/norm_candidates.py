"""Networks that differ from one in their batch norms alone, as candidates.

Without labels nothing tells for sure which of them suits a target (docs/results/adapt.md); five labelled frames do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from rtda_training.checkpoint import Checkpoint, model_from_checkpoint
from rtda_training.loop.choosing import Contender
from rtda_training.stages.norm_shift import NormInputs, shifted_statistics
from rtda_training.stages.segmentation import reestimate

__all__ = ["MIXES", "SHIFTS", "norm_mixes", "norm_shifts", "other_norms"]

MIXES = (0.25, 0.5, 0.75, 1.0)  # shares of the target in mixed batch-norm statistics
SHIFTS = (0.5, 1.0)  # of the way from the source to the target

Opened = Callable[[], Checkpoint]
Batches = Callable[[], Iterable[Tensor]]


def other_norms(
    base: Opened,
    batches: Batches,
    device: torch.device,
    source: Callable[[Checkpoint], NormInputs] | None = None,
    *,
    shares: Sequence[float] = MIXES,
) -> list[Contender]:
    """One network with other batch norms: mixed ones, and where ``source`` is given shifted ones.

    Shifted ones are the best on some pairs and far behind on others: they are for labels to choose among.
    """
    found = norm_mixes(base, batches, device, shares=shares)
    return found if source is None else [*found, *norm_shifts(base, source, batches, device)]


def norm_mixes(
    base: Opened, batches: Batches, device: torch.device, *, shares: Sequence[float] = MIXES
) -> list[Contender]:
    """One network with its batch norms mixed with the statistics of other pictures, a contender for each share.

    The statistics are measured once, when the first of them is looked at; a network without batch norms gives none
    that differs.

    Args:
        base: Gives the network, with the statistics of its training.
        batches: Gives float32 (N, 3, H, W) normalised pictures on the device, N at least 2.
        device: Where it is run.
        shares: Of the other pictures' statistics, 0..1.

    Source: alpha-BN (You et al., arXiv 2110.04065), section 3.
    """

    def measure(checkpoint: Checkpoint) -> dict[str, Tensor]:
        network = model_from_checkpoint(checkpoint).to(device)
        reestimate(network, batches())
        return {key: value.cpu() for key, value in network.named_buffers() if "running_" in key}

    return _moved("batch norms {:.0f} % target", "batch_norms_of_target", base, measure, shares)


def norm_shifts(
    base: Opened,
    source: Callable[[Checkpoint], NormInputs],
    batches: Batches,
    device: torch.device,
) -> list[Contender]:
    """One network with its batch norms shifted by target less source, once for each of ``SHIFTS``.

    Args:
        base: Gives the network, with the statistics of its training.
        source: What enters the batch norms of that network on source pictures.
        batches: Gives float32 (N, 3, H, W) normalised target pictures on the device, N at least 2.
        device: Where it is run.
    """

    def measure(checkpoint: Checkpoint) -> dict[str, Tensor]:
        network = model_from_checkpoint(checkpoint).to(device)
        return shifted_statistics(network, source(checkpoint), batches())

    return _moved("batch norms shifted {:.0f} %", "batch_norms_shifted", base, measure, SHIFTS)


def _moved(
    name: str, key: str, base: Opened, measure: Callable[[Checkpoint], Mapping[str, Tensor]], shares: Sequence[float]
) -> list[Contender]:
    """Contenders on the way from the statistics of a network to others; ``key``: what says so in their provenance."""
    measured: list[Mapping[str, Tensor]] = []  # one, once it is there: a network without norms gives none

    def moved(share: float) -> Checkpoint:
        checkpoint = base()
        if not measured:
            measured.append(measure(checkpoint))
        weights = dict(checkpoint.weights)
        weights.update((key, weights[key].to(value.dtype).lerp(value, share)) for key, value in measured[0].items())
        provenance = {name: value for name, value in checkpoint.spec.provenance.items() if name != "metrics"}
        return Checkpoint(checkpoint.spec.replace(provenance={**provenance, key: share}), weights)

    def contender(share: float) -> Contender:
        return Contender(name.format(100 * share), lambda: moved(share))

    return [contender(share) for share in shares]
