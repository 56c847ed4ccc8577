"""Recipes and plans: what a training run does, as data.

A recipe is a TOML file. Its tables and keys are the fields of the classes below; a key of ``StageConfig`` written at
the top holds for every stage, and ``[[stages]]`` entries change it for one. A recipe without them is a plan of one.
A table named like a component (``[adversarial]``, ``[fda]``, ``[ema]`` …) holds the settings of that component.
``base = "source-only"`` starts from another recipe's values; what stands in this one wins, tables key by key.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rtda_deploy.border import parsing
from rtda_deploy.errors import ConfigError
from rtda_deploy.file_names import check_file_name
from rtda_deploy.sizes import parse_size
from rtda_training.adapt.slots import SLOTS, Component, check_field, choice, components
from rtda_training.data.config import AugmentConfig, InputConfig
from rtda_training.toml_file import check_value, read_toml, typed_value

__all__ = [
    "OptimizerConfig",
    "PlanConfig",
    "StageConfig",
    "changed_plan",
    "load_plan",
    "plan_from_table",
    "recipe_names",
    "recipe_title",
]

_KINDS = {str: "a text in quotes", int: "a whole number", float: "a number", bool: "true or false"}
_NONE = "none"


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The network's optimizer; the rate falls as ``(1 - step / steps) ** power`` after a linear warm-up."""

    kind: str = choice("sgd", "adamw")
    learning_rate: float = 2.5e-4
    head_factor: float = 1.0  # rate of everything that is not the backbone, times this (10 in DeepLab's recipes)
    weight_decay: float = 5e-4
    momentum: float = 0.9
    warmup_steps: int = 0
    power: float = 0.9


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One training of a network.

    Attributes:
        name: What the stage is called in logs and file names.
        kind: What is trained: the network (``segmentation``), or a ``translation`` of source pictures into target ones.
        steps: Optimizer steps.
        start: Network to start from: ``previous`` (the last stage's), ``scratch`` (as the plan starts), or a stage's
            name.
        labelled: Which domain's labels are learned from; ``target`` is the oracle.
        sampler: Which source picture comes next.
        style: What is done to source pictures.
        labeler: Who labels target pictures.
        mixer: How both domains are mixed into one picture.
        objectives: Terms of the loss.
        batch_norm: ``train``; ``fixed`` leaves statistics and affine parameters alone, as the DeepLab papers do;
            ``sync`` shares the statistics of a batch among GPUs.
        bn_statistics: Whose batch-norm statistics the finished network carries: those of training (``running``), or
            an average over ``target`` pictures.
        optimizer: The network's optimizer.
        settings: Settings of the components in use, by their names.
    """

    name: str = "train"
    kind: str = "segmentation"
    steps: int = 3000
    start: str = "previous"
    labelled: str = choice("source", "target")
    sampler: str = "uniform"
    style: str = _NONE
    labeler: str = _NONE
    mixer: str = _NONE
    objectives: tuple[str, ...] = ("supervised",)
    batch_norm: str = choice("train", "fixed", "sync")
    bn_statistics: str = choice("running", "target")
    optimizer: OptimizerConfig = OptimizerConfig()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps must be positive, got {self.steps}", hint="such as --set steps=3000")
        check_file_name(self.name, "a stage's name")
        if self.name in components():
            raise ConfigError(f"a stage cannot be called {self.name!r}: a component is", hint="choose another name")
        if self.kind == "segmentation" and "supervised" not in self.objectives:
            raise ConfigError(f"stage {self.name!r} has no objective that learns from labels", hint='add "supervised"')
        used = self.used()
        object.__setattr__(
            self, "settings", {key: self.settings.get(key, found.settings()) for key, found in used.items()}
        )
        filled = {found.slot for found in used.values()}
        for key, found in used.items():
            for slot in found.requires:
                if slot not in filled:
                    known = ", ".join(components(slot))
                    raise ConfigError(
                        f"stage {self.name!r}: {found.slot} {key!r} needs a {slot}, and {slot} is {_NONE!r}",
                        hint=f"set {slot} to one of: {known}; or take {key!r} out",
                    )
        wanted = {slot for found in used.values() for slot in found.requires}
        for slot in ("labeler", "mixer"):
            if slot in filled and slot not in wanted:
                users = [key for key, found in components().items() if slot in found.requires]
                raise ConfigError(
                    f"stage {self.name!r}: {slot} {getattr(self, slot)!r} is set, and nothing uses it",
                    hint=f"add one of these to objectives: {', '.join(users)}; or set {slot} to {_NONE!r}",
                )

    def names_in(self, slot: str) -> tuple[str, ...]:
        """Names of the components in one slot."""
        value = getattr(self, slot)
        names = value if isinstance(value, tuple) else (value,)
        if slot == "objectives" and self.kind != "segmentation":
            return ()
        return tuple(name for name in names if name not in (_NONE, "uniform"))

    def used(self) -> dict[str, type[Component]]:
        """The components in use by name.

        Raises:
            ConfigError: If a name is unknown.
        """
        found = {}
        for slot in SLOTS:
            known = components(slot)
            for name in self.names_in(slot):
                if name not in known:
                    near = difflib.get_close_matches(name, known, n=1)
                    hint = f"did you mean {near[0]}? " if near else ""
                    extra = {"sampler": ["uniform"], "kind": [], "objectives": []}.get(slot, [_NONE])
                    raise ConfigError(
                        f"stage {self.name!r}: {slot.removesuffix('s')} {name!r} is unknown",
                        hint=f"{hint}known: {', '.join([*extra, *known])}",
                    )
                found[name] = known[name]
        return found

    @property
    def stages_used(self) -> tuple[tuple[str, str], ...]:
        """Earlier stages that this one needs, each with the kind it must be of."""
        start = () if self.start in ("previous", "scratch") else ((self.start, "segmentation"),)
        parts = (
            (name, "translation" if key == "translator" else "segmentation")
            for key, found in self.used().items()
            for name in found.stages_used(self.settings[key])
        )
        return (*start, *parts)

    @property
    def uses_target(self) -> bool:
        """Whether unlabelled target pictures are needed."""
        return self.bn_statistics == "target" or self.trains_on_target

    @property
    def trains_on_target(self) -> bool:
        """Whether each step needs a batch of them."""
        return any(found.needs_target for found in self.used().values())


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
        classes: Class list that the network learns, such as ``camvid``; labels are joined to it by name. Empty: the
            source's own.
        network: A key of ``rtda_training.models.NETWORKS``.
        backbone: One that the network takes; empty: its usual one.
        variant: One of the network's, such as a BiSeNet's ``rtda`` and ``paper``; a network without ``rtda`` takes it
            for its usual one.
        backbone_weights: ImageNet file for the backbone; empty: random.
        init: A checkpoint to start from; empty: none.
        size: Network input, width x height.
        batch_size: Pictures per domain and step, of all processes together.
        seed: Decides weights, order of pictures and augmentation.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto`` is bf16 where the hardware computes in it, else fp32.
        workers: Processes that prepare batches; -1: none on a CPU, 4 with a GPU.
        cache: Decode every picture once, keep it at the network's size (times ``augment.scale_max``) on disk.
        max_corrupt: Share of a set's pictures that may turn out unreadable or unfit; they are named and replaced.
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
    classes: str = ""
    network: str = "bisenet"
    backbone: str = ""
    variant: str = "rtda"
    backbone_weights: str = ""
    init: str = ""
    size: str = "1024x512"
    batch_size: int = 4
    seed: int = 0
    device: str = "auto"
    precision: str = choice("auto", "fp32", "bf16")
    workers: int = -1
    cache: bool = False
    max_corrupt: float = 0.01
    val_every: int = 500
    val_pictures: int = 500
    save_every: int = 500
    input: InputConfig = dataclasses.field(default_factory=InputConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    stages: tuple[StageConfig, ...] = dataclasses.field(default_factory=lambda: (StageConfig(),))

    def __post_init__(self) -> None:
        check_file_name(self.name, "a recipe's name")
        self.network_settings()
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be positive, got {self.batch_size}", hint="at least 2 for BiSeNet")
        if not self.stages:
            raise ConfigError("a plan needs at least one stage", hint="leave stages away for a plan of one")
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ConfigError(f"two stages have the same name: {', '.join(names)}", hint="give each its own name")
        kinds = {stage.name: stage.kind for stage in self.stages}
        for place, stage in enumerate(self.stages):
            for name, wanted in stage.stages_used:
                if name in names[:place] and kinds[name] != wanted:
                    raise ConfigError(
                        f"stage {stage.name!r} needs a {wanted} stage, and {name!r} is a {kinds[name]}",
                        hint=f"such stages: {', '.join(n for n in names[:place] if kinds[n] == wanted) or 'none'}",
                    )
                if name not in names[:place]:
                    raise ConfigError(
                        f"stage {stage.name!r} needs stage {name!r}, and no earlier one is called so",
                        hint=f"earlier stages: {', '.join(names[:place]) or 'none'}",
                    )
            if (stage.uses_target or stage.labelled == "target") and not self.target:
                raise ConfigError(f"stage {stage.name!r} needs a target domain", hint="add --target DATA")

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return parse_size(self.size)

    @property
    def network_text(self) -> str:
        """The network for people: ``BiSeNet-resnet18 rtda``."""
        from rtda_training.models import network_class

        settings = self.network_settings()
        name = f"{network_class(self.network).NAME}-{settings.pop('backbone')}"
        return " ".join([name, *settings.values()])

    def network_settings(self) -> dict[str, str]:
        """What the network is built from.

        Raises:
            ConfigError: If the network does not take the backbone or variant.
        """
        from rtda_training.models import network_settings  # loads torch

        return network_settings(self.network, self.backbone, self.variant)

    @property
    def validation(self) -> str:
        """Address of the set that ``best.pth`` is chosen on."""
        return self.val or (self.target if self.stages[-1].labelled == "target" else self.source)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; ``plan_from_table(plan.to_dict()) == plan``."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        for stage in values["stages"]:
            settings = stage.pop("settings")
            stage.update({key: table for key, table in settings.items() if table})
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
    typed = {key: value for key, value in fields.items() if value}
    with parsing(ConfigError, f"recipe {recipe} cannot be read", hint="compare it with one in training/recipes"):
        table = _table(recipe)
        for text in overrides:
            _override(table, text)
        table.update(typed)
        plan = plan_from_table(table)
    if any(stage.uses_target or stage.labelled == "target" for stage in plan.stages):
        _refuse_half_typed(plan, typed)
    return plan


def changed_plan(plan: PlanConfig, overrides: Sequence[str] = (), **fields: str) -> PlanConfig:
    """The plan with what was typed, as :func:`load_plan` takes it, laid over it.

    Raises:
        ConfigError: On an unknown key or value.
    """
    table = plan.to_dict()
    with parsing(ConfigError, "the settings cannot be read", hint="such as --set steps=500"):
        for text in overrides:
            _override(table, text)
    return plan_from_table({**table, **{key: value for key, value in fields.items() if value}})


def recipe_title(recipe: str) -> tuple[str, str]:
    """Name and description of a recipe, which may lack what a plan needs.

    Raises:
        ConfigError: If it is unknown, or no TOML.
        FileAccessError: If the file cannot be read.
    """
    table = _table(recipe)
    return str(table["name"]), str(table.get("description", ""))


def plan_from_table(table: Mapping[str, Any]) -> PlanConfig:
    """A plan from the values of a recipe.

    Raises:
        ConfigError: On an unknown key or a value of the wrong kind.
    """
    shared = {key: value for key, value in table.items() if key in _stage_keys()}
    own = {key: value for key, value in table.items() if key not in _stage_keys()}
    entries = own.pop("stages", None) or [{}]
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigError("stages must be a list of tables", hint="write [[stages]]")
    stages = tuple(_stage(shared, entry) for entry in entries)
    for key in shared.keys() & components().keys():
        if not any(key in stage.settings for stage in stages):
            raise _unused(key)
    return typing.cast(PlanConfig, _build(PlanConfig, {**own, "stages": stages}, ""))


def _stage_keys() -> set[str]:
    """Keys that may stand at the top of a recipe and hold for every stage."""
    return ({field.name for field in dataclasses.fields(StageConfig)} - {"name", "settings"}) | components().keys()


def _stage(shared: Mapping[str, Any], entry: Mapping[str, Any]) -> StageConfig:
    known = components()
    merged = _merged(shared, entry)
    tables = {key: merged.pop(key) for key in list(merged) if key in known}
    settings = {key: _typed(key, table, known[key].settings) for key, table in tables.items()}
    stage = typing.cast(StageConfig, _build(StageConfig, {**merged, "settings": settings}, "stages"))
    for key in entry.keys() & known.keys():
        if key not in stage.settings:
            raise _unused(key, stage.name)
    return stage


def _unused(key: str, stage: str = "") -> ConfigError:
    """Settings of a component that is not in use are a contradiction, not a default."""
    slot = components()[key].slot
    where = f"stage {stage!r}" if stage else "no stage"
    verb = "does not use it" if stage else "uses it"
    example = f'{slot} = ["supervised", "{key}"]' if slot == "objectives" else f'{slot} = "{key}"'
    return ConfigError(f"there are settings for {key}, but {where} {verb}", hint=f"add {example}, or leave {key} away")


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


def _table(recipe: str, derived: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A recipe's values, laid over those of its ``base``."""
    path = _find(recipe)
    if path in derived:
        raise ConfigError(f"{path.name} is a base of itself", hint="take base out of one of them")
    table = read_toml(path, "recipe", hint="compare it with one in training/recipes")
    table.setdefault("name", path.stem)
    base = table.pop("base", "")
    if not isinstance(base, str):
        raise ConfigError(f"base of {path.name} must be a recipe, got {base!r}", hint='such as base = "source-only"')
    if not base:
        return table
    beside = path.parent / base
    return _merged(_table(str(beside) if beside.is_file() else base, (*derived, path)), table)


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
    value = typed_value(value_text, key)
    head, _, rest = key.partition(".")
    stages = [entry for entry in table.get("stages", []) if isinstance(entry, dict)]
    named = [entry for entry in stages if rest and entry.get("name") == head]
    if named:
        _put(named[0], rest, value)
        return
    if head in _stage_keys():
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


def _build(kind: type, values: Mapping[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    prefix = f"{where}." if where else ""
    for key in values:
        if key not in hints:
            known = list(hints)
            if kind in (PlanConfig, StageConfig):
                known = sorted({*hints, *_stage_keys()} - {"settings"})
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(f"setting {prefix}{key} is unknown", hint=f"{hint}known: {', '.join(known) or 'none'}")
    made = {key: _typed(prefix + key, value, hints[key]) for key, value in values.items()}
    for field in dataclasses.fields(kind):
        if field.name in made:
            check_field(prefix + field.name, field, made[field.name])
    return kind(**made)


def _typed(name: str, value: Any, hint: Any) -> Any:
    if typing.get_origin(hint) is not None and typing.get_origin(hint) is not tuple:
        return value  # settings: built by _stage
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
    check_value(name, value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{name} must be of type {hint.__name__}, got {value!r}", hint=_KINDS[hint])
    return value
