"""The two sides of a comparison: any model file as "preprocessed picture in, coarse logits out"."""

from __future__ import annotations

import abc
from pathlib import Path
from types import TracebackType
from typing import Any, Optional, Tuple, Type, Union

import numpy as np

from rtda_deploy.errors import ExportError
from rtda_deploy.files import readable_file
from rtda_deploy.optional import require
from rtda_deploy.spec import ModelSpec

__all__ = ["Network", "open_network"]


class Network(abc.ABC):
    """A model file, opened for comparing.

    Attributes:
        name: File name for people.
        spec: What it was trained with.
    """

    def __init__(self, name: str, spec: ModelSpec) -> None:
        self.name = name
        self.spec = spec

    @abc.abstractmethod
    def logits(self, image: np.ndarray) -> np.ndarray:
        """Coarse logits float32 (C, h, w), a new array, of one preprocessed picture float32 (1, 3, H, W)."""

    def close(self) -> None:  # noqa: B027 - most networks hold nothing
        """Give back what it holds."""

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


def open_network(
    path: Union[str, Path],
    *,
    size_hw: Optional[Tuple[int, int]] = None,
    spec: Optional[ModelSpec] = None,
    name: str = "",
) -> Network:
    """Open a ``.pth``, an ``.onnx`` or an engine.

    Args:
        path: The file; its suffix says what it is.
        size_hw: Run a ``.pth`` at this size instead of the one it was trained with; other files have theirs built in.
        spec: Used instead of the file's own.
        name: What to call it; the file's name when empty.

    Raises:
        RtdaError: As ``read_checkpoint`` and ``open_engine`` do; ``ExportError`` for a model without logits.
    """
    file = readable_file(path, what="model")
    network: Network
    if file.suffix.lower() in (".pth", ".pt", ".ckpt"):
        network = _TorchNetwork(file, size_hw, spec, name or file.name)
    else:
        network = _EngineNetwork(file, spec, name or file.name)
    if network.spec.output != "logits":
        network.close()
        raise ExportError(f"{network.name} gives a mask, and only logits can be compared", hint="export it with logits")
    return network


class _TorchNetwork(Network):
    """The deploy view of a checkpoint, batch norms unfolded: the reference that everything else has to match."""

    def __init__(self, file: Path, size_hw: Optional[Tuple[int, int]], spec: Optional[ModelSpec], name: str) -> None:
        self._torch: Any = require("torch", extra="export", purpose=f"to run {file.name}")
        from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint

        checkpoint = read_checkpoint(file, spec=spec)
        found = checkpoint.spec
        super().__init__(name, found if size_hw is None else found.replace(size_hw=size_hw))
        self._view: Any = model_from_checkpoint(checkpoint).deploy_view()

    def logits(self, image: np.ndarray) -> np.ndarray:
        with self._torch.inference_mode():
            answer = self._view(self._torch.from_numpy(image))
        return np.array(answer[0].numpy(), dtype=np.float32)


class _EngineNetwork(Network):
    """A file that the runtime runs; ``.onnx`` on the CPU, where float32 is float32 and nothing rounds it to TF32."""

    def __init__(self, file: Path, spec: Optional[ModelSpec], name: str) -> None:
        from rtda_runtime.engines import open_engine

        self._engine = open_engine(file, "cpu" if file.suffix.lower() == ".onnx" else "auto", spec=spec)
        super().__init__(name, self._engine.spec)

    def logits(self, image: np.ndarray) -> np.ndarray:
        self._engine.input_buffer[...] = image
        return self._engine.infer().copy()

    def close(self) -> None:
        self._engine.close()
