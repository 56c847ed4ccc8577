"""What a row of the table of programs says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional, Tuple

if TYPE_CHECKING:
    from rtda_deploy.spec import ModelSpec

__all__ = ["Program", "Served", "class_comments"]


@dataclasses.dataclass(frozen=True)
class Served:
    """The file that a program is to run.

    Attributes:
        onnx: Under its final name, verified.
        stem: Name of the model, such as ``best``.
        spec: What it holds.
        precision: Name of its precision.
        batch: Pictures at a time.
        confidence: Whether it has that second output.
    """

    onnx: Path
    stem: str
    spec: ModelSpec
    precision: str = "fp32"
    batch: int = 1
    confidence: bool = False


@dataclasses.dataclass(frozen=True)
class Program:
    """A program other than ours.

    Attributes:
        name: As typed after ``--for``.
        title: For people.
        input: What the graph takes for it; a value of ``ModelSpec.input``.
        layouts: Layouts of the input that it can feed, the one that is taken where nothing is asked for first.
        output: What the graph gives; a value of ``ModelSpec.output``.
        precisions: Names of those whose files it runs.
        refused: Why it runs no others; empty where it runs all.
        copy: Where in the folder of the model of that stem a copy of the file is put; None: nowhere.
        write: Writes the configuration; gives the files, the one to hand to the program first.
    """

    name: str
    title: str
    input: str
    layouts: Tuple[str, ...]
    output: str
    precisions: Tuple[str, ...]
    refused: str
    copy: Optional[Callable[[Path, str], Path]]
    write: Callable[[Served], Tuple[Path, ...]]


def class_comments(spec: ModelSpec) -> str:
    """A comment line for each class: its number in the mask, and its name without what would end the line."""
    names = (" ".join(name.split()) for name in spec.class_names)
    return "".join(f"#   {index} {name}\n" for index, name in enumerate(names))
