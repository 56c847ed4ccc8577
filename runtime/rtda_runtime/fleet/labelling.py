"""A label run from its footage to its record: planned or gone on with, shared out to a loop here or to Ray, and told.

What is done is known from the files of the output folder alone, so that a run that was killed, wherever it was, goes on
when the same command is typed again.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Callable, Iterator, Optional, Sequence, Tuple

from rtda_deploy.errors import ConfigError, DataError
from rtda_deploy.files import sha256_file, write_text
from rtda_deploy.run_folders import working_in
from rtda_deploy.spec import ModelSpec
from rtda_runtime.fleet.asked import Asked, refuse_other
from rtda_runtime.fleet.cutting import cut_footage
from rtda_runtime.fleet.damage import Damage
from rtda_runtime.fleet.fingerprint import Fingerprint, probes_for
from rtda_runtime.fleet.listing import Listing, list_footage
from rtda_runtime.fleet.output import Output, open_output
from rtda_runtime.fleet.plan import PLAN, Plan
from rtda_runtime.fleet.request import Labelled, LabelRequest, Progress
from rtda_runtime.fleet.run import Run, Summary, Way
from rtda_runtime.fleet.units import Unit
from rtda_runtime.fleet.worker import Job, Worker

__all__ = ["Opened", "in_a_loop", "label_footage", "opened_here"]

Opened = Callable[[Job, Sequence[str]], Tuple[ModelSpec, Fingerprint]]

_CLASSES = "masks/classes.json"
_SMALL = 20_000  # frames; up to so many are written as single PNGs


def in_a_loop(job: Job, units: Sequence[Unit], tell: Callable[[int], None]) -> Iterator[Summary]:
    """Label units one after the other in this process; ``tell`` gets the frames done in the current one."""
    worker = Worker(job)
    try:
        for unit in units:
            yield worker.label(unit, tell)
    finally:
        worker.close()


def opened_here(job: Job, probes: Sequence[str]) -> Tuple[ModelSpec, Fingerprint]:
    """What the model is, and what this machine makes of the probes."""
    worker = Worker(job)
    try:
        return worker.open(), worker.fingerprint(probes)
    finally:
        worker.close()


def label_footage(
    request: LabelRequest,
    way: Way = in_a_loop,
    told: Callable[[Progress], None] = lambda _: None,
    *,
    opened: Opened = opened_here,
) -> Labelled:
    """Label footage, or go on with it.

    Args:
        request: What and how.
        way: Who labels: :func:`in_a_loop`, or a way of :mod:`rtda_runtime.fleet.on_ray`.
        told: Called as it goes on.
        opened: Who opens the model once for a new plan, before anything is written; the machine that does is the one
            that workers are compared with.

    Raises:
        ConfigError: If the folder holds something else, or labels of another model, other options or footage.
        DataError: If more of the files are damaged than may be.
        FolderBusyError: If another run works into the folder.
        FileAccessError: If something cannot be read or written.
        EngineError: If the model cannot be used.
        DeviceError: If a machine would make other labels than the one that made the plan.
    """
    sha256 = sha256_file(request.model)
    refuse_foreign(request.out)
    with working_in(request.out):
        plan = _plan(request, sha256, told, opened)
        output = open_output(request.out, _layout(request, plan))
        output.clean()
        if request.retry:
            _forget_failures(output, plan)
        job = _job(request, sha256, output.layout, plan.machine)
        return Run(request, plan, output, told).work(way, job)


def refuse_foreign(folder: Path) -> None:
    """Check that a folder is empty, not there, or one that labels were written to.

    Raises:
        ConfigError: If it holds something else.
    """
    there = sorted(name for name in os.listdir(folder) if not name.startswith(".")) if folder.is_dir() else []
    if there and PLAN not in there:
        raise ConfigError(f"{folder} holds other files, such as {there[0]}", hint="choose a new folder with --out")


def _plan(request: LabelRequest, sha256: str, told: Callable[[Progress], None], opened: Opened) -> Plan:
    listing = list_footage(request.footage)
    asked = Asked.of(request.model, sha256, request.options(), listing)
    plan = Plan.read(request.out)
    if plan is not None:
        refuse_other(request.out, plan.asked, asked)
        if (request.out / _CLASSES).is_file():
            return plan
    spec, machine = opened(_job(request, sha256, "png"), probes_for(listing.kinds))
    if plan is None:  # else the run was killed before it wrote the classes
        plan = _new_plan(request, asked, listing, machine, told)
        plan.write(request.out)
    _write_classes(request.out, spec)
    return plan


def _new_plan(
    request: LabelRequest, asked: Asked, listing: Listing, machine: Fingerprint, told: Callable[[Progress], None]
) -> Plan:
    def counted(done: int, total: int) -> None:
        told(Progress("index", done, total))

    units, faults = cut_footage(listing, asked, counted, request.unit_frames)
    if not units and not faults:
        raise DataError("the footage holds no frame", hint="look at it: rtda-deploy data frames FOOTAGE")
    plan = Plan(asked.to_dict(), units, faults, machine)
    Damage(plan, request.skip_share)
    return plan


def _write_classes(out: Path, spec: ModelSpec) -> None:
    """``classes.json``, from which readers of the folder know what the ids mean."""
    values = {"names": list(spec.class_names), "palette": [list(colour) for colour in spec.palette]}
    write_text(out / _CLASSES, json.dumps(values, ensure_ascii=False) + "\n")


def _job(request: LabelRequest, sha256: str, layout: str, machine: Optional[Fingerprint] = None) -> Job:
    return Job(
        model=str(request.model.absolute()),
        sha256=sha256,
        out=str(request.out.absolute()),
        layout=layout,
        provider=request.provider,
        threads=request.threads,
        confidence=request.confidence,
        spec="" if request.spec is None else request.spec.to_json(),
        fingerprint="" if machine is None else machine.to_json(),
        mixed=request.mixed,
    )


def _layout(request: LabelRequest, plan: Plan) -> str:
    if request.layout != "auto":
        return request.layout
    return "png" if plan.frames <= _SMALL else "tar"


def _forget_failures(output: Output, plan: Plan) -> None:
    for unit in plan.units:
        with contextlib.suppress(FileNotFoundError):
            output.failed_path(unit.id).unlink()
