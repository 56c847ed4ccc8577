"""Street furniture and plants: lamps, signs, traffic lights, trees and bushes."""

from __future__ import annotations

from typing import Tuple

import numpy as np

from rtda_training.data.toytown.canvas import Canvas, ClassId
from rtda_training.data.toytown.city import Bgr, City
from rtda_training.data.toytown.scene import Thing
from rtda_training.data.toytown.textures import CROWN_PX, CROWNS_PER_SPECIES, crown

__all__ = ["paint_bush", "paint_lamp", "paint_sign", "paint_traffic_light", "paint_tree"]

POLE_M = 0.24  # thicker than life: a pole must still be a pole at 256x128
_LAMPS: Tuple[Tuple[float, Bgr], ...] = (
    (0.42, (40.0, 40.0, 235.0)),
    (0.0, (30.0, 190.0, 245.0)),
    (-0.42, (90.0, 215.0, 60.0)),
)
_ROUND = np.stack([np.cos(np.linspace(0, 2 * np.pi, 17)[:-1]), np.sin(np.linspace(0, 2 * np.pi, 17)[:-1])], axis=1)
_TRIANGLE = np.array([[-1.1, -0.8], [1.1, -0.8], [0.0, 1.1]])
_DIAMOND = np.array([[-1.1, 0.0], [0.0, -1.1], [1.1, 0.0], [0.0, 1.1]])
_SQUARE = np.array([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]])
_SIGN_SHAPES = (_ROUND, _TRIANGLE, _DIAMOND, _SQUARE)


def paint_lamp(canvas: Canvas, thing: Thing, city: City) -> None:
    """A street lamp: mast, arm over the road, lantern."""
    foot = np.array([thing.lateral_m, 0.0, thing.along_m])
    head = foot + np.array((0.0, thing.height_m, 0.0))
    tip = head + np.array((-1.9 * thing.side, 0.25, 0.0))
    _mast(canvas, foot, head, thing.colour)
    canvas.stroke(np.array([head, tip]), 0.14, thing.colour, ClassId.POLE)
    canvas.stroke(
        np.array([tip, tip + np.array((0.7 * thing.side, -0.05, 0.0))]), 0.26, _mix(thing.colour, 235.0), ClassId.POLE
    )


def paint_sign(canvas: Canvas, thing: Thing, city: City) -> None:
    """One or two signs on a pole, facing the camera."""
    rng = np.random.default_rng(thing.seed)
    foot = np.array([thing.lateral_m, 0.0, thing.along_m])
    _mast(canvas, foot, foot + np.array((0.0, thing.height_m, 0.0)), thing.colour)
    height = thing.height_m
    for _ in range(1 + int(rng.random() < 0.3)):
        look = int(rng.integers(4))
        face, rim = city.signs[look]
        shape = _SIGN_SHAPES[(look + int(rng.random() < 0.25)) % 4]
        for size, colour in ((0.5, rim), (0.40, face)):
            canvas.fill(_plate(thing, height, shape, size), colour, ClassId.TRAFFIC_SIGN)
        canvas.fill(_plate(thing, height, np.array([[-1, -0.25], [1, -0.25], [1, 0.2], [-1, 0.2]]), 0.22), rim, None)
        height -= 1.05


def paint_traffic_light(canvas: Canvas, thing: Thing, city: City) -> None:
    """A three-lamp signal on a pole, one lamp lit."""
    rng = np.random.default_rng(thing.seed)
    foot = np.array([thing.lateral_m, 0.0, thing.along_m])
    pole = city.poles[int(rng.integers(len(city.poles)))]
    centres = [foot + np.array((-0.1 * thing.side, 3.1, 0.0))]
    _mast(canvas, foot, foot + np.array((0.0, 3.8, 0.0)), pole)
    if rng.random() < 0.5:  # a second signal on an arm over the road
        elbow, tip = foot + np.array((0.0, 5.6, 0.0)), foot + np.array((-2.6 * thing.side, 5.6, 0.0))
        _mast(canvas, foot, elbow, pole)
        canvas.stroke(np.array([elbow, tip]), 0.16, pole, ClassId.POLE)
        centres.append(tip + np.array((0.0, -0.3, 0.0)))
    lit = int(rng.integers(3))
    for centre in centres:
        box = np.array([[-0.36, -0.8, 0], [0.36, -0.8, 0], [0.36, 0.8, 0], [-0.36, 0.8, 0]])
        canvas.fill(centre + box, city.light_housing, ClassId.TRAFFIC_LIGHT)
        for number, (rise, colour) in enumerate(_LAMPS):
            shown = colour if number == lit else _mix(city.light_housing, 70.0)
            canvas.disc(centre + np.array((0.0, rise, 0.0)), 0.2, shown, None)


def paint_tree(canvas: Canvas, thing: Thing, city: City) -> None:
    """Trunk and crown of one of three species."""
    rng = np.random.default_rng(thing.seed)
    species = int(rng.choice(3, p=city.species_weights))
    spread, share = ((0.66, 0.62), (0.5, 0.84), (0.62, 0.92))[species]
    foot = np.array([thing.lateral_m, 0.0, thing.along_m])
    canvas.stroke(
        np.array([foot, foot + np.array((0.0, 0.6 * thing.height_m, 0.0))]), 0.3, city.trunk, ClassId.VEGETATION
    )
    size = (1.25 * spread * thing.height_m, 1.15 * share * thing.height_m)
    centre = foot + np.array((0.0, (1.03 - share / 2) * thing.height_m, 0.0))
    _leaves(canvas, species, rng, centre, size, thing.colour, city.textured)


def paint_bush(canvas: Canvas, thing: Thing, city: City) -> None:
    """A shrub on the ground."""
    rng = np.random.default_rng(thing.seed)
    centre = np.array([thing.lateral_m, thing.height_m * 0.30, thing.along_m])
    size = (3.4 * thing.height_m, 2.0 * thing.height_m)
    _leaves(canvas, 3, rng, centre, size, thing.colour, city.textured)


def _leaves(
    canvas: Canvas, species: int, rng: np.random.Generator, centre: np.ndarray, size_m: Tuple[float, float],
    colour: Bgr, textured: bool,
) -> None:  # fmt: skip
    seen_px = size_m[1] * canvas.camera.pixels_per_metre(float(centre[2]))
    side = CROWN_PX
    while side > 16 and seen_px < 0.7 * side:
        side //= 2
    tone, mask = crown(species, int(rng.integers(CROWNS_PER_SPECIES)), textured, side)
    canvas.sprite(tone, mask, centre, size_m, colour, ClassId.VEGETATION)


def _mast(canvas: Canvas, foot: np.ndarray, head: np.ndarray, colour: Bgr) -> None:
    half = np.array([POLE_M / 2, 0.0, 0.0])
    shine = np.array([POLE_M / 8, 0.0, 0.0])
    canvas.fill(np.array([foot - half, head - half, head + half, foot + half]), colour, ClassId.POLE)
    canvas.fill(np.array([foot - half, head - half, head - shine, foot - shine]), _mix(colour, 160.0), ClassId.POLE)


def _plate(thing: Thing, height: float, shape: np.ndarray, size_m: float) -> np.ndarray:
    points = np.empty((len(shape), 3))
    points[:, 0] = thing.lateral_m + size_m * shape[:, 0]
    points[:, 1] = height + size_m * shape[:, 1]
    points[:, 2] = thing.along_m - 0.1
    return points


def _mix(colour: Bgr, towards: float) -> Bgr:
    b, g, r = (0.6 * channel + 0.4 * towards for channel in colour)
    return b, g, r
