"""What ``train`` and ``demo`` share: run folders, resuming, progress on screen, the saved plan and the report."""

from __future__ import annotations

import datetime
import logging
import math
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

from rtda_deploy.cli.console import ProgressLines
from rtda_deploy.files import write_text
from rtda_deploy.optional import require

if TYPE_CHECKING:
    from rtda_training.plan import PlanConfig
    from rtda_training.trainer import TrainEvent, TrainResult

__all__ = ["load_plan_here", "resumable_folder", "run_folder", "run_plan"]


def load_plan_here(recipe: str, overrides: Sequence[str], **fields: str) -> PlanConfig:
    """Load a recipe; where torch is missing, say so before anything else."""
    _require_training()
    from rtda_training.plan import load_plan

    return load_plan(recipe, overrides, **fields)


def run_folder(verb: str, name: str = "") -> Path:
    """A new ``runs/<verb>/<time>[-<name>]``; never one that exists."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    base = Path("runs") / verb / (f"{stamp}-{name}" if name else stamp)
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}.{number}")
    return folder


def resumable_folder(recipe: str, out: Optional[Path]) -> Optional[Path]:
    """The folder to go on in: ``out``, else the newest run of this recipe; None where there is no ``last.pth``."""
    if out is not None:
        return out if (out / "last.pth").is_file() else None
    runs = sorted(path.parent for path in Path("runs/train").glob(f"*-{recipe}*/last.pth"))
    return runs[-1] if runs else None


def run_plan(
    plan: PlanConfig, folder: Path, *, resume: bool = False, lines: Optional[ProgressLines] = None, report: bool = True
) -> TrainResult:
    """Train with progress on stderr; writes ``config.toml`` before and ``report.html`` after."""
    _require_training()
    from rtda_training.checkpoint import read_checkpoint
    from rtda_training.trainer import Trainer

    state = read_checkpoint(folder / "last.pth") if resume else None
    own = ProgressLines() if lines is None else None
    screen = lines or own
    assert screen is not None
    if own is not None:
        own.__enter__()
    try:
        trainer = Trainer(plan, folder, on_event=lambda event: _show(screen, event))
        _save_config(plan, folder)
        adapts = " (no labels used)" if plan.target and all(s.labelled == "source" for s in plan.stages) else ""
        domains = plan.source + (f" -> {plan.target}{adapts}" if plan.target else "")
        screen.say(
            f"model   BiSeNet-{plan.backbone} {plan.variant} · {domains} · {trainer.hardware} · seed {plan.seed}"
        )
        screen.say(f"run     {folder}/" + (f"   resumed at step {state.training.get('step')}" if state else ""))
        result = trainer.run(state)
    finally:
        if own is not None:
            own.__exit__(None, None, None)
    if report:
        _write_report(plan, folder, result)
    return result


def _require_training() -> None:
    require("torch", extra="training", purpose="to train")
    require("lightning_fabric", extra="training", purpose="to train")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)


def _show(screen: ProgressLines, event: TrainEvent) -> None:
    values = event.values or {}
    if event.kind == "prepare":
        screen.update(f"render  {event.stage}", event.step, event.total)
    elif event.kind == "note":
        screen.say(event.stage)
    elif event.kind == "step":
        losses = "  ".join(f"{key} {values[key]:.3f}" for key in ("seg", "adv", "disc") if key in values)
        screen.update(f"train   {event.stage}", event.step, event.total, f"{losses}  {values['pictures_per_s']} img/s")
    elif event.kind == "validation":
        screen.say(
            f"  val @{event.step}  mIoU {100 * values['val_miou']:.1f}"
            f"   pixel accuracy {100 * values['val_pixel_accuracy']:.1f}   worst: {_worst(values['val_iou'])}"
        )


def _worst(iou: Dict[str, Optional[float]]) -> str:
    known = sorted((value, name) for name, value in iou.items() if value is not None)
    return ", ".join(f"{name} {value:.1f}" for value, name in known[:3])


def _save_config(plan: PlanConfig, folder: Path) -> None:
    head = [
        f"# {plan.description}" if plan.description else "# A resolved plan.",
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
    import json

    values, tables = [], []
    for key, value in table.items():
        if isinstance(value, dict):
            tables.append(f"\n[{prefix}{key}]\n" + _toml(value, f"{prefix}{key}."))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            tables += [f"\n[[{prefix}{key}]]\n" + _toml(entry, f"{prefix}{key}.") for entry in value]
        else:
            values.append(f"{key} = {json.dumps(value)}\n")
    return "".join(values + tables)


def _write_report(plan: PlanConfig, folder: Path, result: TrainResult) -> None:
    import json

    from rtda_deploy.report import ReportPage

    rows: List[Dict[str, Any]] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    page = ReportPage(f"Training: {plan.name}", f"{plan.source} -> {plan.target or 'no target'} · seed {plan.seed}")
    page.table(
        ["", "value"],
        [
            ["best val mIoU, %", round(100 * result.best_miou, 2)],
            ["best at", result.best_at],
            ["last val mIoU, %", round(100 * result.last_miou, 2)],
            ["time, s", round(result.seconds, 1)],
        ],
    )
    for key, title in (("seg", "Segmentation loss"), ("disc", "Discriminator loss"), ("val_miou", "Validation mIoU")):
        series = _series(rows, key, 100.0 if key == "val_miou" else 1.0)
        if series:
            page.heading(title)
            page.lines(series, "step", "%" if key == "val_miou" else "loss")
    last = [row for row in rows if "val_iou" in row]
    if last:
        known = {name: value for name, value in last[-1]["val_iou"].items() if value is not None}
        ordered = sorted(known, key=lambda name: -known[name])
        page.heading("IoU per class, last validation")
        page.bars(ordered, [known[name] for name in ordered], unit="%")
    page.data({"plan": plan.to_dict(), "rows": rows})
    page.save(folder / "report.html")


def _series(rows: List[Dict[str, Any]], key: str, factor: float) -> Dict[str, List[Tuple[float, float]]]:
    series: Dict[str, List[Tuple[float, float]]] = {}
    for row in rows:
        value = row.get(key)
        if isinstance(value, (int, float)) and math.isfinite(value):
            series.setdefault(str(row["stage"]), []).append((float(row["step"]), factor * float(value)))
    return series
