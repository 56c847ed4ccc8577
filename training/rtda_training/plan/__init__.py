"""Recipes and plans: what a training run does, as data. Loads no torch before a plan is made.

A recipe is a TOML file. Its tables and keys are the fields of the classes below; a key of ``StageConfig`` written at
the top holds for every stage, and ``[[stages]]`` entries change it for one. A recipe without them is a plan of one.
A table named like a component (``[adversarial]``, ``[fda]``, ``[ema]`` …) holds the settings of that component.
``base = "source-only"`` starts from another recipe's values; what stands in this one wins, tables key by key.
"""

from __future__ import annotations

from rtda_training.plan.config import PlanConfig
from rtda_training.plan.control import Control, control_key, control_of
from rtda_training.plan.loading import changed_plan, differing_keys, load_plan, plan_from_table
from rtda_training.plan.recipes import recipe_names, recipe_title
from rtda_training.plan.stage import OptimizerConfig, StageConfig

__all__ = [
    "Control",
    "OptimizerConfig",
    "PlanConfig",
    "StageConfig",
    "changed_plan",
    "control_key",
    "control_of",
    "differing_keys",
    "load_plan",
    "plan_from_table",
    "recipe_names",
    "recipe_title",
]
