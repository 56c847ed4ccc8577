"""What is made of classes, by the address that earlier programs import it from; it lives in ``rtda_runtime.mask``."""

from rtda_runtime.mask.groups import ClassCounts, ClassGroups, class_shares, count_classes
from rtda_runtime.mask.regions import RegionOfInterest

__all__ = ["ClassCounts", "ClassGroups", "RegionOfInterest", "class_shares", "count_classes"]
