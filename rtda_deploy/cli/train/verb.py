"""``rtda-deploy train``."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional

import typer

from rtda_deploy.cli.terminal.signals import Terminated, stops_in_order

if TYPE_CHECKING:
    from rtda_training.loop.events import TrainResult

__all__ = ["train"]


@stops_in_order()
def train(
    recipe: str = typer.Argument(
        "",
        help="A recipe (training/recipes) or a grid of recipes (ablations/toytown): a name or a TOML file. "
        "--source and --target alone take 'recommended', with --labelled-target 'few-labels'.",
    ),
    source: str = typer.Option("", help="Labelled domain, kind:path?key=value."),
    target: str = typer.Option("", help="Unlabelled domain, kind:path?key=value."),
    labelled_target: str = typer.Option(
        "", help="A few labelled frames of the target, learned from beside what the recipe does."
    ),
    val: str = typer.Option(
        "",
        help="Labelled set that best.pth is chosen on (default: ranked on the target without labels, where it adapts).",
    ),
    check: str = typer.Option(
        "",
        help="Five to ten labelled frames of the target that nothing learns from: they choose best.pth among the run's "
        "networks, with their own and with other batch norms.",
    ),
    set_: Optional[List[str]] = typer.Option(None, "--set", help="Change a setting: key=value. May be repeated."),
    init: str = typer.Option("", help="Checkpoint to start from."),
    backbone_weights: str = typer.Option(
        "", help="ImageNet file for the backbone (.pth, .npz, .safetensors), or imagenet: one that a package brings."
    ),
    backbone_stages: int = typer.Option(
        0, help="Stages of the backbone, 1 to 4, that the file covers; the others start at random (0: all of them)."
    ),
    out: Optional[Path] = typer.Option(None, help="Run folder (default: runs/train/<time>-<recipe>)."),
    resume: str = typer.Option(
        "", help="'auto': go on with the run in --out, or the newest of this recipe, with its own settings."
    ),
    force: bool = typer.Option(False, "--force", help="Throw an earlier run in --out away."),
    list_: bool = typer.Option(False, "--list", help="Name the recipes, with a sentence each."),
    json_: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Train a network, or adapt one to a domain without labels.

    Ctrl-C saves what was done; rtda-deploy train --resume auto --out DIR goes on.

    Example: rtda-deploy train fda-light --set steps=500
    """
    from rtda_deploy.cli.train.progress import require_training
    from rtda_deploy.errors import ConfigError

    require_training()
    if list_:
        _list_recipes(json_)
        return
    if resume not in ("", "auto"):
        raise ConfigError(f"--resume {resume} is unknown", hint="--resume auto, with --out DIR for a certain run")
    typed = {
        "source": source,
        "target": target,
        "labelled_target": labelled_target,
        "val": val,
        "check": check,
        "init": init,
        "backbone_weights": backbone_weights,
    }
    if backbone_stages:
        set_ = [f"backbone_stages={backbone_stages}", *(set_ or [])]
    from rtda_training.grids.grid import is_grid

    if recipe and is_grid(recipe):
        if force:
            raise ConfigError("--force is for one run; a grid never repeats a finished row", hint="another --out")
        from rtda_deploy.cli.train.grid import train_rows

        train_rows(recipe, set_ or [], out, bool(resume), json_, **typed)
        return
    result = _trained(recipe, out, {"overrides": set_ or [], "resume": bool(resume), "force": force, **typed})
    if result is not None:
        _tell(result, json_)


def _trained(recipe: str, out: Optional[Path], asked: Dict[str, Any]) -> Optional[TrainResult]:
    """Train; where it is broken off, say how to go on. None in all processes of ``torchrun`` but the first."""
    from rtda_deploy.cli.candidates import open_candidate
    from rtda_deploy.cli.terminal.console import note, print_next
    from rtda_deploy.cli.train.progress import training_on_screen
    from rtda_training.plan import recipe_title
    from rtda_training.run import train
    from rtda_training.run_choice import is_first_process, recipe_for

    if recipe:
        recipe_title(recipe)  # an unknown one is refused before torch is loaded, which takes seconds
    domains = asked["source"] and (asked["target"] or asked["labelled_target"])
    if is_first_process() and (recipe or asked["resume"] or domains):
        chosen = recipe_for(asked["labelled_target"])
        named = recipe or ("the run in " + str(out or "runs/train") if asked["resume"] else chosen)
        note(f"train   {named}: loading torch, looking at the data")
    started: List[Path] = []
    try:
        with training_on_screen(started=started.append) as (on_event, stop):
            result = train(recipe, out=out, on_event=on_event, stop=stop, open_model=open_candidate, **asked)
    except (KeyboardInterrupt, Terminated):
        if started:
            print_next(f"rtda-deploy train --resume auto --out {shlex.quote(str(started[0]))}")
        raise
    return result if is_first_process() else None


def _tell(result: TrainResult, json_: bool) -> None:
    from rtda_deploy.cli.terminal.console import note, print_json, print_next, warn

    folder, ranking = result.folder, result.ranking or {}
    if json_:
        values: Dict[str, object] = {
            "folder": str(folder),
            "best_miou": _percent(result.best_miou),
            "best_at": result.best_at,
            "last_miou": _percent(result.last_miou),
            "seconds": round(result.seconds, 1),
            "verdict": result.verdict,
            "proposed": result.proposed.name,
            "ranking": _order(result.ranking) if result.ranking else None,
        }
        print_json(values)
    else:
        print(result.proposed)
    best = f" · best val mIoU {100 * result.best_miou:.1f} ({result.best_at})" if result.best_at else ""
    note(f"done    in {result.seconds:.0f} s{best}")
    note(f"verdict {result.verdict}")
    for found in ranking.get("dropped", ()):
        warn(f"dropped {found['name']}: {found['why']}")
    for text in ranking["notes"] if ranking.get("by_labels") else ():
        warn(text)
    for key, why in ranking.get("left_out", {}).items():
        note(f"rule    {key} not counted in the ranking: {why}")
    files = "last.pth,best.pth" if result.best_at or result.ranking else "last.pth"
    ranked = ",ranking.json" if result.ranking else ""
    note(f"wrote   {folder}/{{{files},config.toml,results.csv{ranked},report.html,MODEL_CARD.md}}")
    print_next(f"rtda-deploy export {shlex.quote(str(result.proposed))}")


def _order(ranking: Mapping[str, Any]) -> Dict[str, Any]:
    """Of ``ranking.json`` what was chosen and among what, best first."""
    names = [entry["name"] for entry in ranking["entries"]]
    own = {key: ranking[key] for key in ("chosen", "better", "first", "footage", "frames", "seconds")}
    own["by_labels"] = bool(ranking.get("by_labels"))  # runs of earlier versions do not say it
    return {**own, "order": names, "dropped": [found["name"] for found in ranking["dropped"]]}


def _percent(share: float) -> Optional[float]:
    """None where nothing was validated on."""
    return None if math.isnan(share) else round(100 * share, 2)


def _list_recipes(json_: bool) -> None:
    """A table of names and sentences, or one JSON object of them."""
    from rtda_deploy.cli.terminal.console import note, print_json, print_next, print_table
    from rtda_training.grids.grid import grid_names
    from rtda_training.plan import recipe_names, recipe_title

    titles = [recipe_title(name) for name in recipe_names()]
    if json_:
        print_json({"recipes": dict(titles), "grids": grid_names()})
        return
    print_table(("recipe", "what it is"), titles)
    note(f"grids   {', '.join(grid_names())}")
    print_next(
        "rtda-deploy train source-only --source DATA   (a first network, of labelled pictures alone)",
        "rtda-deploy train --source DATA --target DATA   (adapted to footage without labels: recommended)",
        "rtda-deploy train --source DATA --target DATA --labelled-target DATA   (five labelled frames: few-labels)",
    )
