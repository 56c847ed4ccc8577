"""What is asked of an adaptation without source pictures, the record of it in its folder, and the plan it becomes."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtda_deploy.errors import CheckpointError, ConfigError
from rtda_deploy.files import sha256_file, write_text
from rtda_deploy.spec import ModelSpec
from rtda_training.models import NETWORKS
from rtda_training.plan import PlanConfig, load_plan
from rtda_training.run_folder import read_record
from rtda_training.toml_file import toml_value

__all__ = [
    "RECIPE",
    "RECORD",
    "AdaptRequest",
    "adapt_plan",
    "read_request",
    "refuse_contradiction",
    "refuse_model",
    "save_request",
]

RECIPE = "adapt"
RECORD = "adapt.json"
_EXPORTED = (".onnx", ".engine", ".plan", ".trt", ".xml")
_FIXED = {
    "source": "there is none here: rtda-deploy train takes one",
    "target": "it is what --footage names",
    "init": "it is the model that is adapted",
    "rank": "all networks are ranked in the end",
}
_SHARE = 0.5  # of the steps that are asked for: the first stage's


@dataclasses.dataclass(frozen=True)
class AdaptRequest:
    """What is adapted, to what, and for how long.

    Attributes:
        model: A ``.pth``.
        footage: Address of pictures without labels.
        check: Address of a few labelled pictures, whose labels choose among the networks; empty: none.
        norms_only: Nothing is trained, also where ``check`` is given.
        steps: Of training in all; 0: the recipe's where ``check`` is given, else none.
        minutes: Of training in about so many; 0: ``steps`` says it.
        max_frames: Of the footage, that networks are ranked on.
        overrides: ``key=value`` texts as typed after ``--set``.
        sha256: Of the model; empty until it is recorded.
    """

    model: str
    footage: str
    check: str = ""
    norms_only: bool = False
    steps: int = 0
    minutes: float = 0.0
    max_frames: int = 100
    overrides: tuple[str, ...] = ()
    sha256: str = ""

    @property
    def trains(self) -> bool:
        """Whether networks are trained: by default only where labelled frames can tell whether that helped."""
        return not self.norms_only and bool(self.check or self.steps or self.minutes)

    def __post_init__(self) -> None:
        if not self.footage:
            raise ConfigError("no footage was named", hint="--footage video:drive.mp4, bag:DIR or folder:DIR")
        if self.steps and self.minutes:
            raise ConfigError("--steps and --minutes both say how long to train", hint="take one of them")
        if self.norms_only and (self.steps or self.minutes):
            raise ConfigError("--norms-only trains nothing", hint="leave --steps and --minutes away")
        for key in (text.partition("=")[0].strip() for text in self.overrides):
            if key in _FIXED:
                raise ConfigError(f"adapt has no setting {key}: {_FIXED[key]}", hint=f"leave --set {key}=... away")
        if self.steps == 1 or self.steps < 0 or self.minutes < 0:
            raise ConfigError("the training has two stages of at least one step", hint="such as --steps 600")


def refuse_model(path: str) -> None:
    """Refuse a file that cannot be trained on.

    Raises:
        ConfigError: With what to give instead.
    """
    if Path(path).suffix.lower() in _EXPORTED:
        raise ConfigError(
            f"{path} cannot be adapted: its batch norms were folded into the convolutions when it was exported",
            hint="give the .pth that it was exported from",
        )


def save_request(request: AdaptRequest, folder: Path) -> AdaptRequest:
    """Write ``adapt.json``; gives the request with the model's hash.

    Raises:
        FileAccessError: If a file cannot be read or written.
    """
    found = dataclasses.replace(request, model=str(Path(request.model).absolute()), sha256=sha256_file(request.model))
    write_text(folder / RECORD, json.dumps(dataclasses.asdict(found), indent=2) + "\n")
    return found


def read_request(folder: Path) -> AdaptRequest:
    """What the run in a folder was asked.

    Raises:
        CheckpointError: If there is no such run, or its model is no longer what it was.
    """
    values: dict[str, Any] = read_record(folder / RECORD, "remove it, and start again")
    known = {field.name for field in dataclasses.fields(AdaptRequest)}
    if not {"model", "footage", "sha256"} <= values.keys() or not values.keys() <= known:
        raise CheckpointError(
            f"there is no adaptation to resume in {folder}", hint="rtda-deploy adapt MODEL --footage DATA"
        )
    found = AdaptRequest(**{**values, "overrides": tuple(values.get("overrides", ()))})
    if sha256_file(found.model) != found.sha256:
        raise CheckpointError(
            f"{found.model} is not the file that was adapted in {folder}",
            hint=f"start again: rtda-deploy adapt {shlex.quote(found.model)} --footage {shlex.quote(found.footage)}",
        )
    return found


def adapt_plan(request: AdaptRequest, spec: ModelSpec, init: Path, steps: int = 0) -> PlanConfig:
    """The plan of the training: the recipe ``adapt`` with the model's own network, size and input.

    Args:
        request: What was asked.
        spec: Of the model.
        init: What the training starts from.
        steps: In all, shared among both stages; 0: those of the recipe.

    Raises:
        ConfigError: If a setting is unknown, or contradicts the model.
    """
    own = [f"size={spec.size_hw[1]}x{spec.size_hw[0]}", *_network(spec), *_input(spec), "rank=false"]
    if steps:
        first = max(1, round(_SHARE * steps))
        own += [f"labels.steps={first}", f"teacher.steps={steps - first}"]
    return load_plan(RECIPE, [*own, *request.overrides], init=str(init), target=request.footage)


def _network(spec: ModelSpec) -> list[str]:
    architecture: Mapping[str, Any] = dict(spec.provenance.get("architecture", {}))
    key = next((key for key, found in NETWORKS.items() if architecture.get("name") == found.NAME), "")
    settings = {
        "network": key,
        **{name: architecture[name] for name in ("backbone", "variant") if name in architecture},
    }
    return [f"{name}={toml_value(str(value))}" for name, value in settings.items()]


def _input(spec: ModelSpec) -> list[str]:
    values = {
        "channel_order": spec.channel_order,
        "pixel_scale": spec.pixel_scale,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "interpolation": spec.interpolation,
    }
    return [f"input.{key}={toml_value(value)}" for key, value in values.items()]


def refuse_contradiction(typed: AdaptRequest, recorded: AdaptRequest, folder: Path) -> None:
    """Refuse what is typed beside a run that is gone on with and says something else.

    Raises:
        CheckpointError: Naming both values.
    """
    asked = {**dataclasses.asdict(typed), "model": str(Path(typed.model).absolute()), "sha256": recorded.sha256}
    own, plain = dataclasses.asdict(recorded), {field.name: field.default for field in dataclasses.fields(typed)}
    differ = [key for key in own if asked[key] not in (own[key], plain[key])]
    if differ:
        told = "; ".join(f"{key} {asked[key]}, not {own[key]}" for key in differ)
        raise CheckpointError(
            f"the run in {folder} was started with something else than was typed: {told}",
            hint=f"leave these away: rtda-deploy adapt --resume auto --out {shlex.quote(str(folder))}",
        )
