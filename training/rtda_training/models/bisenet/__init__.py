"""BiSeNet and the parts of its two variants."""

from rtda_training.models.bisenet.bisenet import BiSeNet

__all__ = ["BiSeNet"]
