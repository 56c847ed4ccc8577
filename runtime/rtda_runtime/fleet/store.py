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
import re
import shlex
import shutil
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from rtda_deploy.errors import ConfigError, DataError, FileAccessError
from rtda_deploy.files import readable_file, sha256_file
from rtda_deploy.json_lines import append_line
from rtda_deploy.onnx_file import read_onnx_facts
from rtda_deploy.run_folders import working_in
from rtda_runtime.fleet.links import CURRENT, PREVIOUS, digest_of, digests, set_links
from rtda_runtime.fleet.model_folder import copy_model, digest_name, is_digest, model_file, model_suffixes

__all__ = ["DeployedModel", "ModelStore"]

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_HISTORY = "history.jsonl"
_CHECKPOINTS = (".pth", ".pt", ".ckpt", ".pdparams")


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
        return self._linked(CURRENT)

    @property
    def previous(self) -> Optional[DeployedModel]:
        """What ran before; None: nothing did."""
        return self._linked(PREVIOUS)

    def models(self) -> List[DeployedModel]:
        """All of them, the newest first."""
        roles = {digest: role for role, digest in digests(self.folder).items()}
        there = {folder: model_file(folder) for folder in self._folders()}
        found = [(folder, file) for folder, file in there.items() if file is not None]
        found.sort(key=lambda one: (-one[0].stat().st_mtime_ns, one[0].name))
        return [DeployedModel(folder.name, file, roles.get(folder.name, "")) for folder, file in found]

    def find(self, text: str) -> DeployedModel:
        """The model of a role, or of a digest or its first digits.

        Raises:
            ConfigError: If there is none, or several.
        """
        models = self.models()
        digits = digest_name(text.lower())  # a whole SHA-256 is meant by its first digits, too
        found = [one for one in models if text and (one.role == text or one.digest.startswith(digits))]
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(
                f"{len(found)} models of {self.folder} begin with {text!r}: {_told(found)}", hint="type more digits"
            )
        known = f"known: {_told(models)}" if models else "promote one: rtda-deploy models promote MODEL --frames DATA"
        raise ConfigError(f"{self.folder} has no model {text!r}", hint=known)

    def lost(self) -> Dict[str, str]:
        """Links that lead to no model, because its folder was removed: ``current`` or ``previous``, and the digest."""
        there = {model.digest for model in self.models()}
        return {role: digest for role, digest in digests(self.folder).items() if digest not in there}

    def add(self, file: Path) -> DeployedModel:
        """Copy a model into the store, with what belongs to it; what is there already is left as it is.

        Raises:
            ConfigError: If it is no file that an engine opens, such as a checkpoint.
            FileAccessError: If it cannot be read, or the store not be written to.
            DataError: If another file is there under its digest, or its weights lie in a file of their own.
        """
        readable_file(file, what="model")
        if file.suffix.lower() not in model_suffixes():
            raise ConfigError(
                f"{file} cannot be deployed: what runs is {', '.join(dict.fromkeys(model_suffixes()))}",
                why="a checkpoint has to be exported first" if file.suffix.lower() in _CHECKPOINTS else "",
                hint=f"rtda-deploy export {shlex.quote(str(file))}, then promote what it wrote",
            )
        if file.suffix.lower() == ".onnx":
            read_onnx_facts(file, error=DataError)  # one whose weights lie in another file would be copied without them
        sha256 = sha256_file(file)
        folder = self.folder / digest_name(sha256)
        if not folder.is_dir():
            copy_model(file, folder)
        kept = model_file(folder)
        if kept is None:
            raise FileAccessError(
                f"{folder} holds no .onnx and no engine",
                why="the folder was emptied, or an earlier version copied a checkpoint there",
                hint=f"remove it, and promote again: rm -r {shlex.quote(str(folder))}",
            )
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
        if there.get(CURRENT) != digest:
            before = there.get(CURRENT, there.get(PREVIOUS))
            set_links(self.folder, digest, before if before != digest else None)

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
            now = next((model.digest for model in self.models() if model.role == CURRENT), None)
            self._record("rolled back", before.digest, {"from": digest_of(self.folder, CURRENT)})
            set_links(self.folder, before.digest, now)
            return before._replace(role=CURRENT)

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
            yield from (path for path in self.folder.iterdir() if is_digest(path.name) and path.is_dir())

    def _linked(self, role: str) -> Optional[DeployedModel]:
        digest = digest_of(self.folder, role)
        if digest is None:
            return None
        file = model_file(self.folder / digest)
        if file is None:
            there = ", ".join(sorted(path.name for path in self._folders())) or "none"
            raise FileAccessError(
                f"{self.folder / role} means {digest}, which is not there", hint=f"promote one; there are: {there}"
            )
        return DeployedModel(digest, file, role)

    def _record(self, what: str, digest: str, seen: Mapping[str, Any]) -> None:
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        append_line(self.folder / _HISTORY, {"time": now, "what": what, "model": digest, **seen})


def _told(models: Sequence[DeployedModel]) -> str:
    return ", ".join(f"{one.digest} ({one.role})" if one.role else one.digest for one in models)
