"""``rtda-deploy demo``: the whole path on ToyTown, from nothing to a mask video and its numbers."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import List, Optional

import typer

from rtda_deploy.cli.terminal.signals import Terminated, stops_in_order

__all__ = ["demo"]

_RECIPE = "toytown-demo"


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
    from rtda_deploy.cli.demo.page import HEADERS, summary_rows
    from rtda_deploy.cli.demo.parts import find_earlier, make_room, run_demo
    from rtda_deploy.cli.terminal.console import note, print_json, print_next, print_table
    from rtda_deploy.cli.train.progress import require_training
    from rtda_deploy.run_folders import new_run_folder, working_in

    require_training()
    from rtda_training.plan import load_plan

    plan = load_plan(_RECIPE, set_ or [])
    earlier = None if fresh else find_earlier(plan, out)
    goes_on = earlier is not None and earlier.goes_on(out)
    folder = out or (earlier.folder if earlier and goes_on else new_run_folder("demo"))
    try:
        with working_in(folder):
            if not goes_on:
                make_room(folder, force=force)
            summary = run_demo(plan, folder, earlier if earlier and (earlier.folder / "last.pth").is_file() else None)
    except (KeyboardInterrupt, Terminated):
        print_next("rtda-deploy demo" + (f" --out {shlex.quote(str(folder))}" if out else "") + "   (goes on)")
        raise
    if json_:
        print_json(summary)
    else:
        print_table(("ToyTown, target's test split", *HEADERS), summary_rows(summary))
        first, *rest = plan.stages
        more = sum(stage.steps for stage in rest)
        print(f"source-only: after {first.steps} steps; adapted: {more} steps later, as exported, no target label used")
        if summary["control"]:
            print("control: as many steps in all, in which the method tells the network nothing")
    note(f"wrote   {folder}/{{model.onnx,best.pth,last.pth,overlay.mp4,report.html,summary.json}}")
    model = shlex.quote(str(folder / "model.onnx"))
    print_next(
        f"rtda-deploy run {model} --camera 0 --save out.mp4",
        f"rtda-deploy bench {model}",
        "rtda-deploy train --source folder:SIMULATOR --target folder:FOOTAGE",
    )
