"""A label run from its footage to its record: planned or gone on with, shared out to a loop here or to Ray, and told.

What is done is known from the files of the output folder alone, so that a run that was killed, wherever it was, goes on
when the same command is typed again.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence

from rtda_deploy.errors import ConfigError, DataError
from rtda_deploy.files import sha256_file, write_text
from rtda_deploy.run_folders import working_in
from rtda_deploy.spec import ModelSpec
from rtda_runtime.fleet.listing import Listing, list_footage
from rtda_runtime.fleet.output import Output, open_output
from rtda_runtime.fleet.plan import PLAN, Asked, Plan, make_plan
from rtda_runtime.fleet.request import Labelled, LabelRequest, Progress
from rtda_runtime.fleet.units import Unit
from rtda_runtime.fleet.worker import Job, Worker

__all__ = ["RECORD", "in_a_loop", "label_footage"]

RECORD = "labelled.json"  # written last: a folder with it is whole
LIST = "labelled.txt"
_CLASSES = "masks/classes.json"
_SMALL = 20_000  # frames; up to so many are written as single PNGs

Summary = Dict[str, Any]
Way = Callable[[Job, Sequence[Unit], Callable[[int], None]], Iterator[Summary]]


def in_a_loop(job: Job, units: Sequence[Unit], tell: Callable[[int], None]) -> Iterator[Summary]:
    """Label units one after the other in this process; ``tell`` gets the frames done in the current one."""
    worker = Worker(job)
    try:
        for unit in units:
            yield worker.label(unit, tell)
    finally:
        worker.close()


def label_footage(
    request: LabelRequest, way: Way = in_a_loop, told: Callable[[Progress], None] = lambda _: None
) -> Labelled:
    """Label footage, or go on with it.

    Args:
        request: What and how.
        way: Who labels: :func:`in_a_loop`, or a way of :mod:`rtda_runtime.fleet.on_ray`.
        told: Called as it goes on.

    Raises:
        ConfigError: If the folder holds something else, or labels of another model, other options or footage.
        DataError: If more of the files are damaged than may be.
        FolderBusyError: If another run works into the folder.
        FileAccessError: If something cannot be read or written.
        EngineError: If the model cannot be used.
    """
    sha256 = sha256_file(request.model)
    refuse_foreign(request.out)
    with working_in(request.out):
        plan = _plan(request, sha256, told)
        output = open_output(request.out, _layout(request, plan))
        output.clean()
        if request.retry:
            _forget_failures(output, plan)
        job = _job(request, sha256, output.layout)
        return _Run(request, plan, output, told).work(way, job)


def refuse_foreign(folder: Path) -> None:
    """Check that a folder is empty, not there, or one that labels were written to.

    Raises:
        ConfigError: If it holds something else.
    """
    there = sorted(name for name in os.listdir(folder) if not name.startswith(".")) if folder.is_dir() else []
    if there and PLAN not in there:
        raise ConfigError(f"{folder} holds other files, such as {there[0]}", hint="choose a new folder with --out")


class _Pace:
    """Frames a second from the first that is told on: what comes before is start-up, such as compiling and tuning."""

    def __init__(self) -> None:
        self._first = self._last = (0, 0.0)

    def add(self, frames: int) -> None:
        """So many are done now."""
        now = frames, time.monotonic()
        if frames and not self._first[0]:
            self._first = now
        if frames > self._last[0]:
            self._last = now

    @property
    def seconds(self) -> float:
        return self._last[1] - self._first[1]

    @property
    def per_second(self) -> float:
        return (self._last[0] - self._first[0]) / self.seconds if self.seconds else 0.0


class _Run:
    def __init__(self, request: LabelRequest, plan: Plan, output: Output, told: Callable[[Progress], None]) -> None:
        self._request, self._plan, self._output, self._told = request, plan, output, told
        self._frames_before = self._new_frames = 0
        self._skipped: List[Dict[str, str]] = []
        self._pace = _Pace()

    def work(self, way: Way, job: Job) -> Labelled:
        todo: Dict[Unit, int] = {}  # and how often it was begun with
        before = 0
        for unit in self._plan.units:
            if self._output.is_done(unit.id):
                self._frames_before += len(unit)
                before += 1
            elif self._output.failure(unit.id) is None:
                todo[unit] = self._output.attempts(unit.id)
        finished = False
        try:
            if todo:
                self._consume(way(job, list(todo), self._tell))
                self._output.clean()  # after workers that died
            finished = True
        finally:
            if not finished:  # stopped in order: what was under way did not fail
                for unit, attempts in todo.items():
                    if self._output.attempts(unit.id) > attempts:
                        self._output.forget(unit.id, last=True)
        return self._summed(before)

    def _consume(self, summaries: Iterator[Summary]) -> None:
        self._tell(0)
        with contextlib.closing(summaries) as each:  # type: ignore[type-var]
            for summary in each:
                self._new_frames += summary["frames"] + len(summary["skipped"])
                self._skipped += summary["skipped"]
                _check_skipped(self._request, self._plan, self._skipped)
                self._tell(0)

    def _tell(self, inside: int) -> None:
        new = self._new_frames + inside
        self._pace.add(new)
        done, total, per_second = self._frames_before + new, self._plan.frames, self._pace.per_second
        self._told(Progress("label", done, total, per_second, (total - done) / per_second if per_second else None))

    def _summed(self, before: int) -> Labelled:
        """Read what every unit says of itself, and write the record."""
        summaries = [self._summary(unit) for unit in self._plan.units]
        damaged = [entry for summary in summaries for entry in summary["skipped"]]
        _check_skipped(self._request, self._plan, damaged)
        skipped = [{"file": fault.name, "key": "", "why": fault.why} for fault in self._plan.faults] + damaged
        failed = [
            {"id": summary["id"], "path": unit.path, "frames": len(unit), "why": summary["why"]}
            for unit, summary in zip(self._plan.units, summaries)
            if summary["state"] == "failed"
        ]
        found = Labelled(
            out=self._request.out,
            layout=self._output.layout,
            units=len(self._plan.units),
            before=before,
            frames=sum(summary["frames"] for summary in summaries),
            new_frames=self._new_frames,
            skipped=tuple(skipped),
            failed=tuple(failed),
            seconds=self._pace.seconds,
            per_second=self._pace.per_second,
        )
        self._record(found)
        with contextlib.suppress(OSError):  # not empty: another run works here
            (self._request.out / "attempts").rmdir()
        return found

    def _summary(self, unit: Unit) -> Summary:
        return self._output.failure(unit.id) or self._output.summary(unit.id)

    def _record(self, found: Labelled) -> None:
        given_up = {entry["id"] for entry in found.failed}
        lost = {entry["key"] for entry in found.skipped}
        names = [name for unit in self._plan.units if unit.id not in given_up for name in unit.mask_names()]
        write_text(self._request.out / LIST, "".join(f"{name}\n" for name in sorted(set(names) - lost)))
        values = {
            "model": self._plan.asked["model"],
            "sha256": self._plan.asked["sha256"],
            "layout": found.layout,
            "frames": found.frames,
            "skipped": list(found.skipped),
            "failed": list(found.failed),
        }
        text = json.dumps(values, ensure_ascii=False, indent=1, sort_keys=True)
        write_text(self._request.out / RECORD, text + "\n")


def _plan(request: LabelRequest, sha256: str, told: Callable[[Progress], None]) -> Plan:
    listing = list_footage(request.footage)
    asked = Asked.of(request.model, sha256, request.options(), listing)
    plan = Plan.read(request.out)
    if plan is not None:
        plan.refuse_other(request.out, asked)
    there = plan is not None and (request.out / _CLASSES).is_file()  # else the run was killed between the two
    spec = None if there else _checked_spec(request, sha256)
    if plan is None:
        plan = _new_plan(request, asked, listing, told)
        plan.write(request.out)
    if spec is not None:
        _write_classes(request.out, spec)
    return plan


def _new_plan(request: LabelRequest, asked: Asked, listing: Listing, told: Callable[[Progress], None]) -> Plan:
    plan = make_plan(listing, asked, lambda done, total: told(Progress("index", done, total)), request.unit_frames)
    if not plan.units and not plan.faults:
        raise DataError("the footage holds no frame", hint="look at it: rtda-deploy data frames FOOTAGE")
    _check_skipped(request, plan, [])
    return plan


def _checked_spec(request: LabelRequest, sha256: str) -> ModelSpec:
    """The model's, which is opened once before anything is written."""
    worker = Worker(_job(request, sha256, "png"))
    try:
        return worker.open()
    finally:
        worker.close()


def _write_classes(out: Path, spec: ModelSpec) -> None:
    """``classes.json``, from which readers of the folder know what the ids mean."""
    values = {"names": list(spec.class_names), "palette": [list(colour) for colour in spec.palette]}
    write_text(out / _CLASSES, json.dumps(values, ensure_ascii=False) + "\n")


def _job(request: LabelRequest, sha256: str, layout: str) -> Job:
    return Job(
        model=str(request.model.absolute()),
        sha256=sha256,
        out=str(request.out.absolute()),
        layout=layout,
        provider=request.provider,
        threads=request.threads,
        confidence=request.confidence,
        spec="" if request.spec is None else request.spec.to_json(),
    )


def _layout(request: LabelRequest, plan: Plan) -> str:
    if request.layout != "auto":
        return request.layout
    return "png" if plan.frames <= _SMALL else "tar"


def _check_skipped(request: LabelRequest, plan: Plan, skipped: Sequence[Dict[str, str]]) -> None:
    """Refuse to go on where more files are damaged than may be."""
    faults = {fault.name: fault.why for fault in plan.faults}
    faults.update({entry["file"]: entry["why"] for entry in skipped})
    if len(faults) <= request.skip_share * plan.files:
        return
    name, why = next(iter(faults.items()))
    raise DataError(
        f"{len(faults)} of {plan.files} files are damaged, more than --skip {100 * request.skip_share:g}% allows",
        why=f"{name}: {why}",
        hint="mend or remove them, or allow more: --skip 20%",
    )


def _forget_failures(output: Output, plan: Plan) -> None:
    for unit in plan.units:
        with contextlib.suppress(FileNotFoundError):
            output.failed_path(unit.id).unlink()
