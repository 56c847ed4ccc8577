"""``rtda-deploy train``."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional

import typer

__all__ = ["train"]


def train(
    recipe: str = typer.Argument(
        ..., help="A recipe (training/recipes) or a grid of recipes (ablations/toytown): a name or a TOML file."
    ),
    source: str = typer.Option("", help="Labelled domain, kind:path?key=value."),
    target: str = typer.Option("", help="Unlabelled domain, kind:path?key=value."),
    val: str = typer.Option("", help="Labelled set that best.pth is chosen on (default: the source's val split)."),
    set_: Optional[List[str]] = typer.Option(None, "--set", help="Change a setting: key=value. May be repeated."),
    init: str = typer.Option("", help="Checkpoint to start from."),
    backbone_weights: str = typer.Option("", help="ImageNet file for the backbone (.pth or .safetensors)."),
    out: Optional[Path] = typer.Option(None, help="Run folder (default: runs/train/<time>-<recipe>)."),
    resume: str = typer.Option("", help="'auto': go on with the run in --out, or the newest of this recipe."),
    json_: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Train a network, or adapt one to a domain without labels.

    Example: rtda-deploy train rtda-light-thin --set steps=500
    """
    from rtda_deploy.cli.console import note, print_json, print_next
    from rtda_deploy.cli.training import run_plan
    from rtda_deploy.errors import ConfigError

    if resume not in ("", "auto"):
        raise ConfigError(f"--resume {resume} is unknown", hint="--resume auto, with --out DIR for a certain run")
    from rtda_deploy.cli.ablation import is_grid, train_grid
    from rtda_deploy.cli.training import is_first_process, load_plan_here, resumable_folder, run_folder

    typed = {"source": source, "target": target, "val": val, "init": init, "backbone_weights": backbone_weights}
    if is_grid(recipe):
        train_grid(recipe, set_ or [], out, resume, json_, **typed)
        return
    plan = load_plan_here(recipe, set_ or [], **typed)
    found = resumable_folder(plan.name, out) if resume else None
    folder = found or out or run_folder("train", plan.name)
    if resume and not found and is_first_process():
        note(f"nothing to resume, starting anew in {folder}")
    result = run_plan(plan, folder, resume=found is not None)
    if not is_first_process():
        return
    if json_:
        print_json(
            {
                "folder": str(result.folder),
                "best_miou": round(100 * result.best_miou, 2),
                "best_at": result.best_at,
                "last_miou": round(100 * result.last_miou, 2),
                "seconds": round(result.seconds, 1),
            }
        )
    else:
        print(folder / "last.pth")
    note(f"done    in {result.seconds:.0f} s · best val mIoU {100 * result.best_miou:.1f} ({result.best_at})")
    note(f"wrote   {folder}/{{last.pth,best.pth,config.toml,results.csv,report.html}}")
    print_next(f"rtda-deploy export {folder}/last.pth")
