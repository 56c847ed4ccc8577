"""What enters the batch norms of a run's networks on source pictures, measured when its training has ended.

``adapt`` has no source pictures: with these figures in the checkpoint it can shift batch norms by what differs between
its footage and them.
"""

from __future__ import annotations

import dataclasses
import itertools
from functools import partial
from pathlib import Path

import torch

from rtda_deploy.errors import CheckpointError
from rtda_training.checkpoint import Checkpoint, model_from_checkpoint, read_checkpoint, write_checkpoint
from rtda_training.data.batches import normalise
from rtda_training.judge.norms import norms_kept
from rtda_training.plan import PlanConfig
from rtda_training.readers import UnlabelledSet
from rtda_training.stages.base import norm_batches
from rtda_training.stages.norm_shift import NormInputs, norm_inputs

__all__ = ["add_source_norms", "source_norms"]

_PICTURES = 100


def source_norms(checkpoint: Checkpoint, source: UnlabelledSet, plan: PlanConfig, device: torch.device) -> NormInputs:
    """What enters a network's batch norms on about a hundred source pictures, scaled and not augmented."""
    network = model_from_checkpoint(checkpoint).to(device)
    batches = norm_batches(source, plan, partial(normalise, contract=plan.input), device)
    return norm_inputs(network, itertools.islice(batches, max(1, _PICTURES // max(2, plan.batch_size))))


def add_source_norms(plan: PlanConfig, folder: Path, source: UnlabelledSet, device: torch.device) -> None:
    """Give ``last.pth`` and ``best.pth`` of a finished run the figures that they lack.

    Networks whose batch norms were trained do without: their statistics are the source's.
    """
    for name in ("last.pth", "best.pth"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            checkpoint = read_checkpoint(path)
            if checkpoint.norm_inputs or not norms_kept(checkpoint.spec.provenance):
                continue
            found = source_norms(checkpoint, source, plan, device)
        except CheckpointError:  # it diverged, which its card's note says
            continue
        if found and all(bool(torch.isfinite(value).all()) for value in found.values()):
            write_checkpoint(path, dataclasses.replace(checkpoint, norm_inputs=found))
