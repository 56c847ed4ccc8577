"""A worker: an engine that labels one unit after the other; the same on this machine and in an actor of Ray."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

import numpy as np

from rtda_deploy.errors import DeviceError, EngineError, FileAccessError, RtdaError
from rtda_deploy.files import sha256_file
from rtda_deploy.spec import ModelSpec
from rtda_runtime._opencv import opencv
from rtda_runtime.fleet.fingerprint import Fingerprint, take_fingerprint
from rtda_runtime.fleet.frames import FrameReader, UnitFrame
from rtda_runtime.fleet.mixed import accepted_differences, note_mixed
from rtda_runtime.fleet.output import MOST_ATTEMPTS, Output, UnitWriter, open_output
from rtda_runtime.fleet.units import Unit
from rtda_runtime.segmenter import Segmenter

__all__ = ["Job", "Worker"]

Told = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Job:
    """What all workers of a run are told; a few kB.

    Attributes:
        model: The ``.onnx`` or engine; absolute, and the same file on every machine.
        sha256: Of that file.
        out: The output folder; absolute, and the same folder on every machine.
        layout: Of the output.
        provider: What the network runs on.
        threads: Of the engine on a CPU; None: its own choice.
        confidence: Whether confidences are written beside masks.
        spec: Of a model without one, as JSON; empty: the model has it.
        fingerprint: Of the machine that made the plan, as JSON; empty: this is that machine, and nothing is compared.
        mixed: In what machines may differ from it.
    """

    model: str
    sha256: str
    out: str
    layout: str
    provider: str
    threads: Optional[int]
    confidence: bool
    spec: str = ""
    fingerprint: str = ""
    mixed: Tuple[str, ...] = ()


class Worker:
    """Labels units. The engine is opened with the first one.

    Args:
        job: What to label with, and where to.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._output: Output = open_output(Path(job.out), job.layout)
        self._reader = FrameReader()
        self._segmenter: Optional[Segmenter] = None

    def open(self) -> ModelSpec:
        """Open the engine, if it is not open, and compare this machine with the one that made the plan.

        Raises:
            EngineError: If the model is another one here, or cannot be used.
            DeviceError: If this machine would make other labels.
        """
        return self._opened().spec

    def fingerprint(self, probes: Iterable[str]) -> Fingerprint:
        """This machine's. Errors as in :meth:`open`."""
        return take_fingerprint(self._opened(), probes)

    def _opened(self) -> Segmenter:
        if self._segmenter is None:
            job = self._job
            found = sha256_file(job.model)
            if found != job.sha256:
                raise EngineError(
                    f"{job.model} is another model here: {found[:12]}, not {job.sha256[:12]}",
                    hint="put the model on a disk that all machines share",
                )
            segmenter = Segmenter.open(
                job.model,
                job.provider,
                spec=ModelSpec.from_json(job.spec) if job.spec else None,
                threads=job.threads,
                confidence=job.confidence,
            )
            try:
                self._compare(segmenter)
            except BaseException:
                segmenter.close()
                raise
            self._segmenter = segmenter
        return self._segmenter

    def _compare(self, segmenter: Segmenter) -> None:
        if not self._job.fingerprint:
            return
        plan = Fingerprint.from_json(self._job.fingerprint)
        here = take_fingerprint(segmenter, plan.pixels)
        differs = accepted_differences(here, plan, self._job.mixed, segmenter.provider)
        if differs:
            note_mixed(Path(self._job.out), here, differs)

    def label(self, unit: Unit, tell: Optional[Told] = None) -> Dict[str, Any]:
        """Label a unit, if it is neither done nor given up.

        Args:
            unit: What to label.
            tell: Called with the number of frames done, after each.

        Returns:
            ``id``, ``state`` (``done`` or ``failed``), ``frames`` (labelled), ``skipped`` (a list of file, key and why)
            and, of a failed one, ``why``.

        Raises:
            FileAccessError: If the output cannot be written.
            DeviceError: If the machine lacks a package or a device.
            EngineError: If the model cannot be opened.
        """
        given_up = self._output.failure(unit.id)
        if given_up is not None:
            return given_up
        if self._output.is_done(unit.id):
            return self._output.summary(unit.id)
        before = self._output.begin(unit.id)
        if before >= MOST_ATTEMPTS:
            return self._given_up(unit, f"its worker died {before} times")
        try:
            self.open()  # after the attempt is counted: where a library crashes here, Ray would try for ever
        except BaseException:
            self._output.forget(unit.id, last=True)
            raise
        try:
            return self._labelled(unit, tell or (lambda done: None))
        except FileAccessError as err:
            if _gone(unit):
                return self._given_up(unit, err.message)
            self._output.forget(unit.id, last=True)
            raise
        except DeviceError:  # a package or the device is missing on this machine: that is no matter of the unit
            self._output.forget(unit.id, last=True)
            raise
        except RtdaError as err:  # the network on these frames, such as NaN
            return self._given_up(unit, err.message)
        except (KeyboardInterrupt, SystemExit):
            self._output.forget(unit.id, last=True)
            raise
        except Exception as err:  # whatever it is, it ends this unit and not the others
            return self._given_up(unit, f"{type(err).__name__}: {err}")

    def close(self) -> None:
        """Free the engine."""
        if self._segmenter is not None:
            self._segmenter.close()

    def _labelled(self, unit: Unit, tell: Told) -> Dict[str, Any]:
        summary: Dict[str, Any] = {"id": unit.id, "state": "done", "frames": 0, "skipped": []}
        skipped: List[Dict[str, str]] = summary["skipped"]
        with self._output.writing(unit.id, summary) as writer:
            for done, frame in enumerate(self._reader.frames(unit), start=1):
                if frame.image is None:
                    skipped.append({"file": frame.file, "key": frame.key, "why": frame.why})
                else:
                    self._write(writer, frame)
                    summary["frames"] += 1
                tell(done)
        self._output.forget(unit.id)
        return summary

    def _write(self, writer: UnitWriter, frame: UnitFrame) -> None:
        assert frame.image is not None
        result = self._opened().segment(frame.image)
        writer.add("masks", frame.key, _png(result.mask))
        if result.confidence is not None:
            writer.add("confidences", frame.key, _png(result.confidence))

    def _given_up(self, unit: Unit, why: str) -> Dict[str, Any]:
        values = {"id": unit.id, "state": "failed", "frames": 0, "skipped": [], "why": why, "unit": unit.to_dict()}
        self._output.fail(unit.id, values)
        return values


def _gone(unit: Unit) -> bool:
    """Whether a file of the unit is missing, rather than the output not writable."""
    paths = [Path(unit.path) / name for name in unit.files] or [Path(unit.path)]
    return not all(path.exists() for path in paths)


def _png(picture: np.ndarray) -> bytes:
    cv2: Any = opencv("to write masks")
    return bytes(cv2.imencode(".png", picture)[1].tobytes())
