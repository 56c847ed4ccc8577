"""What ``train`` and ``demo`` share: run folders, resuming, progress on screen and the saved plan."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import platform
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence

from rtda_deploy.cli.terminal.console import ProgressLines, note
from rtda_deploy.cli.terminal.signals import Terminated, stops_in_order
from rtda_deploy.errors import ConfigError
from rtda_deploy.files import write_text
from rtda_deploy.optional import require

if TYPE_CHECKING:
    from rtda_training.plan import PlanConfig
    from rtda_training.trainer import Trainer, TrainEvent, TrainResult

__all__ = [
    "is_first_process",
    "load_plan_here",
    "loss_keys",
    "network_text",
    "require_training",
    "run_folder",
    "run_plan",
]

_EVERY_ROW = ("stage", "stage_index", "step", "learning_rate", "pictures_per_s", "eta_s")


def load_plan_here(recipe: str, overrides: Sequence[str], **fields: str) -> PlanConfig:
    """Load a recipe; where torch is missing, say so before anything else."""
    require_training()
    from rtda_training.plan import load_plan

    return load_plan(recipe, overrides, **fields)


def is_first_process() -> bool:
    """Whether this process is alone, or the first of those that ``torchrun`` started: the one that speaks."""
    return _processes() == 1 or os.environ.get("RANK", "0") == "0"


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))  # torchrun's


def run_folder(verb: str, name: str = "") -> Path:
    """A new ``runs/<verb>/<time>[-<name>]``; never one that exists.

    Raises:
        ConfigError: In one of several processes, because each would choose its own.
    """
    if _processes() > 1:
        raise ConfigError(
            f"torchrun started {_processes()} processes, and each would choose a run folder of its own",
            hint="name one for all of them: --out DIR",
        )
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    base = Path("runs") / verb / (f"{stamp}-{name}" if name else stamp)
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}.{number}")
    return folder


def run_plan(
    plan: PlanConfig,
    folder: Path,
    *,
    resume: bool = False,
    clear: bool = False,
    lines: Optional[ProgressLines] = None,
    report: bool = True,
) -> TrainResult:
    """Train with progress on stderr; writes ``config.toml`` before and ``report.html`` after.

    Of several processes, the first one speaks and writes. Ctrl-C and SIGTERM save what was done, then raise.

    Args:
        plan: What to do.
        folder: Where.
        resume: Go on with the folder's ``last.pth`` where it is there.
        clear: Take an earlier run in the folder away, once it is known that this one can start.
        lines: Where progress is shown; None: lines of its own.
        report: Whether the page is written.
    """
    require_training()
    from rtda_training.checkpoint import read_checkpoint
    from rtda_training.run_folder import CONFIG, clear_run
    from rtda_training.trainer import Trainer

    state = read_checkpoint(folder / "last.pth") if resume and (folder / "last.pth").is_file() else None
    own = ProgressLines() if lines is None else None
    screen = lines or own
    assert screen is not None
    if own is not None:
        own.__enter__()
    try:
        trainer = Trainer(plan, folder, on_event=lambda event: _show(screen, event, plan.validation))
        if is_first_process():
            if clear:
                clear_run(folder)
            if not (resume and (folder / CONFIG).is_file()):
                _save_config(plan, folder)
            screen.say(_what(plan, trainer.hardware))
            screen.say(f"run     {folder}/" + (_resumed(state.training, len(plan.stages)) if state else ""))
        with _stopped_by_signals(trainer):
            result = trainer.run(state)
    finally:
        if own is not None:
            own.__exit__(None, None, None)
    if report and is_first_process():
        from rtda_deploy.cli.train.page import write_run_page

        write_run_page(plan, folder, result)
    return result


def _resumed(state: Mapping[str, Any], stages: int) -> str:
    """Where a run goes on; of one that made its last step, how to train on."""
    told = f"   resumed at step {state.get('step')}"
    if state.get("done") and state.get("stage_index") == stages - 1:
        return f"{told}, its last: more steps are a new run from its weights, --init PTH --out ANOTHER"
    return told


@contextlib.contextmanager
def _stopped_by_signals(trainer: Trainer) -> Iterator[None]:
    """A signal ends the training with a checkpoint while steps are made, and at once at any other time."""
    from rtda_training.loop.stopping import TrainingStopped

    came: List[int] = []

    def stop(number: int) -> bool:
        if trainer.stepping:
            came.append(number)
            note("stopping after this step, with a checkpoint   (once more, after 3 s: at once, without)")
            trainer.stop()
        return trainer.stepping

    try:
        with stops_in_order(stop):
            yield
    except TrainingStopped as stopped:
        note(f"saved   {stopped.path} at step {stopped.step} of {stopped.stage}")
        if signal.SIGTERM in came:
            raise Terminated from stopped
        raise


def _what(plan: PlanConfig, hardware: str) -> str:
    adapts = " (no labels used)" if plan.target and all(s.labelled == "source" for s in plan.stages) else ""
    domains = plan.source + (f" -> {plan.target}{adapts}" if plan.target else "")
    return f"model   {network_text(plan)} · {domains} · {hardware} · seed {plan.seed}"


def network_text(plan: PlanConfig) -> str:
    """The network for people: ``BiSeNet-resnet18 rtda``."""
    from rtda_training.models import network_class, network_settings

    settings = network_settings(plan.network, plan.backbone, plan.variant)
    name = f"{network_class(plan.network).NAME}-{settings.pop('backbone')}"
    return " ".join([name, *settings.values()])


def require_training() -> None:
    """Say what is missing before anything else."""
    require("torch", extra="training", purpose="to train")
    require("lightning_fabric", extra="training", purpose="to train")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)


def _show(screen: ProgressLines, event: TrainEvent, validation: str) -> None:
    values = event.values or {}
    if event.kind == "prepare":
        screen.update(f"prepare {event.stage}", event.step, event.total)
    elif event.kind == "note":
        screen.say(event.stage)
    elif event.kind == "warning":
        screen.say(f"! {event.stage}")
    elif event.kind == "step":
        losses = " ".join(f"{key} {_loss_text(values[key])}" for key in loss_keys([values]))
        detail = f"{losses}  {values['pictures_per_s']:.1f} img/s"
        screen.update(f"train   {event.stage}", event.step, event.total, detail, left_s=values.get("eta_s"))
    elif event.kind == "validation":
        screen.say(
            f"  val @{event.step}  mIoU {100 * values['val_miou']:.1f}"
            f"   pixel accuracy {100 * values['val_pixel_accuracy']:.1f}   worst: {_worst(values['val_iou'])}"
            f"   on {validation} (val)"
        )


def loss_keys(rows: Iterable[Mapping[str, Any]]) -> List[str]:
    """What a method logs of its own, in the order it does: whatever is in the rows and not in every training's."""
    found = dict.fromkeys(key for row in rows for key in row if key not in _EVERY_ROW and not key.startswith("val_"))
    return list(found)


def _loss_text(value: float) -> str:
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.01 else f"{value:.1e}"


def _worst(iou: Dict[str, Optional[float]]) -> str:
    known = sorted((value, name) for name, value in iou.items() if value is not None)
    return ", ".join(f"{name} {value:.1f}" for value, name in known[:3])


def _save_config(plan: PlanConfig, folder: Path) -> None:
    head = [
        f"# {' '.join(plan.description.split())}" if plan.description else "# A resolved plan.",
        f"# rtda-deploy {_version()}, Python {platform.python_version()}, git {_git_hash()}",
        "# Run it again: rtda-deploy train config.toml",
    ]
    write_text(folder / "config.toml", "\n".join(head) + "\n" + _toml(plan.to_dict()))


def _version() -> str:
    from rtda_deploy import __version__

    return __version__


def _git_hash() -> str:
    try:
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return "none"
    return done.stdout.strip() or "none"


def _toml(table: Dict[str, Any], prefix: str = "") -> str:
    """The subset of TOML that a plan needs: values, tables, one list of tables (``stages``)."""
    from rtda_training.toml_file import toml_value

    values, tables = [], []
    for key, value in table.items():
        if isinstance(value, dict):
            tables.append(f"\n[{prefix}{key}]\n" + _toml(value, f"{prefix}{key}."))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            tables += [f"\n[[{prefix}{key}]]\n" + _toml(entry, f"{prefix}{key}.") for entry in value]
        else:
            values.append(f"{key} = {toml_value(value)}\n")
    return "".join(values + tables)
