"""One run of ``rtda-deploy run``: everything is opened, attended to until it ends, and told about."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

from rtda_deploy.cli.outputs import AskedSink, check_run, written_by
from rtda_deploy.cli.run.collecting import second_engine
from rtda_deploy.cli.terminal.signals import Terminated, exit_quickly
from rtda_deploy.errors import ConfigError, RtdaError
from rtda_deploy.sizes import parse_size

if TYPE_CHECKING:
    from rtda_deploy.cli.run.screen import Screen
    from rtda_runtime import Pipeline, Source
    from rtda_runtime.machine.board_watch import BoardWatch
    from rtda_runtime.pipeline.options import PipelineOptions
    from rtda_runtime.pool import AnySegmenter
    from rtda_runtime.sinks import Sink

__all__ = ["RunOptions", "asked_sinks", "camera_request", "check", "work"]

_TICK_S = 0.1  # longest wait between two looks at keys, signals and the clock


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What was typed.

    Attributes:
        camera: Address of the source.
        request: What the camera is asked for; arguments of :func:`open_source`.
        model: The model file.
        compare: A second model for the same frames.
        shadow: A candidate for those frames for which there is time.
        network: ``region``, ``groups`` and ``confidence``, arguments of :func:`open_segmenter`.
        sinks: Where results go.
        drawn: ``alpha`` and ``outline`` of overlays.
        pipeline: How it runs, and how the models are opened.
        report_every: Seconds between two lines of progress.
        json: JSON Lines on stdout instead of a table.
    """

    camera: str
    request: Mapping[str, Any]
    model: Path
    compare: Optional[Path]
    shadow: Optional[Path]
    network: Mapping[str, Any]
    sinks: Sequence[AskedSink]
    drawn: Mapping[str, Any]
    pipeline: PipelineOptions
    report_every: Optional[float]
    json: bool


def asked_sinks(
    *,
    show: bool,
    view: Optional[str],
    save: Optional[Path],
    masks: Optional[Path],
    collect: Optional[str],
    publish: Sequence[str],
) -> List[AskedSink]:
    """What was typed, in the order in which it is opened."""
    typed = [("show", "" if show else None), ("view", view), ("save", save), ("masks", masks), ("collect", collect)]
    typed += [("publish", uri) for uri in publish]
    return [(option, str(address)) for option, address in typed if address is not None]


def check(
    camera: str,
    sinks: Sequence[AskedSink],
    models: Sequence[Optional[Path]],
    *,
    force: bool,
    report_every: Optional[float],
) -> None:
    """Refuse what cannot be meant before anything is opened.

    Raises:
        ConfigError: If there is no source, or a sink would write over another, the source or a model.
        DeviceError: If a window was asked for and there is no display.
        FileAccessError: If a model is missing.
    """
    from rtda_deploy.files import readable_file
    from rtda_runtime.sources.kinds import source_kind

    if not camera:
        raise ConfigError(
            "no source was named", hint="--camera 0, or a file, or test://bars   (rtda-deploy cameras lists)"
        )
    if report_every is not None and not report_every > 0:
        raise ConfigError(f"--report-every must be positive, got {report_every:g}", hint="--report-every 5")
    check_run(sinks, camera, models, force)
    if ("show", "") in sinks:
        from rtda_runtime.sinks.window import check_display

        check_display()
    source_kind(camera.strip())
    for model in models:  # before a camera is switched on for a model that is not there
        if model is not None:
            readable_file(model, what="model")


def camera_request(size: Optional[str], fps: Optional[float], fourcc: Optional[str]) -> Dict[str, Any]:
    """What a camera is asked for, as arguments of :func:`open_source`.

    Raises:
        ConfigError: If the size is not WIDTHxHEIGHT.
    """
    size_wh = None if size is None else parse_size(size)[::-1]
    return {"size_wh": size_wh, "fps": fps, "fourcc": fourcc}


def work(options: RunOptions) -> int:
    """Run until the end of the source, ``max_frames``, a key or a signal; print the summary.

    Returns:
        The exit code that a signal asks for; 0: none came.

    Raises:
        RtdaError: What the source, a model or a sink failed with, after the summary of what was done until then.
    """
    from rtda_deploy.cli.run.screen import camera_log_silenced, print_summary
    from rtda_deploy.cli.terminal.console import print_error

    before = {path: _stamp(path) for _, path in written_by(options.sinks)}
    exit_quickly()
    with camera_log_silenced(), contextlib.ExitStack() as stack:
        pipeline, screen, board = _open(stack, options)
        failed, exit_code = _attend(pipeline, screen)
        pipeline.close()
        stats = {**pipeline.stats, **screen.seen()}
    failed = failed or _sink_error(pipeline)
    if failed is not None and not stats["frames"] and not options.json and not exit_code:
        raise failed
    wrote = [str(path) for path, stamp in before.items() if _stamp(path) not in (None, stamp)]
    told = {"wrote": wrote, "stopped": exit_code != 0, "board": board.to_dict()}
    summary = {"event": "summary", "model": str(options.model), **stats, **told}
    print_summary(summary, pipeline.source, board, json_=options.json)
    if failed is not None and not exit_code:
        raise failed
    if failed is not None:  # the exit code is the signal's
        print_error(failed)
    return exit_code


def _open(stack: contextlib.ExitStack, options: RunOptions) -> Tuple[Pipeline, Screen, BoardWatch]:
    from rtda_deploy.cli.run.screen import Screen, print_camera
    from rtda_runtime import Pipeline, open_source
    from rtda_runtime.machine.board_watch import BoardWatch

    with contextlib.ExitStack() as opened:
        source = opened.enter_context(
            open_source(options.camera, reconnect=options.pipeline.reconnect, **options.request)
        )
        options.pipeline.policy_for(source)
        first = _open_model(stack, options.model, options)
        second = _open_model(stack, options.compare, options, confidence=False) if options.compare else None
        shadow = _open_shadow(stack, options) if options.shadow else None
        board = stack.enter_context(BoardWatch())
        print_camera(source, first, {"compare": second, "shadow": shadow}, board)
        limit = options.pipeline.max_frames
        screen = Screen(source, board, json_=options.json, every_s=options.report_every, limit=limit)
        stack.enter_context(screen)
        sinks = _open_sinks(opened, options, source, first, screen)
        pipeline = Pipeline.open(
            first,
            source,
            options=options.pipeline,
            sinks=sinks,
            compare=second,
            shadow=shadow,
            on_state=screen.on_state,
            on_shift=screen.on_shift,
        )
        opened.pop_all()  # the pipeline closes source and sinks, each in its own thread
    return stack.enter_context(pipeline), screen, board


def _open_model(stack: contextlib.ExitStack, path: Path, options: RunOptions, **changes: Any) -> AnySegmenter:
    from rtda_runtime.pool import open_segmenter

    asked = options.pipeline
    opened: Dict[str, Any] = {"in_flight": asked.in_flight, "threads": asked.threads, "spec": asked.spec}
    segmenter = open_segmenter(path, asked.provider, **{**opened, **options.network, **changes})
    stack.enter_context(segmenter)
    return segmenter


def _open_shadow(stack: contextlib.ExitStack, options: RunOptions) -> AnySegmenter:
    from rtda_runtime.pipeline.shadow import open_shadow

    assert options.shadow is not None
    asked, network = options.pipeline, {**options.network, "confidence": False}
    segmenter = open_shadow(options.shadow, asked.provider, spec=asked.spec, **network)
    stack.enter_context(segmenter)
    return segmenter


def _open_sinks(
    stack: contextlib.ExitStack, options: RunOptions, source: Source, segmenter: AnySegmenter, screen: Screen
) -> List[Sink]:
    from rtda_deploy.cli.terminal.console import note
    from rtda_runtime.sinks.kinds import SinkContext, open_sink

    context = SinkContext(
        segmenter.spec,
        source.name,
        model=options.model.name,
        fps=source.fps,
        live=source.live,
        names=source.names,
        titles=(str(options.model), str(options.compare)),
        stats=screen.stats,
        on_quit=screen.quit.set,
        model_file=options.model,
        engine=lambda: second_engine(options.model, segmenter.provider, options.pipeline.spec, options.network),
        **options.drawn,
    )
    screen.snapshots_of(context.overlay())
    sinks = []
    for option, address in options.sinks:
        sink = stack.enter_context(open_sink(option, address, context))
        if sink.note:
            note(f"{option:7} {sink.note}")
        sinks.append(sink)
    return sinks


def _attend(pipeline: Pipeline, screen: Screen) -> Tuple[Optional[RtdaError], int]:
    """Update the screen until the source ends or the user quits; gives what failed, and the exit code."""
    screen.begin(pipeline)
    try:
        while not screen.quit.is_set() and not pipeline.join(min(_TICK_S, screen.every_s)):
            screen.tick()
        screen.tick(last=True)
    except KeyboardInterrupt:
        return None, 130
    except Terminated as ended:
        return None, ended.exit_code
    except RtdaError as err:  # told after the summary of what was done until then
        return err, 0
    finally:
        screen.end()
    return None, 0


def _sink_error(pipeline: Pipeline) -> Optional[RtdaError]:
    """What the first failed sink said, as an error that exits 1: the run itself went well."""
    for name, err in pipeline.sink_errors.items():
        if isinstance(err, RtdaError):
            return RtdaError(err.message, why=err.why, hint=err.hint)
        return RtdaError(
            f"sink {name} stopped: {type(err).__name__}: {err}", hint="rtda-deploy -v run … logs the place"
        )
    return None


def _stamp(path: Path) -> Optional[Tuple[int, int]]:
    """Tells whether a file or folder is there, and was written since the last look."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None
