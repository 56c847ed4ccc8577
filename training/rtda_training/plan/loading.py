"""From a recipe and what was typed beside it to a plan.

Values become fields of dataclasses: unknown keys and values of another kind are refused.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rtda_deploy.border import parsing
from rtda_deploy.errors import ConfigError
from rtda_training.adapt.slots import check_field, component_key, components
from rtda_training.data.address import with_kind
from rtda_training.plan.config import PlanConfig
from rtda_training.plan.recipes import laid_over, read_recipe
from rtda_training.plan.stage import StageConfig
from rtda_training.toml_file import check_value, known_hint, typed_value

__all__ = ["changed_plan", "load_plan", "plan_from_table", "refuse_half_typed"]


_SETS = ("source", "target", "labelled_target", "val", "check")
_ONE_EACH = ("sampler", "style", "labeler", "mixer")  # slots of one component
_FEW_LABELS = "target-labels"  # the objective that learns from ``labelled_target``


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
        table = read_recipe(recipe)
        own = table.get("labelled_target", "")
        for text in overrides:
            _empty_slot(table, text)
            _empty_network(table, text)
        for text in overrides:
            _override(table, text)
        table.update(typed)
        plan = _resolved(plan_from_table(table))
    if plan.source and any(stage.uses_target or stage.labelled == "target" for stage in plan.stages):
        refuse_half_typed(typed, {"source": plan.source, "target": plan.target}, "recipe")
    if plan.labelled_target and table["labelled_target"] == own:
        _refuse_labels_of_another(typed, plan.labelled_target)
    return plan


def _resolved(plan: PlanConfig) -> PlanConfig:
    """The plan with what its components must remember of the files that they name."""
    stages = []
    for stage in plan.stages:
        settings = {key: found.resolved(stage.settings[key]) for key, found in stage.used().items()}
        stages.append(dataclasses.replace(stage, settings=settings))
    return dataclasses.replace(plan, stages=tuple(stages))


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


def plan_from_table(table: Mapping[str, Any]) -> PlanConfig:
    """A plan from the values of a recipe.

    Raises:
        ConfigError: On an unknown key or a value of the wrong kind.
    """
    shared = {key: value for key, value in table.items() if key in _stage_keys()}
    own = {key: value for key, value in table.items() if key not in _stage_keys()}
    for key in _SETS:
        if isinstance(own.get(key), str):
            own[key] = with_kind(own[key])
    entries = own.pop("stages", None) or [{}]
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigError("stages must be a list of tables", hint="write [[stages]]")
    if own.get("labelled_target"):
        entries = _with_few_labels(shared, entries)
    stages = tuple(_stage(shared, entry) for entry in entries)
    for key in shared.keys() & components().keys():
        if not any(key in stage.settings for stage in stages):
            raise _unused(key)
    named = {stage.name for stage in stages if len(stages) > 1}  # keys of one stage start with its name
    return typing.cast(PlanConfig, _built(PlanConfig, {**own, "stages": stages}, also=_stage_keys() | named))


def _with_few_labels(shared: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The stages with the objective that learns from labelled target frames.

    A recipe that names it says itself which of its stages has it; one that trains no network has no use for any.
    """
    objectives = [laid_over(shared, entry).get("objectives", StageConfig.objectives) for entry in entries]
    if not all(isinstance(names, (list, tuple)) for names in objectives) or any(_FEW_LABELS in n for n in objectives):
        return list(entries)
    return [{**entry, "objectives": [*names, _FEW_LABELS]} for entry, names in zip(entries, objectives, strict=True)]


def differing_keys(saved: Mapping[str, Any], plan: PlanConfig) -> list[str]:
    """The keys in which a plan that was saved differs; what an earlier version did not know had today's default."""
    ours = plan.to_dict()
    try:
        theirs: Mapping[str, Any] = plan_from_table(saved).to_dict()
    except ConfigError:
        theirs = saved
    return sorted(key for key in ours if theirs.get(key) != ours[key])


def _stage_keys() -> set[str]:
    """Keys that may stand at the top of a recipe and hold for every stage."""
    return ({field.name for field in dataclasses.fields(StageConfig)} - {"name", "settings"}) | components().keys()


def _stage(shared: Mapping[str, Any], entry: Mapping[str, Any]) -> StageConfig:
    known = components()
    merged = laid_over(shared, entry)
    tables = {key: merged.pop(key) for key in list(merged) if key in known}
    settings = {key: _typed_as(key, table, known[key].settings) for key, table in tables.items()}
    stage = typing.cast(StageConfig, _built(StageConfig, {**merged, "settings": settings}, "stages", _stage_keys()))
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


def refuse_half_typed(typed: Mapping[str, str], own: Mapping[str, Any], what: str) -> None:
    """Refuse one domain without the other: a user who names a source does not mean the file's target.

    Args:
        typed: ``source`` and ``target``, where they were typed.
        own: Both as the file has them.
        what: What the file is: ``recipe`` or ``grid``.

    Raises:
        ConfigError: Naming the one that is missing.
    """
    for given, other in (("source", "target"), ("target", "source")):
        if given in typed and other not in typed:
            raise ConfigError(
                f"--{given} was typed, --{other} was not: the {what}'s own is {own.get(other)}",
                hint=f"add --{other} DATA   (or, if you do mean it, --{other} {own.get(other)})",
            )


def _refuse_labels_of_another(typed: Mapping[str, str], own: str) -> None:
    """Refuse a typed domain with the recipe's own labelled frames, which are of another target."""
    given = next((key for key in ("target", "source") if key in typed), "")
    if given and "labelled_target" not in typed:
        raise ConfigError(
            f"--{given} was typed, --labelled-target was not: the recipe's own is {own}",
            hint=f"add --labelled-target DATA, frames of your target; without any, train recommended   (or, if you do "
            f"mean it, --labelled-target {own})",
        )


def _empty_slot(table: dict[str, Any], text: str) -> None:
    """Take the recipe's settings of what stood in a slot away, where something else is typed into it."""
    typed, _, name = text.partition("=")
    stage, _, slot = typed.rpartition(".")
    if slot not in _ONE_EACH:
        return
    stages = [entry for entry in table.get("stages", []) if isinstance(entry, dict)]
    others = [entry for entry in stages if stage and entry.get("name") != stage]
    kept = {name, component_key(slot, name), *(entry.get(slot, table.get(slot)) for entry in others)}
    for key in components(slot).keys() - kept:
        for part in (table, *stages):
            part.pop(key, None)


def _empty_network(table: dict[str, Any], text: str) -> None:
    """Take the recipe's backbone and variant away where another network is typed: they are words of its own network."""
    key, _, name = text.partition("=")
    if key == "network" and name != table.get("network", PlanConfig.network):
        for word in ("backbone", "variant"):
            table.pop(word, None)


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


_KINDS = {str: "a text in quotes", int: "a whole number", float: "a number", bool: "true or false"}


def _built(kind: type, values: Mapping[str, Any], where: str = "", also: Collection[str] = ()) -> Any:
    """A dataclass made of a table's values.

    Args:
        kind: The class; its fields are the keys that are allowed.
        values: The table.
        where: What the table is called in messages.
        also: Keys that are allowed beside the fields, for messages.

    Raises:
        ConfigError: On an unknown key, naming the nearest known one, or a value of the wrong kind or range.
    """
    hints = typing.get_type_hints(kind)
    prefix = f"{where}." if where else ""
    for key in values:
        if key not in hints:
            known = sorted({*hints, *also} - {"settings"}) if also else list(hints)
            raise ConfigError(f"setting {prefix}{key} is unknown", hint=known_hint(key, known))
    made = {key: _typed_as(prefix + key, value, hints[key]) for key, value in values.items()}
    for field in dataclasses.fields(kind):
        if field.name in made:
            check_field(prefix + field.name, field, made[field.name])
    return kind(**made)


def _typed_as(name: str, value: Any, hint: Any) -> Any:
    """``value`` as the type ``hint`` says: a table as a dataclass, a list as a tuple, a whole number as a float.

    Raises:
        ConfigError: If it is of another kind, naming the setting.
    """
    if typing.get_origin(hint) is not None and typing.get_origin(hint) is not tuple:
        return value  # settings: made before
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} must be a table, got {value!r}", hint=f"write [{name}] and its keys below")
        return _built(hint, value, name)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            example = '["a", "b"], and in a shell in single quotes' if typing.get_args(hint)[0] is str else "[1, 2, 3]"
            raise ConfigError(f"{name} must be a list, got {value!r}", hint=f"such as {example}")
        kinds = typing.get_args(hint)
        if kinds[-1] is not Ellipsis and len(kinds) != len(value):
            raise ConfigError(f"{name} must have {len(kinds)} values, got {value!r}", hint="separate them by commas")
        return tuple(_typed_as(name, item, kinds[0]) for item in value)
    check_value(name, value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{name} must be of type {hint.__name__}, got {value!r}", hint=_KINDS[hint])
    return value
