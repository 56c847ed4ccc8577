"""Mixers: pictures made of both domains."""

from rtda_training.adapt.mixers.base import Mixer

__all__ = ["Mixer"]
