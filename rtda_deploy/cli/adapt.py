"""``rtda-deploy adapt``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Mapping, Optional, Tuple

import typer

from rtda_deploy.cli.terminal.signals import Terminated, stops_in_order

if TYPE_CHECKING:
    from rtda_training.source_free.adapting import AdaptResult
    from rtda_training.source_free.request import AdaptRequest

__all__ = ["adapt"]

_COLUMNS = ("candidate", "agreement mIoU", "steadiness", "norms apart", "first in", "check mIoU", "")
_SHOWN = ("ensemble-miou", "views")  # measures of the second and third


@stops_in_order()
def adapt(
    model: Optional[Path] = typer.Argument(None, help="A .pth of rtda-deploy train."),
    footage: str = typer.Option("", help="The robot's recordings: video:FILE, bag:DIR, folder:DIR."),
    check: str = typer.Option(
        "", help="A few labelled frames (five to ten): networks are trained, too, and these labels choose."
    ),
    norms_only: bool = typer.Option(False, "--norms-only", help="Train nothing, also with --check."),
    steps: int = typer.Option(0, min=0, help="Steps of training in all (default: 600 with --check, else none)."),
    minutes: float = typer.Option(0.0, min=0.0, help="Train for about so many minutes, instead of --steps."),
    max_frames: int = typer.Option(100, min=0, help="Of the footage, that candidates are ranked on (0: all)."),
    set_: Optional[List[str]] = typer.Option(None, "--set", help="Change a setting of the recipe adapt: key=value."),
    out: Optional[Path] = typer.Option(None, help="Run folder (default: runs/adapt/<time>-<model>)."),
    resume: str = typer.Option("", help="'auto': go on with the run in --out, or with the newest."),
    force: bool = typer.Option(False, "--force", help="Throw an earlier run in --out away."),
    json_: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Adapt a network to the robot's own recordings, without source pictures and without labels.

    Candidates are ranked on the footage, with --check by its labels; where none is surely better, the model comes back
    as it was. Without --check and --steps these are the model with its batch norms mixed with the footage's: minutes.

    Example: rtda-deploy adapt last.pth --footage toytown:target
    """
    from rtda_deploy.cli.terminal.console import note
    from rtda_deploy.cli.train.progress import require_training

    require_training()
    from rtda_training.source_free.request import refuse_model

    if model is not None:
        refuse_model(str(model))
    typed = {
        "model": str(model or ""),
        "footage": footage,
        "check": check,
        "norms_only": norms_only,
        "steps": steps,
        "minutes": minutes,
        "max_frames": max_frames,
        "overrides": tuple(set_ or ()),
    }
    request, folder = _asked(typed, out, resume, force)
    note(f"adapt   {request.model} to {request.footage}: loading torch, looking at the footage")
    result = _adapted(request, folder, force)
    _tell(request, result, json_)


def _asked(typed: Mapping[str, Any], out: Optional[Path], resume: str, force: bool) -> Tuple[AdaptRequest, Path]:
    """What to do and where; of a run that is gone on with both are its own."""
    from rtda_deploy.errors import ConfigError
    from rtda_deploy.run_folders import new_run_folder
    from rtda_training.source_free.request import RECORD, AdaptRequest, read_request, refuse_contradiction

    if resume not in ("", "auto"):
        raise ConfigError(f"--resume {resume} is unknown", hint="--resume auto, with --out DIR for a certain run")
    if resume and force:
        raise ConfigError("--resume goes on with a run, --force throws it away", hint="take one of them")
    if resume:
        folder = out or max(Path("runs/adapt").glob(f"*/{RECORD}"), default=Path("runs/adapt") / RECORD).parent
        found = read_request(folder)
        own = {key: typed[key] or getattr(found, key) for key in ("model", "footage")}
        refuse_contradiction(AdaptRequest(**{**typed, **own}), found, folder)
        return found, folder
    if not typed["model"]:
        raise ConfigError("no model was named", hint="rtda-deploy adapt last.pth --footage video:drive.mp4")
    request = AdaptRequest(**typed)
    return request, out or new_run_folder("adapt", Path(request.model).stem)


def _adapted(request: AdaptRequest, folder: Path, force: bool) -> AdaptResult:
    """Adapt; where it is broken off, say how to go on."""
    from rtda_deploy.cli.terminal.console import print_next
    from rtda_deploy.cli.train.progress import training_on_screen
    from rtda_training.source_free.run import adapt as adapt_network
    from rtda_training.source_free.run import is_begun

    try:
        with training_on_screen() as (on_event, stop):
            return adapt_network(request, folder, force=force, on_event=on_event, stop=stop)
    except (KeyboardInterrupt, Terminated):
        if is_begun(folder):
            print_next(f"rtda-deploy adapt --resume auto --out {shlex.quote(str(folder))}")
        raise


def _tell(request: AdaptRequest, result: AdaptResult, json_: bool) -> None:
    from rtda_deploy.cli.terminal.console import note, print_json, print_next, print_table, warn

    folder = result.folder
    if json_:
        values = {"folder": str(folder), "best": str(result.best), "better": result.better, "seconds": result.seconds}
        print_json({**result.ranking, **values, "verdict": result.verdict})
    else:
        print_table(_COLUMNS, [_row(entry, result.chosen) for entry in result.ranking["entries"]])
        print(result.verdict)
    for found in result.ranking["dropped"]:
        warn(f"dropped {found['name']}: {found['why']}")
    for text in result.ranking["notes"]:
        warn(text)
    by_labels = result.ranking.get("by_labels")  # not of an earlier version: there labels changed no place
    judge = f"labels of {request.check}" if by_labels else f"{result.ranking['which']}, without labels"
    note(f"done    in {result.seconds:.0f} s · judged on {judge}")
    for key, why in result.ranking.get("left_out", {}).items():
        note(f"rule    {key} not counted: {why}")
    note(f"wrote   {folder}/{{best.pth,ranking.json,report.html,MODEL_CARD.md}}")
    if not result.better:
        note(f"keep    {request.model}: best.pth is the same network, and there is nothing new to export")
    print_next(*(_with_another(request, result) if result.better else _with_none_better(request, result)))


def _with_another(request: AdaptRequest, result: AdaptResult) -> List[str]:
    """What to type next where another network was chosen: it is exported, and seen beside the one that was given."""
    folder, best, given = result.folder, result.best, Path(request.model)
    camera, compare = shlex.quote(str(folder / "verify")), shlex.quote(str(given.with_suffix(".onnx")))
    exports = [f"rtda-deploy export {shlex.quote(str(best))}"]
    if not given.with_suffix(".onnx").is_file():
        exports.append(f"rtda-deploy export {shlex.quote(str(given))} --verify {camera}")
    return [
        *exports,
        f"rtda-deploy run {shlex.quote(str(best.with_suffix('.onnx')))} --compare {compare} --camera {camera}"
        f" --save {shlex.quote(str(folder / 'compare.mp4'))}",
    ]


def _with_none_better(request: AdaptRequest, result: AdaptResult) -> List[str]:
    """What to type next where the network that was given stays: what tells more, or teaches more, than this did."""
    from rtda_training.judge.own_masks import CORRECT

    footage, model = shlex.quote(request.footage), shlex.quote(request.model)
    if not request.check:
        return [f"rtda-deploy adapt {model} --footage {footage} --check LABELLED   (five to ten frames of it)"]
    check = shlex.quote(request.check)
    if any(CORRECT in text for text in result.ranking["notes"]):
        return [f"{CORRECT} {check}   (correct the masks, then adapt again)"]
    if request.norms_only:
        return [f"rtda-deploy adapt {model} --footage {footage} --check {check}   (trains, too)"]
    return [f"rtda-deploy train --source DATA --target {footage} --labelled-target {check}"]


def _row(entry: Mapping[str, Any], chosen: str) -> List[str]:
    """A line of the table, of an entry of ``ranking.json``."""
    scores, check = entry["scores"], entry["check_miou"]
    texts = ["–" if scores[key] is None or scores[key] < -1 else f"{100 * scores[key]:.1f}" for key in _SHOWN]
    apart = "–" if scores["norms"] is None else f"{-scores['norms']:.2f}"
    told = ["best.pth"] * (entry["name"] == chosen)
    return [
        entry["name"],
        *texts,
        apart,
        f"{100 * entry['first_share']:.0f} %",
        "–" if check is None else f"{check:.1f}",
        "; ".join([*told, *entry["warnings"], *entry["remarks"]]),
    ]
