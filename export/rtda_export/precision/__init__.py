"""Precisions: one file and one row each. Command line, file names, verifier, engine builder and estimate read the rows.

A further one is a module beside :mod:`~rtda_export.precision.fp16` that holds a :class:`Precision`, and a row in
:data:`PRECISIONS`. The rows are data: ``--help`` reads them, so what makes a file is imported when one is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterable, Tuple

from rtda_deploy.errors import ConfigError
from rtda_export.precision.base import EngineRules, Limit, Made, Precision, Work
from rtda_export.precision.bf16 import BF16
from rtda_export.precision.fp16 import FP16
from rtda_export.precision.fp32 import FP32
from rtda_export.precision.int8 import INT8

if TYPE_CHECKING:
    from rtda_deploy.onnx_file import OnnxFacts

__all__ = [
    "BF16",
    "COMPUTED",
    "ENGINE_DEFAULT",
    "FP16",
    "FP32",
    "INT8",
    "PRECISIONS",
    "EngineRules",
    "Limit",
    "Made",
    "Precision",
    "Work",
    "known_limits",
    "known_precisions",
    "limit_named",
    "listed",
    "precision_named",
    "precision_of_file",
]

PRECISIONS: Tuple[Precision, ...] = (FP32, FP16, INT8)

COMPUTED: Tuple[Precision, ...] = (BF16,)  # what a library computes the float32 file in; no files of their own

ENGINE_DEFAULT = FP16  # what an engine of a float32 file is built in, where nothing else is asked for


def listed(names: Iterable[str]) -> str:
    """Names for people: ``fp32, fp16 or int8``."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def known_precisions() -> str:
    """Every name, for people."""
    return listed(precision.name for precision in PRECISIONS)


def known_limits() -> str:
    """Every name that :func:`limit_named` knows, for people."""
    return listed(precision.name for precision in (*PRECISIONS, *COMPUTED))


def precision_named(name: str) -> Precision:
    """The row of a name.

    Raises:
        ConfigError: If there is none; it lists the known ones.
    """
    if any(precision.name == name for precision in COMPUTED):
        raise ConfigError(
            f"{name} is no file of its own",
            why="a CPU computes the float32 file in it",
            hint="--precision fp32, or leave it out: export verifies the float32 file in it where this CPU has it",
        )
    return _named(name, PRECISIONS, "precision")


def limit_named(name: str) -> Limit:
    """How far a file or an arithmetic of a name may move.

    Raises:
        ConfigError: If there is none; it lists the known ones.
    """
    return _named(name, (*PRECISIONS, *COMPUTED), "limit").limit


def _named(name: str, rows: Tuple[Precision, ...], what: str) -> Precision:
    found = next((precision for precision in rows if precision.name == name), None)
    if found is None:
        known = ", ".join(precision.name for precision in rows)
        raise ConfigError(f"unknown {what} {name!r}", hint=f"known: {known}")
    return found


def precision_of_file(facts: OnnxFacts) -> Precision:
    """What an ``.onnx`` is in; float32 where it is of no other."""
    return next((precision for precision in PRECISIONS if precision.reduced and precision.is_of(facts)), FP32)
