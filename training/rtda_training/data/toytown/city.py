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
    skies=(((236, 158, 70), (250, 228, 196)), ((244, 178, 92), (252, 236, 214)), ((240, 208, 168), (250, 242, 232))),
    car_paints=(
        (40, 40, 214), (206, 96, 30), (36, 190, 240), (240, 240, 240),
        (60, 170, 60), (40, 120, 236), (50, 50, 54), (180, 60, 140),
    ),
    truck_paints=((214, 120, 40), (50, 60, 210), (60, 160, 70), (40, 150, 236)),
    bus_paints=((30, 196, 246), (44, 44, 206), (214, 140, 30)),
    tram_paints=((60, 150, 40), (200, 80, 70), (70, 60, 170)),
    clothes=((40, 40, 210), (200, 100, 40), (50, 170, 70), (40, 190, 230), (180, 70, 160),
             (60, 60, 60), (230, 230, 230)),
    skins=((170, 200, 244), (120, 160, 216), (60, 94, 140)),
    vehicle_glass=(92, 72, 52),
    textured=False, jitter=0.14, sunny=0.0, haze_per_m=(0.0, 0.0008),
    floors=(2, 5), floor_m=3.2, lane_m=(3.3, 3.8), pavement_m=(2.4, 3.6), parking=0.42, verge=0.36,
    lot_weights=(0.50, 0.18, 0.16, 0.16),
    traffic_gap_m=(12.0, 34.0), street_tree_gap_m=(9.0, 26.0), species_weights=(0.7, 0.2, 0.1),
    people=(2, 6), curvature_per_m=0.006,
    focal=(0.72, 0.80), horizon=(0.42, 0.47), height_m=(1.7, 2.0),
)  # fmt: skip

_TARGET = City(
    asphalt=((79, 79, 80), (96, 95, 96), (75, 77, 80)),
    marking=(219, 224, 228),
    pavement=((150, 153, 158), (152, 156, 164), (139, 142, 150)),
    kerb=(180, 184, 186),
    grass=((55, 140, 112), (65, 138, 99), (63, 147, 125)),
    facades=(
        (91, 125, 174), (142, 136, 123), (182, 188, 197), (115, 140, 195),
        (115, 162, 179), (122, 120, 144), (142, 180, 210),
    ),
    window_frame=(213, 218, 220),
    glass=((138, 121, 94), (148, 128, 95), (130, 116, 91), (165, 152, 127)),
    roofs=((62, 68, 92), (70, 72, 76), (58, 60, 66)),
    awnings=((50, 52, 110), (60, 80, 60), (96, 70, 56), (90, 120, 150)),
    walls=((123, 138, 149), (119, 126, 134), (136, 147, 152)),
    fences=((60, 86, 115), (134, 150, 167), (92, 115, 135)),
    poles=((78, 80, 77), (107, 107, 106), (69, 73, 68)),
    light_housing=(34, 38, 34),
    signs=(
        ((186, 100, 34), (226, 226, 222)),
        ((222, 224, 226), (50, 46, 190)),
        ((50, 46, 190), (222, 224, 226)),
        ((52, 176, 212), (34, 38, 42)),
    ),
    crowns=((43, 103, 59), (49, 105, 58), (43, 101, 62), (48, 119, 109), (40, 92, 46)),
    trunk=(49, 69, 92),
    skies=(
        ((219, 185, 147), (237, 227, 212)),
        ((227, 184, 134), (239, 230, 217)),
        ((201, 174, 143), (224, 223, 216)),
        ((208, 190, 170), (229, 224, 216)),
    ),
    car_paints=(
        (186, 188, 188), (44, 44, 46), (226, 226, 224), (140, 78, 38),
        (48, 44, 158), (122, 124, 126), (76, 104, 70), (104, 146, 186),
    ),
    truck_paints=((161, 100, 49), (56, 61, 165), (112, 158, 121), (57, 127, 180)),
    bus_paints=((43, 115, 190), (88, 105, 186), (143, 128, 53)),
    tram_paints=((66, 123, 55), (147, 87, 76), (70, 72, 153)),
    clothes=(
        (43, 42, 114), (133, 81, 50), (59, 112, 77), (52, 112, 166),
        (145, 102, 143), (66, 77, 74), (184, 184, 189),
    ),
    skins=((153, 177, 216), (111, 141, 189), (58, 82, 119)),
    vehicle_glass=(66, 56, 45),
    textured=True, jitter=0.12, sunny=0.6, haze_per_m=(0.0005, 0.0055),
    floors=(3, 8), floor_m=3.0, lane_m=(3.0, 3.5), pavement_m=(2.2, 4.2), parking=0.5, verge=0.40,
    lot_weights=(0.46, 0.18, 0.18, 0.18),
    traffic_gap_m=(10.0, 30.0), street_tree_gap_m=(8.0, 22.0), species_weights=(0.45, 0.3, 0.25),
    people=(3, 8), curvature_per_m=0.006,
    focal=(0.78, 0.92), horizon=(0.38, 0.48), height_m=(1.3, 1.7),
)  # fmt: skip

CITIES = {"source": _SOURCE, "target": _TARGET}
