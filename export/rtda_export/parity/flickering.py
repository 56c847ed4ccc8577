"""Flicker of model files on consecutive footage, with the masks that a robot would see."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Sequence, Union

import numpy as np

from rtda_deploy.spec import ModelSpec
from rtda_export.parity.networks import Network, open_network
from rtda_runtime.mask.preprocess import Preprocessor, content_box, network_input
from rtda_runtime.sources.footage import FootageAddress, names_footage, numbers_every, open_footage
from rtda_training.judge.flicker import Flicker, flicker_of
from rtda_training.readers import open_unlabelled

__all__ = ["MOST_FRAMES", "consecutive_frames", "measure_flicker"]

MOST_FRAMES = 300  # ten seconds at 30 Hz


def measure_flicker(
    models: Sequence[Union[str, Path]],
    footage: str,
    *,
    spec: Optional[ModelSpec] = None,
    most: int = MOST_FRAMES,
    progress: Optional[Callable[[int, int], None]] = None,
) -> List[Flicker]:
    """How much the masks of each model change from a frame of ``footage`` to the next.

    Args:
        models: ``.pth``, ``.onnx`` or engines; all are open at once.
        footage: A video, a bag, or an address of pictures, whose order is that of the set.
        spec: Used instead of the files' own.
        most: Frames at most, from the first on.
        progress: Called with (done, at most).

    Raises:
        DataError: If the frames do not follow one another.
        RtdaError: As opening the models and the footage does.
    """
    with contextlib.ExitStack() as stack:
        networks = [stack.enter_context(open_network(model, spec=spec)) for model in models]
        told = None if progress is None else lambda done: progress(done, most)
        return flicker_of(
            [_masks(network) for network in networks],
            [tuple(network.spec.class_names) for network in networks],
            consecutive_frames(footage, most),
            progress=told,
        )


def consecutive_frames(footage: str, most: int = MOST_FRAMES) -> Iterator[np.ndarray]:
    """The first frames, uint8 (H, W, 3) BGR, every one of them: training chooses of recordings, this does not."""
    if not names_footage(footage):
        pictures = open_unlabelled(footage, split="test")
        yield from (pictures.frame(index) for index in range(min(most, len(pictures))))
        return
    address = FootageAddress.parse(footage)
    for recording in open_footage(address):
        numbers = list(numbers_every(recording, address.every_s, address.from_s, address.to_s))[:most]
        most -= len(numbers)
        yield from (frame.image for frame in recording.frames(numbers))


def _masks(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    prepare = Preprocessor(network.spec)
    image = network_input(network.spec)

    def mask(frame: np.ndarray) -> np.ndarray:
        prepare(frame, image)
        height, width = frame.shape[:2]
        return network.mask(network.answer(image), (height, width), box=content_box((height, width), network.spec))

    return mask
