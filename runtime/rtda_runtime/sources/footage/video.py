"""Videos as recordings: PyAV where it is installed, else OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from rtda_deploy.errors import ConfigError
from rtda_deploy.files import readable_file
from rtda_deploy.optional import available
from rtda_runtime.sources.footage.base import Recording

__all__ = ["open_video_recording"]


def open_video_recording(path: Path, topic: Optional[str] = None) -> Recording:
    """The first video of a file.

    Args:
        path: Of any container and codec that FFmpeg reads, or JPEGs one after the other.
        topic: Only bags have topics.

    Raises:
        FileAccessError: If it is missing, empty or unreadable.
        SourceError: If it is no video, or holds no frame that can be decoded.
        ConfigError: If a topic is asked for.
    """
    if topic is not None:
        raise ConfigError(f"video:{path}: a video has no topics", hint="leave topic= away")
    readable_file(path, what="video")
    if available("av"):
        from rtda_runtime.sources.footage.video_pyav import VideoRecording

        return VideoRecording(path)
    from rtda_runtime.sources.footage.video_opencv import OpenCVRecording

    return OpenCVRecording(path)
