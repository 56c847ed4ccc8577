"""Mixers: pictures made of both domains."""

from .base import Mixer

__all__ = ["Mixer"]
