"""``rtda-deploy run``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import typer

if TYPE_CHECKING:
    from rtda_runtime import Pipeline, Segmenter

__all__ = ["run", "summary_lines"]

_LIVE_EVERY_S, _PLAIN_EVERY_S = 0.25, 5.0


def run(
    model: Optional[Path] = typer.Argument(None, help="An .onnx (default: the newest under ./runs and . that loads)."),
    camera: str = typer.Option(
        "", "--camera", "--source", help="Index, /dev/videoN, rtsp://, http://, file, folder, test://"
    ),
    provider: str = typer.Option("auto", help="auto, cpu, cuda, tensorrt or openvino."),
    save: Optional[Path] = typer.Option(None, help="Write the overlay to this .mp4 or .webm."),
    masks: Optional[Path] = typer.Option(None, help="Write each mask as a PNG of class ids into this folder."),
    alpha: float = typer.Option(0.5, min=0.0, max=1.0, help="Weight of the mask's colours in the overlay."),
    policy: Optional[str] = typer.Option(None, help="newest or every (default: newest for cameras, every for files)."),
    max_frames: Optional[int] = typer.Option(None, min=1, help="Stop after so many frames."),
    threads: Optional[int] = typer.Option(None, min=1, help="CPU threads (default: one per core)."),
    spec: Optional[Path] = typer.Option(None, help="spec.json for a model without one."),
    json_: bool = typer.Option(False, "--json", help="Print JSON Lines; the last has event 'summary'."),
) -> None:
    """Run a model on a camera or a recording: masks at the camera's size, FPS and latency per stage.

    Example: rtda-deploy run model.onnx --camera test://bars?frames=30
    """
    from rtda_deploy.cli.console import note, print_json
    from rtda_deploy.errors import ConfigError, RtdaError
    from rtda_deploy.spec import ModelSpec
    from rtda_runtime import Pipeline, Segmenter, open_source

    if not camera:
        raise ConfigError(
            "no source was named", hint="--camera 0, or a file, or test://bars   (rtda-deploy cameras lists)"
        )
    found = model or _newest_model()
    stopped, failed = False, None
    before = {path: _stamp(path) for path in (save, masks) if path is not None}
    with open_source(camera) as source, Segmenter.open(
        found, provider, spec=ModelSpec.load(spec) if spec else None, threads=threads
    ) as segmenter:
        size = f"{source.size_wh[0]}x{source.size_wh[1]}" + (f" @ {source.fps:g}" if source.fps else "")
        note(f"camera  {source.name}  {size}")
        note(f"engine  {segmenter.description}")
        with Pipeline.open(
            segmenter,
            source,
            policy=policy,
            max_frames=max_frames,
            sinks=_sinks(segmenter, source.fps, save, masks, alpha),
        ) as pipeline:
            screen = _Screen(pipeline, source.num_frames if max_frames is None else max_frames, json_)
            try:
                for _ in pipeline:
                    screen.tick()
            except KeyboardInterrupt:
                stopped = True
            except RtdaError as err:  # told after the summary of what was done until then
                failed = err
            screen.end()
        stats = pipeline.stats
    if failed is not None and not stats["frames"]:
        raise failed
    wrote = [str(path) for path, stamp in before.items() if _stamp(path) not in (None, stamp)]
    if json_:
        print_json({"event": "summary", "model": str(found), **stats, "wrote": wrote, "stopped": stopped})
    else:
        _print_summary(stats, wrote)
    if failed is not None:
        raise failed
    if stopped:
        raise typer.Exit(130)


def _stamp(path: Path) -> Optional[Tuple[int, int]]:
    """Tells whether a file or folder is there, and was written since the last look."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None


def summary_lines(stats: Dict[str, Any], wrote: List[str]) -> List[str]:
    """The sentence under the table of a run."""
    captured = max(1, int(stats["captured"]))
    line = (
        f"{stats['frames']} frames in {stats['seconds']:.1f} s = {stats['fps']:.1f} fps"
        f" · dropped {stats['dropped']} ({100 * stats['dropped'] / captured:.2f} %) · {stats['policy']}"
    )
    return [line + (f" · wrote {', '.join(wrote)}" if wrote else "")]


def _print_summary(stats: Dict[str, Any], wrote: List[str]) -> None:
    from rtda_deploy.cli.bench import stage_rows
    from rtda_deploy.cli.console import print_table

    if stats["stages"]:
        print_table(("ms", "p50", "p95", "p99", "max"), stage_rows(stats["stages"], str(stats["policy"])))
    print("\n".join(summary_lines(stats, wrote)))


def _newest_model() -> Path:
    from rtda_deploy.cli.console import note
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


def _sinks(
    segmenter: Segmenter, fps: Optional[float], save: Optional[Path], masks: Optional[Path], alpha: float
) -> List[Any]:
    from rtda_runtime.sinks import MaskFolder, Overlay, VideoSink

    sinks: List[Any] = []
    if save is not None:
        sinks.append(VideoSink(save, fps or 30.0, overlay=Overlay(segmenter.spec, alpha)))
    if masks is not None:
        sinks.append(MaskFolder(masks))
    return sinks


class _Screen:
    """The live line on a terminal, a plain line every five seconds on a pipe, JSON lines where they were asked for."""

    def __init__(self, pipeline: Pipeline, total: Optional[int], json_: bool) -> None:
        from rtda_deploy.cli.console import live_line

        self._pipeline = pipeline
        self._total = f"/{total}" if total else ""
        self._json = json_
        self._line = live_line()
        self._every_s = _LIVE_EVERY_S if self._line.terminal and not json_ else _PLAIN_EVERY_S
        self._last = time.monotonic()

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._last < self._every_s:
            return
        self._last = now
        stats = self._pipeline.stats
        if self._json:
            from rtda_deploy.cli.console import print_json

            print_json({"event": "progress", **stats})
        else:
            self._line.show(self._text(stats))

    def end(self) -> None:
        self._line.end()

    def _text(self, stats: Dict[str, Any]) -> str:
        stages = stats["stages"]
        parts = " ".join(
            f"{short} {stages[stage]['p50']:.1f}"
            for stage, short in (
                ("capture", "capture"),
                ("preprocess", "pre"),
                ("infer", "infer"),
                ("postprocess", "post"),
            )
            if stage in stages
        )
        age = f"age {stages['age']['p50']:.1f} ms p95 {stages['age']['p95']:.1f} │ " if "age" in stages else ""
        frames = f"frame {stats['frames']}{self._total}"
        return f"{stats['fps']:5.1f} fps │ {age}{parts} │ dropped {stats['dropped']} │ {frames}"
