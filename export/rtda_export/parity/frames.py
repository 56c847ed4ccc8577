"""The pictures a model is verified or calibrated on: a picture, a folder or footage, at most a few, spread evenly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, Tuple, Union

import numpy as np

from rtda_deploy.errors import ExportError
from rtda_deploy.folders import is_hidden

if TYPE_CHECKING:
    from rtda_runtime.sources.footage import FootageAddress

__all__ = ["MAX_FRAMES", "NamedFrame", "read_frames", "stored_frames"]

MAX_FRAMES = 8
_MAX_READ = 3000  # frames of a long recording that are looked at: 100 s at 30 fps
_READ_TIMEOUT_S = 5.0
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

NamedFrame = Tuple[str, np.ndarray]  # what to call it, uint8 (H, W, 3) BGR


def stored_frames(model_path: Union[str, Path], asked: Optional[Union[str, Path]] = None) -> Path:
    """Where the pictures to verify with are: what was asked for, else ``verify/`` beside the model.

    Training stores eight pictures of its target domain there.

    Raises:
        ExportError: If nothing was asked for and nothing is stored.
    """
    if asked is not None:
        return Path(asked)
    folder = Path(model_path).parent / "verify"
    if not folder.is_dir() or not _pictures(folder):
        raise ExportError(
            f"nothing to verify {Path(model_path).name} on: {folder} has no pictures",
            why="an exported file is only trusted once it gave the same masks as its parent on real pictures",
            hint="give a picture, a folder, a video or a bag of what the robot sees: --verify PATH",
        )
    return folder


def read_frames(source: Union[str, Path], max_frames: int = MAX_FRAMES) -> List[NamedFrame]:
    """Up to ``max_frames`` frames, evenly spread over a folder or a recording; of a camera, the first.

    Args:
        source: A picture, a folder, an address of footage (``drive.mp4``, ``bag:run?topic=/front&from=1:30``) or of any
            other source, of which 3000 frames are looked at.
        max_frames: How many at most.

    Raises:
        ConfigError: If an option of the address makes no sense.
        FileAccessError: If a file is missing or unreadable.
        SourceError: If it cannot be opened or read.
        ExportError: If it holds no frame.
        MissingPackageError: If the package that reads such a recording is not installed.
    """
    from rtda_runtime.sources.footage import FootageAddress, names_footage

    path = Path(source)
    if names_footage(str(source)):
        frames = _recorded(FootageAddress.parse(str(source)), max_frames)
    elif path.is_dir():
        pictures = _pictures(path)
        chosen = _spread(len(pictures), max_frames)
        frames = [frame for index in chosen for frame in _some(str(pictures[index]), 1)]
    else:
        frames = _some(str(source), max_frames)
    if not frames:
        raise ExportError(
            f"{source} holds no picture to verify with", hint="--verify PATH   (a picture, a folder, a video, a bag)"
        )
    return frames


def _pictures(folder: Path) -> List[Path]:
    shown = (path for path in folder.iterdir() if not is_hidden(path.name))
    return sorted(path for path in shown if path.suffix.lower() in _PICTURES)


def _recorded(address: FootageAddress, count: int) -> List[NamedFrame]:
    """Evenly spread over every frame that the address means, decoding no more than these need."""
    from rtda_runtime.sources.footage import numbers_every, open_footage

    recordings = open_footage(address)
    pool = [
        (place, number)
        for place, recording in enumerate(recordings)
        for number in numbers_every(recording, address.every_s, address.from_s, address.to_s)
    ]
    chosen = [pool[index] for index in _spread(len(pool), count)]
    return [
        (f"{recording.name} #{frame.number}", frame.image)
        for place, recording in enumerate(recordings)
        for numbers in [[number for other, number in chosen if other == place]]
        if numbers
        for frame in recording.frames(numbers)
    ]


def _some(uri: str, count: int) -> List[NamedFrame]:
    """Evenly spread frames in one pass and little memory: every k-th is kept, and k doubles when too many are."""
    from rtda_runtime import open_source

    kept: List[NamedFrame] = []
    step = 1
    with open_source(uri) as source:
        name = Path(source.name).name
        for index in range(_MAX_READ):
            frame = source.read(_READ_TIMEOUT_S)
            if frame is None:
                break
            if index % step:
                continue
            kept.append((name if source.num_frames == 1 else f"{name} #{index}", frame.image))
            if source.live and len(kept) == count:
                break
            if len(kept) > 2 * count:
                kept, step = kept[::2], 2 * step
    return [kept[index] for index in _spread(len(kept), count)]


def _spread(length: int, count: int) -> List[int]:
    if length <= count:
        return list(range(length))
    return [round(place * (length - 1) / max(1, count - 1)) for place in range(count)]
