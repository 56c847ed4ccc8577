"""Other programs that run an exported file: what each needs in the graph, and the configuration written for it.

A row of :data:`PROGRAMS` is all there is to tell of one; ``export --for NAME`` reads it. Each field that is written is
held against the program's own documentation; docs/interop.md says which, and what was run.
"""

from __future__ import annotations

from typing import Tuple

from rtda_deploy.errors import ConfigError
from rtda_export.programs.base import Program, Served
from rtda_export.programs.deepstream import DEEPSTREAM
from rtda_export.programs.triton import TRITON

__all__ = ["PROGRAMS", "Program", "Served", "known_programs", "program_named"]

PROGRAMS: Tuple[Program, ...] = (TRITON, DEEPSTREAM)


def program_named(name: str) -> Program:
    """The row of ``name``.

    Raises:
        ConfigError: If there is none.
    """
    for program in PROGRAMS:
        if program.name == name:
            return program
    raise ConfigError(f"nothing is written for {name!r}", hint=f"known: {known_programs()}")


def known_programs() -> str:
    """The names, for people."""
    return ", ".join(program.name for program in PROGRAMS)
