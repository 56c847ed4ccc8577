"""What lines the street: buildings, walls and fences, as pictures hung on upright rectangles."""

from __future__ import annotations

from typing import List, Tuple

import cv2
import numpy as np

from rtda_training.data.toytown.canvas import Canvas, ClassId
from rtda_training.data.toytown.city import Bgr, City
from rtda_training.data.toytown.scene import Thing
from rtda_training.data.toytown.textures import TILE_PX, bricks, grain

__all__ = ["paint_building", "paint_fence", "paint_wall"]

BAY_M = 2.8  # width of one window with its share of wall
DEPTH_M = 11.0  # of a building, away from the street


def paint_building(canvas: Canvas, thing: Thing, city: City) -> None:
    """A row house: shop or doors below, windows above, cornice, and sometimes a pitched roof."""
    rng = np.random.default_rng(thing.seed)
    floors, bays = max(2, round(thing.height_m / city.floor_m)), max(2, round(thing.length_m / BAY_M))
    cell = _cell_px(canvas, thing, city.floor_m)
    rough = city.textured and rng.random() < 0.75
    facade = _facade(city, rng, thing.colour, floors, bays, cell, rough)
    near, far = thing.along_m, thing.along_m + thing.length_m
    if rng.random() < 0.55:
        _roof(canvas, thing, city.roofs[int(rng.integers(len(city.roofs)))])
    if canvas.camera.depth(near) > 2.0:
        side_wall = _facade(city, rng, thing.colour, floors, 4, cell, rough, entrances=False)
        back = thing.lateral_m + thing.side * DEPTH_M
        left, right = sorted((thing.lateral_m, back))
        canvas.texture(
            _upright((left, near), (right, near), thing.height_m), side_wall, ClassId.BUILDING, canvas.light.end
        )
    gain = canvas.light.right if thing.side < 0 else canvas.light.left
    place = thing.lateral_m
    ends = ((place, near), (place, far)) if thing.side < 0 else ((place, far), (place, near))
    canvas.texture(_upright(*ends, thing.height_m), facade, ClassId.BUILDING, gain)


def _roof(canvas: Canvas, thing: Thing, colour: Bgr) -> None:
    eave, ridge = thing.lateral_m - thing.side * 0.3, thing.lateral_m + thing.side * DEPTH_M / 2
    near, far = thing.along_m, thing.along_m + thing.length_m
    top = thing.height_m + 3.2
    slope = np.array([[eave, thing.height_m, near], [eave, thing.height_m, far], [ridge, top, far], [ridge, top, near]])
    gable = np.array([[eave, thing.height_m, near], [ridge, top, near], [2 * ridge - eave, thing.height_m, near]])
    if canvas.camera.depth(near) > 1.0:
        canvas.fill(gable, thing.colour, ClassId.BUILDING, canvas.light.end * 0.92)
        canvas.fill(slope, colour, ClassId.BUILDING, canvas.light.top * 0.95)


def _facade(
    city: City, rng: np.random.Generator, colour: Bgr, floors: int, bays: int, cell: int, rough: bool,
    entrances: bool = True,
) -> np.ndarray:  # fmt: skip
    """Wall with windows, uint8 (floors * cell, bays * cell, 3)."""
    glass = city.glass[int(rng.integers(len(city.glass)))]
    tall, wide = rng.uniform(0.45, 0.68), rng.uniform(0.34, 0.62)
    windows = [_window(city, colour, _dim(glass, gain), cell, tall, wide) for gain in (1.0, 0.82, 1.2)]
    cells = np.stack(windows)[rng.integers(0, 3, (floors, bays))]
    if entrances:
        if rng.random() < 0.5:
            awning = city.awnings[int(rng.integers(len(city.awnings)))]
            cells[-1] = _shop(city, colour, glass, awning, cell)
        else:
            bay, paint = int(rng.integers(bays)), city.awnings[int(rng.integers(len(city.awnings)))]
            cells[-1, bay] = _door(city, colour, paint, cell)
    facade = np.ascontiguousarray(cells.transpose(0, 2, 1, 3, 4).reshape(floors * cell, bays * cell, 3))
    cornice = max(1, cell // 7)
    facade[:cornice] = np.asarray(_dim(colour, 1.16), np.uint8)
    if rough:
        tone = _repeat(bricks() if rng.random() < 0.65 else _plaster(), facade.shape[:2], cell)
        facade = cv2.multiply(facade, cv2.merge([tone, tone, tone]), scale=1 / 128)
    return facade


def _window(city: City, colour: Bgr, glass: Bgr, cell: int, tall: float, wide: float) -> np.ndarray:
    tile = np.full((cell, cell, 3), colour, np.float64).astype(np.uint8)
    x0, x1 = int(cell * (0.5 - wide / 2)), int(cell * (0.5 + wide / 2))
    y0, y1 = int(cell * (0.52 - tall / 2)), int(cell * (0.52 + tall / 2))
    rim = max(1, cell // 16)
    cv2.rectangle(tile, (x0 - rim, y0 - rim), (x1 + rim, y1 + rim), city.window_frame, -1)
    cv2.rectangle(tile, (x0, y0), (x1, y1), glass, -1)
    cv2.line(tile, ((x0 + x1) // 2, y0), ((x0 + x1) // 2, y1), city.window_frame, rim)
    cv2.rectangle(tile, (x0 - 2 * rim, y1 + rim), (x1 + 2 * rim, y1 + 2 * rim), _dim(colour, 0.75), -1)
    return tile


def _shop(city: City, colour: Bgr, glass: Bgr, awning: Bgr, cell: int) -> np.ndarray:
    tile = np.full((cell, cell, 3), _dim(colour, 0.8), np.float64).astype(np.uint8)
    margin = max(1, cell // 14)
    cv2.rectangle(tile, (margin, cell // 3), (cell - margin, cell - 2 * margin), _dim(glass, 0.9), -1)
    cv2.rectangle(tile, (0, cell // 9), (cell, cell // 3), awning, -1)
    return tile


def _door(city: City, colour: Bgr, paint: Bgr, cell: int) -> np.ndarray:
    tile = np.full((cell, cell, 3), colour, np.float64).astype(np.uint8)
    cv2.rectangle(tile, (int(cell * 0.26), int(cell * 0.16)), (int(cell * 0.74), cell), city.window_frame, -1)
    cv2.rectangle(tile, (int(cell * 0.32), int(cell * 0.22)), (int(cell * 0.68), cell), paint, -1)
    return tile


def paint_wall(canvas: Canvas, thing: Thing, city: City) -> None:
    """A free-standing wall of large blocks under a row of capping stones."""
    block = max(6, _cell_px(canvas, thing, 0.6))
    courses, blocks = max(3, round(thing.height_m / 0.6)), max(4, round(thing.length_m / 1.1))
    rng = np.random.default_rng(thing.seed)
    shades = np.clip(rng.normal(1.0, 0.07, (courses, blocks, 1)) * np.asarray(thing.colour), 0, 255).astype(np.uint8)
    image = np.repeat(np.repeat(shades, block, axis=0), 2 * block, axis=1)
    joint = np.asarray(_dim(thing.colour, 0.68), np.uint8)
    image[::block] = joint
    for course in range(courses):
        image[course * block : (course + 1) * block, (course % 2) * block :: 2 * block] = joint
    image[: max(1, block // 3)] = np.asarray(_dim(thing.colour, 1.18), np.uint8)
    if city.textured:
        tone = _repeat(_plaster(), image.shape[:2], 3 * block)
        image = np.asarray(cv2.multiply(image, cv2.merge([tone, tone, tone]), scale=1 / 128), dtype=np.uint8)
    gain = canvas.light.right if thing.side < 0 else canvas.light.left
    canvas.texture(_along_the_street(thing), image, ClassId.WALL, gain)


def paint_fence(canvas: Canvas, thing: Thing, city: City) -> None:
    """Slats or railings on two beams. One sees through the gaps; the label, as in Cityscapes, does not."""
    pitch = max(4, _cell_px(canvas, thing, 0.32))
    slats = max(8, round(thing.length_m / 0.32))
    tall = max(8, round(pitch * thing.height_m / 0.32))
    image = np.full((tall, slats * pitch, 3), thing.colour, np.float64).astype(np.uint8)
    holes = np.zeros(image.shape[:2], np.uint8)
    thick = max(2, round(pitch * 0.62))
    for left in range(0, slats * pitch, pitch):
        holes[:, left : left + thick] = 255
        image[:, left] = np.asarray(_dim(thing.colour, 0.7), np.uint8)
    for beam in (0.16, 0.72):
        rows = slice(int(beam * tall), int(beam * tall) + max(1, tall // 9))
        holes[rows] = 255
        image[rows] = np.asarray(_dim(thing.colour, 0.82), np.uint8)
    if city.textured:
        tone = _repeat(_plaster(), image.shape[:2], 6 * pitch)
        image = np.asarray(cv2.multiply(image, cv2.merge([tone, tone, tone]), scale=1 / 128), dtype=np.uint8)
    gain = canvas.light.right if thing.side < 0 else canvas.light.left
    canvas.texture(_along_the_street(thing), image, ClassId.FENCE, gain, holes)


def _along_the_street(thing: Thing) -> np.ndarray:
    near, far = (thing.lateral_m, thing.along_m), (thing.lateral_m, thing.along_m + thing.length_m)
    return _upright(near, far, thing.height_m) if thing.side < 0 else _upright(far, near, thing.height_m)


def _upright(left: Tuple[float, float], right: Tuple[float, float], height: float) -> np.ndarray:
    """Corners of an upright rectangle over two ground points (lateral, along), seen from the front."""
    (u0, s0), (u1, s1) = left, right
    corners: List[Tuple[float, float, float]] = [(u0, height, s0), (u1, height, s1), (u1, 0.0, s1), (u0, 0.0, s0)]
    return np.array(corners)


def _cell_px(canvas: Canvas, thing: Thing, size_m: float) -> int:
    """Pixels for a detail of this size, as large as it is seen at the middle of the lot: finer would only alias."""
    near = max(thing.along_m, canvas.camera.along_m + 3.0)
    middle = (near + max(near, thing.along_m + thing.length_m)) / 2
    return int(np.clip(size_m * canvas.camera.pixels_per_metre(middle), 6, 64))


def _repeat(tile: np.ndarray, size_hw: Tuple[int, int], cell: int) -> np.ndarray:
    """A tile laid out over a facade so that 96 of its pixels cover one cell; fades where a pixel covers many."""
    side = max(8, round(TILE_PX * cell / 96))
    small = cv2.resize(tile, (side, side), interpolation=cv2.INTER_AREA)
    times = (-(-size_hw[0] // side), -(-size_hw[1] // side))
    return np.ascontiguousarray(np.tile(small, times)[: size_hw[0], : size_hw[1]])


def _plaster() -> np.ndarray:
    return np.asarray(np.clip(128.0 * (1.0 + 0.08 * grain(30, 0.6) + 0.10 * grain(31, 2.2)), 0, 255), dtype=np.uint8)


def _dim(colour: Bgr, gain: float) -> Bgr:
    b, g, r = (min(255.0, channel * gain) for channel in colour)
    return b, g, r
