"""Sky, horizon and everything flat: road, markings, pavement, grass, rails, and the shadows on them."""

from __future__ import annotations

from typing import Optional

import cv2
import numpy as np

from rtda_training.data.toytown.canvas import NEAR_M, Canvas, ClassId
from rtda_training.data.toytown.city import Bgr, City
from rtda_training.data.toytown.scene import Scene
from rtda_training.data.toytown.textures import TILE_PX, cloud_tone, ground_tones

__all__ = ["paint_ground", "paint_sky", "weather_ground"]

FAR_M = 160.0  # where the ground ends and the skyline stands
KERB_M = 0.25
_TEXELS_PER_M = 32.0  # of the ground tiles
_TONE_OF_CLASS = {ClassId.ROAD: 0, ClassId.SIDEWALK: 1, ClassId.TERRAIN: 2}


def paint_sky(canvas: Canvas, city: City, scene: Scene, rng: np.random.Generator) -> None:
    """Sky over the whole picture, clouds, and a skyline of far houses and trees on the horizon."""
    height, width = canvas.camera.size_hw
    zenith, horizon = (np.asarray(colour) for colour in city.skies[scene.sky])
    t = np.clip(np.arange(height) / max(canvas.camera.horizon_y, 1.0), 0, 1)[:, None] ** 1.3
    canvas.frame[:] = (zenith * (1 - t) + horizon * t)[:, None, :].astype(np.uint8)
    canvas.label[:] = int(ClassId.SKY)
    if city.textured:
        x0, y0 = (int(v) for v in rng.integers(0, TILE_PX // 2, 2))
        tone = cv2.resize(cloud_tone()[y0 : y0 + 128, x0 : x0 + 128], (width, height), interpolation=cv2.INTER_LINEAR)
        cv2.multiply(canvas.frame, cv2.merge([tone, tone, tone]), dst=canvas.frame, scale=1 / 128)
    else:
        for x, y, size in rng.random((int(rng.integers(2, 6)), 3)):
            for dx, dy, part in ((-0.9, 0.15, 0.7), (0.0, 0.0, 1.0), (0.9, 0.1, 0.75)):
                radius = (0.03 + 0.035 * size) * width * part
                centre = (int(x * width + dx * radius), int((0.08 + 0.6 * y) * canvas.camera.horizon_y + dy * radius))
                cv2.ellipse(
                    canvas.frame,
                    centre,
                    (int(radius * 1.3), int(radius * 0.5)),
                    0,
                    0,
                    360,
                    (252, 250, 248),
                    -1,
                    cv2.LINE_AA,
                )
    _skyline(canvas, city, rng)


def _skyline(canvas: Canvas, city: City, rng: np.random.Generator) -> None:
    height, width = canvas.camera.size_hw
    along = canvas.camera.along_m + FAR_M
    base = canvas.camera.horizon_y + 0.02 * height
    x = -0.02 * width
    while x < width:
        w, h = rng.uniform(0.03, 0.09) * width, rng.uniform(0.02, 0.10) * height
        trees = rng.random() < 0.45
        options = city.crowns if trees else city.facades
        colour = canvas.veil(options[int(rng.integers(len(options)))], along, 0.92)
        top = canvas.camera.horizon_y - h * (0.6 if trees else 1.0)
        box = np.array([[x, top], [x + w, top], [x + w, base], [x, base]])
        canvas.fill_pixels(box, colour, ClassId.VEGETATION if trees else ClassId.BUILDING)
        x += w * rng.uniform(0.8, 1.0)


def paint_ground(canvas: Canvas, city: City, scene: Scene) -> None:
    """All flat surfaces with their markings, from the horizon to the camera."""
    near = canvas.camera.along_m + NEAR_M
    stations = near + np.geomspace(1.0, FAR_M, 28) - 1.0
    _band(canvas, stations, -400.0, 400.0, scene.grass, ClassId.TERRAIN)
    looks = {
        "road": (scene.asphalt, ClassId.ROAD),
        "sidewalk": (scene.pavement, ClassId.SIDEWALK),
        "terrain": (scene.grass, ClassId.TERRAIN),
        "track": (_darker(scene.asphalt, 0.9), ClassId.ROAD),
    }
    for strip in scene.strips:
        if strip.kind != "road":
            _band(canvas, stations, strip.left_m, strip.right_m, *looks[strip.kind])
        if strip.kind == "sidewalk":
            edge = strip.left_m if strip.left_m > 0 else strip.right_m
            _band(canvas, stations, edge - KERB_M / 2, edge + KERB_M / 2, city.kerb, ClassId.SIDEWALK)
    for start, stop, side in scene.side_streets:
        if stop > near:
            _side_street(canvas, city, scene, max(start, near), stop, side)
    _band(canvas, stations, -scene.road_half_m, scene.road_half_m, *looks["road"])
    _markings(canvas, city, scene, near)
    for strip in scene.strips:
        if strip.kind == "track":
            middle = (strip.left_m + strip.right_m) / 2
            for rail in (middle - 0.72, middle + 0.72):
                _band(canvas, stations, rail - 0.14, rail + 0.14, _darker(scene.asphalt, 0.55), None)
                _band(canvas, stations, rail - 0.05, rail + 0.05, (186.0, 186.0, 190.0), None)


def _band(
    canvas: Canvas, stations: np.ndarray, left: float, right: float, colour: Bgr, class_id: Optional[ClassId]
) -> None:
    sides = [np.stack([np.full_like(stations, u), np.zeros_like(stations), stations], axis=1) for u in (left, right)]
    outline = canvas.camera.project(np.concatenate([sides[0], sides[1][::-1]]))
    canvas.fill_pixels(outline, colour, class_id, convex=False)


def _side_street(canvas: Canvas, city: City, scene: Scene, start: float, stop: float, side: int) -> None:
    kerb = scene.road_half_m - 0.5
    for margin, colour, class_id in ((1.8, scene.pavement, ClassId.SIDEWALK), (0.0, scene.asphalt, ClassId.ROAD)):
        near, far = max(start - margin, canvas.camera.along_m + NEAR_M), stop + margin
        corners = ((kerb, near), (kerb, far), (60.0, far), (60.0, near))
        canvas.fill(np.array([[side * u, 0.0, s] for u, s in corners]), colour, class_id)


def _markings(canvas: Canvas, city: City, scene: Scene, near: float) -> None:
    crossings = [(a, b) for a, b, _ in scene.side_streets] + [(z, z + 3.0) for z in scene.zebras]
    for lateral in scene.lanes_m:
        solid = lateral == 0.0 and len(scene.lanes_m) > 1
        step, dash = (3.0, 3.0) if solid else (9.0, 3.6)
        for start in np.arange(np.floor(near / step) * step, near + 70.0, step):
            stop = start + dash
            if stop > near and not any(start < b and stop > a for a, b in crossings):
                _paint(canvas, city, lateral - 0.09, lateral + 0.09, max(start, near), stop)
    for zebra in scene.zebras:
        if zebra + 3.0 > near:
            for left in np.arange(-scene.road_half_m + 0.3, scene.road_half_m - 0.5, 1.1):
                _paint(canvas, city, left, left + 0.6, max(zebra, near), zebra + 3.0)


def _paint(canvas: Canvas, city: City, left: float, right: float, start: float, stop: float) -> None:
    corners = np.array([[left, 0, start], [left, 0, stop], [right, 0, stop], [right, 0, start]])
    canvas.fill(corners, city.marking, ClassId.ROAD)


def _darker(colour: Bgr, gain: float) -> Bgr:
    return colour[0] * gain, colour[1] * gain, colour[2] * gain


def weather_ground(canvas: Canvas, textured: bool, shadow_mask: np.ndarray) -> None:
    """Lay material grain, shadows and haze over the ground painted so far.

    Args:
        canvas: Holds sky and ground, and nothing that stands.
        textured: Whether the surfaces have grain.
        shadow_mask: uint8 (H, W), 255 where no sun comes.
    """
    first = min(max(int(np.ceil(canvas.camera.horizon_y)), 0), canvas.camera.size_hw[0] - 1)
    ground = canvas.frame[first:]
    lateral, along = canvas.camera.ground_of_rows(first)
    depth = along[:, :1] - canvas.camera.along_m
    gain = np.ones(ground.shape[:2], np.float32)
    if textured:
        columns = np.mod(lateral * _TEXELS_PER_M, TILE_PX)
        rows = np.mod(along * _TEXELS_PER_M, TILE_PX)
        tones = cv2.split(cv2.remap(ground_tones(), columns, rows, cv2.INTER_NEAREST))
        tone = tones[0]
        for class_id, channel in _TONE_OF_CLASS.items():
            if channel:
                cv2.copyTo(tones[channel], np.equal(canvas.label[first:], class_id).view(np.uint8), tone)
        fade = np.minimum(1.0, 12.0 / depth)  # far texels are smaller than pixels and average out
        gain += (tone.astype(np.float32) * np.float32(1 / 128) - 1.0) * fade
    gain *= 1.0 - np.float32((1.0 - canvas.light.shadow_gain) / 255.0) * shadow_mask[first:]
    clear = np.exp(-depth * canvas.light.haze_per_m).astype(np.float32)
    gain *= clear
    colours = ground * gain[:, :, None]
    colours += (1.0 - clear)[:, :, None] * np.asarray(canvas.light.haze, np.float32)
    on_the_ground = np.less(canvas.label[first:], 10) & np.not_equal(canvas.label[first:], ClassId.BUILDING)
    on_the_ground &= np.not_equal(canvas.label[first:], ClassId.VEGETATION)
    cv2.copyTo(np.clip(colours, 0, 255).astype(np.uint8), on_the_ground.view(np.uint8), ground)
