"""Files of one JSON object a line that grow while a program runs: each line is there whole, or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Mapping

from rtda_deploy.files import file_error, utf8_text

__all__ = ["append_line", "json_line"]


def json_line(values: Mapping[str, Any]) -> str:
    """The line of an object, with its end."""
    return utf8_text(json.dumps(values, ensure_ascii=False)) + "\n"


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Add a line and wait for the disk; one that does not fit is taken away again.

    After a process that was killed the file may end with a part of a line. The new one begins on a line of its own.

    Args:
        path: The file, made where it is missing; its folder exists.
        values: JSON-ready.

    Raises:
        FileAccessError: If the disk is full or refuses.
    """
    content = json_line(values).encode("utf-8")
    try:
        descriptor = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            before = os.fstat(descriptor).st_size
            if before and os.pread(descriptor, 1, before - 1) != b"\n":
                content = b"\n" + content
            try:
                if os.write(descriptor, content) < len(content):
                    os.write(descriptor, b"\n")  # raises what stopped the first one
                    raise OSError(f"{path.name} takes no whole line")
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)
    except OSError as err:
        raise file_error(err, path, "write") from err
