"""Labels from a folder, such as those another network wrote."""

from __future__ import annotations

import dataclasses

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.components import Labeler
from rtda_training.adapt.context import PseudoLabels, StageContext, StepContext
from rtda_training.adapt.slots import component
from rtda_training.data.pseudo_set import PseudoLabelledSet, label_files
from rtda_training.readers import UnlabelledSet

__all__ = ["FolderConfig", "FolderLabeler"]


@dataclasses.dataclass(frozen=True)
class FolderConfig:
    """``path``: a folder with an 8-bit PNG of class ids (255: not labelled) of each target picture's name."""

    path: str = ""


@component("labeler", "folder", FolderConfig)
class FolderLabeler(Labeler):
    """Pseudo labels that are there already; also the folder of another run's ``offline`` stage."""

    def __init__(self, config: FolderConfig, stage: StageContext) -> None:
        if not config.path:
            raise ConfigError("the folder labeler has no folder", hint="--set folder.path=DIR")
        self._path = config.path
        self._classes = stage.source.classes

    def prepare(self, target: UnlabelledSet) -> PseudoLabelledSet:
        return PseudoLabelledSet(target, label_files(self._path, target), self._classes)

    def label(self, context: StepContext) -> PseudoLabels:
        if context.target_label is None:
            raise RuntimeError("the target batch carries no labels: prepare() gives the set that has them")
        return PseudoLabels(context.target_label, None)
