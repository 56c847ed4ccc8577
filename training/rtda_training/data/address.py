"""The text that names a data set: ``kind:path?key=value``, such as ``toytown:target?split=test``."""

from __future__ import annotations

import dataclasses
import re
from typing import Dict, Mapping, Optional, Sequence, Tuple
from urllib.parse import parse_qsl

from rtda_deploy.errors import ConfigError
from rtda_deploy.sizes import parse_size

__all__ = ["SPLITS", "DataAddress"]

SPLITS = ("train", "val", "test")


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
            ConfigError: If it is not of this form, or the split is unknown.
        """
        kind, colon, rest = text.partition(":")
        path, _, query = rest.partition("?")
        if not colon or not kind or not path:
            raise ConfigError(
                f"{text!r} names no data set", hint="type kind:path?key=value, such as toytown:target?split=test"
            )
        try:
            given = parse_qsl(query.replace("+", "%2B"), strict_parsing=True) if query else []  # a + is a +
        except ValueError as err:
            raise ConfigError(f"{text!r}: cannot read {query!r}", hint="options are key=value, joined by &") from err
        options: Dict[str, str] = dict(given)
        if len(options) != len(given):
            raise ConfigError(f"{text!r}: an option is given twice", hint="give each option once")
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
        query = "&".join(f"{key}={value.replace('%', '%25').replace('&', '%26')}" for key, value in options.items())
        return f"{self.kind}:{self.path}" + (f"?{query}" if query else "")
