"""Pictures of a street: sample it, paint it far to near, and see it through the domain's camera."""

from __future__ import annotations

from dataclasses import replace
from typing import Iterator, List, Tuple

import cv2
import numpy as np

from rtda_training.data.toytown.canvas import Camera, Canvas, Light
from rtda_training.data.toytown.city import CITIES, City
from rtda_training.data.toytown.frontage import paint_building, paint_fence, paint_wall
from rtda_training.data.toytown.furniture import paint_bush, paint_lamp, paint_sign, paint_traffic_light, paint_tree
from rtda_training.data.toytown.ground import paint_ground, paint_sky, weather_ground
from rtda_training.data.toytown.people import (
    paint_bicycle,
    paint_cyclist,
    paint_motorcycle,
    paint_motorcyclist,
    paint_person,
)
from rtda_training.data.toytown.scene import VIEW_M, Scene, Thing, sample_scene
from rtda_training.data.toytown.sensor import Sensor, expose, sample_sensor
from rtda_training.data.toytown.vehicles import paint_bus, paint_car, paint_tram, paint_truck

__all__ = ["clip", "picture"]

DRIVE_M = 0.42  # the camera's way from one frame of a clip to the next: 23 km/h at 15 frames per second

_PAINTERS = {
    "bicycle": paint_bicycle,
    "building": paint_building,
    "bus": paint_bus,
    "bush": paint_bush,
    "car": paint_car,
    "cyclist": paint_cyclist,
    "fence": paint_fence,
    "lamp": paint_lamp,
    "motorcycle": paint_motorcycle,
    "motorcyclist": paint_motorcyclist,
    "person": paint_person,
    "sign": paint_sign,
    "traffic_light": paint_traffic_light,
    "tram": paint_tram,
    "tree": paint_tree,
    "truck": paint_truck,
    "wall": paint_wall,
}
_LOTS = ("building", "wall", "fence")
_LONG = ("bus", "tram", "truck", "car")
_WIDTH_M = {
    "person": 0.5,
    "cyclist": 0.5,
    "motorcyclist": 0.7,
    "bicycle": 0.3,
    "motorcycle": 0.5,
    "car": 1.8,
    "truck": 2.4,
    "bus": 2.5,
    "tram": 2.4,
}
_HEIGHT_M = {
    "person": 1.7,
    "cyclist": 1.7,
    "motorcyclist": 1.7,
    "bicycle": 0.8,
    "motorcycle": 0.9,
    "car": 1.3,
    "truck": 3.2,
    "bus": 3.0,
    "tram": 3.3,
}


def picture(domain: str, seed: np.random.SeedSequence, size_hw: Tuple[int, int]) -> Tuple[np.ndarray, np.ndarray]:
    """One frame, uint8 (H, W, 3) BGR, and its label, uint8 (H, W)."""
    return next(_drive(domain, seed, 1, size_hw))


def clip(
    domain: str, seed: np.random.SeedSequence, num_frames: int, size_hw: Tuple[int, int], every: int
) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """Frames and labels of a drive through one street that is long enough for it; of ``every`` frames the first."""
    return _drive(domain, seed, num_frames, size_hw, every)


def _drive(
    domain: str, seed: np.random.SeedSequence, num_frames: int, size_hw: Tuple[int, int], every: int = 1
) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    city = CITIES[domain]
    layout, weather, lens, sky, noise = (np.random.default_rng(child) for child in seed.spawn(5))
    scene = sample_scene(city, layout, (num_frames - 1) * every * DRIVE_M)
    light = _sample_light(city, scene, weather)
    sensor = sample_sensor(lens)
    sky_seed = int(sky.integers(1 << 31))
    for number in range(0, num_frames * every, every):
        canvas = _paint(city, scene, light, size_hw, number, np.random.default_rng(sky_seed))
        yield _photograph(canvas, city, sensor, noise)


def _photograph(
    canvas: Canvas, city: City, sensor: Sensor, noise: np.random.Generator
) -> Tuple[np.ndarray, np.ndarray]:
    if city.textured:
        return expose(canvas.frame, canvas.label, sensor, noise)
    return canvas.frame, canvas.label


def _sample_light(city: City, scene: Scene, rng: np.random.Generator) -> Light:
    horizon = city.skies[scene.sky][1]
    haze = float(rng.uniform(*city.haze_per_m))
    if rng.random() >= city.sunny:
        even = float(rng.uniform(0.82, 1.04))
        return Light(1.08 * even, 0.92 * even, even, 0.96 * even, None, 0.62, haze, horizon)
    across = float(rng.choice((-1, 1)) * rng.uniform(0.35, 1.1))  # the way a shadow falls: positive to the right
    left, right = (1.12, 0.66) if across > 0 else (0.66, 1.12)
    return Light(
        1.22, float(rng.uniform(0.7, 1.1)), left, right, (across, float(rng.uniform(-0.6, 0.6))), 0.48, haze, horizon
    )


def _paint(
    city: City, scene: Scene, light: Light, size_hw: Tuple[int, int], frame_number: int, sky: np.random.Generator
) -> Canvas:
    """One canvas of the scene, so many frames into a drive."""
    height, width = size_hw
    camera = Camera(
        size_hw, scene.focal * width, scene.vanishing * width, scene.horizon * height, scene.height_m, scene.lateral_m,
        frame_number * DRIVE_M, scene.curvature,
    )  # fmt: skip
    canvas = Canvas(camera, light)
    things = [_moved(thing, frame_number) for thing in scene.things]
    things = [thing for thing in things if _is_in_view(thing, camera.along_m)]
    paint_sky(canvas, city, scene, sky)
    paint_ground(canvas, city, scene)
    weather_ground(canvas, city.textured, _shadows(canvas, things))
    for thing in _far_to_near(things, camera):
        _PAINTERS[thing.kind](canvas, thing, city)
    return canvas


def _moved(thing: Thing, frames: int) -> Thing:
    if not thing.speed_m or not frames:
        return thing
    way, angle = thing.speed_m * frames, np.radians(thing.heading_deg)
    return replace(
        thing,
        lateral_m=thing.lateral_m + way * float(np.sin(angle)),
        along_m=thing.along_m + way * float(np.cos(angle)),
    )


def _is_in_view(thing: Thing, along_m: float) -> bool:
    reach = thing.length_m if thing.kind in _LOTS else abs(thing.length_m * np.cos(np.radians(thing.heading_deg))) / 2
    nearest = 1.5 if thing.kind not in (*_LOTS, *_LONG) else 0.7 - reach
    return bool(along_m + nearest < thing.along_m < along_m + VIEW_M + 10.0)


def _far_to_near(things: List[Thing], camera: Camera) -> List[Thing]:
    """Order for the painter's algorithm.

    A lot comes by its far end: all that stands before it in the street is painted later. A long vehicle comes by
    its near end, but before what stands beside it on the camera's side.
    """
    keys = {}
    long = [thing for thing in things if thing.kind in _LONG]
    for thing in things:
        reach = abs(thing.length_m * float(np.cos(np.radians(thing.heading_deg)))) / 2
        key = (
            thing.along_m + thing.length_m if thing.kind in _LOTS else thing.along_m - (reach if thing in long else 0.0)
        )
        keys[id(thing)] = key
    for vehicle in sorted(long, key=lambda v: -keys[id(v)]):
        near, far = keys[id(vehicle)], 2 * vehicle.along_m - keys[id(vehicle)]
        offset = vehicle.lateral_m - camera.lateral_m
        for thing in things:
            beside = near < keys[id(thing)] <= far and thing.kind not in _LOTS
            inner = (thing.lateral_m - camera.lateral_m) * np.sign(offset) < abs(offset) - 0.5
            if beside and inner:
                keys[id(thing)] = near - 1e-3 * (1.0 - (keys[id(thing)] - near) / (far - near))
    return sorted(things, key=lambda thing: -keys[id(thing)])


def _shadows(canvas: Canvas, things: List[Thing]) -> np.ndarray:
    """Where things keep the sun, or under an even sky some light, from the ground: uint8 (H, W), 255 for dark."""
    mask = np.zeros(canvas.label.shape, np.uint8)
    if canvas.light.shadow is None:
        return mask
    across, ahead = canvas.light.shadow
    for thing in things:
        if thing.kind in _LOTS:
            tall = min(thing.height_m, 9.0)
            near, far = thing.along_m, thing.along_m + thing.length_m
            points = [(thing.lateral_m, near), (thing.lateral_m, far)]
            outline = [*points, *((u + across * tall, s + ahead * tall) for u, s in reversed(points))]
            if across * thing.side > 0:  # falls away from the street
                continue
        else:
            tall = _HEIGHT_M.get(thing.kind, thing.height_m)
            outline = _cast(thing, across * tall, ahead * tall)
        vertices = canvas.camera.project(np.array([(u, 0.0, s) for u, s in outline]))
        cv2.fillPoly(mask, [cv2.convexHull(np.rint(vertices).astype(np.int32))], 255)
    return np.asarray(cv2.blur(mask, (3, 3)))


def _cast(thing: Thing, across: float, ahead: float) -> List[Tuple[float, float]]:
    """Footprint of a thing and the same moved by the sun, as (lateral, along); a tree casts its crown."""
    if thing.kind in ("tree", "bush"):
        low, radius = 0.35, 0.3 * thing.height_m
        corners = [(radius * np.cos(a), 0.8 * radius * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 9)[:-1]]
    else:
        low, angle = 0.0, np.radians(thing.heading_deg)
        half, wide = max(thing.length_m, 0.3) / 2, _WIDTH_M.get(thing.kind, 0.24) / 2
        corners = [
            (x * np.sin(angle) + w * np.cos(angle), x * np.cos(angle) - w * np.sin(angle))
            for x, w in ((-half, -wide), (half, -wide), (half, wide), (-half, wide))
        ]
    return [
        (thing.lateral_m + u + share * across, thing.along_m + s + share * ahead)
        for share in (low, 1.0)
        for u, s in corners
    ]
