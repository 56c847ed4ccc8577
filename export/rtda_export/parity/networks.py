"""The two sides of a comparison: any model file as "preprocessed picture in, coarse logits or a mask out"."""

from __future__ import annotations

import abc
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Optional, Tuple, Type, Union

import numpy as np

from rtda_deploy.errors import ExportError
from rtda_deploy.files import readable_file
from rtda_deploy.model_files import is_checkpoint_name
from rtda_deploy.onnx_file import onnx_spec, precision_from_metadata, read_onnx_facts
from rtda_deploy.optional import available, require
from rtda_deploy.spec import ModelSpec
from rtda_export.precision import FP32, PRECISIONS, Precision

__all__ = ["Network", "open_network"]


class Network(abc.ABC):
    """A model file, opened for comparing.

    Attributes:
        name: File name for people.
        spec: What it was trained with.
        note: How it is run, where that is not as meant.
        module: The torch module of a ``.pth``, in evaluation mode; None for other files.
    """

    note = ""
    module: Any = None

    def __init__(self, name: str, spec: ModelSpec) -> None:
        self.name = name
        self.spec = spec

    @abc.abstractmethod
    def answer(self, image: np.ndarray) -> np.ndarray:
        """What the network gives for one picture as ``Preprocessor(spec)`` makes it, a new array.

        Coarse logits float32 (C, h, w), or as ``spec.output`` says a mask uint8 (H, W) or probabilities (C, H, W).
        """

    def mask(
        self, answer: np.ndarray, size_hw: Tuple[int, int], *, box: Optional[Tuple[int, int, int, int]] = None
    ) -> np.ndarray:
        """The mask uint8 of an answer, as the runtime makes it.

        Args:
            answer: What :meth:`answer` gave.
            size_hw: Height and width of the mask.
            box: Top, left, height and width of the frame in the network's input, pixels; None: all of it.
        """
        from rtda_runtime.mask.upsample import resize_mask, upsample_argmax

        stride = self.spec.output_stride if self.spec.output == "logits" else 1
        top, left, height, width = (side / stride for side in box or (0, 0, *self.spec.size_hw))
        make = resize_mask if self.spec.output == "mask" else upsample_argmax
        return make(answer, size_hw, region=(top, left, height, width))

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
    provider: str = "",
) -> Network:
    """Open a ``.pth``, an ``.onnx`` or an engine.

    Args:
        path: The file; its suffix says what it is.
        size_hw: Run a ``.pth`` at this size instead of the one it was trained with; other files have theirs built in.
        spec: Used instead of the file's own.
        name: What to call it; the file's name when empty.
        provider: What runs it, as for ``open_engine``; empty: ``.onnx`` on the CPU, where float32 is float32 and
            nothing rounds it to TF32, and an FP16 file is really rounded to float16; an engine where it was built for.
            Not for a ``.pth``.

    Raises:
        RtdaError: As ``read_checkpoint`` and ``open_engine`` do.
    """
    file = readable_file(path, what="model")
    if is_checkpoint_name(file):
        return _TorchNetwork(file, size_hw, spec, name or file.name)
    if file.suffix.lower() == ".onnx" and not provider:
        batch, precision = _facts(file)
        rounds = precision.as_computed is not None
        if rounds and batch == 1 and available("onnx"):
            return _RoundingNetwork(file, spec, name or file.name, precision)
        network: Network
        if batch > 1:
            network = _BatchNetwork(file, spec, name or file.name, batch)
        else:
            network = _EngineNetwork(file, spec, name or file.name, provider)
        if rounds:  # on a robot, where it is the reference of an engine; or for other programs
            why = "it takes several pictures" if batch > 1 else "the package onnx is not installed"
            network.note = f"{network.name} was computed in float32, not rounded to {precision.name}: {why}"
        return network
    return _EngineNetwork(file, spec, name or file.name, provider)


class _TorchNetwork(Network):
    """The deploy view of a checkpoint, batch norms unfolded: the reference that everything else has to match."""

    def __init__(self, file: Path, size_hw: Optional[Tuple[int, int]], spec: Optional[ModelSpec], name: str) -> None:
        self._torch: Any = require("torch", extra="export", purpose=f"to run {file.name}")
        from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint

        checkpoint = read_checkpoint(file, spec=spec)
        found = checkpoint.spec.replace(input="float32", layout="nchw")  # ``spec`` may be of a file made of it
        super().__init__(name, found if size_hw is None else found.replace(size_hw=size_hw))
        self.module = model_from_checkpoint(checkpoint).deploy_view()

    def answer(self, image: np.ndarray) -> np.ndarray:
        with self._torch.inference_mode():
            answer = self.module(self._torch.from_numpy(image))
        return np.array(answer[0].numpy(), dtype=np.float32)


class _EngineNetwork(Network):
    """A file that the runtime runs."""

    def __init__(self, file: Path, spec: Optional[ModelSpec], name: str, provider: str) -> None:
        from rtda_runtime.engines import open_engine

        usual = "cpu" if file.suffix.lower() == ".onnx" else "auto"
        self._engine = open_engine(file, provider or usual, spec=spec)
        super().__init__(name, self._engine.spec)

    def answer(self, image: np.ndarray) -> np.ndarray:
        self._engine.input_buffer[...] = image
        return self._engine.infer().copy()

    def close(self) -> None:
        self._engine.close()


class _BatchNetwork(Network):
    """An ``.onnx`` that takes several pictures at a time, which the runtime does not: each picture in another place.

    The other places hold the picture mirrored, so that an answer of the wrong place would be seen.
    """

    def __init__(self, file: Path, spec: Optional[ModelSpec], name: str, batch: int) -> None:
        ort: Any = require("onnxruntime", extra="runtime", purpose=f"to run {file.name}")
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors only
        self._session: Any = ort.InferenceSession(str(file), sess_options=options, providers=["CPUExecutionProvider"])
        super().__init__(name, spec or onnx_spec(file))
        self._batch = batch
        self._place = 0

    def answer(self, image: np.ndarray) -> np.ndarray:
        mirrored = image[:, :, ::-1] if self.spec.layout == "nhwc" else image[..., ::-1]
        pictures = np.repeat(mirrored, self._batch, axis=0)
        place, self._place = self._place, (self._place + 1) % self._batch
        pictures[place] = image[0]
        (name,) = (entry.name for entry in self._session.get_inputs())
        first = self._session.get_outputs()[0].name
        return np.array(self._session.run([first], {name: pictures})[0][place])


class _RoundingNetwork(_EngineNetwork):
    """An ``.onnx`` of low precision on a CPU, every tensor rounded: ONNX Runtime alone would compute it in float32."""

    def __init__(self, file: Path, spec: Optional[ModelSpec], name: str, precision: Precision) -> None:
        from rtda_export.graph.from_torch import read_onnx

        assert precision.as_computed is not None
        with tempfile.TemporaryDirectory(prefix="rtda-rounding-") as folder:
            rounding = Path(folder) / file.name
            rounding.write_bytes(precision.as_computed(read_onnx(file)).SerializeToString())
            super().__init__(rounding, spec, name, "cpu")


def _facts(file: Path) -> Tuple[int, Precision]:
    """Pictures that an ``.onnx`` takes at a time, and the precision that we made it in; 1 and fp32 else."""
    try:
        facts = read_onnx_facts(file)
    except ExportError:
        return 1, FP32  # opening it raises the error with its reason
    shape = facts.inputs[0].shape if facts.inputs else ()
    said = precision_from_metadata(facts.metadata)["precision"]
    precision = next((known for known in PRECISIONS if known.name == said), FP32)
    return max(1, (shape[0] if shape else 1) or 1), precision
