"""What a stage of a plan trains: the segmentation network, or a translator of pictures."""

from rtda_training.stages.base import StageRun

__all__ = ["StageRun"]
