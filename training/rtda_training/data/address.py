"""The text that names a data set: ``kind:path?key=value``, such as ``toytown:target?split=test``.

The kind may be left away where the suffix or what a folder holds tells it: ``drive.mp4``, ``run.mcap``, ``pictures/``.
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple
from urllib.parse import parse_qsl

from rtda_deploy.errors import ConfigError, RtdaError
from rtda_deploy.sizes import parse_size

__all__ = ["SPLITS", "DataAddress", "with_kind"]

SPLITS = ("train", "val", "test")
_TYPED = re.compile(r"(?P<kind>[A-Za-z][\w-]*):(?P<rest>.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class DataAddress:
    """A parsed ``kind:path?key=value``.

    Attributes:
        kind: Which reader, such as ``toytown`` or ``folder``.
        path: What stands between the colon and the question mark.
        options: The keys after the question mark, ``split`` left out.
        split: ``train``, ``val``, ``test`` or ``all``; None where none was typed.
    """

    kind: str
    path: str
    options: Mapping[str, str]
    split: Optional[str] = None

    @classmethod
    def parse(cls, text: str) -> DataAddress:
        """Read the text a user typed.

        Raises:
            ConfigError: If it is not of this form, the split is unknown, or nothing tells the kind that was left away.
            FileAccessError: If a folder whose kind is to be told cannot be listed.
        """
        typed = _typed(text)
        if typed is None:
            kind, path, query = _untyped(text)
        else:
            kind, path = typed
            path, query = (path, "") if "?" in path and _is_there(path) else _cut(path)
        if not path:
            raise ConfigError(
                f"{text!r} names no data set", hint="type kind:path?key=value, such as toytown:target?split=test"
            )
        options = _options(text, query)
        split = options.pop("split", None)
        if split is not None and split not in (*SPLITS, "all"):
            raise ConfigError(f"{text!r}: split {split!r} is unknown", hint=f"known: {', '.join((*SPLITS, 'all'))}")
        return cls(kind=kind, path=path, options=options, split=split)

    def allow(self, *known: str) -> None:
        """Refuse options that the reader of this kind does not know."""
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            allowed = ", ".join(sorted({"split", "classes", "pictures", *known}))  # these are the same for all kinds
            raise ConfigError(f"{self}: option {unknown[0]!r} is unknown", hint=f"known for {self.kind}: {allowed}")

    def choice(self, key: str, known: Sequence[str]) -> Optional[str]:
        """The option ``key`` as one of ``known``; None where it was not typed."""
        text = self.options.get(key)
        if text is not None and text not in known:
            raise ConfigError(f"{self}: {key}={text} is unknown", hint=f"known: {', '.join(known)}")
        return text

    def with_option(self, key: str, value: str) -> DataAddress:
        """The same address with one option more."""
        return dataclasses.replace(self, options={**self.options, key: value})

    def without(self, *keys: str) -> DataAddress:
        """The same address without some of its options."""
        kept = {key: value for key, value in self.options.items() if key not in keys}
        return dataclasses.replace(self, options=kept)

    def whole_number(self, key: str, default: int) -> int:
        """The option ``key`` as a positive whole number."""
        text = self.options.get(key, str(default))
        if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < 1:
            raise ConfigError(f"{self}: {key}={text} is no positive whole number", hint=f"such as {key}={default}")
        return int(text)

    def size_hw(self, key: str, default: Tuple[int, int]) -> Tuple[int, int]:
        """The option ``key``, typed width x height (``512x256``), as (height, width)."""
        text = self.options.get(key)
        return default if text is None else parse_size(text)

    def __str__(self) -> str:
        options = dict(self.options)
        if self.split:
            options["split"] = self.split
        query = "&".join(f"{key}={_escaped(value)}" for key, value in options.items())
        return f"{self.kind}:{self.path}" + (f"?{query}" if query else "")


def with_kind(text: str) -> str:
    """The address with its kind, where it was left away and can be told; any other text as it is."""
    if not text or _typed(text) is not None:
        return text
    try:
        return str(DataAddress.parse(text))
    except RtdaError:
        return text  # opening it reports what is wrong


def _typed(text: str) -> Optional[Tuple[str, str]]:
    """Kind and the rest, where a kind stands before a colon; None for a file that is called so, and without a kind."""
    from rtda_training.data.readers.kinds import DATA_KINDS  # it imports this module

    found = _TYPED.fullmatch(text)
    if found is None or (found["kind"] not in DATA_KINDS and _is_there(text)):
        return None
    return found["kind"], found["rest"]


def _escaped(value: str) -> str:
    """As it is typed after the question mark: ``20%`` stays what it is, ``%26`` would be read as ``&``."""
    return re.sub(r"%(?=[0-9A-Fa-f]{2})", "%25", value).replace("&", "%26")


def _options(text: str, query: str) -> Dict[str, str]:
    try:
        given = parse_qsl(query.replace("+", "%2B"), strict_parsing=True) if query else []  # a + is a +
    except ValueError as err:
        raise ConfigError(f"{text!r}: cannot read {query!r}", hint="options are key=value, joined by &") from err
    options = dict(given)
    if len(options) != len(given):
        raise ConfigError(f"{text!r}: an option is given twice", hint="give each option once")
    return options


def _cut(text: str) -> Tuple[str, str]:
    path, _, query = text.partition("?")
    return path, query


def _is_there(path: str) -> bool:
    return os.path.lexists(os.path.expanduser(path))


def _untyped(text: str) -> Tuple[str, str, str]:
    """Kind, path and options of an address without a kind.

    Raises:
        ConfigError: If nothing tells the kind.
    """
    path, query = (text, "") if _is_there(text) else _cut(text)
    if not path:
        return "", "", query
    if os.path.isdir(os.path.expanduser(path)):
        return _kind_of_folder(path), path, query
    from rtda_runtime.sources.footage.address import BAG_SUFFIXES, VIDEO_SUFFIXES, footage_kind

    kind = footage_kind(path)
    if kind is not None:
        return kind, path, query
    form = "kind:path?key=value, such as toytown:target?split=test, or a video or bag that is there, such as drive.mp4"
    if not _is_there(path):
        raise ConfigError(
            f"{text!r} names no data set", why="it has no kind, and no file or folder is called so", hint=f"type {form}"
        )
    raise ConfigError(
        f"{text!r} names no data set: a file of this kind is no footage",
        hint=f"footage: {' '.join((*VIDEO_SUFFIXES, *BAG_SUFFIXES))}; of pictures name their folder; else type {form}",
    )


def _kind_of_folder(path: str) -> str:
    """``video``, ``bag`` or ``folder`` (of pictures), by what a folder holds.

    Raises:
        ConfigError: If it holds nothing of these, or several, naming what to type for each.
    """
    from rtda_runtime.sources.footage.address import folder_holds

    holds = {("folder" if kind == "picture" else kind): n for kind, n in folder_holds(Path(path).expanduser()).items()}
    if len(holds) == 1:
        return next(iter(holds))
    if not holds:
        raise ConfigError(
            f"{path} holds no pictures, videos or bags", hint="name the folder that holds them, or type kind:PATH"
        )
    words = {"folder": "picture", "video": "video", "bag": "bag"}
    counted: List[str] = [f"{count} {words[kind]}{'s' * (count > 1)}" for kind, count in holds.items()]
    raise ConfigError(
        f"{path} holds {', '.join(counted[:-1])} and {counted[-1]}: which are meant?",
        hint="type " + " or ".join(f"{kind}:{path}" for kind in holds),
    )
