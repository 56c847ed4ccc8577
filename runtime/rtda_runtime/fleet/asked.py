"""What labels depend on: the model, the options, the footage. A run that asks for something else is refused.

So labels of two networks, or of footage that changed meanwhile, never lie in one folder.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Dict, Mapping, Sequence, Tuple

from rtda_deploy.errors import ConfigError
from rtda_runtime.fleet.listing import FileState, Listing
from rtda_runtime.sources.footage.address import FootageAddress

__all__ = ["Asked", "asked_of", "refuse_other"]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What labels depend on.

    Attributes:
        model: Name of the model file, for people.
        sha256: Of that file.
        options: ``provider``, ``confidence``, ``layout`` and the like, JSON-ready.
        files: Every file of the footage, with its size and time.
        rates: Of the recordings that are not taken whole: their path and ``every``, ``from``, ``to``, ``topic``.
    """

    model: str
    sha256: str
    options: Mapping[str, Any]
    files: Sequence[FileState]
    rates: Sequence[Tuple[str, str]]

    @classmethod
    def of(cls, model: Path, sha256: str, options: Mapping[str, Any], listing: Listing) -> Asked:
        """What a listing asks for.

        Raises:
            FileAccessError: If a file is gone.
        """
        rates = [(str(one.path), _rate(one.asked)) for one in listing.recordings]
        return cls(model.name, sha256, dict(options), listing.states(), [pair for pair in rates if pair[1]])

    def to_dict(self) -> Dict[str, Any]:
        """As it is read back from JSON, in which there are no tuples."""
        values = {
            "model": self.model,
            "sha256": self.sha256,
            "options": dict(self.options),
            "files": [list(state) for state in self.files],
            "rates": [list(pair) for pair in self.rates],
        }
        found: Dict[str, Any] = json.loads(json.dumps(values))
        return found


def asked_of(values: Any) -> Dict[str, Any]:
    """What :meth:`Asked.to_dict` gave, read from a file that a stranger may have written.

    Raises:
        Exception: Whatever shows that it is something else; read in a block of :func:`rtda_deploy.border.parsing`.
    """
    files = [(path, int(size), int(time_ns)) for path, size, time_ns in values["files"]]
    rates = [(path, rate) for path, rate in values["rates"]]
    texts = [
        values["model"],
        values["sha256"],
        *(state[0] for state in files),
        *(text for pair in rates for text in pair),
    ]
    strange = [text for text in texts if not isinstance(text, str)]
    if strange:
        raise ValueError(f"{strange[0]!r} where a text belongs")
    return Asked(values["model"], values["sha256"], dict(values["options"]), files, rates).to_dict()


def refuse_other(folder: Path, before: Mapping[str, Any], asked: Asked) -> None:
    """Check that what is asked for is what a folder's plan was made for.

    Args:
        folder: The output folder.
        before: What its plan was made for, as :meth:`Asked.to_dict` has it.
        asked: What is asked for now.

    Raises:
        ConfigError: If it differs; it says in what.
    """
    wanted = asked.to_dict()
    if wanted == before:
        return
    if before["sha256"] != wanted["sha256"]:
        was, now = (f"{each['model']} ({each['sha256'][:12]})" for each in (before, wanted))
        raise ConfigError(
            f"{folder} holds labels of another model: {was}, now {now}", hint="choose another folder with --out"
        )
    if before["options"] != wanted["options"]:
        keys = sorted({*before["options"], *wanted["options"]})
        differ = [key for key in keys if before["options"].get(key) != wanted["options"].get(key)]
        told = ", ".join(f"{key} {before['options'].get(key)}, now {wanted['options'].get(key)}" for key in differ)
        raise ConfigError(
            f"{folder} holds labels made with other options: {told}", hint="type the same, or another --out"
        )
    raise ConfigError(
        f"{folder} holds labels of other footage: {_difference(before, wanted)}",
        hint="choose another folder with --out; labels of several folders may be used together",
    )


def _rate(asked: FootageAddress) -> str:
    return str(dataclasses.replace(asked, path="")).partition("?")[2]


def _difference(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    old, new = ({state[0]: state for state in each["files"]} for each in (before, wanted))
    changed = [path for path in old if path in new and old[path] != new[path]]
    counts = {"new": [path for path in new if path not in old], "gone": [path for path in old if path not in new]}
    told = [f"{len(paths)} files {what}, such as {paths[0]}" for what, paths in counts.items() if paths]
    told += [f"{len(changed)} files changed, such as {changed[0]}"] if changed else []
    return "; ".join(told) or "another rate or part of the recordings"
