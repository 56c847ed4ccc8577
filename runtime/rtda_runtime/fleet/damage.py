"""Files that are damaged: counted as they are found, up to the share of the footage that may be."""

from __future__ import annotations

from typing import Dict, Iterable, Mapping

from rtda_deploy.errors import DataError
from rtda_runtime.fleet.plan import Plan

__all__ = ["Damage"]


class Damage:
    """The damaged files of a run. Of a video with one frame that is damaged the file counts.

    Args:
        plan: Its files, and the faults that it knows of already.
        share: Of the files that may be damaged, 0 to 1.

    Raises:
        DataError: If the plan knows of more.
    """

    def __init__(self, plan: Plan, share: float) -> None:
        self._files, self._share = plan.files, share
        self._found: Dict[str, str] = {fault.name: fault.why for fault in plan.faults}
        self._check()

    def add(self, skipped: Iterable[Mapping[str, str]]) -> None:
        """Count what was skipped: ``file`` and ``why`` of each.

        Raises:
            DataError: If these are more than may be.
        """
        self._found.update((entry["file"], entry["why"]) for entry in skipped)
        self._check()

    def _check(self) -> None:
        if len(self._found) <= self._share * self._files:
            return
        name, why = next(iter(self._found.items()))
        raise DataError(
            f"{len(self._found)} of {self._files} files are damaged, more than --skip {100 * self._share:g}% allows",
            why=f"{name}: {why}",
            hint="mend or remove them, or allow more: --skip 20%",
        )
