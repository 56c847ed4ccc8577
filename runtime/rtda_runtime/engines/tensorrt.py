"""TensorRT: runs an ``.engine`` on the GPU it was built for, with TensorRT 8.5 to 11.

Only what all of these versions have is used: tensors by name and ``execute_async_v3``. Another TensorRT, another GPU or
a truncated file is detected in the sidecar before the engine is loaded, so that the error says which of them it is.
"""

from __future__ import annotations

import dataclasses
import logging
import weakref
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.card import card_from_json
from rtda_deploy.engine_file import (
    EngineSidecar,
    Machine,
    check_whole,
    mismatch,
    read_sidecar,
    rebuild_command,
    sidecar_path,
)
from rtda_deploy.errors import EngineError, RtdaError, SpecError
from rtda_deploy.familiar import familiar_from_json
from rtda_deploy.optional import require
from rtda_deploy.spec import ModelSpec
from rtda_runtime.engines.base import Engine, check_graph
from rtda_runtime.engines.cuda.compilers import FindCompiler
from rtda_runtime.engines.cuda.context import Cuda, open_cuda
from rtda_runtime.engines.cuda.frames import INTERPOLATIONS, CudaFramePath
from rtda_runtime.engines.tensorrt_session import Session

__all__ = ["TensorrtEngine", "describe", "open_tensorrt"]

_log = logging.getLogger(__name__)


def open_tensorrt(
    path: Path,
    *,
    provider: str = "auto",
    spec: Optional[ModelSpec] = None,
    threads: Optional[int] = None,
    trt: Any = None,
    cuda: Optional[Cuda] = None,
    graph: bool = True,
    compilers: Optional[Sequence[FindCompiler]] = None,
) -> TensorrtEngine:
    """Open an ``.engine`` or ``.plan`` file; ``threads`` is for CPUs and changes nothing here.

    Args:
        path: Its sidecar ``<path>.json`` stands beside it; without one, ``spec`` is needed and nothing but TensorRT
            itself checks whether the engine fits this machine.
        provider: ``auto`` or ``tensorrt``, which are the same here.
        spec: Replaces the sidecar's.
        threads: Ignored.
        trt: The module ``tensorrt``; None: the installed one.
        cuda: Closed with the engine; None: the first GPU.
        graph: Run the network as one CUDA graph where it can be recorded.
        compilers: Of the kernels for frames and masks; None: NVRTC, then nvcc.

    Raises:
        SpecError: If neither a sidecar nor ``spec`` is there.
        EngineError: If the file is cut off, or was built for another TensorRT or GPU, or does not fit its spec.
        DeviceError: If there is no GPU or driver.
        MissingPackageError: If tensorrt, or a binding to CUDA, is not installed.
    """
    sidecar = _sidecar_of(path, spec)
    wanted = spec or (None if sidecar is None else sidecar.spec)
    if wanted is None:
        raise SpecError(
            f"{path.name} has no {sidecar_path(path).name} beside it",
            why="a TensorRT engine says nothing of its classes, mean and size; the .json does",
            hint="copy the .json too, or give them: --spec spec.json   (rtda-deploy export writes both)",
        )
    if sidecar is not None:
        check_whole(path, sidecar)
    trt = trt or require("tensorrt", extra="tensorrt-cu12", purpose="to run engines")
    cuda = cuda or open_cuda()
    try:
        if sidecar is not None:
            _check_machine(path, sidecar, Machine(trt.__version__, cuda.device_name, cuda.compute_capability))
        return TensorrtEngine(path, wanted, sidecar=sidecar, trt=trt, cuda=cuda, graph=graph, compilers=compilers)
    except BaseException:
        cuda.close()
        raise


def describe(path: Path) -> Dict[str, Any]:
    """What ``inspect`` shows of an engine, from its sidecar.

    ``kind``, ``spec``, ``built`` (how), and of its card ``card`` and ``familiar``, or None.

    Raises:
        EngineError: If there is no sidecar, or it is broken.
    """
    sidecar = read_sidecar(path)
    card, familiar = card_from_json(sidecar.card), familiar_from_json(sidecar.card)
    return {
        "kind": "engine",
        "spec": sidecar.spec.to_dict(),
        "built": dataclasses.asdict(sidecar.built),
        "card": None if card is None else card.to_dict(),
        "familiar": None if familiar is None else familiar.summary(),
    }


def _sidecar_of(path: Path, spec: Optional[ModelSpec]) -> Optional[EngineSidecar]:
    """The engine's sidecar; one that cannot be read is ignored, with a warning, where ``spec`` is given."""
    if not sidecar_path(path).exists():
        return None
    try:
        return read_sidecar(path)
    except (EngineError, SpecError) as err:
        if spec is None:
            raise
        _log.warning("%s; the spec that was given is used", err.message)
        return None


class TensorrtEngine(Engine):
    """A TensorRT engine with its buffers, its stream and its CUDA graph.

    Input and output are page-locked. On a GPU of its own memory they are copied over the bus; an integrated GPU
    (a Jetson) reads and writes them where they are. The network, without the copies, is recorded as a CUDA graph after
    one inference that is not counted.

    :meth:`frame_path` copies uint8 frames and masks instead of float32 pictures and logits.

    Attributes:
        confidence: As in :class:`Engine`.
        monitor: As in :class:`Engine`.
        graph: Whether it runs as a CUDA graph.
        gpu: Name of the GPU.
    """

    def __init__(
        self,
        path: Path,
        spec: ModelSpec,
        *,
        sidecar: Optional[EngineSidecar],
        trt: Any,
        cuda: Cuda,
        graph: bool = True,
        compilers: Optional[Sequence[FindCompiler]] = None,
    ) -> None:
        precision = "" if sidecar is None else f" {sidecar.built.precision}"
        self.gpu = cuda.device_name
        name = f"{path.name}, TensorRT {trt.__version__}{precision} on {self.gpu}"
        super().__init__(spec, provider="tensorrt", description=name)
        hint = "rtda-deploy export model.onnx --to engine" if sidecar is None else rebuild_command(sidecar, path)
        session = Session(trt, cuda, path, rebuild=hint)
        # At the interpreter's end too: TensorRT aborts when its objects outlive CUDA.
        self._finalizer = weakref.finalize(self, session.close)
        self._session = session
        self._compilers = compilers
        try:
            inputs, outputs = session.tensors(inputs=True), session.tensors(inputs=False)
            order = check_graph(self, path.name, *([t.described for t in tensors] for tensors in (inputs, outputs)))
            self._input = session.bind(inputs[0])
            answers = [session.bind(outputs[index]) for index in order]
            self._result: np.ndarray = self._outputs([outputs[index].described.name for index in order], answers)
            session.warm_up(graph)
        except BaseException:
            self._finalizer()
            raise
        self.graph = session.graph is not None
        self.description = f"{name}, {'' if self.graph else 'no '}CUDA graph"

    def device_times(self) -> Dict[str, float]:
        """Run the network once and say how long the GPU took, ms: ``h2d``, ``compute``, ``d2h``.

        By events on the stream: without Python, waiting and preprocessing. An integrated GPU copies nothing: 0.

        Raises:
            EngineError: After :meth:`close`, or if CUDA failed.
        """
        self.input_buffer  # noqa: B018 - raises when closed
        return self._session.times_ms()

    def device_memory_used(self) -> int:
        """Bytes of the GPU's memory in use, by all processes."""
        self.input_buffer  # noqa: B018
        return self._session.cuda.memory_used()

    def frame_path(
        self, classes: Optional[np.ndarray] = None, palette: Sequence[Tuple[int, int, int]] = ()
    ) -> Optional[CudaFramePath]:
        """As in :class:`Engine`. None, with one warning, where nothing here compiles its kernels; None for pictures
        resized by ``area`` or ``cubic``, and for networks that take pixels: the kernels write normalised planes.

        Raises:
            EngineError: After :meth:`close`, or if the GPU has no memory for it.
        """
        self.input_buffer  # noqa: B018
        if self.spec.interpolation not in INTERPOLATIONS or self.spec.input != "float32":
            return None
        if self._result.dtype not in (np.float32, np.uint8):
            return None
        kernels = self._session.kernels(self._compilers)
        if kernels is None:
            return None
        table = np.arange(256, dtype=np.uint8) if classes is None else classes
        return self._session.frame_path(kernels, self.spec, classes=table, palette=palette)

    def _infer(self) -> np.ndarray:
        try:
            self._session.run()
        except RtdaError as err:
            raise type(err)(f"{self.description}: inference failed", why=err.why or err.message, hint=err.hint) from err
        return self._result

    def _release(self) -> None:
        self._finalizer()


def _check_machine(path: Path, sidecar: EngineSidecar, here: Machine) -> None:
    problem = mismatch(sidecar, here, name=path.name)
    if problem:
        raise EngineError(problem, hint=f"engines are not portable; build here: {rebuild_command(sidecar, path)}")
