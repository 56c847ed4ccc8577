"""How fast a network will run on a device that is not here."""

from rtda_export.roofline.estimator import Estimate, LayerTime, PrecisionEstimate, estimate, estimate_layers

__all__ = ["Estimate", "LayerTime", "PrecisionEstimate", "estimate", "estimate_layers"]
