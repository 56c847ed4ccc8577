"""Samplers: which source picture comes next."""

from .base import Sampler

__all__ = ["Sampler"]
