"""Labelers: who says what the target's pictures show, since nobody labelled them."""

from rtda_training.adapt.labelers.base import Labeler

__all__ = ["Labeler"]
