"""Paddle's ``.pdparams``: a pickled dict of NumPy arrays, read so that no code in a stranger's file runs.

A pickle says which functions to call. Here it can call those that make a dict, a tuple or the plain array of the bytes
beside it, all of them ours; whatever else it names is refused by name.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from rtda_deploy.border import reason
from rtda_deploy.errors import CheckpointError
from rtda_deploy.files import file_error
from rtda_deploy.model_files import impostor

__all__ = ["read_pdparams"]

_HINT = (
    "is it what paddle.save(model.state_dict()) wrote? Where Paddle is installed: "
    "torch.save({k: torch.from_numpy(v.numpy()) for k, v in paddle.load(FILE).items()}, 'weights.pth')"
)
_MOST_DIMENSIONS = 8  # convolutions have four


def read_pdparams(path: str | Path) -> dict[str, Tensor]:
    """The arrays of the file as tensors under their names; what else stands in it is left out.

    Raises:
        FileAccessError: If it cannot be opened.
        CheckpointError: If it is no such file, is damaged, or names anything but NumPy's arrays.
    """
    file = Path(path)
    try:
        with open(file, "rb") as stream:
            content = _Unpickler(stream).load()
    except OSError as err:
        raise file_error(err, file, "read") from err
    except _ForbiddenError as err:
        raise CheckpointError(
            f"{file.name} holds more than plain arrays; code in it was not run", why=f"it names {err}", hint=_HINT
        ) from err
    except Exception as err:  # on a damaged file an unpickler raises anything
        found = impostor(file)
        raise CheckpointError(
            f"{file.name} is no .pdparams file of Paddle",
            why=f"it is {found.text}" if found else reason(err),
            hint=found.hint if found else _HINT,
        ) from err
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file.name} holds a {type(content).__name__}, not a dict of arrays", hint=_HINT)
    arrays = {name: _array(value) for name, value in content.items() if isinstance(name, str)}
    return {name: torch.from_numpy(array) for name, array in arrays.items() if array is not None}


def _array(value: Any) -> np.ndarray | None:
    """The array of an entry: as it is, or behind the parameter's own name, as Paddle writes single tensors."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]
    return value.numpy if isinstance(value, _Array) else None


class _ForbiddenError(pickle.UnpicklingError):
    """The file names something that it may not have."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self._known = _known()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise _ForbiddenError(f"{module}.{name}"[:100])
        return self._known[module, name]


class _Array:
    """Stands in for an array: filled by its state, as NumPy writes it."""

    def __init__(self) -> None:
        self.numpy = np.zeros(0, np.float32)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, turned, content = state
        self.numpy = _filled(content, kind, shape, "F" if turned else "C")


class _Kind:
    """Stands in for a dtype: the code of a plain number, and the byte order that is set afterwards."""

    def __init__(self, code: Any) -> None:
        self.numpy = np.dtype(code if isinstance(code, str) else "O")
        if self.numpy.kind not in "biuf":
            raise _ForbiddenError(f"an array of {code!r}, which is no number"[:100])

    def __setstate__(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.numpy = self.numpy.newbyteorder(state[1])


class _Call:
    """What the file calls: one of the functions below. It has no place for a state, so none can be put into it."""

    __slots__ = ("_function",)

    def __init__(self, function: Any) -> None:
        self._function = function

    def __call__(self, *words: Any) -> Any:
        return self._function(*words)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a function")


def _known() -> dict[tuple[str, str], Any]:
    """By module and name, what stands for what a file may name; new for every file."""
    made: dict[tuple[str, str], Any] = {("collections", "OrderedDict"): dict}
    for builtins in ("builtins", "__builtin__"):  # of Python 3 and 2
        made[builtins, "tuple"] = tuple
        made[builtins, "bytes"] = _Call(lambda: b"")  # how protocol 2 writes none
    made["_codecs", "encode"] = _Call(_bytes_of)
    made["numpy", "ndarray"] = _Call(_refused)  # named as the kind of array, never called
    made["numpy", "dtype"] = _Call(lambda code, *_: _Kind(code))
    for core in ("core", "_core"):  # of NumPy 1 and 2
        made[f"numpy.{core}.multiarray", "_reconstruct"] = _Call(lambda *_: _Array())
        made[f"numpy.{core}.numeric", "_frombuffer"] = _Call(_from_buffer)
    return made


def _refused(*_: Any) -> Any:
    raise pickle.UnpicklingError("it makes an array without numbers")


def _bytes_of(text: Any, encoding: Any) -> bytes:
    """Bytes as protocol 2 writes them: each a character."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes in it are not as protocol 2 writes them")
    return text.encode("latin1")


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any) -> _Array:
    made = _Array()
    made.numpy = _filled(content, kind, shape, order)
    return made


def _filled(content: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    """The numbers of the bytes, of that kind and shape and as this machine holds them; no more than there are bytes."""
    if not isinstance(kind, _Kind) or not isinstance(content, (bytes, bytearray)) or order not in ("C", "F"):
        raise pickle.UnpicklingError("an array in it is not as NumPy writes arrays")
    sides = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    plain = len(sides) <= _MOST_DIMENSIONS and all(isinstance(side, int) and side >= 0 for side in sides)
    if not plain or math.prod(sides) * kind.numpy.itemsize != len(content):
        raise pickle.UnpicklingError(f"an array of shape {sides[:_MOST_DIMENSIONS]} has {len(content)} bytes")
    values = np.frombuffer(content, kind.numpy).reshape(sides, order=order)
    return np.array(values, kind.numpy.newbyteorder("="), order="C")
