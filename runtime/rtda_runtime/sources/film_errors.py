"""What is said of a video file that cannot be read, whichever library reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from rtda_deploy.errors import SourceError

__all__ = ["film_error"]

_HINT = "is it damaged, or no video? Try it in a player: ffplay, vlc"
_BAGS = (b"#ROSBAG V", b"SQLite format 3\0", b"\x89MCAP0\r\n")
_UNFINISHED = "repair it with a whole video of the same camera (untrunc GOOD.mp4 BAD.mp4); .mkv and .ts survive a stop"


def film_error(path: Path, trouble: object) -> SourceError:
    """The error for a video.

    Args:
        path: The file.
        trouble: What happened, as a sentence without its subject; or what was raised when it was opened.
    """
    if isinstance(trouble, str):
        return SourceError(f"video {path} {trouble}", hint=_HINT)
    if _lacks_its_table(path):
        why = "its recorder was stopped before it wrote the table of frames (moov)"
        return SourceError(f"video {path} has no end", why=why, hint=_UNFINISHED)
    if _is_bag(path):
        return SourceError(f"{path} is no video but a bag", hint=f"type bag:{path}")
    told = _told_by_us(trouble)
    return SourceError(f"video {path} cannot be opened as a video{told}", hint=_HINT)


def _told_by_us(trouble: object) -> str:
    said: Optional[str] = getattr(trouble, "why", None)
    return f": {said}" if said else ""


def _is_bag(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(16).startswith(_BAGS)
    except OSError:
        return False


def _lacks_its_table(path: Path) -> bool:
    """Whether it begins as mp4 and ends before its ``moov`` does. Source: ISO/IEC 14496-12, 4.2."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            place, first = 0, True
            while place + 8 <= size:
                file.seek(place)
                head = file.read(16)
                length, kind = int.from_bytes(head[:4], "big"), head[4:8]
                length = int.from_bytes(head[8:], "big") if length == 1 else length or size
                if (first and kind != b"ftyp") or kind == b"moov":
                    return not first and place + length > size
                place, first = place + max(length, 8), False
    except OSError:
        return False
    return not first
