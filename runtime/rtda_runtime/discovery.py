"""Which model to run when none was named."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Sequence, Set, Tuple, Union

from rtda_deploy.errors import RtdaError
from rtda_runtime.engines import open_engine
from rtda_runtime.engines.kinds import engine_kinds
from rtda_runtime.fleet.deployed import deployed_model
from rtda_runtime.fleet.links import has_links

__all__ = ["newest_model"]

_log = logging.getLogger(__name__)

_SKIPPED = {"node_modules", "site-packages", "venv", "__pycache__"}  # beside everything hidden, such as .venv and .git
_MOST_ENTRIES = 20_000  # looked at; a home folder must not be walked for minutes
_MOST_DEPTH = 6  # runs/<verb>/<date>/ and some room
_MOST_TRIES = 8  # models opened, per kind


def newest_model(
    roots: Sequence[Union[str, Path]] = ("runs", "."),
    *,
    loads: Optional[Callable[[Path], bool]] = None,
    most_entries: int = _MOST_ENTRIES,
) -> Optional[Path]:
    """The newest model under ``roots`` that loads here: an ``.engine``, else an ``.onnx``; None if there is none.

    The order of suffixes is that of :func:`rtda_runtime.engines.kinds.engine_kinds`. Hidden folders and virtual
    environments are left out, and the search is bounded in depth and number of files.

    Args:
        roots: Folders to search; those that do not exist are passed over.
        loads: Whether a file can be run here; by default it is opened to see.
        most_entries: Files and folders looked at below each root.
    """
    loads = loads or _loads
    found = _models(roots, most_entries)
    for suffix in _suffixes():
        newest_first = sorted((item for item in found if item[1].suffix == suffix), key=lambda item: -item[0])
        for _, path in newest_first[:_MOST_TRIES]:
            if loads(path):
                return path
    return None


def _suffixes() -> List[str]:
    """Of the files that are looked for, the preferred first."""
    return list(dict.fromkeys(kind.suffixes[0] for kind in engine_kinds()))


def _loads(path: Path) -> bool:
    try:
        open_engine(path).close()
    except RtdaError as err:
        _log.info("passed over %s: %s", path, err)
        return False
    return True


def _models(roots: Sequence[Union[str, Path]], most_entries: int) -> List[Tuple[int, Path]]:
    """Modification time and path of every model file below ``roots``, each once."""
    found: List[Tuple[int, Path]] = []
    seen: Set[str] = set()
    for root in roots:
        for path in _walk(Path(root), most_entries):
            identity = os.path.realpath(path)
            if identity in seen:
                continue
            seen.add(identity)
            try:
                found.append((path.stat().st_mtime_ns, path))
            except OSError:
                continue  # gone meanwhile, or a dangling link
    return found


def _walk(root: Path, most_entries: int) -> Iterator[Path]:
    looked_at, suffixes = 0, _suffixes()
    for folder, folders, files in os.walk(root):
        depth = len(Path(folder).parts) - len(root.parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED)
        if has_links(Path(folder)):  # of deployed models, the current one alone
            folders[:] = []
            with contextlib.suppress(RtdaError):  # its link leads nowhere
                yield deployed_model(Path(folder))
        if depth >= _MOST_DEPTH:
            folders[:] = []
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix in suffixes:
                yield Path(folder) / name
        looked_at += len(files) + len(folders)
        if looked_at > most_entries:
            _log.info("stopped looking for models under %s after %d files", root, looked_at)
            return
