"""People, and what they ride: limbs and tubes as thick strokes in the plane of a heading."""

from __future__ import annotations

from typing import Optional, Sequence, Tuple

import numpy as np

from rtda_training.data.toytown.canvas import Canvas, ClassId
from rtda_training.data.toytown.city import Bgr, City
from rtda_training.data.toytown.scene import Thing

__all__ = ["paint_bicycle", "paint_cyclist", "paint_motorcycle", "paint_motorcyclist", "paint_person"]

_TYRE: Bgr = (32.0, 32.0, 32.0)
_STEEL: Bgr = (150.0, 150.0, 150.0)
_RED: Bgr = (40.0, 34.0, 225.0)
_AROUND = np.linspace(0, 2 * np.pi, 19)[:-1]

Point = Tuple[float, float, float]  # forward, height, right; metres


def paint_person(canvas: Canvas, thing: Thing, city: City) -> None:
    """Somebody on foot, in mid-stride."""
    rng = np.random.default_rng(thing.seed)
    tall = thing.height_m / 1.75
    trousers, skin, hair = _clothes(city, rng)
    stride = rng.uniform(0.08, 0.34)
    limbs: Sequence[Tuple[Sequence[Point], float, Bgr]] = (
        (((0.0, 0.88, 0.12), (stride, 0.46, 0.12), (0.7 * stride, 0.07, 0.13)), 0.20, trousers),
        (((0.0, 0.88, -0.12), (-0.4 * stride, 0.46, -0.12), (-stride, 0.07, -0.13)), 0.20, trousers),
        (((0.0, 1.36, -0.27), (stride, 0.92, -0.31)), 0.15, _dim(thing.colour, 0.85)),
        (((0.0, 1.30, 0.0), (0.0, 0.95, 0.0)), 0.46, thing.colour),
        (((0.0, 1.36, 0.27), (-stride, 0.92, 0.31)), 0.15, _dim(thing.colour, 0.85)),
    )
    for points, width, colour in limbs:
        _stroke(canvas, thing, np.array(points) * tall, width * tall, colour, ClassId.PERSON)
    _head(canvas, thing, (0.0, 1.64 * tall, 0.0), skin, hair, ClassId.PERSON)


def paint_bicycle(canvas: Canvas, thing: Thing, city: City) -> None:
    """A parked bicycle. One sees through its wheels; the label, as in Cityscapes, covers them."""
    for x in (-0.56, 0.56):
        wheel = np.column_stack([x + 0.36 * np.cos(_AROUND), 0.37 + 0.36 * np.sin(_AROUND), np.zeros(len(_AROUND))])
        points = _to_street(thing, wheel)
        canvas.mark(points, ClassId.BICYCLE)
        canvas.stroke(points, 0.09, _TYRE, ClassId.BICYCLE, closed=True)
    frame = ((-0.56, 0.37, 0.0), (-0.1, 0.32, 0.0), (0.38, 0.82, 0.0), (-0.2, 0.86, 0.0), (-0.56, 0.37, 0.0))
    tubes: Sequence[Tuple[Sequence[Point], float, Bgr]] = (
        (frame, 0.09, thing.colour),
        (((-0.1, 0.32, 0.0), (-0.24, 0.98, 0.0)), 0.08, thing.colour),
        (((0.56, 0.37, 0.0), (0.36, 1.02, 0.0)), 0.08, thing.colour),
        (((0.34, 1.04, -0.3), (0.36, 1.02, 0.0), (0.34, 1.04, 0.3)), 0.08, _STEEL),
        (((-0.36, 1.0, 0.0), (-0.12, 1.0, 0.0)), 0.13, _TYRE),
    )
    for tube, width, colour in tubes:
        _stroke(canvas, thing, np.array(tube), width, colour, ClassId.BICYCLE)


def paint_motorcycle(canvas: Canvas, thing: Thing, city: City) -> None:
    """A parked motorcycle: fat tyres, tank, bench, exhaust."""
    for x in (-0.68, 0.70):
        _stroke(
            canvas,
            thing,
            np.array([(x, 0.32, 0.0), (x, 0.321, 0.0)]),
            0.66,
            _TYRE,
            ClassId.MOTORCYCLE,
            thin=_is_edge_on(thing),
        )
        _stroke(canvas, thing, np.array([(x, 0.32, 0.0), (x, 0.321, 0.0)]), 0.30, _STEEL, None, thin=_is_edge_on(thing))
    parts: Sequence[Tuple[Sequence[Point], float, Bgr]] = (
        (((-0.2, 0.42, 0.0), (0.25, 0.45, 0.0)), 0.40, (70.0, 70.0, 70.0)),
        (((-0.75, 0.34, 0.14), (-0.1, 0.32, 0.14)), 0.14, _STEEL),
        (((0.70, 0.32, 0.0), (0.42, 1.0, 0.0)), 0.13, _STEEL),
        (((-0.85, 0.86, 0.0), (-0.1, 0.80, 0.0)), 0.22, _TYRE),
        (((-0.05, 0.80, 0.0), (0.36, 0.88, 0.0)), 0.36, thing.colour),
        (((-0.6, 0.70, 0.0), (-0.3, 0.66, 0.0)), 0.26, thing.colour),
        (((0.34, 1.1, -0.36), (0.44, 1.02, 0.0), (0.34, 1.1, 0.36)), 0.10, (60.0, 60.0, 60.0)),
    )
    order = parts if np.cos(np.radians(thing.heading_deg)) < 0.4 else tuple(reversed(parts))
    for points, width, colour in order:
        _stroke(canvas, thing, np.array(points), width, colour, ClassId.MOTORCYCLE)
    end, lamp = (
        ((-0.92, 0.84, 0.0), _RED)
        if np.cos(np.radians(thing.heading_deg)) > 0
        else ((0.56, 0.92, 0.0), (220.0, 250.0, 252.0))
    )
    canvas.disc(_to_street(thing, np.array([end]))[0], 0.11, lamp, ClassId.MOTORCYCLE)


def paint_cyclist(canvas: Canvas, thing: Thing, city: City) -> None:
    """A rider on a bicycle."""
    paint_bicycle(canvas, thing, city)
    _rider(canvas, thing, city, (0.25, 1.42, 0.0), 0.26)


def paint_motorcyclist(canvas: Canvas, thing: Thing, city: City) -> None:
    """A rider with a full helmet on a motorcycle."""
    paint_motorcycle(canvas, thing, city)
    _rider(canvas, thing, city, (0.05, 1.40, 0.0), 0.3)


def _rider(canvas: Canvas, thing: Thing, city: City, shoulder: Point, foot_m: float) -> None:
    rng = np.random.default_rng(thing.seed)
    jacket = city.clothes[int(rng.integers(len(city.clothes)))]
    helmet = city.car_paints[int(rng.integers(len(city.car_paints)))]
    trousers, skin, _ = _clothes(city, rng)
    x, y, _ = shoulder
    hip = (-0.26, 0.98)
    limbs: Sequence[Tuple[Sequence[Point], float, Bgr]] = (
        (((hip[0], hip[1], 0.12), (0.20, 0.72, 0.18), (-0.02, foot_m, 0.16)), 0.18, trousers),
        (((hip[0], hip[1], -0.12), (0.24, 0.86, -0.18), (0.06, foot_m + 0.2, -0.16)), 0.18, trousers),
        (((hip[0], hip[1] + 0.1, 0.0), (x, y, 0.0)), 0.44, jacket),
        (((x, y, 0.24), (0.30, 1.14, 0.34), (0.40, 1.06, 0.28)), 0.14, _dim(jacket, 0.85)),
        (((x, y, -0.24), (0.30, 1.14, -0.34), (0.40, 1.06, -0.28)), 0.14, _dim(jacket, 0.85)),
    )
    for points, width, colour in limbs:
        _stroke(canvas, thing, np.array(points), width, colour, ClassId.RIDER)
    _head(canvas, thing, (x + 0.12, y + 0.33, 0.0), skin, helmet, ClassId.RIDER)


def _head(canvas: Canvas, thing: Thing, centre: Point, skin: Bgr, cap: Bgr, class_id: ClassId) -> None:
    place = _to_street(thing, np.array([centre]))[0]
    canvas.disc(place, 0.165, cap, class_id)
    towards_us = np.cos(np.radians(thing.heading_deg)) < 0.3
    if towards_us:
        canvas.disc(place + np.array((0.0, -0.05, 0.0)), 0.115, skin, class_id)


def _stroke(
    canvas: Canvas, thing: Thing, local: np.ndarray, width: float, colour: Bgr, class_id: Optional[ClassId],
    thin: bool = False,
) -> None:  # fmt: skip
    """Stroke in the thing's own frame; ``thin`` is a disc seen from its edge, drawn as an upright bar."""
    if thin:
        local = local[:1] + np.array([(0.0, -width / 2 + 0.1, 0.0), (0.0, width / 2 - 0.1, 0.0)])
        width = 0.2
    canvas.stroke(_to_street(thing, local), width, colour, class_id)


def _is_edge_on(thing: Thing) -> bool:
    return bool(abs(np.sin(np.radians(thing.heading_deg))) < 0.5)


def _clothes(city: City, rng: np.random.Generator) -> Tuple[Bgr, Bgr, Bgr]:
    """Trousers, skin and hair."""
    trousers = city.clothes[int(rng.integers(len(city.clothes)))]
    skin = city.skins[int(rng.integers(len(city.skins)))]
    hair = float(rng.uniform(20, 70))
    return _dim(trousers, 0.7), skin, (hair, 1.15 * hair, 1.4 * hair)


def _to_street(thing: Thing, local: np.ndarray) -> np.ndarray:
    """From (forward, height, right) around a thing's foot to (lateral, height, along) of the street."""
    angle = np.radians(thing.heading_deg)
    points = np.empty_like(local, dtype=np.float64)
    points[:, 0] = thing.lateral_m + local[:, 0] * np.sin(angle) + local[:, 2] * np.cos(angle)
    points[:, 1] = local[:, 1]
    points[:, 2] = thing.along_m + local[:, 0] * np.cos(angle) - local[:, 2] * np.sin(angle)
    return points


def _dim(colour: Bgr, gain: float) -> Bgr:
    return colour[0] * gain, colour[1] * gain, colour[2] * gain
