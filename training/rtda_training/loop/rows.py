"""Rows of a run's log, ``metrics.jsonl``: how they are read, and which of their numbers are a method's own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["loss_keys", "read_rows"]

_EVERY_ROW = ("stage", "stage_index", "step", "learning_rate", "pictures_per_s", "eta_s")


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows that a run in ``folder`` has logged; none where there is no log."""
    path = folder / "metrics.jsonl"
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError, RecursionError):  # the last line of a killed run may be half written
            rows.append(json.loads(line))
    return rows


def loss_keys(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The numbers that the method itself logs, in the order it does: whatever not every training logs."""
    found = dict.fromkeys(key for row in rows for key in row if key not in _EVERY_ROW and not key.startswith("val_"))
    return list(found)
