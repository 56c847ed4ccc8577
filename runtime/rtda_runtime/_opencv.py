"""OpenCV, imported when first needed, with its own logging turned off.

FFmpeg inside OpenCV writes to stderr, passwords in addresses included; our errors tell what went wrong.
Set ``OPENCV_LOG_LEVEL`` or ``OPENCV_FFMPEG_LOGLEVEL`` to hear it.
"""

from __future__ import annotations

import os
from typing import Any

from rtda_deploy.optional import require

__all__ = ["has_gstreamer", "opencv"]

_FFMPEG_QUIET = "-8"  # AV_LOG_QUIET
_V4L2_WAIT_S = "3"  # how long a camera that sends nothing is waited for; OpenCV's own 10 s would hold up every stop
_OPENCV_SILENT = 0  # cv::utils::logging::LOG_LEVEL_SILENT


def opencv(purpose: str) -> Any:
    """The ``cv2`` module; ``purpose`` completes "needed ..." where it is missing.

    Raises:
        MissingPackageError: If OpenCV is not installed.
    """
    # Read once by OpenCV when it opens its first file, so it has to be there before.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _FFMPEG_QUIET)
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", _V4L2_WAIT_S)
    cv2: Any = require("cv2", extra="runtime", purpose=purpose)
    if "OPENCV_LOG_LEVEL" not in os.environ:
        places: Any = (cv2, getattr(cv2.utils, "logging", None))  # 4.5.2 to 4.x, 5.x; 4.5.1 has neither
        for place in places:
            if hasattr(place, "setLogLevel"):
                place.setLogLevel(_OPENCV_SILENT)
                break
    return cv2


def has_gstreamer() -> bool:
    """Whether this OpenCV was built with GStreamer; pip's wheels are not, JetPack's is."""
    for line in opencv("to open cameras").getBuildInformation().splitlines():
        name, _, state = line.partition(":")
        if name.strip() == "GStreamer":
            return bool(state.strip().upper().startswith("YES"))
    return False
