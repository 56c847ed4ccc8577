"""The parts of the demo, one after the other: train, its control, export, score, run on a clip."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from rtda_deploy.cli.terminal.console import ProgressLines, note
from rtda_deploy.errors import ConfigError
from rtda_deploy.run_folders import is_locked

if TYPE_CHECKING:
    from rtda_export.parity.scoring import Evaluation
    from rtda_training.plan import Control, PlanConfig

__all__ = ["CLIP", "CONTROL", "Clip", "EarlierDemo", "find_earlier", "make_room", "run_demo", "source_only"]

CONTROL = "control"  # folder of the control's run, in the demo's
_TEST = "toytown:target?split=test"
_MADE = ("model.onnx", "verify.html", "overlay.mp4", "clip.mp4", "summary.json", "report.html")


class Clip(NamedTuple):
    """The recording that the exported network runs on."""

    frames: int
    size_hw: Tuple[int, int]
    fps: float


CLIP = Clip(120, (320, 640), 15.0)


class EarlierDemo(NamedTuple):
    """A demo of the same plan and versions; ``trained``: its training came to its end."""

    folder: Path
    trained: bool

    def goes_on(self, out: Optional[Path]) -> bool:
        """Whether it goes on in its own folder: in training, or after it where its folder was typed."""
        if out is None:
            return not self.trained
        return out == self.folder and not (self.folder / "summary.json").is_file()


def find_earlier(plan: PlanConfig, out: Optional[Path]) -> Optional[EarlierDemo]:
    """A trained demo that no process is writing: that in ``out``, else the newest of those in ``runs/demo``."""
    from rtda_training.run_folder import is_trained

    newest_first = sorted(Path("runs/demo").glob("*/last.pth"), reverse=True)
    for folder in ([] if out is None else [out]) + [path.parent for path in newest_first]:
        trained = is_trained(folder, plan)
        if trained is not None and not is_locked(folder):
            return EarlierDemo(folder, trained)
    return None


def make_room(folder: Path, *, force: bool) -> None:
    """Check that nothing is lost in the folder, or throw it away where that was asked for.

    Raises:
        ConfigError: If something would be lost.
    """
    from rtda_training.run_folder import clear_run, progress_in

    made = [path for path in (folder / name for name in _MADE) if path.is_file()]
    found = progress_in(folder) or progress_in(folder / CONTROL) or (made[0].name if made else "")
    if found and not force:
        raise ConfigError(
            f"{folder} holds an earlier run ({found}), which the demo would overwrite",
            hint="another --out, or none: a new folder is taken   (--force throws the earlier one away)",
        )
    if found:
        clear_run(folder)
        clear_run(folder / CONTROL)
    for path in made:
        path.unlink()


def run_demo(plan: PlanConfig, folder: Path, earlier: Optional[EarlierDemo]) -> Dict[str, Any]:
    """Train, export, score and run; gives the summary, which is written too, with the page."""
    from rtda_deploy.cli.demo.page import save_summary
    from rtda_training.plan import control_of

    seconds: Dict[str, float] = {}

    @contextlib.contextmanager
    def part(name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        seconds[name] = round(time.monotonic() - started, 1)

    control = control_of(plan)
    steps = sum(stage.steps for stage in plan.stages)
    note(f"demo    {folder}/   ToyTown: {steps} steps of training, then export, evaluation and a run on a clip")
    with ProgressLines() as lines:
        with part("train"):
            training = _train(plan, folder, earlier, lines)
        with part("control"):
            _train_control(control.plan, folder, earlier, lines)
        with part("export"):
            onnx = _export(folder, lines)
        with part("eval"):
            scored = [_score(model, name, lines) for name, model in _models(plan, control, folder, onnx)]
        with part("run"):
            stats = _run(onnx, folder / "clip.mp4", folder / "overlay.mp4", lines)
    before, after = scored[0], scored[-1]
    middle = scored[1] if len(scored) == 3 else None
    return save_summary(folder, plan.to_dict(), training, before, middle, after, stats, seconds)


def _train(plan: PlanConfig, folder: Path, earlier: Optional[EarlierDemo], lines: ProgressLines) -> Dict[str, Any]:
    from rtda_deploy.cli.train.progress import training_on_screen
    from rtda_training.run import train_plan
    from rtda_training.run_folder import copy_run

    steps = {stage.name: stage.steps for stage in plan.stages}
    if earlier is not None and earlier.trained:
        said = "trained with the same recipe and versions (--fresh trains anew)"
        lines.say(f"reuse   the network of {earlier.folder}/, {said}")
        if earlier.folder != folder:
            copy_run(earlier.folder, folder)
        return {"steps": steps, "reused": str(earlier.folder), "seconds": 0.0}
    resume = earlier is not None and earlier.folder == folder
    if resume:
        lines.say(f"reuse   the unfinished training in {folder}/ (--fresh trains anew)")
    with training_on_screen(lines) as (on_event, stop):
        result = train_plan(plan, folder, resume=resume, report=False, on_event=on_event, stop=stop)
    return {"steps": steps, "reused": None, "seconds": round(result.seconds, 1)}


def _train_control(
    control: Optional[PlanConfig], folder: Path, earlier: Optional[EarlierDemo], lines: ProgressLines
) -> None:
    """Train the plan whose method tells the network nothing; stages that both have are not trained again."""
    from rtda_deploy.cli.train.progress import training_on_screen
    from rtda_training.run import train_plan
    from rtda_training.run_folder import copy_run, is_trained
    from rtda_training.taken_stages import take_stages

    if control is None:
        return
    place = folder / CONTROL
    before = None if earlier is None else earlier.folder / CONTROL
    if before is not None and before != place and is_trained(before, control):
        copy_run(before, place)
    if is_trained(place, control):
        lines.say("reuse   the network of the control")
        return
    lines.say("control the same training, in which the method tells the network nothing: what is left of the gain?")
    take_stages(control, place, folder)
    with training_on_screen(lines) as (on_event, stop):
        train_plan(control, place, resume=True, report=False, on_event=on_event, stop=stop)


def _models(plan: PlanConfig, control: Control, folder: Path, onnx: Path) -> List[Tuple[str, Path]]:
    """What is scored: the network before the adaptation, the control's where there is one, what was exported."""
    middle = [("control", folder / CONTROL / "last.pth")] if control.plan is not None else []
    return [("source-only", source_only(folder, plan.stages[0].name)), *middle, ("adapted", onnx)]


def source_only(folder: Path, stage: str) -> Path:
    """The network that the first stage left: the control's where it is there, because it saw nothing of the target."""
    control = folder / CONTROL / f"stage-{stage}.pth"
    return control if control.is_file() else folder / f"stage-{stage}.pth"


def _export(folder: Path, lines: ProgressLines) -> Path:
    from rtda_deploy.cli.export import show_steps
    from rtda_export import export_model

    checkpoint, on_step = folder / "last.pth", show_steps(lines.say)
    return export_model(checkpoint, to=("onnx",), out_dir=folder, name="model", on_step=on_step).onnx


def _score(model: Path, name: str, lines: ProgressLines) -> Evaluation:
    from rtda_export import evaluate
    from rtda_training.readers import open_labelled

    data = open_labelled(_TEST, progress=lambda done, total: lines.update(f"render  {_TEST}", done, total))
    return evaluate(model, data, progress=lambda done, total: lines.update(f"eval    {name}", done, total))


def _run(onnx: Path, clip: Path, overlay: Path, lines: ProgressLines) -> Dict[str, Any]:
    from rtda_runtime import Overlay, Pipeline, Segmenter, VideoSink
    from rtda_training.data.toytown import render_clip

    if not clip.exists():
        with VideoSink(clip, CLIP.fps) as film:
            for done, (frame, _) in enumerate(render_clip("target", 0, CLIP.frames, CLIP.size_hw)):
                film.write(frame)
                lines.update("render  clip.mp4", done + 1, CLIP.frames)
    with Segmenter.open(onnx) as segmenter:
        sink = VideoSink(overlay, CLIP.fps, overlay=Overlay(segmenter.spec))
        with Pipeline.open(segmenter, clip, sinks=[sink]) as pipeline:
            for done, _ in enumerate(pipeline):
                lines.update("run     clip.mp4", done + 1, CLIP.frames)
        for error in pipeline.sink_errors.values():
            raise error
        return pipeline.stats
