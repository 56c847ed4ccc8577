"""What every engine promises: buffers allocated once, one frame in, one set of logits (or one mask) out."""

from __future__ import annotations

import abc
from types import TracebackType
from typing import List, NamedTuple, Optional, Sequence, Tuple, Type, TypeVar

import numpy as np

from rtda_deploy.errors import EngineError
from rtda_deploy.familiar import MONITOR
from rtda_deploy.spec import ModelSpec

__all__ = ["CONFIDENCE", "Engine", "FramePath", "GraphTensor", "check_graph"]

CONFIDENCE = "confidence"  # name of an output that may stand beside the answer, as may MONITOR
_BESIDE = (CONFIDENCE, MONITOR)
_MASKS = ("uint8", "int32", "int64")  # what ArgMax gives is int64

_Self = TypeVar("_Self", bound="Engine")


class FramePath(abc.ABC):
    """The whole way from a camera's frame to its mask on an engine's own device: ``put``, ``run``, ``take``.

    Used in the place of :meth:`Engine.infer`, by one thread at a time. It ends with its engine.
    """

    @abc.abstractmethod
    def put(self, frame: np.ndarray, *, alpha: Optional[float] = None) -> None:
        """Take a frame, uint8 (H, W, 3) BGR of any size, already checked; it is not read after the call.

        Args:
            alpha: Draw an overlay too: 0: the frame alone, 1: the mask alone. None: no overlay.
        """

    @abc.abstractmethod
    def run(self) -> None:
        """Segment the frame; returns when it is done.

        Raises:
            EngineError: If the network gives NaN or infinity, or the device failed, or the engine is closed.
        """

    @abc.abstractmethod
    def take(self, mask: np.ndarray, overlay: Optional[np.ndarray] = None) -> None:
        """Write the mask into uint8 (H, W), and the overlay, if one was asked for, into uint8 (H, W, 3) BGR."""


class Engine(abc.ABC):
    """A network ready to run.

    The caller writes the network's input into :attr:`input_buffer` and calls :meth:`infer`. Both arrays are allocated
    once and keep their address. *The array that ``infer`` returns is reused by the next call; copy it to keep it.*

    One engine is used by one thread at a time, whichever it is; :class:`rtda_runtime.Segmenter` holds the lock.
    An implementation calls ``super().__init__`` and fills in ``_infer`` and ``_release``.

    Attributes:
        spec: What the network was trained with.
        provider: What it really runs on: ``cpu``, ``cuda``, ``tensorrt``, ``openvino``,
            ``openvino-bf16``.
        description: One line for a person: file, library and version, provider, threads.
        confidence: Where the network has a second output of this name: float32 (H, W), 0..1, or uint8 (H, W), how sure
            it is of each pixel of its mask; written by each ``infer`` and reused like its answer. Else None.
        monitor: Where it was exported with ``--monitor``: float32 (D,), its signals of the picture for the shift alarm
            (``rtda_deploy.familiar.SIGNALS``); written and reused alike. Else None.
        advice: A sentence on what would be faster here, for people; empty: nothing is known of.
    """

    spec: ModelSpec
    provider: str
    description: str
    confidence: Optional[np.ndarray]
    monitor: Optional[np.ndarray]
    advice: str = ""

    def __init__(self, spec: ModelSpec, *, provider: str, description: str) -> None:
        self.spec = spec
        self.provider = provider
        self.description = description
        self.confidence = self.monitor = None
        self._input: Optional[np.ndarray] = None
        self._closed = False
        self._narrow: Optional[np.ndarray] = None  # the mask as uint8, where the network gives a wider integer type

    @property
    def input_shape(self) -> Tuple[int, int, int, int]:
        """Shape of :attr:`input_buffer`: (1, 3, H, W), or (1, H, W, 3) as ``spec.layout`` says."""
        return self.spec.input_shape

    @property
    def output_shape(self) -> Tuple[int, ...]:
        """Shape of what :meth:`infer` gives: logits (C, h, w), or a mask (H, W) where ``spec.output`` is ``mask``."""
        if self.spec.output == "mask":
            return self.spec.output_hw
        return (self.spec.num_classes, *self.spec.output_hw)

    @property
    def answer_shapes(self) -> Tuple[Tuple[int, ...], ...]:
        """Shapes that the network's own output may have: with a batch of one before it, and masks with a channel."""
        if self.spec.output == "mask":
            return (1, *self.output_shape), (1, 1, *self.output_shape)
        return ((1, *self.output_shape),)

    @property
    def input_buffer(self) -> np.ndarray:
        """For the caller to write into, as the spec's ``input`` and ``layout`` say; always the same array.

        C-contiguous, float32 (1, 3, H, W) normalised, or pixels BGR, uint8 or float32.

        Raises:
            EngineError: After :meth:`close`.
        """
        if self._closed:
            raise EngineError(f"{self.description} is closed", hint="open the engine again; close() is final")
        if self._input is None:  # allocated only once the graph is known to have this size
            self._input = np.zeros(self.input_shape, self.spec.input_dtype)
        return self._input

    def infer(self) -> np.ndarray:
        """Run the network on what :attr:`input_buffer` holds.

        Returns:
            float32 (C, h, w) logits, or uint8 (H, W) mask where ``spec.output`` is ``mask``. Reused by the next call.

        Raises:
            EngineError: After :meth:`close`, if the library behind it failed, or a mask holds a number outside 0..255.
        """
        if self._closed:
            raise EngineError(f"{self.description} is closed", hint="open the engine again; close() is final")
        answer = self._infer()
        return answer if answer.dtype in (np.float32, np.uint8) else self._narrowed(answer)

    def frame_path(
        self, classes: Optional[np.ndarray] = None, palette: Sequence[Tuple[int, int, int]] = ()
    ) -> Optional[FramePath]:
        """The engine's own way from frame to mask, where it has one; made anew by each call. None: the caller's.

        It gives the mask that resizing, :meth:`infer` and ``upsample_argmax`` give, but for pixels between two classes.

        Args:
            classes: uint8 (256,): what stands in the mask for each class; None: the class.
            palette: RGB of what stands in the mask, for overlays; shorter or empty: the rest stays as in the frame.
        """
        return None

    def close(self) -> None:
        """Free the engine's memory. Calling it again does nothing."""
        if not self._closed:
            self._closed = True
            self._input = None
            self._release()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def _outputs(self, names: Sequence[str], arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Take the arrays of a network's outputs, the answer's first; gives that one in its shape without the batch."""
        for name, array in zip(names[1:], arrays[1:]):
            setattr(self, name, array[0])
        return arrays[0].reshape(self.output_shape)

    def _narrowed(self, mask: np.ndarray) -> np.ndarray:
        """A mask of a wider integer type as uint8, always in the same array."""
        low, high = int(mask.min()), int(mask.max())
        if low < 0 or high > 255:
            raise EngineError(
                f"{self.description}: its mask holds {low if low < 0 else high}",
                why="a class is a number of 0..255",
                hint="export the network so that its mask holds class indices, 255 where it has none",
            )
        if self._narrow is None:
            self._narrow = np.empty(mask.shape, np.uint8)
        np.copyto(self._narrow, mask, casting="unsafe")
        return self._narrow

    @abc.abstractmethod
    def _infer(self) -> np.ndarray: ...

    @abc.abstractmethod
    def _release(self) -> None: ...

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


class GraphTensor(NamedTuple):
    """An input or output of a network, as its file describes it.

    Attributes:
        name: In the file.
        shape: -1 for a side that is no fixed number.
        dtype: NumPy's name of it, such as ``float32``; the library's own where NumPy has none.
    """

    name: str
    shape: Tuple[int, ...]
    dtype: str


def check_graph(engine: Engine, file: str, inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor]) -> List[int]:
    """Check that a network takes and gives what the spec of its engine says.

    Args:
        engine: With its ``spec``.
        file: Name of the model file, for messages.
        inputs: Of the network.
        outputs: Of the network, in any order.

    Returns:
        Places of the outputs, that of the answer first; what follows are ``CONFIDENCE`` and ``MONITOR``.

    Raises:
        EngineError: If they do not fit.
    """
    order = sorted(range(len(outputs)), key=lambda index: outputs[index].name in _BESIDE)
    if len(inputs) != 1 or not outputs or any(outputs[index].name not in _BESIDE for index in order[1:]):
        names = [", ".join(tensor.name for tensor in tensors) for tensors in (inputs, outputs)]
        raise EngineError(
            f"{file} has inputs [{names[0]}] and outputs [{names[1]}], expected one of each (and {', '.join(_BESIDE)})",
            hint="export the network without its auxiliary heads: rtda-deploy export",
        )
    _check_tensor(file, "input", inputs[0], (engine.input_shape,), (engine.spec.input_dtype,))
    kinds = _MASKS if engine.spec.output == "mask" else ("float32",)
    _check_tensor(file, "output", outputs[order[0]], engine.answer_shapes, kinds)
    for index in order[1:]:
        if outputs[index].name == CONFIDENCE:
            _check_tensor(file, "output", outputs[index], ((1, *engine.spec.output_hw),), ("float32", "uint8"))
        else:  # as many features as the backbone has, then a share a class and the confidence
            least = (1, max((engine.spec.num_classes + 2, *outputs[index].shape[1:2])))
            _check_tensor(file, "output", outputs[index], (least,), ("float32",))
    return order


def _check_tensor(
    file: str, role: str, tensor: GraphTensor, allowed: Sequence[Tuple[int, ...]], kinds: Sequence[str]
) -> None:
    name, shape, expected = tensor.name, tensor.shape, allowed[0]
    if min(shape, default=1) < 0:
        raise EngineError(
            f"{file}: {role} {name} has no fixed shape: {_shape_text(shape)}",
            hint="export it again with a fixed size: rtda-deploy export ckpt.pth --size 1024x512",
        )
    if len(shape) == len(expected) and shape[0] != 1 and shape[1:] == expected[1:]:
        raise EngineError(
            f"{file} is built for batches of {shape[0]}; the runtime takes one frame at a time",
            hint="export it with --batch 1",
        )
    if shape not in allowed:
        raise EngineError(
            f"{file}: {role} {name} is {_shape_text(shape)}, its spec says {_shape_text(expected)}",
            hint="the spec belongs to another network; export again, or give the right one with --spec spec.json",
        )
    if tensor.dtype not in kinds:
        raise EngineError(
            f"{file}: {role} {name} is {tensor.dtype}, expected {' or '.join(kinds)}",
            hint="keep float32 at the network's border, whatever the precision inside: rtda-deploy export",
        )


def _shape_text(shape: Sequence[int]) -> str:
    return "x".join("?" if side < 0 else str(side) for side in shape)
