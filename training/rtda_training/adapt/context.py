"""What one training step knows. Every forward is computed once, when first asked for, and shared by all objectives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from rtda_training.models import SegOutput

__all__ = ["StepContext"]


@dataclass
class StepContext:
    """One step's batches and outputs.

    Attributes:
        step: Number of the step, from 0.
        source: float32 (N, 3, H, W), the labelled domain, normalised (after its style).
        label: int64 (N, H, W), 255 where not labelled.
        target: float32 (N, 3, H, W), the unlabelled domain, normalised; None where no objective asks for it.
        forward: The network in training mode.
    """

    step: int
    source: Tensor
    label: Tensor
    target: Tensor | None
    forward: Callable[[Tensor], SegOutput]
    _outputs: dict[str, SegOutput] = field(default_factory=dict)

    def source_output(self) -> SegOutput:
        """The network on the source batch."""
        return self._output("source", self.source)

    def target_output(self) -> SegOutput:
        """The network on the target batch.

        Batch norms see the domains in batches of their own, as in RTDA's code.
        """
        if self.target is None:
            raise RuntimeError("this step has no target batch: no objective declared that it needs one")
        return self._output("target", self.target)

    def _output(self, name: str, pictures: Tensor) -> SegOutput:
        if name not in self._outputs:
            self._outputs[name] = self.forward(pictures)
        return self._outputs[name]
