"""What the tables of source kinds and of sink kinds share: a row, and the search for the row of an address."""

from __future__ import annotations

import dataclasses
import importlib
import platform
import re
import sys
from typing import Any, Callable, Iterable, Optional, Sequence, Tuple, TypeVar

from rtda_deploy.errors import MissingPackageError
from rtda_deploy.optional import available, install_line

__all__ = ["Kind", "examples", "find_kind", "function_named"]


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is known of a kind of source or sink before its module is imported. To add one: a module and a row.

    Attributes:
        name: For messages: ``network stream``.
        pattern: Regular expression that its whole addresses match.
        example: One or more addresses, shown by ``--help`` and in errors.
        purpose: What ``package`` is needed for.
        opener: ``module:function``. The function is called with an address and what the table's own documentation says,
            checks both, and returns a function without arguments that opens what they mean.
        package: Import name of the package that it needs; empty: none.
        extra: The extra of this distribution that installs it.
        python: The oldest Python that the package is published for.
        instead: What to do where this kind cannot do what was asked; a hint.
    """

    name: str
    pattern: str
    example: str
    purpose: str
    opener: str
    package: str = ""
    extra: str = ""
    python: Tuple[int, int] = (3, 8)
    instead: str = ""

    def match(self, address: str) -> Optional[re.Match[str]]:
        """The match of ``pattern`` with the whole address."""
        return re.fullmatch(self.pattern, address, re.DOTALL)

    def opener_of(self, address: str, given: Any) -> Callable[[], Any]:
        """What opens ``address``, as often as it is called.

        Raises:
            ConfigError: If the address makes no sense.
            MissingPackageError: If the package is not installed, or not made for this Python.
        """
        opener: Callable[[], Any] = function_named(self.opener)(address, given)
        if sys.version_info[:2] < self.python:
            raise MissingPackageError(
                f"package {self.package} needs Python {self.python[0]}.{self.python[1]} or newer,"
                f" this is {platform.python_version()}",
                hint=self.instead,
            )
        if self.package and not available(self.package):
            raise MissingPackageError(
                f"package {self.package} is not installed (needed for {self.purpose})",
                hint=install_line(self.package, self.extra),
            )
        return opener


AnyKind = TypeVar("AnyKind", bound=Kind)


def find_kind(kinds: Sequence[AnyKind], address: str) -> Optional[AnyKind]:
    """The first kind whose pattern fits; None: unknown."""
    return next((kind for kind in kinds if kind.match(address)), None)


def examples(kinds: Iterable[Kind]) -> str:
    """An address of each kind: ``0, /dev/video0, rtsp://...``."""
    return ", ".join(kind.example for kind in kinds)


def function_named(name: str) -> Callable[..., Any]:
    """The function that ``module:function`` names; imports the module."""
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found
