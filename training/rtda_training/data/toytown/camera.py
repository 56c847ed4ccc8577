"""From street coordinates to pixels.

A point of the street is ``(lateral, height, along)`` in metres: right of the road's middle line, above the ground, and
along the road. The road bends with a constant curvature, so "along" is a distance on the road, not a straight line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import numpy as np

__all__ = ["NEAR_M", "Camera"]

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
