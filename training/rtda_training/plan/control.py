"""The control of a plan: the same training, in which the method tells the network nothing.

What a method adds is its gain over its control, not over source-only: target pictures that go through the network
change its batch norms, and that alone gains. A control has the plan's start, steps, batches, augmentation, forwards
and treatment of batch norms. Its objectives are what :meth:`Objective.silenced` says, and source pictures keep
their own style. Where batch norms are fixed, a forward without a weight changes nothing and is left away.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import NamedTuple

from rtda_training.adapt.slots import components
from rtda_training.plan.config import PlanConfig
from rtda_training.plan.stage import StageConfig

__all__ = ["Control", "control_key", "control_of"]

_NAME = "control"
_ONE_STAGE = "train"  # as recipes call it, so that controls of different methods are one plan


class Control(NamedTuple):
    """The control's plan, or why there is none."""

    plan: PlanConfig | None
    why: str = ""


def control_of(plan: PlanConfig) -> Control:
    """The plan with its method silenced.

    Stages that the last network does not come from, such as one that only labelled the target, are left away: they
    would cost their steps and change nothing. A labeler or mixer stays where what is left of the objectives needs it.
    """
    if any(stage.labelled == "target" for stage in plan.stages):
        return Control(None, "it learns from the target's labels")
    if plan.stages[-1].kind != "segmentation":
        return Control(None, "its last stage trains no network")
    if not any(_method(stage) for stage in plan.stages):
        if any(_silenced_keys(stage) for stage in plan.stages):
            return Control(None, "its weights are 0: it is a control itself")
        return Control(None, "it has no weight that could be 0, and no style")
    stages = _needed([_silent(stage) for stage in plan.stages])
    if len(stages) == 1:
        stages = [dataclasses.replace(stages[0], name=_ONE_STAGE, start="previous")]
    labelled = plan.labelled_target if any(stage.trains_on_target_labels for stage in stages) else ""
    return Control(
        dataclasses.replace(plan, name=_NAME, description="", labelled_target=labelled, stages=tuple(stages))
    )


def control_key(plan: PlanConfig) -> str:
    """Equal for plans that train the same network with whatever seed, under whatever name."""
    values = {key: value for key, value in plan.to_dict().items() if key not in ("name", "description", "seed")}
    return json.dumps(values, sort_keys=True)


def _silenced_keys(stage: StageConfig) -> list[str]:
    """Names of the objectives that can be silenced."""
    return [key for key in stage.names_in("objectives") if _replacement(stage, key) is not None]


def _replacement(stage: StageConfig, key: str) -> tuple[str, object] | None:
    from rtda_training.adapt.components import Objective  # loads torch, as the components themselves do

    found = stage.used()[key]
    return found.silenced(stage.settings[key]) if issubclass(found, Objective) else None


def _method(stage: StageConfig) -> bool:
    """Whether the stage tells the network anything but the source's labels as they are."""
    weights = (getattr(stage.settings[key], "weight", 1.0) for key in _silenced_keys(stage))
    return stage.style != "none" or any(weight != 0 for weight in weights)


def _silent(stage: StageConfig) -> StageConfig:
    if stage.kind != "segmentation":
        return stage
    entries: dict[str, object] = {}
    for key in stage.objectives:
        replacement = _replacement(stage, key)
        if replacement is None or not _forwards_change_nothing(stage):
            name, settings = replacement or (key, stage.settings[key])
            entries.setdefault(name, settings)
    wanted = _slots_needed(stage, entries)
    return dataclasses.replace(
        stage,
        objectives=tuple(entries),
        style="none",
        labeler=stage.labeler if "labeler" in wanted else "none",
        mixer=stage.mixer if "mixer" in wanted else "none",
        settings={**stage.settings, **entries},
    )


def _forwards_change_nothing(stage: StageConfig) -> bool:
    """Whether forwards whose loss has no weight leave the network as it was.

    That is so where batch norms are fixed: such networks are equal bit by bit (those with dropout draw other masks, and
    are equal but for that). Two things stay to be told apart from
    training on the source: a labeler that is deployed itself, and a stage of which nothing else would be left.
    """
    deployed = bool(getattr(stage.settings.get(stage.labeler), "deploy", False))
    heard = len(stage.objectives) > len(_silenced_keys(stage))
    return stage.batch_norm == "fixed" and heard and not deployed


def _slots_needed(stage: StageConfig, objectives: Iterable[str]) -> set[str]:
    """Slots that these objectives need filled, and those that what fills them needs."""
    known = components()
    wanted = {slot for name in objectives for slot in known[name].requires}
    filling = [known[key] for slot in wanted for key in stage.names_in(slot)]
    return wanted | {slot for found in filling for slot in found.requires}


def _needed(stages: list[StageConfig]) -> list[StageConfig]:
    """The stages that the last one comes from, or is taught by."""
    kept: list[StageConfig] = []
    wanted = {stages[-1].name}
    for place in range(len(stages) - 1, -1, -1):
        stage = stages[place]
        if stage.name not in wanted:
            continue
        kept.insert(0, stage)
        wanted |= {name for name, _ in stage.stages_used}
        before = [other.name for other in stages[:place] if other.kind == "segmentation"]
        if stage.start == "previous" and before:
            wanted.add(before[-1])
    return kept
