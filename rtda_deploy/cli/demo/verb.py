"""``rtda-deploy demo``: the whole path on ToyTown, from nothing to a mask video and its numbers."""

from __future__ import annotations

import shlex
import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Tuple

import typer

from rtda_deploy.cli.terminal.signals import Terminated, stops_in_order

if TYPE_CHECKING:
    from rtda_deploy.cli.terminal.console import ProgressLines
    from rtda_export.parity.scoring import Evaluation
    from rtda_training.plan import PlanConfig

__all__ = ["demo"]

_RECIPE = "toytown-demo"
_CLIP_FRAMES, _CLIP_SIZE_HW, _CLIP_FPS = 120, (320, 640), 15.0
_TEST = "toytown:target?split=test"
_MADE = ("model.onnx", "verify.html", "overlay.mp4", "clip.mp4", "summary.json", "report.html")
_REUSED = ("last.pth", "best.pth", "results.csv", "metrics.jsonl", "config.toml")


@stops_in_order()
def demo(
    out: Optional[Path] = typer.Option(None, help="Folder (default: runs/demo/<time>)."),
    set_: Optional[List[str]] = typer.Option(None, "--set", help="Change a setting of the recipe: key=value."),
    fresh: bool = typer.Option(False, "--fresh", help="Train anew even if an earlier demo's network can be used."),
    force: bool = typer.Option(False, "--force", help="Throw an earlier demo or run in --out away."),
    json_: bool = typer.Option(False, "--json", help="Print the summary as one JSON object."),
) -> None:
    """Train on ToyTown's labelled source, adapt to its unlabelled target, export, run on a clip, report.

    Example: rtda-deploy demo --out runs/demo/first
    """
    from rtda_deploy.cli.demo.page import summary_rows
    from rtda_deploy.cli.terminal.console import note, print_json, print_next, print_table
    from rtda_deploy.cli.train.progress import require_training
    from rtda_deploy.run_folders import new_run_folder, working_in

    require_training()
    from rtda_training.plan import load_plan

    plan = load_plan(_RECIPE, set_ or [])
    earlier = None if fresh else _earlier(plan, out)
    goes_on = earlier is not None and _unfinished(*earlier, out)
    folder = out or (earlier[0] if earlier and goes_on else new_run_folder("demo"))
    try:
        with working_in(folder):
            if not goes_on:
                _make_room(folder, force)
            summary = _demo(plan, folder, earlier if earlier and (earlier[0] / "last.pth").is_file() else None)
    except (KeyboardInterrupt, Terminated):
        print_next("rtda-deploy demo" + (f" --out {shlex.quote(str(folder))}" if out else "") + "   (goes on)")
        raise
    if json_:
        print_json(summary)
    else:
        print_table(("ToyTown, target's test split", "source-only", "adapted", "gain"), summary_rows(summary))
        first, *rest = plan.stages
        more = sum(stage.steps for stage in rest)
        print(f"source-only: after {first.steps} steps; adapted: {more} steps later, as exported, no target label used")
    note(f"wrote   {folder}/{{model.onnx,best.pth,last.pth,overlay.mp4,report.html,summary.json}}")
    model = shlex.quote(str(folder / "model.onnx"))
    print_next(
        f"rtda-deploy run {model} --camera 0 --save out.mp4",
        f"rtda-deploy bench {model}",
        "rtda-deploy train fda-light --source folder:SIMULATOR --target folder:FOOTAGE",
    )


def _unfinished(folder: Path, trained: bool, out: Optional[Path]) -> bool:
    """Whether the earlier demo goes on in its own folder: in training, or after it where its folder was typed."""
    if out is None:
        return not trained
    return out == folder and not (folder / "summary.json").is_file()


def _make_room(folder: Path, force: bool) -> None:
    """Check that nothing is lost in the folder, or throw it away where that was asked for."""
    from rtda_deploy.errors import ConfigError
    from rtda_training.run_folder import clear_run, progress_in

    made = [path for path in (folder / name for name in _MADE) if path.is_file()]
    found = progress_in(folder) or (made[0].name if made else "")
    if found and not force:
        raise ConfigError(
            f"{folder} holds an earlier run ({found}), which the demo would overwrite",
            hint="another --out, or none: a new folder is taken   (--force throws the earlier one away)",
        )
    if found:
        clear_run(folder)
    for path in made:
        path.unlink()


def _demo(plan: PlanConfig, folder: Path, earlier: Optional[Tuple[Path, bool]]) -> Dict[str, Any]:
    """Train, export, score and run; gives the summary, which is written too."""
    from rtda_deploy.cli.demo.page import save_summary
    from rtda_deploy.cli.terminal.console import ProgressLines, note

    clock = _Clock()
    steps = sum(stage.steps for stage in plan.stages)
    note(f"demo    {folder}/   ToyTown: {steps} steps of training, then export, evaluation and a run on a clip")
    with ProgressLines() as lines:
        with clock.part("train"):
            training = _train(plan, folder, earlier, lines)
        with clock.part("export"):
            onnx = _export(folder, lines)
        with clock.part("eval"):
            before, after = _scores(folder, onnx, plan, lines)
        with clock.part("run"):
            stats = _run(folder, onnx, lines)
    return save_summary(folder, plan.to_dict(), training, before, after, stats, clock.seconds)


class _Clock:
    """Seconds per part of the demo."""

    def __init__(self) -> None:
        self.seconds: Dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)


def _earlier(plan: PlanConfig, out: Optional[Path]) -> Optional[Tuple[Path, bool]]:
    """A demo of the same plan and versions that nobody works on, and whether it was trained to its end.

    That in ``out`` first, then the newest of those without a folder of their own.
    """
    import torch

    from rtda_deploy import __version__
    from rtda_deploy.errors import RtdaError
    from rtda_deploy.folder_lock import is_locked
    from rtda_training.checkpoint import read_checkpoint

    there = [] if out is None else list(out.glob("last.pth"))
    for path in (*there, *sorted(Path("runs/demo").glob("*/last.pth"), reverse=True)):
        try:
            checkpoint = read_checkpoint(path)
        except RtdaError:
            continue
        state = checkpoint.training
        versions = {"rtda-deploy": __version__, "torch": torch.__version__}
        if state.get("plan") != plan.to_dict() or checkpoint.spec.provenance.get("versions") != versions:
            continue
        stages = [path.parent / f"stage-{stage.name}.pth" for stage in plan.stages]
        if is_locked(path.parent):
            continue
        done = bool(state["done"]) and state["stage_index"] == len(plan.stages) - 1
        if not done or all(stage.is_file() for stage in stages):
            return path.parent, done
    return None


def _train(
    plan: PlanConfig, folder: Path, earlier: Optional[Tuple[Path, bool]], lines: ProgressLines
) -> Dict[str, Any]:
    from rtda_deploy.cli.train.progress import training_on_screen
    from rtda_training.run import train_plan

    steps = {stage.name: stage.steps for stage in plan.stages}
    if earlier is not None and earlier[1]:
        lines.say(
            f"reuse   the network of {earlier[0]}/, trained with the same recipe and versions (--fresh trains anew)"
        )
        if earlier[0] != folder:
            for path in [*(earlier[0] / name for name in _REUSED), *earlier[0].glob("stage-*.pth")]:
                if path.is_file():
                    shutil.copy2(str(path), str(folder / path.name))
            shutil.copytree(str(earlier[0] / "verify"), str(folder / "verify"), dirs_exist_ok=True)
        return {"steps": steps, "reused": str(earlier[0]), "seconds": 0.0}
    resume = earlier is not None and earlier[0] == folder
    if resume:
        lines.say(f"reuse   the unfinished training in {folder}/ (--fresh trains anew)")
    with training_on_screen(lines) as (on_event, stop):
        result = train_plan(plan, folder, resume=resume, report=False, on_event=on_event, stop=stop)
    return {"steps": steps, "reused": None, "seconds": round(result.seconds, 1)}


def _export(folder: Path, lines: ProgressLines) -> Path:
    from rtda_deploy.cli.export import show_steps
    from rtda_export import export_model

    return export_model(
        folder / "last.pth", to=("onnx",), out_dir=folder, name="model", on_step=show_steps(lines.say)
    ).onnx


def _scores(folder: Path, onnx: Path, plan: PlanConfig, lines: ProgressLines) -> Tuple[Evaluation, Evaluation]:
    from rtda_export import evaluate
    from rtda_training.readers import open_labelled

    name = f"render  {_TEST}"
    data = open_labelled(_TEST, progress=lambda done, total: lines.update(name, done, total))
    first = folder / f"stage-{plan.stages[0].name}.pth"
    before = evaluate(first, data, progress=lambda done, total: lines.update("eval    source-only", done, total))
    after = evaluate(onnx, data, progress=lambda done, total: lines.update("eval    adapted", done, total))
    return before, after


def _run(folder: Path, onnx: Path, lines: ProgressLines) -> Dict[str, Any]:
    from rtda_runtime import Overlay, Pipeline, Segmenter, VideoSink

    clip = folder / "clip.mp4"
    _render_clip(clip, lines)
    with Segmenter.open(onnx) as segmenter:
        sink = VideoSink(folder / "overlay.mp4", _CLIP_FPS, overlay=Overlay(segmenter.spec))
        with Pipeline.open(segmenter, clip, sinks=[sink]) as pipeline:
            for done, _ in enumerate(pipeline):
                lines.update("run     clip.mp4", done + 1, _CLIP_FRAMES)
        for error in pipeline.sink_errors.values():
            raise error
        return pipeline.stats


def _render_clip(path: Path, lines: ProgressLines) -> None:
    from rtda_runtime import VideoSink
    from rtda_training.data.toytown import render_clip

    if path.exists():
        return
    sink = VideoSink(path, _CLIP_FPS)
    with sink:
        for done, (frame, _) in enumerate(render_clip("target", 0, _CLIP_FRAMES, _CLIP_SIZE_HW)):
            sink.write(frame)
            lines.update("render  clip.mp4", done + 1, _CLIP_FRAMES)
