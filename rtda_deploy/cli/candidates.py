"""Model files as the networks that are judged: each is opened when it is asked for, and closed before the next."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, Optional, Sequence, Tuple

if TYPE_CHECKING:
    import numpy as np

    from rtda_deploy.spec import ModelSpec
    from rtda_export.parity.networks import Network
    from rtda_training.judge import Candidate

__all__ = ["candidates", "names_of", "open_candidate"]


def candidates(models: Sequence[Path], *, spec: Optional[ModelSpec] = None, norms: bool = True) -> Iterator[Candidate]:
    """The files as candidates, one after the other; each may be used until the next is asked for.

    Args:
        models: ``.pth``, ``.onnx`` and engines.
        spec: For files without one.
        norms: Whether those of a ``.pth`` say how far their batch norms are from the footage.

    Raises:
        RtdaError: As ``open_network`` does.
    """
    from rtda_export.parity.networks import open_network

    for model, name in zip(models, names_of(models)):
        with open_network(model, spec=spec) as network:
            yield _candidate(network, name, norms)


@contextlib.contextmanager
def open_candidate(model: Path) -> Iterator[Candidate]:
    """One file, used in the block; arguments and errors as :func:`candidates`."""
    from rtda_export.parity.networks import open_network

    with open_network(model) as network:
        yield _candidate(network, model.name, False)


def names_of(models: Sequence[Path]) -> Tuple[str, ...]:
    """What to call each file: its path from where the paths of all differ on."""
    parts = [model.parts for model in models]
    shared = 0
    while len(parts) > 1 and all(len(each) > shared + 1 for each in parts) and len({e[shared] for e in parts}) == 1:
        shared += 1
    return tuple(str(Path(*each[shared:])) for each in parts)


def _candidate(network: Network, name: str, norms: bool) -> Candidate:
    import numpy as np

    from rtda_runtime.mask.preprocess import Preprocessor, content_box, network_input
    from rtda_training.judge import Candidate
    from rtda_training.judge.answers import not_finite
    from rtda_training.judge.norms import norm_distance, norms_kept

    spec = network.spec
    prepare = Preprocessor(spec)
    stride = spec.output_stride if spec.output == "logits" else 1

    def image(frame: np.ndarray) -> np.ndarray:
        found = network_input(spec)
        prepare(frame, found)
        return found

    def answer(frame: np.ndarray) -> np.ndarray:
        """Of the frame alone, without a letterbox's bars."""
        given = network.answer(image(frame))
        top, left, height, width = content_box(frame.shape[:2], spec)
        rows = slice(top // stride, -(-(top + height) // stride))
        columns = slice(left // stride, -(-(left + width) // stride))
        return given[..., rows, columns]

    def mask(frame: np.ndarray, size_hw: Tuple[int, int]) -> np.ndarray:
        given = network.answer(image(frame))
        if not np.isfinite(given).all():
            raise not_finite(name)
        return network.mask(given, size_hw, box=content_box(frame.shape[:2], spec))

    module = network.module if norms else None
    distance = None if module is None else lambda frames: norm_distance(module, image, frames)
    return Candidate(name, tuple(spec.class_names), answer, mask, distance, norms_kept(spec.provenance))
