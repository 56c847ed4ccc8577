"""``rtda-deploy run``."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional

import typer

from rtda_deploy.cli.terminal.signals import stops_in_order
from rtda_runtime.engines.kinds import one_of, providers
from rtda_runtime.kinds import examples
from rtda_runtime.sinks.kinds import sinks_of
from rtda_runtime.sources.kinds import SOURCE_KINDS

__all__ = ["run"]

_CAMERA = (
    f"A camera's index, or an address: {examples(SOURCE_KINDS)}."
    " Recordings take ?from=10s&to=1:30&every=0.5s&speed=1 (speed 1: at their own times)."
)
_VIEW = f"Show it in a browser: {examples(sinks_of('view'))}."
_SAVE = f"Write the overlay to a film: {examples(sinks_of('save'))}."
_PUBLISH = f"Publish masks and overlays: {examples(sinks_of('publish'))}; may be repeated."
_REGION = "Segment only this part of the picture: LEFT,TOP,RIGHT,BOTTOM, each 0 to 1."
_OUTLINE = "Lines around regions (default: where they are hard to see)."
_COLLECT = "Keep the frames that the next training needs, in this folder: a data set as it stands (docs/collect.md)."
_WHEN = "Collect frames of which this holds before all others: 'share(person)>0.02 and confidence<0.6'."
_BLUR = "Blur these classes in the pictures that are collected: person,car."
_LIMIT = "KEY=VALUE of minute, gap, disk, free, class, control, flip (minute=6,disk=5GB); may be repeated."
_SHIFT = "Tell when the world is unlike what the model knows; the time between false alarms: 2h (docs/shift.md)."
_SHADOW = "A candidate beside it on the frames for which there is time: how far do they agree? (docs/collect.md)"
_POLICY = "newest or every (default: newest for cameras, every for files)."


@stops_in_order()
def run(
    model: Optional[Path] = typer.Argument(
        None, help="A model, models/NAME or models/NAME@DIGEST (default: the newest under ./runs and . that loads)."
    ),
    camera: str = typer.Option("", "--camera", "--source", help=_CAMERA),
    size: Optional[str] = typer.Option(None, help="Ask the camera for WIDTHxHEIGHT."),
    fps: Optional[float] = typer.Option(None, help="Ask the camera for this rate."),
    fourcc: Optional[str] = typer.Option(None, help="Ask a V4L2 camera for this pixel format, such as MJPG."),
    provider: str = typer.Option("auto", help=f"{one_of(providers())}."),
    view: Optional[str] = typer.Option(None, help=_VIEW),
    show: bool = typer.Option(False, "--show", help="Show it in a window on this machine's display."),
    save: Optional[Path] = typer.Option(None, help=_SAVE),
    masks: Optional[Path] = typer.Option(None, help="Write each mask as a PNG of class ids into this folder."),
    force: bool = typer.Option(False, "--force", help="Write masks into a folder that holds pictures already."),
    publish: Optional[List[str]] = typer.Option(None, help=_PUBLISH),
    collect: Optional[Path] = typer.Option(None, help=_COLLECT),
    collect_when: Optional[str] = typer.Option(None, help=_WHEN),
    collect_mask: Optional[str] = typer.Option(None, help=_BLUR),
    collect_limit: Optional[List[str]] = typer.Option(None, help=_LIMIT),
    compare: Optional[Path] = typer.Option(None, help="A second model for the same frames, shown beside the first."),
    shadow: Optional[Path] = typer.Option(None, help=_SHADOW),
    group: Optional[List[str]] = typer.Option(None, help="Join classes: walkable=road,sidewalk; may be repeated."),
    region: Optional[str] = typer.Option(None, help=_REGION),
    confidence: bool = typer.Option(False, "--confidence", help="Also say how sure the network is; costs time."),
    shift: Optional[str] = typer.Option(None, help=_SHIFT),
    alpha: float = typer.Option(0.5, min=0.0, max=1.0, help="Weight of the mask's colours in the overlay."),
    outline: Optional[bool] = typer.Option(None, "--outline/--no-outline", help=_OUTLINE),
    policy: Optional[str] = typer.Option(None, help=_POLICY),
    max_frames: Optional[int] = typer.Option(None, min=1, help="Stop after so many frames."),
    max_age_ms: Optional[float] = typer.Option(None, help="Give no result that is older than this."),
    reconnect: bool = typer.Option(True, "--reconnect/--no-reconnect", help="Open a lost camera again."),
    report_every: Optional[float] = typer.Option(None, help="Seconds between two lines of progress (default: 5)."),
    threads: Optional[int] = typer.Option(None, min=1, help="CPU threads (default: one per core)."),
    in_flight: int = typer.Option(1, min=1, help="Frames of a recording to segment at once, each on its own engine."),
    spec: Optional[Path] = typer.Option(None, help="spec.json for a model without one."),
    json_: bool = typer.Option(False, "--json", help="Print JSON Lines; the last has event 'summary'."),
) -> None:
    """Run a model on a camera or a recording: masks at the camera's size, their age, FPS and latency per stage.

    Example: rtda-deploy run model.onnx --camera test://bars?frames=30
    """
    from rtda_deploy.cli.run.collecting import asked_names, collect_address, says_confidence
    from rtda_deploy.cli.run.session import RunOptions, asked_sinks, camera_request, check, work
    from rtda_deploy.errors import ConfigError
    from rtda_deploy.spec import ModelSpec
    from rtda_runtime.fleet.deployed import deployed_model
    from rtda_runtime.pipeline.options import PipelineOptions
    from rtda_runtime.pipeline.shadow import check_one_other

    model, compare, shadow = (deployed_model(path) if path else None for path in (model, compare, shadow))
    collected = collect_address(collect, collect_when, collect_mask, collect_limit or (), region=region is not None)
    sinks = asked_sinks(show=show, view=view, save=save, masks=masks, collect=collected, publish=publish or ())
    check(camera, sinks, (model, compare, shadow, spec), force=force, report_every=report_every)
    check_one_other(compare, shadow)
    asked = asked_names(collect_when)
    if "disagreement" in asked and compare is None and shadow is None:
        raise ConfigError(
            "--collect-when asks for the disagreement of two networks",
            hint="--shadow MODEL2 names one   (or --compare MODEL2)",
        )
    model = model or _newest_model()
    options = PipelineOptions(
        policy=policy,
        max_frames=max_frames,
        max_age_ms=max_age_ms,
        provider=provider,
        spec=ModelSpec.load(spec) if spec else None,
        threads=threads,
        in_flight=in_flight,
        reconnect=reconnect,
        shift=shift,
    )
    exit_code = work(
        RunOptions(
            camera=camera,
            request=camera_request(size, fps, fourcc),
            model=model,
            compare=compare,
            shadow=shadow,
            network={
                "region": region,
                "groups": tuple(group or ()),
                "confidence": confidence or ("confidence" in asked and not says_confidence(model)),
            },
            sinks=sinks,
            drawn={"alpha": alpha, "outline": outline},
            pipeline=options,
            report_every=report_every,
            json=json_,
        )
    )
    if exit_code:
        raise typer.Exit(exit_code)


def _newest_model() -> Path:
    from rtda_deploy.cli.terminal.console import note
    from rtda_deploy.errors import ConfigError
    from rtda_runtime import newest_model

    found = newest_model()
    if found is None:
        raise ConfigError(
            "no model was named, and none under ./runs or . loads here",
            hint="rtda-deploy export runs/…/last.pth   (or rtda-deploy demo makes one)",
        )
    note(f"model   {found}   (the newest here)")
    return found
