"""A training on screen: its progress on stderr, and its end on Ctrl-C or SIGTERM with a checkpoint."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

from rtda_deploy.cli.terminal.console import ProgressLines, note
from rtda_deploy.cli.terminal.signals import Terminated, stops_in_order
from rtda_deploy.optional import available, require

if TYPE_CHECKING:
    from rtda_training.loop.events import StopRequest, TrainEvent
    from rtda_training.plan import PlanConfig

__all__ = ["require_training", "training_on_screen"]


def require_training() -> None:
    """Refuse to go on where a package is missing; imports none of them."""
    for package in ("torch", "lightning_fabric"):
        if not available(package):
            require(package, extra="training", purpose="to train")


@contextlib.contextmanager
def training_on_screen(
    lines: Optional[ProgressLines] = None, started: Optional[Callable[[Path], None]] = None
) -> Iterator[Tuple[Callable[[TrainEvent], None], StopRequest]]:
    """What a training is given as ``on_event`` and ``stop``, while the block runs.

    A signal ends the training with a checkpoint while steps are made, and at once at any other time.

    Args:
        lines: Where progress is shown; None: lines of its own.
        started: Given the run's folder once the training begins.
    """
    require_training()
    from rtda_training.loop.events import StopRequest, TrainingStopped

    came: List[int] = []
    request = StopRequest()

    def stop(number: int) -> bool:
        if request.stepping:
            came.append(number)
            note("stopping after this step, with a checkpoint   (once more, after 3 s: at once, without)")
            request.ask()
        return request.stepping

    try:
        with contextlib.ExitStack() as stack:
            screen = _Screen(lines if lines is not None else stack.enter_context(ProgressLines()), started)
            stack.enter_context(stops_in_order(stop))
            yield screen.show, request
    except TrainingStopped as stopped:
        note(f"saved   {stopped.path} at step {stopped.step} of {stopped.stage}")
        if signal.SIGTERM in came:
            raise Terminated from stopped
        raise


class _Screen:
    """Events as lines and bars."""

    def __init__(self, lines: ProgressLines, started: Optional[Callable[[Path], None]]) -> None:
        self._lines = lines
        self._started = started
        self._validation = ""

    def show(self, event: TrainEvent) -> None:
        values, lines = event.values or {}, self._lines
        if event.kind == "prepare":
            lines.update(f"prepare {event.stage}", event.step, event.total)
        elif event.kind == "note":
            lines.say(event.stage)
        elif event.kind == "warning":
            lines.say(f"! {event.stage}")
        elif event.kind == "start":
            self._validation = values["plan"].validation
            if self._started is not None:
                self._started(values["folder"])
            lines.say(_what(values["plan"], values["hardware"]))
            lines.say(f"run     {values['folder']}/" + _resumed(values))
        elif event.kind == "step":
            detail = f"{_losses(values)}  {values['pictures_per_s']:.1f} img/s"
            lines.update(f"train   {event.stage}", event.step, event.total, detail, left_s=values.get("eta_s"))
        elif event.kind == "validating":
            lines.update("val     pictures", event.step, event.total)
        elif event.kind == "ranking":
            lines.update(f"rank    {event.stage}", event.step, event.total)
        elif event.kind == "validation":
            lines.say(
                f"  val @{event.step}  mIoU {100 * values['val_miou']:.1f}"
                f"   pixel accuracy {100 * values['val_pixel_accuracy']:.1f}   worst: {_worst(values['val_iou'])}"
                f"   on {self._validation} (val)"
            )


def _what(plan: PlanConfig, hardware: str) -> str:
    if plan.labelled_target or plan.check:
        adapts = " (labels of some frames used)"
    else:
        adapts = " (no labels used)" if plan.target and all(s.labelled == "source" for s in plan.stages) else ""
    end = plan.target or plan.labelled_target  # labelled frames are of a target, with its other recordings or without
    domains = " -> ".join(name for name in (plan.source or plan.init, end) if name) + adapts * bool(end)
    return f"model   {plan.network_text} · {domains} · {hardware} · seed {plan.seed}"


def _resumed(start: Mapping[str, Any]) -> str:
    """Where a run goes on; of one that made its last step, how to train on."""
    if start["resumed"] is None:
        return ""
    told = f"   resumed at step {start['resumed']}"
    more = "its last: more steps are a new run from its weights, --init PTH --out ANOTHER"
    return f"{told}, {more}" if start["finished"] else told


def _losses(values: Mapping[str, Any]) -> str:
    from rtda_training.run_folder import loss_keys

    return " ".join(f"{key} {_loss_text(values[key])}" for key in loss_keys([values]))


def _loss_text(value: float) -> str:
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.01 else f"{value:.1e}"


def _worst(iou: Dict[str, Optional[float]]) -> str:
    known = sorted((value, name) for name, value in iou.items() if value is not None)
    return ", ".join(f"{name} {value:.1f}" for value, name in known[:3])
