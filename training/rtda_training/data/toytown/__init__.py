"""ToyTown: a procedural street world in two looks, for adaptation without a download.

``source`` is the output of a clean renderer: flat, saturated colours, even light, no noise. ``target`` is another city
seen through a real camera: other materials, sun and shadow, haze, a lens, a noisy sensor and JPEG. Both carry the 19
Cityscapes train ids, so the shift between them is mainly one of appearance.

Every picture is a function of ``(TOYTOWN_VERSION, domain, split, index)`` and its size: the same bytes in any process
and in any order. The splits, and the clips, draw from seed spaces of their own and share no scene.
"""

from __future__ import annotations

from typing import Iterator, Tuple

import numpy as np

from rtda_deploy.errors import ConfigError

__all__ = ["DOMAINS", "SPLITS", "TOYTOWN_VERSION", "render", "render_clip"]

DOMAINS = ("source", "target")
SPLITS = ("train", "val", "test")
TOYTOWN_VERSION = 1  # one number per set of pictures: any change of a pixel is a new version
_MIN_SIDE_PX = 32  # below this nothing in a street can be told apart


def render(domain: str, split: str, index: int, size_hw: Tuple[int, int] = (256, 512)) -> Tuple[np.ndarray, np.ndarray]:
    """Draw one picture and its labels.

    Args:
        domain: ``source`` or ``target``.
        split: ``train``, ``val`` or ``test``; no scene is in two of them.
        index: Number of the picture in its split, from 0; there is no last one.
        size_hw: Rows and columns in pixels. The scene of an index is the same at every size.

    Returns:
        The frame, uint8 (H, W, 3) BGR, and the label, uint8 (H, W) with Cityscapes train ids 0..18 and 255 for ignore.

    Raises:
        ConfigError: If the domain or split is unknown, the index negative or the size below 32x32.
    """
    _check(domain, index, size_hw)
    if split not in SPLITS:
        raise ConfigError(f"ToyTown has no split {split!r}", hint=f"known splits: {', '.join(SPLITS)}")
    from rtda_training.data.toytown.street import picture

    return picture(domain, _seed(domain, SPLITS.index(split), index), size_hw)


def render_clip(
    domain: str, index: int, num_frames: int, size_hw: Tuple[int, int] = (256, 512), every: int = 1
) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """Drive through one scene, a picture at a time, at about 15 frames per second of scene time.

    Args:
        domain: ``source`` or ``target``.
        index: Number of the clip, from 0; its scene is in no split.
        num_frames: How many pictures to draw.
        size_hw: Rows and columns in pixels.
        every: Pictures of scene time from one that is drawn to the next; 15: one a second.

    Returns:
        An iterator over frames, uint8 (H, W, 3) BGR, and labels, uint8 (H, W), as from :func:`render`.

    Raises:
        ConfigError: At the call, not at the first picture, for what :func:`render` refuses, for no frames, and
            for an ``every`` below 1.
    """
    _check(domain, index, size_hw)
    if num_frames < 1:
        raise ConfigError(f"a clip needs at least one frame, got {num_frames}", hint="try num_frames=60")
    if every < 1:
        raise ConfigError(f"a clip goes forwards, by every=1 or more, got {every}", hint="try every=1")
    from rtda_training.data.toytown.street import clip

    return clip(domain, _seed(domain, len(SPLITS), index), num_frames, size_hw, every)


def _seed(domain: str, space: int, index: int) -> np.random.SeedSequence:
    return np.random.SeedSequence((TOYTOWN_VERSION, DOMAINS.index(domain), space, index))


def _check(domain: str, index: int, size_hw: Tuple[int, int]) -> None:
    if domain not in DOMAINS:
        raise ConfigError(f"ToyTown has no domain {domain!r}", hint=f"known domains: {', '.join(DOMAINS)}")
    if index < 0:
        raise ConfigError(f"the index of a ToyTown picture counts from 0, got {index}", hint="try index 0")
    if min(size_hw) < _MIN_SIDE_PX:
        raise ConfigError(
            f"ToyTown draws nothing below {_MIN_SIDE_PX}x{_MIN_SIDE_PX} pixels, got {size_hw[0]}x{size_hw[1]}",
            hint="try size_hw=(128, 256)",
        )
