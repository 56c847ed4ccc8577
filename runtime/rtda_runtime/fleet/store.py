"""Deployed models: ``models/NAME/DIGEST/`` never changes, and links say which one runs.

::

    models/robot/3f2a91c07b1e/model.onnx      read-only; the folder is called after the file's SHA-256
    models/robot/current -> links/current     what `run models/robot` opens
    models/robot/previous -> links/previous   what `models rollback` goes back to
    models/robot/links -> .links-5d0c1e2f        replaced by one rename, so that both links change at once
    models/robot/history.jsonl                each promotion, refusal and rollback, and what was seen

A robot that is switched off at any moment has the models that it had before, or the new ones, and never one of each.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional

from rtda_deploy.errors import ConfigError, DataError, FileAccessError
from rtda_deploy.files import file_error, readable_file, sha256_file
from rtda_deploy.json_lines import append_line
from rtda_deploy.onnx_file import read_onnx_facts
from rtda_deploy.run_folders import working_in
from rtda_runtime.engines.kinds import engine_kinds

__all__ = ["DeployedModel", "ModelStore", "deployed_model", "is_store"]

_DIGEST = 12  # hexadecimal digits of a folder's name
_DIGEST_NAME = re.compile(rf"[0-9a-f]{{{_DIGEST}}}")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_LEFTOVER = re.compile(rf"\.links-[0-9a-f]{{8}}(\.new)?|\.[0-9a-f]{{{_DIGEST}}}\.[0-9a-f]{{8}}")
_LINKS, _CURRENT, _PREVIOUS, _HISTORY = "links", "current", "previous", "history.jsonl"


class DeployedModel(NamedTuple):
    """A model of a store.

    Attributes:
        digest: The first digits of its SHA-256; the name of its folder.
        file: The model file.
        role: ``current``, ``previous`` or empty.
    """

    digest: str
    file: Path
    role: str


class ModelStore:
    """The models of one name.

    Args:
        folder: ``models/NAME``; it need not be there.

    Raises:
        ConfigError: If the name is none.
    """

    def __init__(self, folder: Path) -> None:
        if not _NAME.fullmatch(folder.name):
            raise ConfigError(
                f"{folder.name!r} is no name for models", hint="letters, digits, dots, - and _, such as models/robot"
            )
        self.folder = folder

    @property
    def current(self) -> Optional[DeployedModel]:
        """What runs; None: nothing was promoted."""
        return self._linked(_CURRENT)

    @property
    def previous(self) -> Optional[DeployedModel]:
        """What ran before; None: nothing did."""
        return self._linked(_PREVIOUS)

    def models(self) -> List[DeployedModel]:
        """All of them, the newest first."""
        roles = {self._digest_of(role): role for role in (_PREVIOUS, _CURRENT)}
        found = [path for path in self._folders() if _model_file(path) is not None]
        found.sort(key=lambda path: (-path.stat().st_mtime_ns, path.name))
        return [DeployedModel(path.name, _only_file(path), roles.get(path.name, "")) for path in found]

    def lost(self) -> Dict[str, str]:
        """Links that lead to no model, because its folder was removed: ``current`` or ``previous``, and the digest."""
        there = {model.digest for model in self.models()}
        linked = {role: self._digest_of(role) for role in (_CURRENT, _PREVIOUS)}
        return {role: digest for role, digest in linked.items() if digest is not None and digest not in there}

    def add(self, file: Path) -> DeployedModel:
        """Copy a model into the store, with what belongs to it; what is there already is left as it is.

        Raises:
            FileAccessError: If it cannot be read, or the store not be written to.
            DataError: If another file is there under its digest, or its weights lie in a file of their own.
        """
        readable_file(file, what="model")
        if file.suffix == ".onnx":
            read_onnx_facts(file, error=DataError)  # one whose weights lie in another file would be copied without them
        sha256 = sha256_file(file)
        folder = self.folder / sha256[:_DIGEST]
        if not folder.is_dir():
            self._copy(file, folder)
        kept = _only_file(folder)
        if sha256_file(kept) != sha256:
            raise DataError(
                f"{kept} is not what its folder's name says",
                why="it was changed",
                hint=f"remove {folder}, promote again",
            )
        return DeployedModel(folder.name, kept, "")

    @contextlib.contextmanager
    def candidate(self, file: Path) -> Iterator[DeployedModel]:
        """A copy of a model in the store while it is tried, so that what was tried is what will run.

        Where the block raises, a model that was not there before is taken away again.

        Raises:
            FileAccessError: If it cannot be read, or the store not be written to.
            DataError: If another file is there under its digest.
        """
        before = {path.name for path in self._folders()}
        model = self.add(file)
        try:
            yield model
        except BaseException:
            if model.digest not in before:
                shutil.rmtree(str(model.file.parent), ignore_errors=True)
            raise

    def promote(self, digest: str, seen: Mapping[str, Any]) -> None:
        """Make a model of the store the current one; what was current becomes the previous one.

        A current one whose folder is gone is forgotten, and the previous one stays it.

        Args:
            digest: Of a model of the store.
            seen: JSON-ready; what the promotion rests on, kept in the history.

        Raises:
            FileAccessError: If the links cannot be changed.
        """
        there = {model.role: model.digest for model in self.models()}
        self._record("promoted", digest, seen)
        if there.get(_CURRENT) != digest:
            before = there.get(_CURRENT, there.get(_PREVIOUS))
            self._link(digest, before if before != digest else None)

    def refuse(self, digest: str, seen: Mapping[str, Any]) -> None:
        """Keep in the history why a model was not promoted."""
        self._record("refused", digest, seen)

    def rollback(self) -> DeployedModel:
        """Change current and previous; gives the model that is current now.

        Raises:
            ConfigError: If there is no previous one.
            FileAccessError: If it is not there any more, or the links cannot be changed.
        """
        with self.locked():
            before = self.previous
            if before is None:
                raise ConfigError(
                    f"{self.folder} has no previous model",
                    hint=f"look: rtda-deploy models list --folder {self.folder.parent}",
                )
            now = next((model.digest for model in self.models() if model.role == _CURRENT), None)
            self._record("rolled back", before.digest, {"from": self._digest_of(_CURRENT)})
            self._link(before.digest, now)
            return before._replace(role=_CURRENT)

    def history(self) -> List[Dict[str, Any]]:
        """What happened, the oldest first; a line that is no JSON is left out."""
        found = []
        with contextlib.suppress(OSError):
            for line in (self.folder / _HISTORY).read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return [entry for entry in found if isinstance(entry, dict)]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time changes a store.

        Raises:
            FolderBusyError: If another one does.
        """
        with working_in(self.folder):
            yield

    def _folders(self) -> Iterator[Path]:
        if self.folder.is_dir():
            yield from (path for path in self.folder.iterdir() if _DIGEST_NAME.fullmatch(path.name) and path.is_dir())

    def _digest_of(self, role: str) -> Optional[str]:
        """What a link means, whether it is there or not; None: there is no link."""
        try:
            return os.path.basename(os.readlink(str(self.folder / _LINKS / role)))
        except OSError:
            return None

    def _linked(self, role: str) -> Optional[DeployedModel]:
        digest = self._digest_of(role)
        if digest is None:
            return None
        file = _model_file(self.folder / digest)
        if file is None:
            there = ", ".join(sorted(path.name for path in self._folders())) or "none"
            raise FileAccessError(
                f"{self.folder / role} means {digest}, which is not there", hint=f"promote one; there are: {there}"
            )
        return DeployedModel(digest, file, role)

    def _copy(self, file: Path, folder: Path) -> None:
        work = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        try:
            work.mkdir(parents=True)
            for path in _belonging(file):
                target = work / path.name
                shutil.copyfile(str(path), str(target))
                _to_disk(target)
                target.chmod(0o444)
            os.rename(str(work), str(folder))
            _to_disk(self.folder)
        except OSError as err:
            raise file_error(err, folder, "write") from err
        finally:
            shutil.rmtree(str(work), ignore_errors=True)

    def _link(self, current: str, previous: Optional[str]) -> None:
        """Both links by one rename, that of the link to the folder which holds them."""
        made = self.folder / f".links-{secrets.token_hex(4)}"
        before = os.path.basename(os.path.realpath(str(self.folder / _LINKS)))
        new = self.folder / f"{made.name}.new"
        try:
            made.mkdir(parents=True)
            for role, digest in ((_CURRENT, current), (_PREVIOUS, previous)):
                if digest is not None:
                    os.symlink(f"../{digest}", str(made / role))
                if not (self.folder / role).is_symlink():
                    os.symlink(f"{_LINKS}/{role}", str(self.folder / role))
            os.symlink(made.name, str(new))
            _to_disk(made)
            os.replace(str(new), str(self.folder / _LINKS))
            _to_disk(self.folder)
        except OSError as err:
            raise file_error(err, self.folder / _LINKS, "change") from err
        self._tidy(made.name, before)  # the last one stays: somebody may be on the way through it

    def _tidy(self, *stay: str) -> None:
        """Remove links that were replaced, and what processes left that were killed."""
        for path in self.folder.glob(".*"):
            if not _LEFTOVER.fullmatch(path.name) or path.name in stay:
                continue
            if path.is_symlink():
                with contextlib.suppress(OSError):
                    path.unlink()
            else:
                shutil.rmtree(str(path), ignore_errors=True)

    def _record(self, what: str, digest: str, seen: Mapping[str, Any]) -> None:
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        append_line(self.folder / _HISTORY, {"time": now, "what": what, "model": digest, **seen})


def is_store(path: Path) -> bool:
    """Whether a folder is a store of models of one name."""
    return (path / _LINKS).is_symlink()


def deployed_model(path: Path) -> Path:
    """The file of ``models/NAME`` (its current model) or ``models/NAME@DIGEST``; any other path is itself.

    The file is named by its folder that never changes. ``@current`` and ``@previous`` are known, too, and the first
    digits of a digest are enough. A folder that is named like a model file is refused by whoever opens it as one.

    Raises:
        ConfigError: If it is another folder without a current model, or no such model is there.
    """
    name, at, digest = path.name.partition("@")
    if at and not path.exists() and is_store(path.with_name(name)):
        return _of_digest(ModelStore(path.with_name(name)), digest).file
    if not path.is_dir() or (path.suffix.lower() in _suffixes() and not is_store(path)):
        return path
    found = ModelStore(path).current if is_store(path) else None
    if found is None:
        raise ConfigError(
            f"{path} is a folder without a current model",
            hint=f"name a model file, or: rtda-deploy models promote MODEL --name {path.name} --frames DATA",
        )
    return found.file


def _of_digest(store: ModelStore, digest: str) -> DeployedModel:
    models = store.models()
    found = [one for one in models if digest and (one.role == digest or one.digest.startswith(digest))]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{one.digest} ({one.role})" if one.role else one.digest for one in models)
    raise ConfigError(
        f"{store.folder} has {'several models' if found else 'no model'} {digest!r}",
        hint=f"known: {known}",
    )


def _suffixes() -> List[str]:
    return [suffix for kind in engine_kinds() for suffix in kind.suffixes]


def _model_file(folder: Path) -> Optional[Path]:
    """The file in a folder that an engine opens."""
    if not folder.is_dir():
        return None
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _suffixes())
    return files[0] if files else None


def _only_file(folder: Path) -> Path:
    found = _model_file(folder)
    if found is None:
        raise FileAccessError(f"{folder} holds no model", hint="remove it, promote again")
    return found


def _belonging(file: Path) -> List[Path]:
    """A model file, and what stands beside it: an engine's ``.json``, OpenVINO's ``.bin``."""
    beside = [file.with_name(f"{file.name}.json"), *([file.with_suffix(".bin")] if file.suffix == ".xml" else [])]
    return [file, *(path for path in beside if path.is_file())]


def _to_disk(path: Path) -> None:
    descriptor = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
