"""The data sets of a plan: opened, looked at, cached, and checked against each other before a training starts."""

from __future__ import annotations

from typing import Any, TypeVar

from rtda_deploy.errors import DataError
from rtda_training.data.first_look import first_look, shared_pictures
from rtda_training.data.pixel_cache import cached, cached_size
from rtda_training.labels import class_list
from rtda_training.loop.events import Tell, TrainEvent
from rtda_training.plan import PlanConfig
from rtda_training.readers import LabelledSet, Progress, UnlabelledSet, open_labelled, open_unlabelled

__all__ = ["PlanSets"]

_Set = TypeVar("_Set", bound=UnlabelledSet)


class PlanSets:
    """Opens the sets of a plan.

    Args:
        plan: Names them.
        tell: Told of progress and of what is left out or doubtful.

    Attributes:
        source: The labelled domain.
        target: The unlabelled domain; None where the plan has none.
        val: What the network is validated on.

    Raises:
        ConfigError: If an address makes no sense.
        DataError: If a set cannot be read, teaches nothing, or has other classes than the source.
    """

    def __init__(self, plan: PlanConfig, tell: Tell) -> None:
        self._plan = plan
        self._tell = tell
        self.source = self._labelled(plan.source)
        self.target = self._unlabelled(plan.target) if plan.target else None
        self.val = self._same_classes(self._labelled(plan.validation, split="val"))
        self._warn_of_own_pictures()

    def target_with_labels(self) -> LabelledSet:
        """The target domain for a stage that learns from its labels."""
        return self._same_classes(self._labelled(self._plan.target))

    def _labelled(self, text: str, split: str = "train") -> LabelledSet:
        asked: dict[str, Any] = {"classes": class_list(self._plan.classes)} if self._plan.classes else {}
        found = open_labelled(text, split=split, progress=self._prepare(text), **asked)
        first_look(
            found,
            to_train=split == "train",
            progress=self._prepare(f"{text} (first look)"),
            tell=lambda text: self._tell(TrainEvent("warning", text)),
        )
        self._say_left_out(found)
        return self._cached(found) if split == "train" else found

    def _unlabelled(self, text: str) -> UnlabelledSet:
        found = open_unlabelled(text, progress=self._prepare(text))
        self._say_left_out(found)
        return self._cached(found)

    def _cached(self, pictures: _Set) -> _Set:
        """The set with its pixels from the cache, if the plan says so."""
        plan = self._plan
        if not plan.cache:
            return pictures
        return cached(
            pictures,
            cached_size(plan.size_hw, plan.augment.scale_max),
            plan.input.interpolation,
            progress=self._prepare(f"{pictures.address} (cache)"),
            tell=lambda text: self._tell(TrainEvent("note", text)),
        )

    def _same_classes(self, other: LabelledSet) -> LabelledSet:
        if other.classes.names != self.source.classes.names:
            raise DataError(
                f"{other.address} has other classes than {self.source.address}",
                hint="join both to one list: --set classes=camvid (or cityscapes)",
            )
        return other

    def _say_left_out(self, pictures: UnlabelledSet) -> None:
        for why, paths in pictures.left_out().items():
            self._tell(TrainEvent("note", f"left out of {pictures.address}: {why}: {len(paths)}"))

    def _warn_of_own_pictures(self) -> None:
        labelled = {stage.labelled for stage in self._plan.stages}
        domains = {"source": self.source, "target": self.target}
        own = shared_pictures([data for name, data in domains.items() if name in labelled and data], self.val)
        if own:
            text = f"{own} of the {len(self.val)} pictures it validates on are trained on: name others with --val DATA"
            self._tell(TrainEvent("warning", text))

    def _prepare(self, text: str) -> Progress:
        return lambda done, total: self._tell(TrainEvent("prepare", text, done, total))
