"""``rtda-deploy bench``."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, List, Optional, Tuple

import typer

from rtda_runtime.engines.kinds import one_of, providers

if TYPE_CHECKING:
    import numpy as np

    from rtda_runtime.bench.record import BenchRecord

__all__ = ["bench"]

_DEFAULT_FRAME_WH = (1280, 720)  # a common camera mode; printed with the result


def bench(
    model: Optional[Path] = typer.Argument(None, help="An .onnx file or an engine."),
    source: str = typer.Option("", "--source", "--camera", help="Measure the whole pipeline with this source."),
    provider: str = typer.Option("auto", help=f"{one_of(providers())}."),
    rate: Optional[float] = typer.Option(None, help="Frames are due at this rate, Hz (default: the highest rate)."),
    duration: Optional[float] = typer.Option(None, help="Measure this long, s (default: until p95 settles)."),
    warmup: float = typer.Option(1.0, min=0.0, help="Not measured, s."),
    window: float = typer.Option(2.0, min=0.05, help="Length of a window, s."),
    frame_size: Optional[str] = typer.Option(None, help="Frame WIDTHxHEIGHT without --source (default: 1280x720)."),
    threads: Optional[int] = typer.Option(None, min=1, help="CPU threads (default: one per core)."),
    in_flight: int = typer.Option(1, min=1, help="Frames segmented at once, each on its own engine; not for a camera."),
    spec: Optional[Path] = typer.Option(None, help="spec.json for a model without one."),
    max_p95_ms: Optional[float] = typer.Option(None, help="Exit 4 if the total's p95 is above this."),
    out: Optional[Path] = typer.Option(None, help="Folder of times.json and report.html (default: runs/bench/<time>)."),
    save: Optional[Path] = typer.Option(None, help="Also write the object of --json to this file."),
    compare: Tuple[str, str] = typer.Option(  # typer 0.9 fails on an Optional tuple
        ("", ""), metavar="A.json B.json", show_default=False, help="Measure nothing; print how two times.json differ."
    ),
    force: bool = typer.Option(False, "--force", help="Overwrite earlier results; compare those of other devices too."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
    csv_: bool = typer.Option(False, "--csv", help="Print comma-separated values."),
) -> None:
    """Measure how long a frame takes here: warm-up, then windows until p95 settles.

    Two results: the highest rate, and with --rate 30 the latency at that rate, counted from when a frame was due.

    Example: rtda-deploy bench model.onnx --duration 10 --max-p95-ms 33
    """
    from rtda_deploy.errors import ConfigError

    if json_ and csv_:
        raise ConfigError("--json and --csv both want stdout", hint="take one; times.json is saved in any case")
    if any(compare):
        from rtda_deploy.cli.bench.show import compare_files

        compare_files(*map(Path, compare), force=force, as_json=json_, as_csv=csv_)
        return
    if model is None:
        raise ConfigError("no model was named", hint="rtda-deploy bench model.onnx   (or --compare A.json B.json)")

    from rtda_deploy.cli.bench.show import announce, hold_against_limit, show
    from rtda_deploy.cli.outputs import check_bench
    from rtda_deploy.cli.terminal.console import note, print_next
    from rtda_deploy.spec import ModelSpec
    from rtda_runtime import open_source
    from rtda_runtime.bench.benchmark import BenchOptions, benchmark
    from rtda_runtime.pool import check_in_flight, open_segmenter
    from rtda_runtime.sources.footage.playback import unpaced

    check_bench(model, source, spec, out, save)
    options = BenchOptions(warmup, window, duration_s=duration, rate_hz=rate, max_p95_ms=max_p95_ms)
    with contextlib.ExitStack() as opened:
        frames = opened.enter_context(open_source(unpaced(source))) if source else _pictures(frame_size)
        check_in_flight(in_flight, "newest" if getattr(frames, "live", False) else "every", rate)
        asked: Any = {"in_flight": in_flight, "spec": ModelSpec.load(spec) if spec else None, "threads": threads}
        segmenter = open_segmenter(model, provider, **asked)
        opened.callback(segmenter.close)
        announce(segmenter, frames, options)
        with _folder(out, save, force) as folder:
            record = benchmark(segmenter, frames, options, threads=threads)
            record = dataclasses.replace(record, folder=str(folder))
            _save(record, folder, save)
    show(record, as_json=json_, as_csv=csv_)
    note(f"saved   {folder}/{{times.json,report.html}}" + (f", {save}" if save else ""))
    hold_against_limit(record)
    print_next(f"rtda-deploy run {shlex.quote(str(model))} --camera 0")


def _pictures(size: Optional[str]) -> List[np.ndarray]:
    from rtda_deploy.sizes import parse_size
    from rtda_runtime.bench.samplers import smooth_pictures

    return smooth_pictures(parse_size(size)[::-1] if size else _DEFAULT_FRAME_WH)


@contextlib.contextmanager
def _folder(wanted: Optional[Path], save: Optional[Path], force: bool) -> Iterator[Path]:
    """The folder of the results, made and locked before the work starts; it goes again if nothing came of it.

    Raises:
        ConfigError: If earlier results would be overwritten.
    """
    from rtda_deploy.errors import ConfigError
    from rtda_deploy.files import writable_folder
    from rtda_deploy.run_folders import new_run_folder, working_in

    folder = wanted or new_run_folder("bench")
    with working_in(folder):
        writable_folder(folder)
        for path in (folder / "times.json", folder / "report.html", *((save,) if save else ())):
            if os.path.exists(path) and not force:
                raise ConfigError(
                    f"{path} is there already, and a new result would overwrite it",
                    hint="choose another name or --out, or --force",
                )
        yield folder


def _save(record: BenchRecord, folder: Path, save: Optional[Path]) -> None:
    """``times.json`` with every sample, ``report.html``, and what ``--json`` prints into the file of ``--save``."""
    import json

    from rtda_deploy.files import write_text
    from rtda_runtime.bench.page import save_page

    write_text(folder / "times.json", json.dumps(record.to_dict()) + "\n")
    save_page(record, folder / "report.html")
    if save is not None:
        write_text(save, json.dumps(record.to_dict(samples=False), indent=2) + "\n")
