"""Bags that ROS 2 compresses with zstd: whole files, or each message by itself."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from rtda_deploy.border import parsing
from rtda_deploy.errors import SourceError
from rtda_deploy.files import file_error
from rtda_deploy.optional import require

__all__ = ["ZSTD_MAGIC", "UnpackedFile", "unpacked"]

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # no message of ROS 2 begins so: CDR begins with a zero


def unpacked(message: bytes) -> bytes:
    """A message without the compression that it may have."""
    if not message.startswith(ZSTD_MAGIC):
        return message
    content: bytes = _zstandard().ZstdDecompressor().decompressobj().decompress(message)
    return content


class UnpackedFile:
    """A temporary copy of a compressed file, there as long as this object.

    Raises:
        FileAccessError: If the disk is full.
        SourceError: If it is damaged.
    """

    def __init__(self, packed: Path) -> None:
        folder = tempfile.mkdtemp(prefix="rtda-bag-")
        self._end = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = Path(folder) / packed.stem
        hint = "copy it again; zstd -t FILE tells whether it is whole"
        try:
            with parsing(SourceError, f"{packed} is no whole zstd file", hint=hint), contextlib.ExitStack() as stack:
                source = stack.enter_context(packed.open("rb"))
                target = stack.enter_context(self.path.open("wb"))
                _copy(source, target)
        except SourceError as err:
            self._end()
            if isinstance(err.__cause__, OSError):
                raise file_error(err.__cause__, self.path, "write") from err
            raise


def _copy(source: Any, target: Any) -> None:
    _zstandard().ZstdDecompressor().copy_stream(source, target)


def _zstandard() -> Any:
    return require("zstandard", extra="footage", purpose="to read compressed bags")
