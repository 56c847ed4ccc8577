"""The units of a plan that are not done, given to whoever labels; how far that is, and what it came to."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any, Callable, Dict, Iterator, Sequence

from rtda_deploy.files import write_text
from rtda_runtime.fleet.damage import Damage
from rtda_runtime.fleet.mixed import mixed_machines
from rtda_runtime.fleet.output import Output
from rtda_runtime.fleet.plan import Plan
from rtda_runtime.fleet.request import Labelled, LabelRequest, Progress
from rtda_runtime.fleet.units import Unit
from rtda_runtime.fleet.worker import Job

__all__ = ["LIST", "RECORD", "Run", "Summary", "Way"]

RECORD = "labelled.json"  # written last: a folder with it is whole
LIST = "labelled.txt"

Summary = Dict[str, Any]
Way = Callable[[Job, Sequence[Unit], Callable[[int], None]], Iterator[Summary]]


class Run:
    """Works on a plan.

    Args:
        request: What was asked for.
        plan: Of its output folder.
        output: That folder.
        told: Called as it goes on.
    """

    def __init__(self, request: LabelRequest, plan: Plan, output: Output, told: Callable[[Progress], None]) -> None:
        self._request, self._plan, self._output, self._told = request, plan, output, told
        self._total = plan.frames
        self._frames_before = self._new_frames = 0
        self._pace = _Pace()

    def work(self, way: Way, job: Job) -> Labelled:
        """Label what is not done. Errors as of :func:`rtda_runtime.fleet.labelling.label_footage`."""
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
        damage = Damage(self._plan, self._request.skip_share)
        self._tell(0)
        with contextlib.closing(summaries) as each:  # type: ignore[type-var]
            for summary in each:
                self._new_frames += summary["frames"] + len(summary["skipped"])
                damage.add(summary["skipped"])
                self._tell(0)

    def _tell(self, inside: int) -> None:
        new = self._new_frames + inside
        self._pace.add(new)
        done, per_second = self._frames_before + new, self._pace.per_second
        left_s = (self._total - done) / per_second if per_second else None
        self._told(Progress("label", done, self._total, per_second, left_s))

    def _summed(self, before: int) -> Labelled:
        """Read what every unit says of itself, and write the record."""
        summaries = [self._summary(unit) for unit in self._plan.units]
        damaged = [entry for summary in summaries for entry in summary["skipped"]]
        Damage(self._plan, self._request.skip_share).add(damaged)
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
            mixed=mixed_machines(self._request.out),
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
            "mixed": found.mixed,
        }
        text = json.dumps(values, ensure_ascii=False, indent=1, sort_keys=True)
        write_text(self._request.out / RECORD, text + "\n")


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
