"""Which model of a store is current and which was before: two links that change at once.

::

    models/robot/current -> links/current
    models/robot/previous -> links/previous
    models/robot/links -> .links-5d0c1e2f        replaced by one rename
    models/robot/.links-5d0c1e2f/current -> ../3f2a91c07b1e
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Dict, Optional

from rtda_deploy.files import file_error
from rtda_runtime.fleet.model_folder import LEFTOVER_COPY, to_disk

__all__ = ["CURRENT", "PREVIOUS", "digest_of", "digests", "has_links", "set_links"]

CURRENT, PREVIOUS = "current", "previous"
_LINKS = "links"
_LEFTOVER = re.compile(r"\.links-[0-9a-f]{8}(\.new)?")


def has_links(folder: Path) -> bool:
    """Whether a model of the store was ever made current."""
    return (folder / _LINKS).is_symlink()


def digest_of(folder: Path, role: str) -> Optional[str]:
    """What a link means, whether that model is there or not; None: there is no link."""
    try:
        return os.path.basename(os.readlink(str(folder / _LINKS / role)))
    except OSError:
        return None


def digests(folder: Path) -> Dict[str, str]:
    """What both links mean, by role, current last; a role without a link is missing."""
    found = {role: digest_of(folder, role) for role in (PREVIOUS, CURRENT)}
    return {role: digest for role, digest in found.items() if digest is not None}


def set_links(folder: Path, current: str, previous: Optional[str]) -> None:
    """Both links by one rename, that of the link to the folder which holds them.

    Raises:
        FileAccessError: If they cannot be changed.
    """
    made = folder / f".links-{secrets.token_hex(4)}"
    before = os.path.basename(os.path.realpath(str(folder / _LINKS)))
    new = folder / f"{made.name}.new"
    try:
        made.mkdir(parents=True)
        for role, digest in ((CURRENT, current), (PREVIOUS, previous)):
            if digest is not None:
                os.symlink(f"../{digest}", str(made / role))
            if not (folder / role).is_symlink():
                os.symlink(f"{_LINKS}/{role}", str(folder / role))
        os.symlink(made.name, str(new))
        to_disk(made)
        os.replace(str(new), str(folder / _LINKS))
        to_disk(folder)
    except OSError as err:
        raise file_error(err, folder / _LINKS, "change") from err
    _tidy(folder, made.name, before)  # the last one stays: somebody may be on the way through it


def _tidy(folder: Path, *stay: str) -> None:
    """Remove links that were replaced, and what processes left that were killed."""
    for path in folder.glob(".*"):
        if path.name in stay or not (_LEFTOVER.fullmatch(path.name) or LEFTOVER_COPY.fullmatch(path.name)):
            continue
        if path.is_symlink():
            with contextlib.suppress(OSError):
                path.unlink()
        else:
            shutil.rmtree(str(path), ignore_errors=True)
