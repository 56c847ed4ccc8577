"""Labels written once, before a stage starts, by the networks of finished stages."""

from __future__ import annotations

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.context import StageContext
from rtda_training.adapt.labelers.label_dump import LabelDump, OfflineConfig
from rtda_training.adapt.labelers.prepared import WrittenLabels
from rtda_training.adapt.slots import component
from rtda_training.readers import UnlabelledSet

__all__ = ["OfflineLabeler"]


@component("labeler", "offline", OfflineConfig)
class OfflineLabeler(WrittenLabels):
    """Pseudo labels on disk: ``labels/<place>.png`` and, when they are whole, ``labels.json`` in the stage's folder.

    Two passes over the target's pictures, stretched to the network's size: one counts confidences, one writes. A
    killed run goes on where it was; labels of other networks, settings or pictures are made anew.

    Source: multi-layer SSL, section III-C and D; Li et al., BDL (CVPR 2019); Yang and Soatto, FDA (CVPR 2020).
    """

    def __init__(self, config: OfflineConfig, stage: StageContext) -> None:
        self.stages_used(config)
        self._config = config
        self._stage = stage

    @classmethod
    def stages_used(cls, config: OfflineConfig) -> tuple[str, ...]:
        if not config.stages:
            raise ConfigError(
                "the offline labeler has no network to label with",
                hint="name the finished stages that label, such as --set 'offline.stages=[\"adversarial\"]'",
            )
        return config.stages

    def _write(self, target: UnlabelledSet) -> None:
        LabelDump(self._config, self._stage, target).run()
