"""A frame and its label, painted far to near by the same calls, and the camera that maps the street to pixels.

A point of the street is ``(lateral, height, along)`` in metres: right of the road's middle line, above the ground, and
along the road. The road bends with a constant curvature, so "along" is a distance on the road, not a straight line.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Optional, Tuple

import cv2
import numpy as np

from rtda_training.data.toytown.city import Bgr

__all__ = ["NEAR_M", "Camera", "Canvas", "ClassId", "Light"]

NEAR_M = 0.6  # points nearer than this are moved to this plane, so that nothing is divided by zero
_FAR_AWAY_PX = 20000.0  # beyond any picture, within OpenCV's fixed-point range


@dataclass(frozen=True)
class Camera:
    """A pinhole whose pitch is the height of its horizon line; its lens is the sensor's matter."""

    size_hw: Tuple[int, int]
    focal_px: float
    centre_x: float  # column of the vanishing point of the road at the camera
    horizon_y: float  # row of the horizon
    height_m: float
    lateral_m: float
    along_m: float
    curvature: float  # 1/m, positive bends to the right

    def depth(self, along_m: float) -> float:
        """Metres from the camera plane; negative is behind the camera."""
        return along_m - self.along_m

    def pixels_per_metre(self, along_m: float) -> float:
        return self.focal_px / max(along_m - self.along_m, NEAR_M)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixel positions of points.

        Args:
            points: float (..., 3) of lateral, height, along in metres.

        Returns:
            float64 (..., 2) of column and row; not limited to the picture.
        """
        depth = np.maximum(points[..., 2] - self.along_m, NEAR_M)
        right = points[..., 0] - self.lateral_m + 0.5 * self.curvature * depth * depth
        scale = self.focal_px / depth
        pixels = np.empty((*points.shape[:-1], 2))
        pixels[..., 0] = self.centre_x + right * scale
        pixels[..., 1] = self.horizon_y + (self.height_m - points[..., 1]) * scale
        return np.clip(pixels, -_FAR_AWAY_PX, _FAR_AWAY_PX, out=pixels)

    def ground_of_rows(self, first_row: int) -> Tuple[np.ndarray, np.ndarray]:
        """Street coordinates of the ground seen by each pixel from ``first_row`` (below the horizon) down.

        Returns:
            Lateral and along positions in metres, each float32 (H - first_row, W).
        """
        height, width = self.size_hw
        rows = np.arange(first_row, height, dtype=np.float32)[:, None] + np.float32(0.5)
        depth = self.focal_px * self.height_m / np.maximum(rows - self.horizon_y, 0.25)
        columns = np.arange(width, dtype=np.float32)[None, :] + np.float32(0.5)
        lateral = (columns - self.centre_x) * (depth / self.focal_px)
        lateral += self.lateral_m - 0.5 * self.curvature * depth * depth
        along = np.broadcast_to(depth + self.along_m, lateral.shape)
        return lateral.astype(np.float32), along.astype(np.float32)


class ClassId(IntEnum):
    """What a pixel of a label picture says: the Cityscapes train ids, by the names the drawing code uses."""

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


_SHIFT = 4  # fractional bits of the vertices given to OpenCV


@dataclass(frozen=True)
class Light:
    """Where brightness comes from. Gains are relative to a material's own colour."""

    top: float  # faces towards the sky
    end: float  # faces towards the camera
    left: float  # faces towards the left
    right: float
    shadow: Optional[Tuple[float, float]]  # reach (lateral, along) per height; None: even light
    shadow_gain: float
    haze_per_m: float
    haze: Bgr


class Canvas:
    """Paints shapes given in street coordinates (lateral, height, along; metres)."""

    def __init__(self, camera: Camera, light: Light) -> None:
        self.camera = camera
        self.light = light
        self.frame = np.zeros((*camera.size_hw, 3), np.uint8)
        self.label = np.full(camera.size_hw, 255, np.uint8)

    def veil(self, colour: Bgr, along_m: float, gain: float = 1.0) -> Bgr:
        """The colour under a gain, seen through the haze at a distance."""
        t = self._haze(along_m)
        b, g, r = (min(255.0, channel * gain) * (1.0 - t) + haze * t for channel, haze in zip(colour, self.light.haze))
        return b, g, r

    def fill(
        self, points: np.ndarray, colour: Bgr, class_id: Optional[int], gain: float = 1.0, convex: bool = True
    ) -> None:
        """Fill a polygon, float (N, 3); without a class only the frame is painted."""
        along = float(points[:, 2].min())
        self.fill_pixels(self.camera.project(points), self.veil(colour, along, gain), class_id, convex)

    def fill_pixels(self, pixels: np.ndarray, colour: Bgr, class_id: Optional[int], convex: bool = True) -> None:
        """Fill a polygon already projected, float (N, 2); the colour is taken as it is."""
        vertices = np.rint(pixels * (1 << _SHIFT)).astype(np.int32)
        if convex:
            cv2.fillConvexPoly(self.frame, vertices, colour, cv2.LINE_AA, _SHIFT)
            if class_id is not None:
                cv2.fillConvexPoly(self.label, vertices, int(class_id), cv2.LINE_8, _SHIFT)
        else:
            cv2.fillPoly(self.frame, [vertices], colour, cv2.LINE_AA, _SHIFT)
            if class_id is not None:
                cv2.fillPoly(self.label, [vertices], int(class_id), cv2.LINE_8, _SHIFT)

    def mark(self, points: np.ndarray, class_id: int) -> None:
        """Label a convex polygon, float (N, 3), without covering what is seen through it."""
        vertices = np.rint(self.camera.project(points) * (1 << _SHIFT)).astype(np.int32)
        cv2.fillConvexPoly(self.label, vertices, int(class_id), cv2.LINE_8, _SHIFT)

    def stroke(
        self, points: np.ndarray, width_m: float, colour: Bgr, class_id: Optional[int], closed: bool = False
    ) -> None:
        """Draw a line with round ends through points, float (N, 3); never thinner than a pixel."""
        along = float(points[:, 2].mean())
        width = max(1, round(width_m * self.camera.pixels_per_metre(along)))
        vertices = [np.rint(self.camera.project(points) * (1 << _SHIFT)).astype(np.int32)]
        cv2.polylines(self.frame, vertices, closed, self.veil(colour, along), width, cv2.LINE_AA, _SHIFT)
        if class_id is not None:
            cv2.polylines(self.label, vertices, closed, int(class_id), width, cv2.LINE_8, _SHIFT)

    def disc(self, centre: np.ndarray, radius_m: float, colour: Bgr, class_id: Optional[int]) -> None:
        """Draw a disc that faces the camera around one point, float (3,)."""
        along = float(centre[2])
        x, y = (np.rint(self.camera.project(centre) * (1 << _SHIFT))).astype(int).tolist()
        radius = max(1 << (_SHIFT - 1), round(radius_m * self.camera.pixels_per_metre(along) * (1 << _SHIFT)))
        cv2.circle(self.frame, (x, y), radius, self.veil(colour, along), -1, cv2.LINE_AA, _SHIFT)
        if class_id is not None:
            cv2.circle(self.label, (x, y), radius, int(class_id), -1, cv2.LINE_8, _SHIFT)

    def texture(
        self, corners: np.ndarray, image: np.ndarray, class_id: int, gain: float, holes: Optional[np.ndarray] = None
    ) -> None:
        """Hang a picture on an upright rectangle.

        Args:
            corners: float (4, 3): top left, top right, bottom right, bottom left of the picture.
            image: uint8 (h, w, 3).
            class_id: Label of the whole rectangle.
            gain: Brightness of the face.
            holes: uint8 (h, w), 0 where one sees through the picture (the label does not).
        """
        seen = self._before_the_camera(corners, image.shape[1])
        if seen is None:
            return
        corners, columns = seen
        pixels = self.camera.project(corners)
        height, width = self.camera.size_hw
        x0, y0 = (int(v) for v in np.clip(np.floor(pixels.min(axis=0)), 0, (width, height)))
        x1, y1 = (int(v) for v in np.clip(np.ceil(pixels.max(axis=0)) + 1, 0, (width, height)))
        if x1 <= x0 or y1 <= y0:
            return
        rows = image.shape[0]
        image_corners = np.array([[columns[0], 0], [columns[1], 0], [columns[1], rows], [columns[0], rows]], np.float32)
        vertices = (pixels - (x0, y0)).astype(np.float32)
        matrix = cv2.getPerspectiveTransform(image_corners, vertices)
        t = self._haze(float(np.median(corners[:, 2])))
        painted = cv2.warpPerspective(image, matrix, (x1 - x0, y1 - y0), borderMode=cv2.BORDER_REPLICATE)
        painted = cv2.convertScaleAbs(painted, alpha=gain * (1.0 - t))
        painted = np.asarray(cv2.add(painted, np.array([*(t * h for h in self.light.haze), 0.0])))
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillConvexPoly(mask, np.rint(vertices * (1 << _SHIFT)).astype(np.int32), 255, cv2.LINE_8, _SHIFT)
        self.label[y0:y1, x0:x1][mask > 0] = class_id
        if holes is not None:
            mask = np.asarray(cv2.bitwise_and(mask, cv2.warpPerspective(holes, matrix, (x1 - x0, y1 - y0))))
        cv2.copyTo(painted, mask, self.frame[y0:y1, x0:x1])

    def sprite(
        self, tone: np.ndarray, mask: np.ndarray, centre: np.ndarray, size_m: Tuple[float, float], colour: Bgr,
        class_id: int,
    ) -> None:  # fmt: skip
        """Stand a toned, masked square sprite, uint8 (S, S) each, upright at a point; ``size_m`` is width, height."""
        along = float(centre[2])
        scale = self.camera.pixels_per_metre(along)
        middle = self.camera.project(centre)
        w, h = max(2.0, size_m[0] * scale), max(2.0, size_m[1] * scale)
        left, top = float(middle[0] - w / 2), float(middle[1] - h / 2)
        height, width = self.camera.size_hw
        x0, x1 = max(0, int(left)), min(width, int(left + w) + 1)
        y0, y1 = max(0, int(top)), min(height, int(top + h) + 1)
        if x1 <= x0 or y1 <= y0:
            return
        side = tone.shape[0]
        matrix = np.array([[side / w, 0, (x0 - left) * side / w], [0, side / h, (y0 - top) * side / h]], np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        shades = cv2.warpAffine(tone, matrix, (x1 - x0, y1 - y0), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        inside = cv2.warpAffine(mask, matrix, (x1 - x0, y1 - y0), flags=flags)
        inside = cv2.threshold(inside, 127, 255, cv2.THRESH_BINARY)[1]
        t = self._haze(along)
        channels = [
            cv2.convertScaleAbs(shades, alpha=value / 128.0 * (1.0 - t), beta=haze * t)
            for value, haze in zip(colour, self.light.haze)
        ]
        cv2.copyTo(cv2.merge(channels), inside, self.frame[y0:y1, x0:x1])
        self.label[y0:y1, x0:x1][inside > 0] = class_id

    def _haze(self, along_m: float) -> float:
        return 1.0 - float(np.exp(-max(self.camera.depth(along_m), 0.0) * self.light.haze_per_m))

    def _before_the_camera(self, corners: np.ndarray, columns: int) -> Optional[Tuple[np.ndarray, Tuple[float, float]]]:
        """Cut an upright rectangle at the near plane; gives its corners and the columns of the picture that remain."""
        near = self.camera.along_m + NEAR_M
        start, stop = float(corners[0, 2]), float(corners[1, 2])
        if max(start, stop) <= near:
            return None
        if min(start, stop) >= near:
            return corners, (0.0, float(columns))
        cut = (near - start) / (stop - start)
        corners = corners.copy()
        left, right = (0, 1) if start < stop else (1, 0)
        for a, b in ((left, right), (3 - left, 3 - right)):
            share = cut if start < stop else 1.0 - cut
            corners[a] += share * (corners[b] - corners[a])
        return corners, (cut * columns, float(columns)) if start < stop else (0.0, cut * columns)
