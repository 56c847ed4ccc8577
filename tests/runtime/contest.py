"""Starts with ``provider="auto"`` on engines that take as long as a test says, by a clock of the test's own."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, List, Optional, Tuple

import numpy as np
from runtime.fakes import FakeClock, NumpyEngine

from rtda_runtime.engines import Engine
from rtda_runtime.engines.auto import Means, open_faster
from rtda_runtime.engines.trial import Trial

__all__ = ["Start", "Timed", "saying"]


class Timed(NumpyEngine):
    """Takes as long as it is told (None: until Ctrl-C), and gives the first ``wrong`` cells another class."""

    def __init__(self, name: str, clock: FakeClock, seconds: Any, wrong: int = 0) -> None:
        def work() -> None:
            spent = next(seconds)
            if spent is None:
                raise KeyboardInterrupt
            clock.sleep(spent)

        super().__init__(before=work)
        self.provider, self.description, self._wrong = name, name, wrong

    def _infer(self) -> np.ndarray:
        logits = super()._infer()
        flat = logits.reshape(len(logits), -1)
        flat[:, : self._wrong] = np.roll(flat[:, : self._wrong], 1, axis=0)
        return logits


class Start:
    """Starts with such engines; ``reference``, ``challenger`` and ``in_bf16`` are those that the last start opened.

    Attributes:
        bf16: Seconds in bfloat16, and cells that get another class; None: this processor has none.
        trial: What trying the file in bfloat16 in another process finds; ``tried`` counts.
        version: Of the challenger.
    """

    def __init__(self, reference_s: float = 0.1, *challenger_s: Any, wrong: int = 0, gpu: str = "") -> None:
        self.clock = FakeClock()
        self.reference: Any = None
        self.challenger: Any = None
        self.error: Optional[BaseException] = None
        self.opened: List[Engine] = []
        self._seconds = reference_s, (challenger_s or (0.05,))
        self._wrong, self._gpu = wrong, gpu
        self.installed = {"onnxruntime", "openvino"}
        self.bf16: Optional[Tuple[float, int]] = None
        self.in_bf16: Any = None
        self.trial = Trial("openvino", "OpenVINO", "1", "")
        self.tried = 0
        self.version = "1"

    def _reference(self, path: Path, *, provider: str, **_: Any) -> Engine:
        name = self._gpu if provider == "auto" and self._gpu else "cpu"
        self.reference = Timed(name, self.clock, itertools.repeat(self._seconds[0]))
        self.opened.append(self.reference)
        return self.reference

    def _challenger(self, path: Path, *, provider: str, **_: Any) -> Engine:
        if self.error is not None:
            raise self.error
        if provider == "openvino-bf16":
            assert self.bf16 is not None
            self.in_bf16 = Timed(provider, self.clock, itertools.repeat(self.bf16[0]), self.bf16[1])
            self.opened.append(self.in_bf16)
            return self.in_bf16
        times = itertools.chain(self._seconds[1], itertools.repeat(self._seconds[1][-1]))
        self.challenger = Timed("openvino", self.clock, times, self._wrong)
        self.opened.append(self.challenger)
        return self.challenger

    def _try(self, path: Path, provider: str) -> Trial:
        self.tried += provider == "openvino-bf16"
        return self.trial if provider == "openvino-bf16" else Trial("openvino", "OpenVINO", "1", "")

    def open(self, path: Path) -> Engine:
        self.reference = self.challenger = self.in_bf16 = None
        means = Means(
            self._reference,
            self._challenger,
            self.installed.__contains__,
            lambda: bool(self._gpu),
            lambda: self.clock() / 1e9,
            self.clock.sleep,
            lambda: self.version,
            self._try,
            lambda: self.bf16 is not None,
        )
        return open_faster(path, provider="auto", spec=None, threads=None, means=means)


def saying(path: Path, *, precision: str = "fp32", **bf16: Any) -> Path:
    """Write into an ``.onnx`` that its export verified it in bfloat16; fields of what it found by their names."""
    import onnx

    found = {"passed": True, "agreement": 0.9971, "limit": 0.9, "frames": 8, "version": "1", "miou": None, **bf16}
    model = onnx.load(str(path))
    kept = {entry.key: entry.value for entry in model.metadata_props}
    facts = {"precision": precision, "bf16": found}
    onnx.helper.set_model_props(model, {**kept, "rtda.precision": json.dumps(facts)})
    path.write_bytes(model.SerializeToString())
    return path
