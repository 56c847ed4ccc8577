"""Earlier programs import these names from here; the code is in ``rtda_runtime.mask``."""

from rtda_runtime.mask.groups import ClassCounts, ClassGroups, class_shares, count_classes
from rtda_runtime.mask.regions import RegionOfInterest

__all__ = ["ClassCounts", "ClassGroups", "RegionOfInterest", "class_shares", "count_classes"]
