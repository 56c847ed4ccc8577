"""Recipes and plans: what a training run does, as data.

A recipe is a TOML file. Its tables and keys are the fields of the classes below; a key of ``StageConfig`` written at
the top holds for every stage, and ``[[stages]]`` entries change it for one. A recipe without them is a plan of one.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rtda_deploy.errors import ConfigError
from rtda_deploy.files import readable_file
from rtda_deploy.spec import IMAGENET_MEAN, IMAGENET_STD
from rtda_training.data.address import parse_size

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "AdversarialConfig",
    "AugmentConfig",
    "InputConfig",
    "OptimizerConfig",
    "PlanConfig",
    "StageConfig",
    "load_plan",
    "plan_from_table",
    "recipe_names",
]

_KINDS = {str: "a text in quotes", int: "a whole number", float: "a number", bool: "true or false"}
_CHOICES = {
    "labelled": ("source", "target"),
    "style": ("none", "fda"),
    "bn_statistics": ("running", "target"),
    "kind": ("sgd", "adamw"),
    "precision": ("auto", "fp32", "bf16"),
}


@dataclasses.dataclass(frozen=True)
class AdversarialConfig:
    """The adversary. RTDA's text has weight 0.01 and rate 1e-5, its code 0.001 and 1e-4 times the batch size."""

    discriminator: str = "light-thin"
    bias: bool = True
    weight: float = 0.001
    learning_rate: float = 1e-4


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Changes to each picture of both domains, drawn anew each time; 0 or false switches one off."""

    flip: bool = True
    scale_min: float = 1.0  # a crop of the network's size from the picture scaled by a factor in this range
    scale_max: float = 1.0
    brightness: float = 0.0  # largest relative change
    contrast: float = 0.0
    saturation: float = 0.0
    blur: float = 0.0  # probability of a Gaussian blur, sigma 0.3..1.5 pixels

    def __post_init__(self) -> None:
        if not 0.25 <= self.scale_min <= self.scale_max <= 4.0:
            raise ConfigError(
                f"augment.scale_min {self.scale_min} and scale_max {self.scale_max} must lie in 0.25..4",
                hint="1 and 1 leave pictures as they are",
            )
        for name in ("brightness", "contrast", "saturation", "blur"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(
                    f"augment.{name} must lie between 0 and 1, got {getattr(self, name)}", hint="0 switches it off"
                )


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """How pixels become the network's input; goes into the ModelSpec."""

    channel_order: str = "rgb"
    pixel_scale: float = 1.0 / 255.0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "linear"


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The network's optimizer; the rate falls as ``(1 - step / steps) ** power`` after a linear warm-up."""

    kind: str = "sgd"
    learning_rate: float = 2.5e-4
    weight_decay: float = 5e-4
    momentum: float = 0.9
    warmup_steps: int = 0
    power: float = 0.9


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One training of the network.

    Attributes:
        name: What the stage is called in logs and file names.
        steps: Optimizer steps.
        labelled: Which domain's labels are learned from; ``target`` is the oracle.
        objectives: Terms of the loss.
        style: What is done to source pictures: nothing, or Fourier transfer from the target batch.
        fda_beta: Window of the Fourier transfer.
        fda_probability: Share of the steps whose source batch gets the style.
        bn_statistics: Whose batch-norm statistics the finished network carries: those of training, or an average over
            target pictures.
        adversarial: The adversary's settings.
        optimizer: The network's optimizer.
    """

    name: str = "train"
    steps: int = 3000
    labelled: str = "source"
    objectives: tuple[str, ...] = ("supervised",)
    style: str = "none"
    fda_beta: float = 0.01
    fda_probability: float = 1.0
    bn_statistics: str = "running"
    adversarial: AdversarialConfig = AdversarialConfig()
    optimizer: OptimizerConfig = OptimizerConfig()

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps must be positive, got {self.steps}", hint="such as --set steps=3000")
        if "supervised" not in self.objectives:
            raise ConfigError(f"stage {self.name!r} has no objective that learns from labels", hint='add "supervised"')
        unknown = set(self.objectives) - {"supervised", "adversarial"}
        if unknown:
            raise ConfigError(f"objective {sorted(unknown)[0]!r} is unknown", hint="known: supervised, adversarial")

    @property
    def uses_target(self) -> bool:
        """Whether unlabelled target pictures are needed."""
        return self.style == "fda" or self.bn_statistics == "target" or "adversarial" in self.objectives

    @property
    def trains_on_target(self) -> bool:
        """Whether each step needs a batch of them."""
        return self.style == "fda" or "adversarial" in self.objectives


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    """A whole run.

    Attributes:
        name: The recipe's name.
        description: One sentence for people.
        source: Address of the labelled domain.
        target: Address of the unlabelled domain; may be empty where no stage needs it.
        val: Address of the labelled set that ``best.pth`` is chosen on; empty: the val split of the domain whose labels
            the last stage learns from.
        backbone: ``resnet18`` or ``resnet101``.
        variant: ``rtda`` or ``paper``.
        backbone_weights: ImageNet file for the backbone; empty: random.
        init: A checkpoint to start from; empty: none.
        size: Network input, width x height.
        batch_size: Pictures per domain and step.
        seed: Decides weights, order of pictures and augmentation.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto`` is bf16 where the hardware computes in it, else fp32.
        workers: Processes that prepare batches; -1: none on a CPU, 4 with a GPU.
        val_every: Steps between validations; 0: at the end of a stage only.
        val_pictures: At most this many pictures per validation.
        save_every: Steps between checkpoints to resume from; 0: at the end of a stage only.
        stages: The trainings, one after the other, each from the last one's network.
    """

    name: str = "recipe"
    description: str = ""
    source: str = "toytown:source"
    target: str = ""
    val: str = ""
    backbone: str = "resnet18"
    variant: str = "rtda"
    backbone_weights: str = ""
    init: str = ""
    size: str = "1024x512"
    batch_size: int = 4
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    workers: int = -1
    val_every: int = 500
    val_pictures: int = 500
    save_every: int = 500
    input: InputConfig = InputConfig()
    augment: AugmentConfig = AugmentConfig()
    stages: tuple[StageConfig, ...] = (StageConfig(),)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be positive, got {self.batch_size}", hint="at least 2 for BiSeNet")
        if not self.stages:
            raise ConfigError("a plan needs at least one stage", hint="leave stages away for a plan of one")
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ConfigError(f"two stages have the same name: {', '.join(names)}", hint="give each its own name")
        for stage in self.stages:
            if (stage.uses_target or stage.labelled == "target") and not self.target:
                raise ConfigError(f"stage {stage.name!r} needs a target domain", hint="add --target DATA")

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return parse_size(self.size)

    @property
    def validation(self) -> str:
        """Address of the set that ``best.pth`` is chosen on."""
        return self.val or (self.target if self.stages[-1].labelled == "target" else self.source)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; ``plan_from_table(plan.to_dict()) == plan``."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values


def load_plan(recipe: str, overrides: Sequence[str] = (), **fields: str) -> PlanConfig:
    """Read a recipe and change it.

    Args:
        recipe: Path of a TOML file, or the name of one that comes with the package.
        overrides: ``key=value`` texts as typed after ``--set``; dotted keys go into tables or into the stage of that
            name; a key of ``StageConfig`` changes every stage.
        fields: Fields of ``PlanConfig`` that were typed as flags; empty ones are left alone.

    Raises:
        ConfigError: On an unknown recipe, key or value, naming the nearest known one.
        FileAccessError: If the file cannot be read.
    """
    path = _find(recipe)
    try:
        table = tomllib.loads(readable_file(path, what="recipe").read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path} is no TOML: {err}", hint="compare it with one in training/recipes") from err
    table.setdefault("name", path.stem)
    for text in overrides:
        _override(table, text)
    typed = {key: value for key, value in fields.items() if value}
    table.update(typed)
    plan = plan_from_table(table)
    if any(stage.uses_target or stage.labelled == "target" for stage in plan.stages):
        _refuse_half_typed(plan, typed)
    return plan


def plan_from_table(table: Mapping[str, Any]) -> PlanConfig:
    """A plan from the values of a recipe.

    Raises:
        ConfigError: On an unknown key or a value of the wrong kind.
    """
    stage_fields = {field.name for field in dataclasses.fields(StageConfig)} - {"name"}
    shared = {key: value for key, value in table.items() if key in stage_fields}
    own = {key: value for key, value in table.items() if key not in stage_fields}
    entries = own.pop("stages", None) or [{}]
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigError("stages must be a list of tables", hint="write [[stages]]")
    stages = tuple(_build(StageConfig, _merged(shared, entry), "stages") for entry in entries)
    return typing.cast(PlanConfig, _build(PlanConfig, {**own, "stages": stages}, ""))


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in _recipe_folder().glob("*.toml"))


def _recipe_folder() -> Path:
    package = Path(__file__).parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def _refuse_half_typed(plan: PlanConfig, typed: Mapping[str, str]) -> None:
    """A user who names one domain of his own does not mean the recipe's other one."""
    for given, other in (("source", "target"), ("target", "source")):
        if given in typed and other not in typed:
            raise ConfigError(
                f"--{given} was typed, --{other} was not: the recipe's own is {getattr(plan, other)}",
                hint=f"add --{other} DATA   (or, if you do mean it, --{other} {getattr(plan, other)})",
            )


def _find(recipe: str) -> Path:
    if recipe.endswith(".toml") or "/" in recipe:
        return Path(recipe)
    known = recipe_names()
    if recipe not in known:
        near = difflib.get_close_matches(recipe, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"recipe {recipe!r} is unknown", hint=f"{hint}known: {', '.join(known)}; or a path to a .toml"
        )
    return _recipe_folder() / f"{recipe}.toml"


def _merged(shared: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(shared)
    for key, value in entry.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = {**merged[key], **value} if both else value
    return merged


def _override(table: dict[str, Any], text: str) -> None:
    key, equals, value_text = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text!r} is not key=value", hint="such as --set steps=500")
    value = _value(value_text)
    head, _, rest = key.partition(".")
    stages = [entry for entry in table.get("stages", []) if isinstance(entry, dict)]
    named = [entry for entry in stages if rest and entry.get("name") == head]
    if named:
        _put(named[0], rest, value)
        return
    if head in {field.name for field in dataclasses.fields(StageConfig)} - {"name"}:
        for entry in stages:  # a key typed by the user wins over what a stage says for itself
            _drop(entry, key)
    _put(table, key, value)


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    head, _, rest = key.partition(".")
    if rest:
        inner = table.setdefault(head, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{head} is a value, not a table: cannot set {key}", hint=f"--set {head}=VALUE")
        _put(inner, rest, value)
    else:
        table[head] = value


def _drop(table: dict[str, Any], key: str) -> None:
    head, _, rest = key.partition(".")
    if rest and isinstance(table.get(head), dict):
        _drop(table[head], rest)
    elif not rest:
        table.pop(head, None)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a string


def _build(kind: type, values: Mapping[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    prefix = f"{where}." if where else ""
    for key in values:
        if key not in hints:
            known = hints if where else {**hints, **typing.get_type_hints(StageConfig)}
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(f"setting {prefix}{key} is unknown", hint=f"{hint}known: {', '.join(known)}")
    return kind(**{key: _typed(prefix + key, value, hints[key]) for key, value in values.items()})


def _typed(name: str, value: Any, hint: Any) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} must be a table, got {value!r}", hint=f"write [{name}] and its keys below")
        return _build(hint, value, name)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{name} must be a list, got {value!r}", hint="such as [1, 2, 3]")
        kinds = typing.get_args(hint)
        if kinds[-1] is not Ellipsis and len(kinds) != len(value):
            raise ConfigError(f"{name} must have {len(kinds)} values, got {value!r}", hint="separate them by commas")
        return tuple(_typed(name, item, kinds[0]) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{name} must be of type {hint.__name__}, got {value!r}", hint=_KINDS[hint])
    choices = _CHOICES.get(name.rpartition(".")[2])
    if choices and isinstance(value, str) and value not in choices:
        raise ConfigError(f"{name} {value!r} is unknown", hint=f"known: {', '.join(choices)}")
    return value
