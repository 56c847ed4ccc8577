"""Pictures and masks written as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rtda_deploy.errors import DataError
from rtda_deploy.files import write_bytes
from rtda_deploy.optional import require

__all__ = ["write_png"]


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write uint8 (H, W) or (H, W, 3) BGR, whole or not at all.

    Raises:
        DataError: If it cannot be encoded.
        FileAccessError: If the folder cannot be written to or the disk is full.
    """
    cv2 = require("cv2", extra="training", purpose="to store pictures")
    encoded, content = cv2.imencode(".png", picture)
    if not encoded:
        raise DataError(f"cannot encode {path} as PNG", hint="memory may be short (free -h); run it again")
    write_bytes(path, content.tobytes())
