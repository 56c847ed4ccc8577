"""Files of ``torch.save``: written whole or not at all, read without running code, every fault a CheckpointError."""

from __future__ import annotations

import contextlib
import pickle
import pickletools
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rtda_deploy.border import parsing, reason
from rtda_deploy.errors import CheckpointError
from rtda_deploy.files import atomic_path, file_error
from rtda_deploy.model_files import impostor

__all__ = ["read_torch_file", "write_torch_file"]


def write_torch_file(path: str | Path, content: Any) -> Path:
    """Write what ``torch.load(path)`` will give back.

    Raises:
        FileAccessError: If the folder cannot be written to or the disk is full.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as err:  # what torch's zip writer makes of an OSError of the stream
            if isinstance(err.__context__, OSError):
                raise err.__context__ from err
            raise
    return Path(path)


def read_torch_file(path: str | Path, kind: str = "checkpoint", *, hint: str = "was it copied whole?") -> Any:
    """Read tensors, containers and plain values; no code in the file runs.

    Scalars of numpy become numbers, paths become texts; numpy's arrays and a parser's ``Namespace`` (what scripts keep
    their options in) an object that holds nothing.

    Args:
        path: The file.
        kind: What it should be, for errors.
        hint: What to do about one that is no such file.

    Raises:
        FileAccessError: If it cannot be opened.
        CheckpointError: If torch cannot read it, or it holds objects that only code could make.
    """
    file = Path(path)
    try:
        with open(file, "rb"):
            pass
    except OSError as err:
        raise file_error(err, file, "read") from err
    try:
        with warnings.catch_warnings(), _stand_ins():
            warnings.simplefilter("ignore")  # on the pickle's protocol; whether it can be read is what counts
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as err:  # on a damaged file torch's unpickler raises anything
        blocked = _blocked(err, file) if isinstance(err, pickle.UnpicklingError) else ""
        if blocked:
            raise CheckpointError(
                f"{file} holds more than plain weights and values; code in it was not run",
                why=blocked,
                hint="save it again with torch.save(model.state_dict(), path)",
            ) from err
        found = impostor(file)
        raise CheckpointError(
            f"{file} is no {kind} that torch can read",
            why=f"it is {found.text}" if found else reason(err),
            hint=found.hint if found else hint,
        ) from err


class _Dtype:
    """Stands in for ``numpy.dtype``: the type code of a plain value, and the byte order that is set afterwards."""

    def __init__(self, code: str, *_: Any) -> None:
        if np.dtype(code).kind not in "biufU":
            raise ValueError(f"{code!r} is no type of a plain number or text")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.numpy = self.numpy.newbyteorder(state[1])


class _Nothing:
    """Stands in for an object whose values are not needed."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        del state


def _scalar(dtype: _Dtype, content: bytes) -> Any:
    """Stands in for numpy's ``scalar``: the number that its bytes encode."""
    return np.frombuffer(content, dtype.numpy, 1)[0].item()


def _path(*parts: str) -> str:
    return str(Path(*parts))


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """Names that training scripts leave in checkpoints; our own classes are made in their place."""
    made: list[Any] = [
        *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
        *((_Nothing, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
        (_Nothing, "numpy.ndarray"),
        (_Dtype, "numpy.dtype"),
        (_Nothing, "argparse.Namespace"),
        *((_path, f"pathlib.{name}Path") for name in ("Posix", "Windows", "PurePosix", "PureWindows")),
        *((_path, f"pathlib._local.{name}Path") for name in ("Posix", "Windows", "PurePosix", "PureWindows")),
    ]
    try:
        allowed: Any = torch.serialization.safe_globals(made)
    except (AttributeError, TypeError):  # torch before 2.6 has no names for what is allowed, and refuses them all
        allowed = contextlib.nullcontext()
    with allowed:
        yield


def _blocked(err: Exception, file: Path) -> str:
    """The object that torch refused to make; empty where that was not what went wrong."""
    named = re.search(r"GLOBAL (\S+)", str(err))
    if named:
        return f"it names {named[1]}"
    for line in str(err).splitlines():
        if "Unsupported class" in line:
            return line.strip()[:200]
    return "it is a Python pickle of objects" if _pickles_objects(file) else ""


def _pickles_objects(file: Path) -> bool:
    """Whether the file is a whole pickle that names a class or function; its opcodes are listed, none is run."""
    with contextlib.suppress(CheckpointError), parsing(CheckpointError, "no pickle", hint=""):
        names = {opcode.name for opcode, _, _ in pickletools.genops(file.read_bytes())}
        return bool(names & {"GLOBAL", "STACK_GLOBAL", "INST"})
    return False
