"""``rtda-deploy label``: masks and confidences for any amount of footage, here or on a cluster."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional

import typer

from rtda_deploy.cli.terminal.signals import stops_in_order
from rtda_runtime.engines.kinds import one_of, providers

if TYPE_CHECKING:
    from rtda_runtime.fleet.request import Labelled, LabelRequest

__all__ = ["label"]

_FOOTAGE = "Videos, bags, pictures, folders of them, kind:path?key=value; several after one another."
_ON = "local: a loop in this process; ray: the cluster that RAY_ADDRESS names, else one on this machine."
_LAYOUT = "png: a file for each mask; tar: one for each unit of some 200 frames (default: png up to 20,000 frames)."
_MIXED = "Accept machines that decode or compute differently from the first: decoder, engine, or both (decoder,engine)."
_PROVIDER = f"{one_of(providers())} (default: cpu; with --gpu, or for an engine, the GPU's)."


@stops_in_order()
def label(
    model: Path = typer.Argument(..., help="An .onnx or engine."),
    more: Optional[List[str]] = typer.Argument(None, metavar="[FOOTAGE]...", help="More footage."),
    footage: List[str] = typer.Option(..., help=_FOOTAGE),
    out: Path = typer.Option(..., help="Folder for the labels; the same command goes on where it was stopped."),
    on: str = typer.Option("local", help=_ON),
    workers: Optional[int] = typer.Option(None, min=1, help="With ray: the most workers (default: all CPUs or GPUs)."),
    gpu: float = typer.Option(0.0, min=0.0, max=1.0, help="With ray: the share of a GPU for each worker, such as 0.5."),
    provider: Optional[str] = typer.Option(None, help=_PROVIDER),
    threads: Optional[int] = typer.Option(None, min=1, help="CPU threads of each engine (default: 1 with ray)."),
    layout: str = typer.Option("auto", "--as", help=_LAYOUT),
    confidence: bool = typer.Option(True, "--confidence/--no-confidence", help="Also write how sure each pixel is."),
    skip: str = typer.Option("5%", help="Damaged files are left out, up to this share of them."),
    mixed: str = typer.Option("", help=_MIXED),
    retry: bool = typer.Option(False, "--retry", help="Try again what was given up (failed/ in the folder)."),
    spec: Optional[Path] = typer.Option(None, help="spec.json for a model without one."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Label footage by a network: a mask and a confidence for each frame, to train on (labeler = "folder").

    What is done stays done: after Ctrl-C, a crash or a lost machine, type the same command again.
    (rtda-deploy data labels is another thing: it measures how right pseudo labels are.)

    Example: rtda-deploy label model.onnx --footage frames --out labels
    """
    from rtda_deploy.cli.outputs import check_label
    from rtda_deploy.cli.shares import share
    from rtda_deploy.cli.terminal.console import ProgressLines, note, print_json, print_next, warn
    from rtda_deploy.spec import ModelSpec
    from rtda_runtime.fleet.deployed import deployed_model
    from rtda_runtime.fleet.labelling import label_footage, opened_here
    from rtda_runtime.fleet.request import LabelRequest, Progress

    model = deployed_model(model)
    request = LabelRequest(
        model=model,
        footage=(*footage, *(more or ())),
        out=out,
        layout=layout,
        provider=provider or _provider(model, gpu),
        threads=threads,
        confidence=confidence,
        spec=ModelSpec.load(spec) if spec else None,
        skip_share=share(skip, "--skip"),
        retry=retry,
        mixed=tuple(name.strip() for name in mixed.split(",") if name.strip()),
    )
    way = _way(on, workers, gpu, request)
    check_label(request.footage, out)
    with ProgressLines() as lines:

        def told(state: Progress) -> None:
            name = "index   recordings" if state.what == "index" else "label   frames"
            pace = f"{state.per_second:.1f} frames/s" if state.per_second else ""
            lines.update(name, state.done, state.total, pace, state.left_s)

        # A head often has no GPU: the plan's look at the model is left to a machine that has one.
        found = label_footage(request, way, told, opened=way.opened if gpu else opened_here)
    for entry in found.skipped[:_MOST_TOLD]:
        warn(f"skipped {entry['key'] or entry['file']}: {entry['why']}")
    if len(found.skipped) > _MOST_TOLD:
        warn(f"skipped {len(found.skipped) - _MOST_TOLD} more: see {out / 'labelled.json'}")
    for host, differs in found.mixed.items():
        warn(f"mixed   machine {host} differs from the one that made the plan: {'; '.join(differs.values())}")
    if json_:
        print_json(_values(found, request, on))
    else:
        _show(found)
    for failed in found.failed:
        warn(f"given up {failed['path']} ({failed['frames']} frames, unit {failed['id']}): {failed['why']}")
    if found.failed:
        note(f"again   the same command with --retry tries the {len(found.failed)} given up")
        raise typer.Exit(1)
    if found.frames:
        print_next(*_next(found, request))


_MOST_TOLD = 10  # skipped files on the screen; the record names all


def _provider(model: Path, gpu: float) -> str:
    """One that is the same on every worker; ``auto`` may choose differently on two machines."""
    if model.name.endswith(".engine"):
        return "tensorrt"
    return "cuda" if gpu else "cpu"


def _way(on: str, workers: Optional[int], gpu: float, request: LabelRequest) -> Any:
    """Who labels.

    Raises:
        ConfigError: If ``on`` is unknown, or an option is of another way.
        MissingPackageError: If Ray is not installed.
    """
    from rtda_deploy.errors import ConfigError
    from rtda_runtime.fleet.labelling import in_a_loop

    if on == "local":
        if workers is not None or gpu:
            raise ConfigError("--workers and --gpu are of --on ray", hint="add --on ray, or --provider cuda for a GPU")
        return in_a_loop
    if on == "ray":
        if request.provider == "auto":
            raise ConfigError(
                "--provider auto may choose differently on two machines, and their masks would differ",
                hint="name one: --provider cpu",
            )
        from rtda_runtime.fleet.on_ray import RayWay

        return RayWay(workers=workers, gpu=gpu, threads=request.threads or 1)
    raise ConfigError(f"--on {on} is unknown", hint="known: local, ray")


def _values(found: Labelled, request: LabelRequest, on: str) -> Dict[str, Any]:
    """JSON-ready; what ``--json`` prints."""
    return {
        "model": str(request.model),
        "out": str(found.out),
        "on": on,
        "layout": found.layout,
        "frames": found.frames,
        "new_frames": found.new_frames,
        "units": found.units,
        "units_before": found.before,
        "seconds": round(found.seconds, 3),
        "frames_per_s": round(found.per_second, 2),
        "skipped": list(found.skipped),
        "failed": list(found.failed),
        "mixed": found.mixed,
    }


def _show(found: Labelled) -> None:
    from rtda_deploy.cli.terminal.console import note

    print(found.out)
    pace = f", {found.per_second:.1f} frames/s" if found.per_second else ""
    note(f"done    {found.new_frames} frames labelled{pace}; {found.frames} are there")
    if found.skipped:
        note(f"skipped {len(found.skipped)} that cannot be decoded; labelled.txt lists the others")


def _next(found: Labelled, request: LabelRequest) -> List[str]:
    path = shlex.quote(str(found.out / "masks" if found.layout == "png" else found.out))
    target = shlex.quote(request.footage[0]) if len(request.footage) == 1 else "FOOTAGE"
    train = f"rtda-deploy train classmix --source DATA --target {target} --set labeler=folder --set folder.path={path}"
    return [train, f"rtda-deploy rank {shlex.quote(str(request.model))} OTHER --footage {target}"]
