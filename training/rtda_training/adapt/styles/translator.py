"""A learned translator: source pictures as the target domain would have them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.components import Style
from rtda_training.adapt.context import StageContext, StepContext
from rtda_training.adapt.slots import component
from rtda_training.translator import FrameTranslator, read_translator, translator_file

__all__ = ["TranslatorStyle", "TranslatorStyleConfig"]


@dataclasses.dataclass(frozen=True)
class TranslatorStyleConfig:
    """The earlier translation stage whose translator is used, or the path of a translator's file; one of both."""

    stage: str = ""
    path: str = ""


@component("style", "translator", TranslatorStyleConfig)
class TranslatorStyle(Style):
    """Each source picture as a finished translator paints it; the translator does not learn here.

    Source: Li et al., BDL (CVPR 2019): the segmentation network learns from S' = F(S).
    """

    def __init__(self, config: TranslatorStyleConfig, stage: StageContext) -> None:
        path = Path(config.path).expanduser() if config.path else translator_file(stage.run_folder, config.stage)
        if config.stage and not path.is_file():
            raise ConfigError(
                f"stage {config.stage!r} left no {path.name} in {stage.run_folder}",
                hint='a stage with kind = "translation" does',
            )
        self._fabric = stage.fabric
        self._translator = FrameTranslator(read_translator(path)).to(stage.fabric.device)

    @classmethod
    def stages_used(cls, config: TranslatorStyleConfig) -> tuple[str, ...]:
        """The translation stage.

        Raises:
            ConfigError: If not exactly one of ``stage`` and ``path`` is set.
        """
        if bool(config.stage) == bool(config.path):
            both = "both are set" if config.stage else "neither is"
            raise ConfigError(
                f"style translator takes its translator from a stage or from a path, and {both}",
                hint='translator.stage = "NAME" of an earlier translation, or translator.path = "translator-NAME.pth"',
            )
        return (config.stage,) if config.stage else ()

    def apply(self, context: StepContext) -> Tensor:
        with self._fabric.autocast():
            translated: Tensor = self._translator(context.source_frames)
        return translated
