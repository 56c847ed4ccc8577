"""The layout of a street: sampled once, then rendered from wherever the camera is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import List, Sequence, Tuple

import numpy as np

from rtda_training.data.toytown.city import Bgr, City

__all__ = ["VIEW_M", "Scene", "Strip", "Thing", "sample_scene"]

VIEW_M = 95.0  # how far the camera sees things
BLOCK_M = 50.0  # each such stretch of a long street gets its own crossing and people
BEHIND_M = -6.0  # the street begins behind the camera: facades beside it fill the edges of the picture


@dataclass(frozen=True)
class Thing:
    """One object. ``length_m`` is along its heading; ``seed`` fixes what its painter decides by itself."""

    kind: str
    lateral_m: float
    along_m: float  # its centre; for a lot, its near end
    seed: int
    heading_deg: float = 0.0  # 0 drives away from the camera, 180 towards it, 90 to the right
    length_m: float = 0.0
    height_m: float = 0.0
    speed_m: float = 0.0  # metres per frame of a clip, along the heading
    side: int = 1  # of the street: -1 left, +1 right
    colour: Bgr = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Strip:
    """A band of ground between two lateral positions."""

    kind: str  # road, sidewalk, terrain or track
    left_m: float
    right_m: float


@dataclass
class Scene:
    """A street: its cross-section, what stands on it, and where the camera drives."""

    strips: List[Strip] = field(default_factory=list)
    things: List[Thing] = field(default_factory=list)
    road_half_m: float = 0.0
    lanes_m: List[float] = field(default_factory=list)  # lateral positions of dashed lines
    side_streets: List[Tuple[float, float, int]] = field(default_factory=list)  # start, stop, side
    zebras: List[float] = field(default_factory=list)
    frontage_m: Tuple[float, float] = (0.0, 0.0)
    length_m: float = 0.0
    lateral_m: float = 0.0  # of the camera
    height_m: float = 0.0
    curvature: float = 0.0
    focal: float = 0.0
    horizon: float = 0.0
    vanishing: float = 0.5  # widths of the picture
    sky: int = 0
    asphalt: Bgr = (0.0, 0.0, 0.0)
    pavement: Bgr = (0.0, 0.0, 0.0)
    grass: Bgr = (0.0, 0.0, 0.0)


def sample_scene(city: City, rng: np.random.Generator, drive_m: float) -> Scene:
    """Draw a street of one city, long enough to drive ``drive_m`` along it."""
    return _Sampler(city, rng, drive_m).scene


class _Sampler:
    """Lays out one street, from the road outwards."""

    def __init__(self, city: City, rng: np.random.Generator, drive_m: float) -> None:
        self.city, self.rng = city, rng
        self.scene = Scene(length_m=VIEW_M + drive_m)
        self.drive_m = drive_m
        blocks = np.arange(0.0, drive_m + 1.0, BLOCK_M).tolist()
        self._cross_section()
        self._camera()
        for block in blocks:
            self._crossing(block)
        for side in (-1, 1):
            self._lots(side)
            self._furniture(side)
            for block in blocks:
                self._parked_bikes(side, block)
                self._people(side, block)
        self._traffic()
        self._tram()
        self._parked()

    # the ground

    def _cross_section(self) -> None:
        rng, scene, city = self.rng, self.scene, self.city
        self.lane_m = rng.uniform(*city.lane_m)
        self.lanes = 1 if rng.random() < 0.6 else 2  # in each direction
        self.parking_m = 2.3 if rng.random() < city.parking else 0.0
        half = scene.road_half_m = self.lanes * self.lane_m + self.parking_m
        scene.lanes_m = [self.lane_m * i for i in range(-self.lanes + 1, self.lanes)]
        scene.asphalt = self._colour(city.asphalt)
        scene.pavement = self._colour(city.pavement)
        scene.grass = self._colour(city.grass)
        scene.strips.append(Strip("road", -half, half))
        self.tram_side = int(rng.choice((-1, 1))) if rng.random() < 0.36 else 0
        self.kerb_m, frontage = {}, {}
        for side in (-1, 1):
            edge = half
            if side == self.tram_side:
                edge = self._strip("track", edge, 3.6, side)
            if rng.random() < city.verge:
                edge = self._strip("terrain", edge, rng.uniform(1.2, 2.6), side)
            self.kerb_m[side] = edge
            frontage[side] = self._strip("sidewalk", edge, rng.uniform(*city.pavement_m), side)
        scene.frontage_m = (frontage[-1], frontage[1])

    def _strip(self, kind: str, start_m: float, width_m: float, side: int) -> float:
        stop = start_m + width_m
        self.scene.strips.append(Strip(kind, *sorted((side * start_m, side * stop))))
        return stop

    def _camera(self) -> None:
        rng, scene, city = self.rng, self.scene, self.city
        scene.lateral_m = self.lane_m * (self.lanes - 0.5) + rng.uniform(-0.4, 0.4)
        scene.height_m = rng.uniform(*city.height_m)
        scene.curvature = rng.uniform(-1, 1) * city.curvature_per_m
        scene.focal = rng.uniform(*city.focal)
        scene.horizon = rng.uniform(*city.horizon)
        scene.vanishing = rng.uniform(0.42, 0.58)
        scene.sky = int(rng.integers(len(city.skies)))

    def _crossing(self, block: float) -> None:
        rng, scene = self.rng, self.scene
        start = block + rng.uniform(14.0, 34.0)
        if rng.random() < 0.45:
            width = rng.uniform(8.0, 11.0)
            scene.side_streets += [(start, start + width, side) for side in (-1, 1) if rng.random() < 0.85]
            if rng.random() < 0.7:
                middle = start + width / 2
                to_the_right = rng.random() < 0.5
                kind = str(
                    rng.choice(("car", "bus", "truck", "motorcyclist", "cyclist"), p=(0.3, 0.2, 0.2, 0.15, 0.15))
                )
                self._vehicle(
                    kind, rng.uniform(-7, 7), middle + (-1.8 if to_the_right else 1.8), 90 if to_the_right else -90
                )
        zebra = rng.random() < 0.6
        if zebra:
            scene.zebras.append(start - 4.0)
        if rng.random() < 0.68:
            for side in (-1, 1):
                self._add(
                    "traffic_light", side * (self.kerb_m[side] + 0.35), start - 5.0 + rng.uniform(-4, 1), side=side
                )
        for _ in range(int(rng.integers(0, 3)) if zebra else 0):
            heading = float(rng.choice((-90, 90)))
            self._person(rng.uniform(-scene.road_half_m, scene.road_half_m), start - 3.0 + rng.uniform(-1, 1), heading)

    # along the street

    def _lots(self, side: int) -> None:
        rng, city = self.rng, self.city
        frontage = self.scene.frontage_m[0 if side < 0 else 1]
        streets = [(a, b) for a, b, s in self.scene.side_streets if s == side]
        along = BEHIND_M - rng.uniform(0, 8)
        kinds = ("building", "park", "wall", "fence")
        while along < self.scene.length_m:
            stop = along + rng.uniform(8.0, 19.0)
            kind = str(rng.choice(kinds, p=city.lot_weights))
            for a, b in streets:
                if along < b and stop > a:
                    stop = a if along < a - 3.0 else along
                    along = along if along < a - 3.0 else b
                    stop = max(stop, along + 10.0) if along == b else stop
            self._lot(kind, side, frontage, along, stop - along)
            along = stop

    def _lot(self, kind: str, side: int, frontage: float, along: float, length: float) -> None:
        rng, city = self.rng, self.city
        place = side * frontage
        if kind == "building":
            height = city.floor_m * int(rng.integers(city.floors[0], city.floors[1] + 1)) + 0.9
            self._add(kind, place, along, side=side, length=length, height=height, colour=self._colour(city.facades))
            return
        for _ in range(int(rng.integers(2, 5))):
            self._tree(place + side * rng.uniform(3.5, 12.0), along + rng.uniform(0.1, 0.9) * length, 1.15)
        for _ in range(int(rng.integers(1, 4)) if kind != "wall" else 0):
            self._add("bush", place + side * rng.uniform(1.2, 5.0), along + rng.uniform(0.1, 0.9) * length,
                      height=rng.uniform(1.0, 1.8), colour=self._colour(city.crowns))  # fmt: skip
        if kind == "wall":
            height, colour = rng.uniform(1.8, 2.7), self._colour(city.walls)
            self._add(kind, place, along, side=side, length=length, height=height, colour=colour)
        elif kind == "fence" or rng.random() < 0.3:
            height, colour = rng.uniform(1.2, 1.9), self._colour(city.fences)
            self._add("fence", place, along, side=side, length=length, height=height, colour=colour)

    def _furniture(self, side: int) -> None:
        rng, city = self.rng, self.city
        kerb = self.kerb_m[side]
        along, gap = rng.uniform(6.0, 20.0), rng.uniform(17.0, 26.0)
        pole = self._colour(city.poles)
        while along < self.scene.length_m - 20:
            if self._free(along, side):
                self._add("lamp", side * (kerb + 0.3), along, side=side, height=rng.uniform(6.0, 7.0), colour=pole)
            along += gap
        along = rng.uniform(7.0, 26.0)
        while along < self.scene.length_m - 30:
            place = side * (kerb + rng.uniform(0.4, 0.9))
            self._add("sign", place, along, side=side, height=rng.uniform(2.3, 3.0), colour=pole)
            along += rng.uniform(10.0, 34.0)
        along, gap = rng.uniform(4.0, 24.0), rng.uniform(*city.street_tree_gap_m)
        if rng.random() < 0.6:
            while along < self.scene.length_m:
                if self._free(along, side):
                    self._tree(side * (kerb + 0.7), along, 0.85)
                along += gap * rng.uniform(0.8, 1.2)

    def _parked_bikes(self, side: int, block: float) -> None:
        rng = self.rng
        for kind, chance in (("bicycle", 0.36), ("motorcycle", 0.30)):
            if rng.random() < chance:
                along = block + rng.uniform(6.0, 22.0)
                for _ in range(int(rng.integers(1, 4))):
                    heading = rng.choice((90, -90)) + rng.uniform(-35, 35)
                    self._small(kind, side * (self.kerb_m[side] + rng.uniform(0.7, 1.2)), along, heading)
                    along += rng.uniform(1.2, 3.0)

    def _people(self, side: int, block: float) -> None:
        rng = self.rng
        low, high = self.city.people
        frontage = self.scene.frontage_m[0 if side < 0 else 1]
        for _ in range(int(rng.integers(low, high + 1) / 2 + rng.random())):
            place = side * rng.uniform(self.kerb_m[side] + 0.5, frontage - 0.5)
            self._person(place, block + rng.uniform(7.0, 34.0), float(rng.choice((0, 180))) + rng.uniform(-30, 30))

    # on the road

    def _traffic(self) -> None:
        rng, scene = self.rng, self.scene
        low, high = self.city.traffic_gap_m
        for lane in range(-self.lanes, self.lanes):
            away = lane >= 0
            lateral = (lane + 0.5) * self.lane_m
            own = away and lane == self.lanes - 1
            along = rng.uniform(9.0, 13.0) + rng.uniform(0.1, 1.0) * low if own else rng.uniform(7.0, 7.0 + high)
            speed = rng.uniform(0.42, 0.5) if away else rng.uniform(0.3, 0.5)
            while along < 75.0 + self.drive_m:
                kind = str(rng.choice(("car", "truck", "bus", "motorcyclist"), p=(0.58, 0.15, 0.14, 0.13)))
                half = {"car": 2.2, "truck": 4.2, "bus": 5.8, "motorcyclist": 1.1}[kind]
                self._vehicle(kind, lateral + rng.uniform(-0.2, 0.2), along + half, 0 if away else 180, speed)
                along += 2 * half + rng.uniform(low, high)
        for side in (-1, 1):
            if rng.random() < 0.30:
                away = side > 0
                lateral = side * (scene.road_half_m - self.parking_m - 0.5)
                heading = (0 if away else 180) + rng.uniform(-24, 24)
                self._small("cyclist", lateral, rng.uniform(7.0, 20.0), heading, 0.34 if away else 0.22)

    def _tram(self) -> None:
        rng, scene = self.rng, self.scene
        if self.tram_side:
            along = rng.uniform(8.0, 26.0) + 9.0
            heading = 0 if self.tram_side > 0 else 180
            place = self.tram_side * (scene.road_half_m + 1.8)
            self._vehicle("tram", place, along, heading, 0.34 if heading == 0 else 0.3)

    def _parked(self) -> None:
        if not self.parking_m:
            return
        rng = self.rng
        for side in (-1, 1):
            along, filled = rng.uniform(5.0, 12.0), rng.uniform(0.3, 0.85)
            while along < 60.0 + self.drive_m:
                if rng.random() < filled and self._free(along + 2.2, side) and self._free(along + 6.0, side):
                    lateral = side * (self.scene.road_half_m - 1.1)
                    self._vehicle(
                        "truck" if rng.random() < 0.06 else "car", lateral, along + 2.2, 0 if side > 0 else 180
                    )
                    along += 3.2
                along += rng.uniform(2.2, 4.0)

    # one object

    def _add(
        self, kind: str, lateral: float, along: float, *, side: int = 1, heading: float = 0.0, length: float = 0.0,
        height: float = 0.0, speed: float = 0.0, colour: Bgr = (0.0, 0.0, 0.0),
    ) -> None:  # fmt: skip
        seed = int(self.rng.integers(1 << 31))
        thing = Thing(kind, lateral, along, seed, heading, length, height, speed, side, colour)
        self.scene.things.append(thing)

    def _vehicle(self, kind: str, lateral: float, along: float, heading: float, speed: float = 0.0) -> None:
        city = self.city
        paints = {"truck": city.truck_paints, "bus": city.bus_paints, "tram": city.tram_paints}
        if kind in ("motorcyclist", "cyclist"):
            self._small(kind, lateral, along, heading, speed)
            return
        length = {"car": 4.3, "truck": 8.2, "bus": 11.0, "tram": 18.0}[kind] * self.rng.uniform(0.95, 1.08)
        colour = self._colour(paints.get(kind, city.car_paints))
        self._add(kind, lateral, along, heading=heading, length=length, speed=speed, colour=colour)

    def _small(self, kind: str, lateral: float, along: float, heading: float, speed: float = 0.0) -> None:
        colour = self._colour(self.city.car_paints)
        self._add(kind, lateral, along, heading=heading, length=1.9, speed=speed, colour=colour)

    def _person(self, lateral: float, along: float, heading: float) -> None:
        height, speed = self.rng.uniform(1.6, 1.9), self.rng.uniform(0.05, 0.1)
        colour = self._colour(self.city.clothes)
        self._add("person", lateral, along, heading=heading, height=height, speed=speed, colour=colour)

    def _tree(self, lateral: float, along: float, scale: float) -> None:
        height = self.rng.uniform(5.0, 9.0) * scale
        self._add("tree", lateral, along, height=height, colour=self._colour(self.city.crowns))

    def _free(self, along: float, side: int) -> bool:
        """Whether no side street or zebra opens here."""
        return not any(a - 2 < along < b + 2 for a, b, s in self.scene.side_streets if s == side) and not any(
            z - 2 < along < z + 5 for z in self.scene.zebras
        )

    def _colour(self, options: Sequence[Bgr]) -> Bgr:
        base = np.asarray(options[int(self.rng.integers(len(options)))])
        spread = self.city.jitter
        gain = 1.0 + spread * self.rng.uniform(-1, 1) + 0.3 * spread * self.rng.uniform(-1, 1, 3)
        b, g, r = np.clip(base * gain, 0, 255).tolist()
        return b, g, r
