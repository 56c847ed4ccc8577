"""The plan of a label run, ``plan.json`` in the output folder: what is labelled with what, cut into units.

The first run writes it, every later run into the same folder works on it.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Tuple

from rtda_deploy.border import json_values, parsing
from rtda_deploy.errors import DataError
from rtda_deploy.files import file_bytes, write_text
from rtda_runtime.fleet.asked import asked_of
from rtda_runtime.fleet.fingerprint import Fingerprint
from rtda_runtime.fleet.units import Unit

__all__ = ["FORMAT", "PLAN", "Fault", "Plan"]

PLAN = "plan.json"
FORMAT = 2


class Fault(NamedTuple):
    """What cannot be labelled, and why."""

    name: str
    why: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """All units of a run.

    Attributes:
        asked: What labels depend on, as :meth:`Asked.to_dict` has it.
        units: In the order of the footage.
        faults: Files that could not be planned.
        machine: The one that made it: others have to make the same pixels and masks.
    """

    asked: Dict[str, Any]
    units: Tuple[Unit, ...]
    faults: Tuple[Fault, ...]
    machine: Fingerprint

    @property
    def frames(self) -> int:
        """Of all units."""
        return sum(len(unit) for unit in self.units)

    @property
    def files(self) -> int:
        """Of the footage."""
        return len(self.asked["files"])

    def write(self, folder: Path) -> None:
        """Write ``plan.json``, whole or not at all.

        Raises:
            FileAccessError: If it cannot be written.
        """
        values = {
            "format": FORMAT,
            "asked": self.asked,
            "machine": dataclasses.asdict(self.machine),
            "faults": [list(fault) for fault in self.faults],
            "units": [unit.to_dict() for unit in self.units],
        }
        write_text(folder / PLAN, json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Optional[Plan]:
        """The plan of an output folder; None where there is none.

        Raises:
            DataError: If the file is no plan.
        """
        path = folder / PLAN
        if not path.is_file():
            return None
        hint = "choose another --out; this folder's labels cannot be added to"
        with parsing(DataError, f"{path} is no plan of labels", hint=hint):
            values = json_values(file_bytes(path), str(path), DataError, hint=hint)
            if values["format"] != FORMAT:
                raise DataError(f"{path} is of format {values['format']}, known is {FORMAT}", hint=hint)
            units = tuple(Unit.of(unit) for unit in values["units"])
            faults = tuple(Fault(*fault) for fault in values["faults"])
            return cls(asked_of(values["asked"]), units, faults, Fingerprint.of(values["machine"]))
