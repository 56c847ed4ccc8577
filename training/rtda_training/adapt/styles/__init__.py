"""Styles: how source pictures are made to look like the target's before the network sees them."""

from rtda_training.adapt.styles.base import Style

__all__ = ["Style"]
