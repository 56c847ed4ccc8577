"""The two cities: what they are made of, how they are laid out, and how the camera looks at them.

The colours and statistics are designed, not measured; they decide how wide the gap between the domains is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

__all__ = ["CITIES", "Bgr", "City"]

Bgr = Tuple[float, float, float]
Range = Tuple[float, float]


@dataclass(frozen=True)
class City:
    """Materials (BGR, 0..255) and layout statistics (metres, probabilities) of one domain."""

    # materials
    asphalt: Tuple[Bgr, ...]
    marking: Bgr
    pavement: Tuple[Bgr, ...]
    kerb: Bgr
    grass: Tuple[Bgr, ...]
    facades: Tuple[Bgr, ...]
    window_frame: Bgr
    glass: Tuple[Bgr, ...]
    roofs: Tuple[Bgr, ...]
    awnings: Tuple[Bgr, ...]
    walls: Tuple[Bgr, ...]
    fences: Tuple[Bgr, ...]
    poles: Tuple[Bgr, ...]
    light_housing: Bgr
    signs: Tuple[Tuple[Bgr, Bgr], ...]  # face and rim
    crowns: Tuple[Bgr, ...]
    trunk: Bgr
    skies: Tuple[Tuple[Bgr, Bgr], ...]  # zenith and horizon
    car_paints: Tuple[Bgr, ...]
    truck_paints: Tuple[Bgr, ...]
    bus_paints: Tuple[Bgr, ...]
    tram_paints: Tuple[Bgr, ...]
    clothes: Tuple[Bgr, ...]
    skins: Tuple[Bgr, ...]
    vehicle_glass: Bgr
    # finish
    textured: bool  # grain, bricks, leaves, dirt; otherwise every surface is flat
    jitter: float  # relative spread of a material's colour between two objects
    sunny: float  # probability of sun with cast shadows; otherwise even light
    haze_per_m: Range
    # layout
    floors: Tuple[int, int]
    floor_m: float
    lane_m: Range
    pavement_m: Range
    parking: float  # probability of a lane of parked cars
    verge: float  # probability of a strip of grass along the kerb
    lot_weights: Tuple[float, float, float, float]  # building, park, wall, fence
    traffic_gap_m: Range
    street_tree_gap_m: Range
    species_weights: Tuple[float, float, float]  # round, tall, cone
    people: Tuple[int, int]
    curvature_per_m: float  # largest
    # camera
    focal: Range  # widths of the picture
    horizon: Range  # heights of the picture, from the top
    height_m: Range


_SOURCE = City(
    asphalt=((98, 94, 92), (112, 108, 106)),
    marking=(250, 250, 250),
    pavement=((196, 190, 188), (182, 186, 200)),
    kerb=(222, 222, 222),
    grass=((60, 196, 122), (70, 180, 104)),
    facades=((130, 186, 238), (206, 164, 96), (232, 230, 236), (120, 128, 226), (96, 206, 244), (190, 170, 200)),
    window_frame=(250, 250, 250),
    glass=((238, 206, 150), (226, 188, 124)),
    roofs=((60, 72, 190), (110, 90, 80), (70, 90, 150)),
    awnings=((60, 60, 220), (70, 170, 60), (200, 90, 50), (40, 190, 240)),
    walls=((150, 168, 178), (168, 172, 176)),
    fences=((66, 118, 176), (236, 240, 242), (84, 136, 190)),
    poles=((84, 82, 80), (110, 106, 104)),
    light_housing=(26, 26, 26),
    signs=(
        ((40, 36, 226), (250, 250, 250)),
        ((214, 110, 20), (250, 250, 250)),
        ((30, 206, 250), (20, 20, 20)),
        ((250, 250, 250), (40, 36, 226)),
    ),
    crowns=((46, 140, 44), (58, 158, 70), (40, 118, 26), (48, 150, 96)),
    trunk=(50, 84, 124),
    skies=(((236, 158, 70), (250, 228, 196)), ((244, 178, 92), (252, 236, 214))),
    car_paints=(
        (40, 40, 214), (206, 96, 30), (36, 190, 240), (240, 240, 240),
        (60, 170, 60), (40, 120, 236), (50, 50, 54), (180, 60, 140),
    ),
    truck_paints=((214, 120, 40), (50, 60, 210), (60, 160, 70), (40, 150, 236)),
    bus_paints=((30, 196, 246), (44, 44, 206), (214, 140, 30)),
    tram_paints=((60, 150, 40), (200, 80, 70), (70, 60, 170)),
    clothes=((40, 40, 210), (200, 100, 40), (50, 170, 70), (40, 190, 230), (180, 70, 160), (60, 60, 60), (230, 230, 230)),
    skins=((170, 200, 244), (120, 160, 216), (60, 94, 140)),
    vehicle_glass=(92, 72, 52),
    textured=False, jitter=0.06, sunny=0.0, haze_per_m=(0.0, 0.0008),
    floors=(2, 5), floor_m=3.2, lane_m=(3.3, 3.8), pavement_m=(2.4, 3.6), parking=0.42, verge=0.36,
    lot_weights=(0.50, 0.18, 0.16, 0.16),
    traffic_gap_m=(12.0, 34.0), street_tree_gap_m=(9.0, 26.0), species_weights=(0.7, 0.2, 0.1),
    people=(2, 6), curvature_per_m=0.006,
    focal=(0.72, 0.80), horizon=(0.42, 0.47), height_m=(1.7, 2.0),
)  # fmt: skip

_TARGET = City(
    asphalt=((66, 68, 72), (84, 85, 88), (58, 64, 72)),
    marking=(196, 206, 212),
    pavement=((116, 126, 136), (130, 134, 138), (98, 108, 122)),
    kerb=(150, 156, 160),
    grass=((52, 100, 104), (62, 108, 96), (66, 112, 128)),
    facades=((62, 80, 128), (96, 116, 142), (146, 158, 168), (112, 148, 172), (128, 130, 132), (72, 84, 104), (150, 176, 190)),
    window_frame=(186, 194, 198),
    glass=((66, 60, 54), (92, 84, 74), (52, 50, 48), (120, 126, 130)),
    roofs=((62, 68, 92), (70, 72, 76), (58, 60, 66)),
    awnings=((50, 52, 110), (60, 80, 60), (96, 70, 56), (90, 120, 150)),
    walls=((104, 116, 128), (84, 92, 104), (126, 132, 134)),
    fences=((56, 62, 70), (60, 84, 112), (98, 100, 96)),
    poles=((74, 78, 74), (104, 108, 108), (58, 66, 60)),
    light_housing=(34, 38, 34),
    signs=(
        ((156, 92, 40), (220, 220, 216)),
        ((216, 218, 220), (52, 48, 170)),
        ((52, 48, 170), (214, 216, 220)),
        ((50, 160, 196), (40, 44, 48)),
    ),
    crowns=((40, 76, 70), (42, 66, 50), (46, 88, 88), (48, 96, 118), (36, 58, 48)),
    trunk=(48, 58, 68),
    skies=(
        ((206, 204, 202), (228, 226, 224)),
        ((214, 188, 164), (230, 226, 220)),
        ((176, 186, 196), (206, 220, 230)),
        ((182, 176, 172), (212, 210, 210)),
    ),
    car_paints=(
        (176, 178, 178), (42, 42, 44), (214, 214, 212), (92, 62, 42),
        (46, 42, 112), (112, 114, 116), (70, 84, 70), (120, 140, 156),
    ),
    truck_paints=((122, 86, 56), (60, 62, 132), (150, 156, 158), (70, 110, 140)),
    bus_paints=((52, 56, 150), (120, 150, 172), (92, 120, 70)),
    tram_paints=((70, 104, 66), (108, 92, 80), (70, 80, 140)),
    clothes=((46, 44, 44), (84, 68, 58), (66, 70, 82), (60, 56, 120), (120, 126, 130), (70, 90, 84), (150, 150, 160)),
    skins=((140, 160, 196), (104, 128, 170), (56, 74, 104)),
    vehicle_glass=(48, 44, 40),
    textured=True, jitter=0.14, sunny=0.6, haze_per_m=(0.002, 0.009),
    floors=(3, 8), floor_m=3.0, lane_m=(3.0, 3.5), pavement_m=(2.2, 4.2), parking=0.5, verge=0.40,
    lot_weights=(0.46, 0.18, 0.18, 0.18),
    traffic_gap_m=(10.0, 30.0), street_tree_gap_m=(8.0, 22.0), species_weights=(0.45, 0.3, 0.25),
    people=(3, 8), curvature_per_m=0.006,
    focal=(0.78, 0.92), horizon=(0.38, 0.48), height_m=(1.3, 1.7),
)  # fmt: skip

CITIES = {"source": _SOURCE, "target": _TARGET}
