"""``rtda-deploy run``."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import typer

from rtda_deploy.cli.terminal.signals import Terminated, exit_quickly, stops_in_order
from rtda_runtime.engines.kinds import one_of, providers

if TYPE_CHECKING:
    from rtda_deploy.cli.run.screen import Screen
    from rtda_deploy.errors import RtdaError
    from rtda_runtime import Pipeline, Source

__all__ = ["run"]

_TICK_S = 0.1  # longest wait between two looks at keys, signals and the clock


@stops_in_order()
def run(
    model: Optional[Path] = typer.Argument(None, help="A model (default: the newest under ./runs and . that loads)."),
    camera: str = typer.Option(
        "", "--camera", "--source", help="Index, /dev/videoN, csi://N, rtsp://, http://, file, folder, test://"
    ),
    size: Optional[str] = typer.Option(None, help="Ask the camera for WIDTHxHEIGHT."),
    fps: Optional[float] = typer.Option(None, help="Ask the camera for this rate."),
    fourcc: Optional[str] = typer.Option(None, help="Ask a V4L2 camera for this pixel format, such as MJPG."),
    provider: str = typer.Option("auto", help=f"{one_of(providers())}."),
    view: Optional[str] = typer.Option(None, help="Show it in a browser: auto, :8080, 0.0.0.0:8080."),
    show: bool = typer.Option(False, "--show", help="Show it in a window on this machine's display."),
    save: Optional[Path] = typer.Option(None, help="Write the overlay to this .mp4 or .webm."),
    masks: Optional[Path] = typer.Option(None, help="Write each mask as a PNG of class ids into this folder."),
    force: bool = typer.Option(False, "--force", help="Write masks into a folder that holds pictures already."),
    publish: Optional[List[str]] = typer.Option(None, help="foxglove, zenoh or mcap:FILE; may be repeated."),
    compare: Optional[Path] = typer.Option(None, help="A second model for the same frames, shown beside the first."),
    group: Optional[List[str]] = typer.Option(None, help="Join classes: walkable=road,sidewalk; may be repeated."),
    region: Optional[str] = typer.Option(
        None, help="Segment only this part of the picture: LEFT,TOP,RIGHT,BOTTOM, each 0 to 1."
    ),
    confidence: bool = typer.Option(False, "--confidence", help="Also say how sure the network is; costs time."),
    alpha: float = typer.Option(0.5, min=0.0, max=1.0, help="Weight of the mask's colours in the overlay."),
    outline: Optional[bool] = typer.Option(
        None, "--outline/--no-outline", help="Lines around regions (default: where they are hard to see)."
    ),
    policy: Optional[str] = typer.Option(None, help="newest or every (default: newest for cameras, every for files)."),
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
    from rtda_deploy.cli.outputs import check_run
    from rtda_deploy.cli.run.jetson import RunBoard
    from rtda_deploy.cli.run.screen import Screen, camera_log_silenced, print_camera, print_summary
    from rtda_deploy.cli.run.sinks import SinkChoice, check_outputs, open_sinks
    from rtda_deploy.cli.terminal.console import print_error
    from rtda_deploy.errors import ConfigError, RtdaError
    from rtda_deploy.files import readable_file
    from rtda_deploy.spec import ModelSpec
    from rtda_runtime import Pipeline
    from rtda_runtime.pool import check_in_flight, open_segmenter

    if not camera:
        raise ConfigError(
            "no source was named", hint="--camera 0, or a file, or test://bars   (rtda-deploy cameras lists)"
        )
    if report_every is not None and not report_every > 0:
        raise ConfigError(f"--report-every must be positive, got {report_every:g}", hint="--report-every 5")
    drawn: Dict[str, Any] = {"alpha": alpha, "outline": outline}
    choice = SinkChoice(view=view, show=show, save=save, masks=masks, publish=tuple(publish or ()), **drawn)
    check_outputs(choice)
    check_run(choice.named, choice.masks, camera, (model, compare, spec), force)
    if show:
        from rtda_runtime.sinks.window import check_display

        check_display()
    found = model or _newest_model()
    if "://" not in camera:  # a model that is not there is told before a camera is switched on for it
        readable_file(found, what="model")
    contract = ModelSpec.load(spec) if spec else None
    outputs = {path: _stamp(path) for path in choice.paths}
    exit_quickly()
    failed: Optional[RtdaError] = None
    exit_code = 0

    with camera_log_silenced(), contextlib.ExitStack() as stack, contextlib.ExitStack() as opened:
        source = opened.enter_context(_open_camera(camera, size, fps, fourcc, reconnect))
        check_in_flight(in_flight, policy or ("newest" if source.live else "every"))
        asked: Dict[str, Any] = {"in_flight": in_flight, "threads": threads, "spec": contract}
        asked = {**asked, "region": region, "groups": tuple(group or ())}
        segmenter = open_segmenter(found, provider, confidence=confidence, **asked)
        stack.enter_context(segmenter)
        second = open_segmenter(compare, provider, **asked) if compare else None
        stack.enter_context(second or contextlib.nullcontext())
        board = stack.enter_context(RunBoard())
        print_camera(source, segmenter, second, board)
        screen = stack.enter_context(Screen(source, board, json_=json_, every_s=report_every, limit=max_frames))
        sinks = open_sinks(opened, choice, segmenter, source, screen, compared=(found, compare))
        pipeline = stack.enter_context(
            Pipeline.open(
                segmenter,
                source,
                policy=policy,
                max_frames=max_frames,
                max_age_ms=max_age_ms,
                sinks=sinks,
                compare=second,
                on_state=screen.on_state,
            )
        )
        opened.pop_all()  # the pipeline closes source and sinks, each in its own thread
        try:
            _attend(pipeline, screen)
        except KeyboardInterrupt:
            exit_code = 130
        except Terminated as ended:
            exit_code = ended.exit_code
        except RtdaError as err:  # told after the summary of what was done until then
            failed = err
        pipeline.close()
        stats = {**pipeline.stats, **screen.seen()}
        failed = failed or _sink_error(pipeline)

    if failed is not None and not stats["frames"] and not json_ and not exit_code:
        raise failed
    wrote = [str(path) for path, stamp in outputs.items() if _stamp(path) not in (None, stamp)]
    summary = {"event": "summary", "model": str(found), **stats, "wrote": wrote, "stopped": exit_code != 0}
    print_summary({**summary, "board": board.to_dict()}, source, board, json_=json_)
    if failed is not None and exit_code:  # whoever sent the signal is answered, the error is told
        print_error(failed)
    elif failed is not None:
        raise failed
    if exit_code:
        raise typer.Exit(exit_code)


def _attend(pipeline: Pipeline, screen: Screen) -> None:
    """Until the end of the source, or until somebody wants it to end: keep the screen and obey the keys."""
    screen.begin(pipeline)
    try:
        while not screen.quit.is_set() and not pipeline.join(min(_TICK_S, screen.every_s)):
            screen.tick()
        screen.tick(last=True)
    finally:
        screen.end()


def _sink_error(pipeline: Pipeline) -> Optional[RtdaError]:
    """What the first failed sink said, as an error that exits 1: the run itself went well."""
    from rtda_deploy.errors import RtdaError

    for name, err in pipeline.sink_errors.items():
        if isinstance(err, RtdaError):
            return RtdaError(err.message, why=err.why, hint=err.hint)
        return RtdaError(
            f"sink {name} stopped: {type(err).__name__}: {err}", hint="rtda-deploy -v run … logs the place"
        )
    return None


def _open_camera(
    camera: str, size: Optional[str], fps: Optional[float], fourcc: Optional[str], reconnect: bool
) -> Source:
    from rtda_runtime import open_source

    asked: Dict[str, Any] = {"fps": fps, "fourcc": fourcc}
    if size is not None:
        asked["size_wh"] = _width_height(size)
    return open_source(camera, reconnect=reconnect, **asked)


def _width_height(text: str) -> Tuple[int, int]:
    from rtda_deploy.errors import ConfigError

    found = re.fullmatch(r"0*([1-9][0-9]{0,4})x0*([1-9][0-9]{0,4})", text.lower())
    if not found:
        raise ConfigError(f"{text!r} is no size", hint="--size 1280x720")
    return int(found[1]), int(found[2])


def _stamp(path: Path) -> Optional[Tuple[int, int]]:
    """Tells whether a file or folder is there, and was written since the last look."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None


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
