"""The Cityscapes train ids, by the names the drawing code uses."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ClassId"]


class ClassId(IntEnum):
    """What a pixel of a label picture says."""

    ROAD = 0
    SIDEWALK = 1
    BUILDING = 2
    WALL = 3
    FENCE = 4
    POLE = 5
    TRAFFIC_LIGHT = 6
    TRAFFIC_SIGN = 7
    VEGETATION = 8
    TERRAIN = 9
    SKY = 10
    PERSON = 11
    RIDER = 12
    CAR = 13
    TRUCK = 14
    BUS = 15
    TRAIN = 16
    MOTORCYCLE = 17
    BICYCLE = 18
    IGNORE = 255
