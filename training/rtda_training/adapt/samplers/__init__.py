"""Samplers: which source picture comes next."""

from rtda_training.data.order import Sampler

__all__ = ["Sampler"]
