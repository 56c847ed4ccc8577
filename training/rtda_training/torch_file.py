"""Files of ``torch.save``: whole or not at all, and an error of the disk said as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rtda_deploy.files import atomic_path

__all__ = ["write_torch_file"]


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
