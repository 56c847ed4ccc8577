"""What a training saves in its folder: checkpoints, and the pictures that its export is verified on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rtda_deploy.files import writable_folder
from rtda_deploy.spec import ModelSpec
from rtda_training.checkpoint import Checkpoint, write_checkpoint
from rtda_training.data.labels.files import write_png
from rtda_training.loop.validate import usable_frame
from rtda_training.models import SegmentationNetwork
from rtda_training.plan import PlanConfig
from rtda_training.readers import UnlabelledSet
from rtda_training.stages import StageRun

__all__ = ["CANDIDATES", "RunCheckpoints", "candidate_file", "candidate_files", "save_verify_pictures", "stage_file"]

_VERIFY_PICTURES = 8
CANDIDATES = {
    "student": "student of {}",
    "teacher": "teacher of {}",
    "unmixed": "{} before its batch norms were replaced",
}  # by what a stage calls them: what people read, with the stage's name


def stage_file(folder: Path, name: str) -> Path:
    """The checkpoint that a finished stage leaves in the run's folder for later ones."""
    return folder / f"stage-{name}.pth"


def candidate_file(folder: Path, stage: str, what: str) -> Path:
    """A network that a stage made and did not leave, kept for the ranking of the run's networks: one of CANDIDATES."""
    return folder / f"candidate-{stage}-{what}.pth"


def candidate_files(folder: Path, stage: str) -> list[Path]:
    """All that a stage kept."""
    return [path for path in (candidate_file(folder, stage, what) for what in CANDIDATES) if path.is_file()]


class RunCheckpoints:
    """Writes the checkpoints of a run.

    Args:
        plan: What is trained.
        folder: The run's.
        model: The network, not wrapped.
        spec: Its contract; the score is added to its provenance.
        writes: False in all processes but the first, where nothing is written.

    Attributes:
        best: ``miou`` (0..1) and ``at`` of the best validation so far.
        trained: Whether anything was written that holds more than the start.
    """

    def __init__(
        self, plan: PlanConfig, folder: Path, model: SegmentationNetwork, spec: ModelSpec, *, writes: bool
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._model = model
        self._spec = spec
        self._writes = writes
        self.best: dict[str, Any] = {"miou": -1.0, "at": ""}
        self.trained = True

    def save_state(self, stage_index: int, step: int, done: bool, miou: float, run: StageRun) -> None:
        """Write ``last.pth``, from which the run is resumed bit by bit on a CPU.

        Args:
            stage_index: Place of the stage in the plan.
            step: Steps of it that are done.
            done: Whether they are all.
            miou: Of the last validation, 0..1; NaN before the first.
            run: The stage.
        """
        if not self._writes:
            return
        state = {
            "plan": self._plan.to_dict(),
            "stage_index": stage_index,
            "step": step,
            "done": done,
            "best": self.best,
            "last_miou": miou,
            "run": run.state_dict(),
            "torch_rng": torch.get_rng_state(),
        }
        metrics = {} if math.isnan(miou) else {"miou": miou}
        self._save(self._folder / "last.pth", self._plan.stages[stage_index].name, metrics, state)

    def save_start(self, miou: float, run: StageRun) -> None:
        """Write ``last.pth`` before the first step: a run killed before its next save goes on from here."""
        self.save_state(0, 0, False, miou, run)
        self.trained = not self._writes

    def remove_start(self) -> None:
        """Remove ``last.pth`` if nothing was trained, so that another training may take the folder."""
        if not self.trained:
            (self._folder / "last.pth").unlink(missing_ok=True)

    def keep_best(self, miou: float, stage: str, step: int) -> None:
        """Write ``best.pth`` if no validation was as good."""
        if miou > float(self.best["miou"]) and self._writes:
            self.best = {"miou": miou, "at": f"{stage} @{step}"}
            self._save(self._folder / "best.pth", stage, self.best)

    def save_stage(self, name: str, miou: float) -> None:
        """Write the network that a finished stage leaves."""
        if self._writes:
            self._save(stage_file(self._folder, name), name, {"miou": miou})

    def save_candidate(self, stage: str, what: str, network: nn.Module) -> None:
        """Write a network that a stage made and does not leave, where the run's networks are ranked at its end."""
        if self._writes and self._plan.ranks:
            spec = self._spec_after(stage)
            write_checkpoint(candidate_file(self._folder, stage, what), Checkpoint(spec, _weights(network)))

    def _save(self, path: Path, stage: str, metrics: Mapping[str, Any], state: Mapping[str, Any] | None = None) -> None:
        self.trained = True
        spec, validation = self._spec_after(stage), self._plan.validation
        scored = {"metrics": {"data": f"{validation} (val)", **metrics}} if validation else {}
        spec = spec.replace(provenance={**spec.provenance, **scored})
        write_checkpoint(path, Checkpoint(spec, _weights(self._model), state or {}))

    def _spec_after(self, stage: str) -> ModelSpec:
        """The contract of the network that a stage makes, with what was done to its batch norms."""
        provenance = dict(self._spec.provenance)
        norms = _norms_after(self._plan, stage, provenance.pop("batch_norm", None))
        return self._spec.replace(provenance={**provenance, **({"batch_norm": norms} if norms else {})})


def _norms_after(plan: PlanConfig, name: str, begun: str | None) -> str | None:
    """``batch_norm`` of a stage; of one that leaves batch norms alone, that of what it starts from.

    Args:
        plan: With the stage.
        name: The stage's.
        begun: Of what the plan starts from; None: not known.
    """
    place = [stage.name for stage in plan.stages].index(name)
    stage = plan.stages[place]
    if stage.kind == "segmentation" and stage.batch_norm != "fixed":
        return stage.batch_norm
    if stage.start == "scratch" or (stage.start == "previous" and place == 0):
        return begun
    return _norms_after(plan, plan.stages[place - 1].name if stage.start == "previous" else stage.start, begun)


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().cpu() for key, value in network.state_dict().items()}


def save_verify_pictures(folder: Path, pictures: UnlabelledSet) -> None:
    """Keep eight pictures, spread over the set, as ``verify/0.png`` and so on; those that are there stay.

    Raises:
        DataError: If too many pictures in a row cannot be read.
        FileAccessError: If one cannot be written.
    """
    folder = writable_folder(folder / "verify")
    count = len(pictures)
    for place in range(min(_VERIFY_PICTURES, count)):
        path = folder / f"{place}.png"
        if path.exists():
            continue
        index = place * count // _VERIFY_PICTURES if count >= _VERIFY_PICTURES else place
        write_png(path, usable_frame(pictures, index))
