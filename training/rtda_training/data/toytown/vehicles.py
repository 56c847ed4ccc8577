"""Cars, trucks, buses and trams: side outlines drawn out to a width, with windows, wheels and lights on their faces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import cv2
import numpy as np

from rtda_training.data.toytown.canvas import Canvas, ClassId
from rtda_training.data.toytown.city import Bgr, City
from rtda_training.data.toytown.scene import Thing

__all__ = ["paint_bus", "paint_car", "paint_tram", "paint_truck"]

Patch = Tuple[float, float, float, float, Bgr]  # a rectangle on a face: from, to, bottom, top, colour

_RED: Bgr = (36.0, 30.0, 220.0)
_LAMP: Bgr = (215.0, 245.0, 252.0)
_TYRE: Bgr = (30.0, 30.0, 30.0)
_HUB: Bgr = (150.0, 150.0, 150.0)
_TYRES: Tuple[Patch, ...] = ((-0.92, -0.66, 0.0, 0.4, _TYRE), (0.66, 0.92, 0.0, 0.4, _TYRE))  # seen from either end
_ROUND = np.linspace(0, 2 * np.pi, 13)[:-1]


@dataclass(frozen=True)
class _Body:
    """An outline in the plane of the heading, metres from the rear end, drawn out to a width.

    ``outline`` runs from the rear bottom over the top to the front bottom; ``panels`` has the colour of each stretch
    between two of its points. ``narrowing`` is the share of the width lost between ``waist_m`` and the top.
    """

    outline: np.ndarray  # (P, 2) of distance from the rear end and height
    panels: Tuple[Bgr, ...]  # P - 1
    width_m: float
    side: Bgr
    windows: Tuple[np.ndarray, ...] = ()  # on both sides, each (N, 2) like the outline
    bands: Tuple[Patch, ...] = ()  # on both sides
    rear: Tuple[Patch, ...] = ()  # across from -1 (left) to 1
    front: Tuple[Patch, ...] = ()
    wheels: Tuple[float, ...] = ()
    wheel_m: float = 0.34
    glass: Bgr = (0.0, 0.0, 0.0)
    waist_m: float = 99.0
    narrowing: float = 0.0


@dataclass(frozen=True)
class _CarShape:
    """What a kind of car looks like at a length of 4.3 m; the fields are those of ``_Body``."""

    outline: Tuple[Tuple[float, float], ...]
    panels: Tuple[str, ...]  # "dark", "paint" or "glass"
    windows: Tuple[np.ndarray, ...]
    rear_lamps_m: float = 0.8
    narrowing: float = 0.16


_SALOON = _CarShape(
    ((0, 0.3), (0, 0.62), (0.05, 0.98), (0.6, 1.04), (1.1, 1.46),
     (2.5, 1.47), (3.2, 1.0), (4.2, 0.82), (4.3, 0.55), (4.3, 0.3)),
    ("dark", "paint", "paint", "glass", "paint", "glass", "paint", "paint", "dark"),
    (np.array([(0.95, 1.03), (1.25, 1.38), (2.4, 1.38), (2.95, 1.01)]),),
)  # fmt: skip
_HATCHBACK = _CarShape(
    ((0, 0.3), (0, 0.62), (0.05, 1.0), (0.35, 1.52),
     (2.5, 1.55), (3.2, 1.05), (4.2, 0.88), (4.3, 0.55), (4.3, 0.3)),
    ("dark", "paint", "glass", "paint", "glass", "paint", "paint", "dark"),
    (np.array([(0.4, 1.06), (0.62, 1.44), (2.4, 1.46), (2.95, 1.07)]),),
)  # fmt: skip
_VAN = _CarShape(
    ((0, 0.34), (0, 0.7), (0.03, 1.2), (0.12, 1.98),
     (2.9, 2.0), (3.65, 1.25), (4.25, 1.05), (4.3, 0.55), (4.3, 0.34)),
    ("dark", "paint", "glass", "paint", "glass", "paint", "paint", "dark"),
    (
        np.array([(2.2, 1.25), (2.2, 1.85), (2.8, 1.85), (3.35, 1.25)]),
        np.array([(0.4, 1.25), (0.4, 1.85), (2.0, 1.85), (2.0, 1.25)]),
    ),
    rear_lamps_m=1.1,
    narrowing=0.05,
)  # fmt: skip
_CAR_LENGTH_M = 4.3


def paint_car(canvas: Canvas, thing: Thing, city: City) -> None:
    """A saloon, a hatchback or a van."""
    rng = np.random.default_rng(thing.seed)
    shape = (_SALOON, _HATCHBACK, _VAN)[int(rng.choice(3, p=(0.4, 0.42, 0.18)))]
    dark: Bgr = (44.0, 44.0, 46.0)
    colours = {"dark": dark, "paint": thing.colour, "glass": city.vehicle_glass}
    low, high = shape.rear_lamps_m - 0.06, shape.rear_lamps_m + 0.16
    body = _Body(
        np.array(shape.outline) * (thing.length_m / _CAR_LENGTH_M, 1.0),
        tuple(colours[panel] for panel in shape.panels),
        1.8,
        thing.colour,
        shape.windows,
        rear=(
            *_TYRES,
            (-0.95, -0.62, low, high, _RED),
            (0.62, 0.95, low, high, _RED),
            (-0.3, 0.3, 0.66, 0.8, (235.0, 240.0, 240.0)),
        ),
        front=(
            *_TYRES,
            (-0.92, -0.55, 0.6, 0.78, _LAMP),
            (0.55, 0.92, 0.6, 0.78, _LAMP),
            (-0.4, 0.4, 0.44, 0.62, dark),
        ),
        wheels=(0.8, 3.45),
        glass=city.vehicle_glass,
        waist_m=1.0,
        narrowing=shape.narrowing,
    )
    _shade_below(canvas, thing, 1.8)
    _paint_body(canvas, thing, body, ClassId.CAR, 0.0, thing.length_m)


def paint_truck(canvas: Canvas, thing: Thing, city: City) -> None:
    """A cab and a high box; the box is pale with a stripe in the colour of the cab."""
    rng = np.random.default_rng(thing.seed)
    paint, dark = thing.colour, (48.0, 48.0, 50.0)
    pale: Bgr = (232.0, 232.0, 228.0) if rng.random() < 0.6 else (150.0, 176.0, 190.0)
    split, top = thing.length_m - 2.1, rng.uniform(3.2, 3.7)
    box = _Body(
        np.array([(0, 0.9), (0, top), (split - 0.2, top), (split - 0.2, 0.9)]),
        (pale, pale, pale),
        2.45,
        pale,
        bands=((0.0, split - 0.2, 1.55, 2.05, paint), (0.0, split - 0.2, 0.55, 0.9, dark)),
        rear=(
            *_TYRES,
            (-0.97, 0.97, 0.4, 0.9, dark),
            (-0.03, 0.03, 0.95, top - 0.1, dark),
            (-0.97, 0.97, top - 0.24, top - 0.06, paint),
            (-0.97, -0.75, 0.62, 0.84, _RED),
            (0.75, 0.97, 0.62, 0.84, _RED),
            (-0.9, 0.9, 1.55, 2.05, paint),
        ),
        wheels=(1.2, 2.2),
        wheel_m=0.5,
    )
    cab = _Body(
        np.array([(0, 0.5), (0, 2.75), (1.7, 2.75), (2.0, 1.55), (2.1, 0.5)]),
        (paint, paint, city.vehicle_glass, paint),
        2.35,
        paint,
        windows=(np.array([(0.6, 1.6), (0.6, 2.4), (1.5, 2.4), (1.75, 1.6)]),),
        front=(*_TYRES, (-0.9, -0.6, 0.7, 0.95, _LAMP), (0.6, 0.9, 0.7, 0.95, _LAMP), (-0.5, 0.5, 0.75, 1.3, dark)),
        wheels=(1.0,),
        wheel_m=0.5,
        glass=city.vehicle_glass,
    )
    _shade_below(canvas, thing, 2.4)
    parts = [(box, 0.0), (cab, split)]
    if np.cos(np.radians(thing.heading_deg)) >= 0:
        parts.reverse()
    for body, start in parts:
        _paint_body(canvas, thing, body, ClassId.TRUCK, start, thing.length_m)


def paint_bus(canvas: Canvas, thing: Thing, city: City) -> None:
    """A city bus: a band of windows, a destination board, doors."""
    long, glass, paint = thing.length_m, city.vehicle_glass, thing.colour
    board: Bgr = (20.0, 22.0, 22.0)
    amber: Bgr = (40.0, 190.0, 250.0)
    panes = tuple((x, x + 1.25, 1.35, 2.45, glass) for x in np.arange(0.5, long - 2.0, 1.45).tolist())
    body = _Body(
        np.array(
            [(0, 0.4), (0, 1.4), (0, 2.4), (0.15, 3.1), (long - 0.3, 3.1), (long - 0.05, 2.5), (long, 1.2), (long, 0.4)]
        ),
        (paint, paint, paint, paint, board, glass, paint),
        2.5,
        paint,
        bands=(*panes, (long - 1.5, long - 0.3, 0.5, 2.45, glass), (0.0, long, 0.4, 0.6, (60.0, 60.0, 60.0))),
        rear=(
            *_TYRES,
            (-0.8, 0.8, 1.5, 2.4, glass),
            (-0.75, 0.75, 0.55, 1.15, _dim(paint, 0.6)),
            (-0.95, -0.78, 0.6, 1.3, _RED),
            (0.78, 0.95, 0.6, 1.3, _RED),
            (-0.5, 0.5, 2.55, 2.85, board),
            (-0.35, 0.2, 2.62, 2.78, amber),
        ),
        front=(*_TYRES, (-0.92, -0.6, 0.6, 0.85, _LAMP), (0.6, 0.92, 0.6, 0.85, _LAMP), (-0.5, 0.5, 2.62, 2.92, amber)),
        wheels=(2.3, long - 2.6),
        wheel_m=0.48,
        glass=glass,
    )
    _shade_below(canvas, thing, 2.5)
    _paint_body(canvas, thing, body, ClassId.BUS, 0.0, long)


def paint_tram(canvas: Canvas, thing: Thing, city: City) -> None:
    """A tram with tapered ends, a pale belt under a dark band of windows, and a pantograph."""
    long, glass, paint = thing.length_m, city.vehicle_glass, thing.colour
    pale: Bgr = (228.0, 236.0, 238.0)
    panes = tuple((x, x + 2.1, 1.55, 2.7, glass) for x in np.arange(1.4, long - 3.0, 2.35).tolist())
    nose = (
        (-0.7, -0.4, 0.75, 1.0, _LAMP),
        (0.4, 0.7, 0.75, 1.0, _LAMP),
        (-0.35, 0.35, 3.0, 3.25, (40.0, 190.0, 250.0)),
    )
    tail = (
        (-0.85, -0.55, 0.75, 1.0, _RED),
        (0.55, 0.85, 0.75, 1.0, _RED),
        (-0.35, 0.35, 3.0, 3.25, (40.0, 190.0, 250.0)),
    )
    body = _Body(
        np.array(
            [
                (0, 0.2),
                (0, 1.1),
                (0.05, 1.5),
                (0.5, 2.9),
                (0.7, 3.4),
                (long - 0.7, 3.4),
                (long - 0.5, 2.9),
                (long - 0.05, 1.5),
                (long, 1.1),
                (long, 0.2),
            ]
        ),
        (paint, pale, glass, paint, (120.0, 120.0, 120.0), paint, glass, pale, paint),
        2.4,
        paint,
        bands=(*panes, (0.2, long - 0.2, 1.1, 1.4, pale), (0.0, long, 0.2, 0.4, (50.0, 50.0, 50.0))),
        rear=tail,
        front=nose,
        glass=glass,
    )
    _shade_below(canvas, thing, 2.4)
    middle = _to_street(thing, np.array([[8.0, 3.4, 0.0], [9.0, 4.6, 0.0], [8.0, 5.5, 0.0]]), 0.0, long)
    canvas.stroke(middle, 0.14, (70.0, 70.0, 70.0), ClassId.TRAIN)
    _paint_body(canvas, thing, body, ClassId.TRAIN, 0.0, long)


def _paint_body(canvas: Canvas, thing: Thing, body: _Body, class_id: ClassId, start: float, length: float) -> None:
    """Paint the faces that look at the camera: ends and top as strips across, then a side with its details."""
    count = len(body.outline)
    top = body.outline[:, 1].max()
    pinch = body.narrowing * np.clip((body.outline[:, 1] - body.waist_m) / max(top - body.waist_m, 0.1), 0, 1)
    half = body.width_m / 2 * (1.0 - pinch)
    edges = np.stack([np.column_stack([body.outline, sign * half]) for sign in (-1, 1)])
    points = _to_street(thing, edges.reshape(-1, 3), start, length).reshape(2, count, 3)
    pixels = canvas.camera.project(points)
    along = float(points[..., 2].mean())
    order = np.argsort(-(points[0, :-1, 2] + points[0, 1:, 2]), kind="stable").tolist()
    for i in order:
        strip = np.array([pixels[0, i], pixels[1, i], pixels[1, i + 1], pixels[0, i + 1]])
        if _signed_area(strip) >= 0:
            continue
        rise, run = abs(body.outline[i + 1, 1] - body.outline[i, 1]), abs(body.outline[i + 1, 0] - body.outline[i, 0])
        gain = canvas.light.top if run > rise else canvas.light.end
        canvas.fill_pixels(strip, canvas.veil(body.panels[i], along, gain), class_id)
    for patches, place, strip_at in ((body.rear, -0.02, 0), (body.front, float(body.outline[-1, 0]) + 0.02, count - 2)):
        strip = np.array([pixels[0, strip_at], pixels[1, strip_at], pixels[1, strip_at + 1], pixels[0, strip_at + 1]])
        if _signed_area(strip) < 0:
            for a, b, low, high, colour in patches:
                across = np.array([a, b, b, a]) * body.width_m / 2
                face = np.column_stack([np.full(4, place), [low, low, high, high], across])
                canvas.fill(_to_street(thing, face, start, length), colour, class_id)
    for index, sign in ((0, -1), (1, 1)):
        if sign * _signed_area(pixels[index]) > 0:
            _paint_side(canvas, thing, body, class_id, start, length, sign, points[index])


def _paint_side(
    canvas: Canvas, thing: Thing, body: _Body, class_id: ClassId, start: float, length: float, sign: int,
    outline: np.ndarray,
) -> None:  # fmt: skip
    gain = canvas.light.left if sign * np.cos(np.radians(thing.heading_deg)) < 0 else canvas.light.right
    canvas.fill(outline, body.side, class_id, gain, convex=False)
    place = sign * (body.width_m / 2 + 0.01)
    for pane in body.windows:
        share = body.narrowing * np.clip((pane[:, 1] - body.waist_m) / 0.5, 0, 1)
        across = place * (1.0 - share)
        canvas.fill(_to_street(thing, np.column_stack([pane, across]), start, length), body.glass, None)
    for a, b, low, high, colour in body.bands:
        face = np.array([(a, low, place), (b, low, place), (b, high, place), (a, high, place)])
        canvas.fill(_to_street(thing, face, start, length), colour, class_id, gain)
    for x in body.wheels:
        for radius, colour in ((body.wheel_m, _TYRE), (0.55 * body.wheel_m, _HUB)):
            rim = np.column_stack([x + radius * np.cos(_ROUND), body.wheel_m + radius * np.sin(_ROUND)])
            face = np.column_stack([rim, np.full(len(rim), place)])
            canvas.fill(_to_street(thing, face, start, length), colour, class_id)


def _shade_below(canvas: Canvas, thing: Thing, width: float) -> None:
    """The dark ground under a vehicle, which is still ground."""
    long = thing.length_m
    corners = np.array([(0.0, 0.0, -width), (long, 0.0, -width), (long, 0.0, width), (0.0, 0.0, width)]) * (1, 1, 0.48)
    canvas.fill(_to_street(thing, corners, 0.0, long), (34.0, 34.0, 36.0), None)


def _to_street(thing: Thing, local: np.ndarray, start: float, length: float) -> np.ndarray:
    """From (distance from the rear end, height, right) of a body to (lateral, height, along) of the street."""
    angle = np.radians(thing.heading_deg)
    forward = local[:, 0] + start - length / 2
    points = np.empty_like(local, dtype=np.float64)
    points[:, 0] = thing.lateral_m + forward * np.sin(angle) + local[:, 2] * np.cos(angle)
    points[:, 1] = local[:, 1]
    points[:, 2] = thing.along_m + forward * np.cos(angle) - local[:, 2] * np.sin(angle)
    return points


def _signed_area(polygon: np.ndarray) -> float:
    """Area of a polygon in pixels (N, 2): positive for clockwise as seen on the screen."""
    return float(cv2.contourArea(polygon.astype(np.float32), oriented=True))


def _dim(colour: Bgr, gain: float) -> Bgr:
    return colour[0] * gain, colour[1] * gain, colour[2] * gain
