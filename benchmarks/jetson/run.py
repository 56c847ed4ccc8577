"""A whole measurement: every power mode, every case, the report; what is there already is not measured again."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from rtda_deploy.errors import RtdaError
from rtda_deploy.files import sha256_file, writable_folder
from rtda_deploy.optional import require
from rtda_runtime.machine.jetson import PowerMode, read_board
from rtda_runtime.machine.tegrastats import Tegrastats

from .cases import Case, cases, parse_size_wh
from .measure import Settings, build, idle, measure, sustain
from .power import PowerControl, wanted_modes
from .results import Rows, table, title, write_report

INTERRUPTED = 130
_LONG_RUN = Case("r18", (1024, 512), "fp16")  # what --sustained runs, where it is among the cases; else the first


class Job(NamedTuple):
    """One row to be measured, and what it depends on."""

    mode: Optional[PowerMode]
    case: Case
    source: Path
    made_of: Dict[str, Any]

    @property
    def key(self) -> str:
        """``MODE_30W_ALL r18 1024x512 fp16``."""
        return f"{mode_name(self.mode)} {self.case.name}"


def mode_name(mode: Optional[PowerMode]) -> str:
    """For people: the mode's name, or that it is the one that was found."""
    return mode.name if mode is not None else "as found"


class Run:
    """The measurement, from the first row to the report.

    Args:
        options: Of :mod:`command`.
        root: Where ``/etc``, ``/proc`` and ``/sys`` begin.
        say: Told of progress.

    Raises:
        ConfigError: If an option makes no sense.
        FileAccessError: If a file is missing or the folder cannot be written to.
    """

    def __init__(self, options: argparse.Namespace, root: Path, say: Callable[[str], None]) -> None:
        self._options, self._root, self._say = options, root, say
        self._settings = Settings(
            frame_wh=parse_size_wh(options.frame_size),
            warmup_s=options.warmup,
            seconds=options.seconds,
            idle_s=options.idle,
            threads=options.threads,
        )
        self._board = read_board(root)
        self._library = _library(options.provider)
        self._modes = wanted_modes(options.power_modes, self._board)
        chosen = cases(options.networks, options.sizes, options.precisions)
        self._jobs = [self._job(mode, case) for mode in self._modes for case in chosen]
        self._out = writable_folder(options.out)
        self._rows = Rows(self._out)
        self._done: List[Dict[str, Any]] = []
        self._sustained: List[Dict[str, Any]] = []
        self._idle: List[Dict[str, Any]] = []
        self._notes: List[str] = []
        self._failed = 0

    def all(self) -> int:
        """Measure what is not measured yet, and write the report whatever happens; the exit code."""
        self._say(f"board   {title(self._board.to_dict())}")
        self._say(f"rows    {len(self._jobs)}, in {self._out}; {self._library}")
        for sentence in self._board.missing if self._board.is_jetson else ():
            self._say(f"! {sentence}")
        clocks = self._out / "clocks-found.conf"
        control = PowerControl(self._board, self._root, clocks, lock=self._options.lock_clocks, say=self._say)
        try:
            with control, self._watch() as watch:
                for mode in self._modes:
                    self._one_mode(mode, control, watch)
        except KeyboardInterrupt:
            self._report()
            kept = f"{len(self._done)} of {len(self._jobs)} rows are kept"
            self._say(f"stopped; {kept}; the same command goes on from here")
            return INTERRUPTED
        for path in self._report():
            self._say(f"wrote   {path}")
        print("\n".join(table(self._done)))
        return int(self._failed > 0)

    def _job(self, mode: Optional[PowerMode], case: Case) -> Job:
        source = case.source(self._options.onnx_dir, self._options.provider)
        made_of = {
            "onnx": source.name,
            "onnx_sha256": sha256_file(source),
            "provider": self._options.provider,
            "library": self._library,
            "model": self._board.model,
            "l4t": self._board.l4t,
            "lock_clocks": self._options.lock_clocks,
            "frame_wh": list(self._settings.frame_wh),
            "seconds": self._settings.seconds,
            "warmup_s": self._settings.warmup_s,
            "threads": self._settings.threads,
        }
        return Job(mode, case, source, made_of)

    @contextlib.contextmanager
    def _watch(self) -> Iterator[Optional[Tegrastats]]:
        if not self._board.is_jetson or shutil.which("tegrastats") is None:
            yield None
            return
        with Tegrastats() as watch:
            yield watch

    def _one_mode(self, mode: Optional[PowerMode], control: PowerControl, watch: Optional[Tegrastats]) -> None:
        jobs = [job for job in self._jobs if job.mode == mode]
        for job in list(jobs):
            row = self._rows.found(job.key, job.made_of)
            if row is not None:
                self._say(f"        {job.key}  measured before: {row['fps']:.1f} frames/s")
                self._done.append(row)
                jobs.remove(job)
        long_job = self._long_job(mode)
        long_left = long_job is not None and self._found_long(long_job) is None
        idle_row = self._rows.found(f"idle {mode_name(mode)}", self._idle_made_of())
        if jobs or long_left:
            try:
                idle_row = self._prepared(mode, control, watch)
            except RtdaError as err:
                self._note(f"not measured in {mode_name(mode)}: {err.message}; {err.hint}")
                self._failed += 0 if self._options.power_modes == "all" else len(jobs)
                return
        if idle_row is not None:
            self._idle.append(idle_row)
        for job in jobs:
            self._measure(job, idle_row, watch)
            self._report()
        if long_job is not None:
            self._sustain(long_job, watch)

    def _prepared(
        self, mode: Optional[PowerMode], control: PowerControl, watch: Optional[Tegrastats]
    ) -> Dict[str, Any]:
        """Switch to a mode and look at the idle board."""
        state = control.use(mode)
        seen = idle(watch, self._settings.idle_s)
        if watch is not None and seen is not None and seen["readings"] == 0:
            self._note(f"tegrastats gives no readings: {watch.ended or 'it is silent'}")
        elif seen is not None and seen["power_w"] is None:
            self._note("tegrastats shows no power rails that are known; some boards show them to root only: sudo")
        clock = state.gpu_clock._asdict() if state.gpu_clock is not None else None
        row = {"mode": mode.name if mode else None, "telemetry": seen, "gpu_clock": clock, "cpus": state.cpus_online}
        return self._rows.keep(f"idle {mode_name(mode)}", self._idle_made_of(), row)

    def _idle_made_of(self) -> Dict[str, Any]:
        return {"model": self._board.model, "l4t": self._board.l4t, "lock_clocks": self._options.lock_clocks}

    def _measure(self, job: Job, idle_row: Optional[Dict[str, Any]], watch: Optional[Tegrastats]) -> None:
        self._say(f"[{len(self._done) + self._failed + 1}/{len(self._jobs)}] {job.key}")
        try:
            model, build_s = self._model(job)
            found = measure(model, self._options.provider, self._settings, watch)
        except RtdaError as err:
            self._failed += 1
            self._note(f"{job.key} failed: {err.message}" + (f" ({err.why})" if err.why else ""))
            return
        idle_seen = idle_row["telemetry"] if idle_row is not None else None
        power, idle_w = (part["power_w"] if part else None for part in (found["telemetry"], idle_seen))
        above = (power - idle_w) / found["fps"] if power is not None and idle_w is not None else None
        row = {
            "mode": job.mode.name if job.mode else None,
            "network": job.case.network,
            "size_wh": list(job.case.size_wh),
            "precision": job.case.precision,
            "build_s": build_s,
            "idle_w": idle_w,
            **found,
            "energy_above_idle_j": above,
        }
        text = f"        {found['fps']:.1f} frames/s, network p95 {found['engine_ms']['p95']:.1f} ms"
        self._say(text + (f", {power:.1f} W, {1e3 * found['energy_j']:.0f} mJ a frame" if power is not None else ""))
        self._done.append(self._rows.keep(job.key, job.made_of, row))

    def _model(self, job: Job) -> Tuple[Path, Optional[float]]:
        if self._options.provider != "tensorrt":
            return job.source, None
        return build(job.source, self._out / "engines", job.case.precision, self._say)

    def _long_job(self, mode: Optional[PowerMode]) -> Optional[Job]:
        if not self._options.sustained:
            return None
        jobs = [job for job in self._jobs if job.mode == mode]
        job = next((job for job in jobs if job.case == _LONG_RUN), jobs[0])
        return job._replace(made_of={**job.made_of, "minutes": self._options.sustained})

    def _found_long(self, job: Job) -> Optional[Dict[str, Any]]:
        return self._rows.found(f"sustained {job.key}", job.made_of)

    def _sustain(self, job: Job, watch: Optional[Tegrastats]) -> None:
        run = self._found_long(job)
        minutes = self._options.sustained
        self._say(f"sustained {job.key}, {minutes:g} minutes" + (", measured before" if run is not None else ""))
        if run is None:
            try:
                model, _ = self._model(job)
                run = sustain(model, self._options.provider, self._settings, watch, minutes, self._say)
            except RtdaError as err:
                self._failed += 1
                self._note(f"sustained {job.key} failed: {err.message}")
                return
            run = self._rows.keep(f"sustained {job.key}", job.made_of, run)
        self._say(f"        {run['fps_first']:.1f} frames/s at first, {run['fps_last']:.1f} at last")
        self._sustained.append(run)

    def _note(self, text: str) -> None:
        self._say(f"! {text}")
        self._notes.append(text)

    def _report(self) -> List[Path]:
        settings = {**self._settings._asdict(), "frame_wh": list(self._settings.frame_wh)}
        order = [job.key for job in self._jobs]
        self._done.sort(key=lambda row: order.index(row["key"]))
        return write_report(
            self._out,
            {
                "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                "board": self._board.to_dict(),
                "provider": self._options.provider,
                "library": self._library,
                "settings": settings,
                "idle": self._idle,
                "rows": self._done,
                "sustained": self._sustained,
                "notes": self._notes,
            },
        )


def _library(provider: str) -> str:
    """The library that runs the networks, and its version; an error where it is not there."""
    if provider == "tensorrt":
        module = require("tensorrt", extra="tensorrt-cu12", purpose="to build and run engines; or --provider cpu")
        importlib.import_module("rtda_export.tensorrt")
        return f"TensorRT {module.__version__}"
    module = require("onnxruntime", extra="runtime", purpose="to run .onnx files on the CPU")
    return f"ONNX Runtime {module.__version__}"
