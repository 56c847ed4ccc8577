"""``rtda-deploy bench --compare A.json B.json``: what differs between two results, shown."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Tuple

if TYPE_CHECKING:
    from rtda_runtime.bench.compare import Difference

__all__ = ["compare_files"]


def compare_files(first: Path, second: Path, *, force: bool, as_json: bool, as_csv: bool) -> None:
    """Print what differs from ``first`` to ``second``; each a ``times.json`` or the folder that holds one.

    Raises:
        ConfigError: If they are of different devices, sizes or kinds, and ``force`` does not allow that.
        DataError: If a file is no result of ``bench``.
    """
    from rtda_deploy.cli.terminal.console import note, print_csv, print_json, print_table, warn
    from rtda_runtime.bench.compare import compare_records
    from rtda_runtime.bench.record import load_record

    paths = (first, second)
    records = [load_record(path) for path in paths]
    found = compare_records(*records, force=force)
    if as_json:
        values = dataclasses.asdict(found)
        unlike = values.pop("different_setup")
        print_json({**values, "a": str(first), "b": str(second), "different_setup": unlike})
    elif as_csv:
        keys = [field.name for field in dataclasses.fields(found.rows[0])]
        print_csv(keys, [dataclasses.astuple(row) for row in found.rows])
    else:
        for name, path, record in zip("AB", paths, records):
            model = record.model
            note(f"{name}       {path}   {model.file or model.description} on {model.provider}, {record.created}")
        rows = [(row.stage, row.figure, row.a, row.b, *_change_texts(row)) for row in found.rows]
        print_table(("ms", "", "A", "B", "B against A", "95 % interval", ""), rows)
        for sentence in found.changed:
            print(sentence)
    for sentence in found.different_setup:
        warn(f"different: {sentence}")
    for path, record in zip(paths, records):
        if not record.settled:
            warn(f"{path}: p95 did not settle")


def _change_texts(row: Difference) -> Tuple[str, str, str]:
    if row.change is None:
        return "-", "-", row.verdict
    interval = "too few frames"
    if row.low is not None and row.high is not None:
        interval = f"{100 * row.low:+.1f} .. {100 * row.high:+.1f} %"
    return f"{100 * row.change:+.1f} %", interval, row.verdict
