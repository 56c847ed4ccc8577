"""What the tables of sources, sinks and engines share: a row, and the search for the row of an address.

Functions are named ``module:function`` and imported when they are called; nothing here imports a library, so that
``--help`` may read the tables.
"""

from __future__ import annotations

import dataclasses
import importlib
import platform
import re
import sys
from typing import Any, Callable, Iterable, Optional, Tuple, TypeVar

from rtda_deploy.errors import MissingPackageError
from rtda_deploy.optional import Package, available, install_line

__all__ = ["OPENCV", "Kind", "examples", "find_kind", "function_named"]

OPENCV = Package("cv2", "runtime", "cameras, video, pictures", ("opencv-python-headless", "opencv-python"))


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is known of a kind of source or sink before its module is imported. To add one: a module and a row.

    Attributes:
        name: As people write it: ``network stream``.
        pattern: Regular expression that its whole addresses match.
        example: One or more addresses, shown by ``--help`` and in errors.
        opener: Called with an address and with what the table says, it checks both and returns a function without
            arguments that opens what they mean.
        package: What it needs; None: nothing that is not there in any case. ``doctor`` looks for it.
        python: The oldest Python that the package is published for.
        instead: What to do where this kind cannot do what was asked; a hint.
        checks: Further lines of ``doctor``: name, and a function that returns state, detail and fix.
    """

    name: str
    pattern: str
    example: str
    opener: str
    package: Optional[Package] = None
    python: Tuple[int, int] = (3, 8)
    instead: str = ""
    checks: Tuple[Tuple[str, str], ...] = ()

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
        if self.package is not None and sys.version_info[:2] < self.python:
            raise MissingPackageError(
                f"package {self.package.module} needs Python {self.python[0]}.{self.python[1]} or newer,"
                f" this is {platform.python_version()}",
                hint=self.instead,
            )
        if self.package is not None and not available(self.package.module):
            raise MissingPackageError(
                f"package {self.package.module} is not installed (needed for {self.package.purpose})",
                hint=install_line(self.package.module, self.package.extra),
            )
        return opener


AnyKind = TypeVar("AnyKind", bound=Kind)


def find_kind(kinds: Iterable[AnyKind], address: str) -> Optional[AnyKind]:
    """The first kind whose pattern matches; None: unknown."""
    return next((kind for kind in kinds if kind.match(address)), None)


def examples(kinds: Iterable[Kind]) -> str:
    """An address of each kind: ``0, /dev/video0, rtsp://...``."""
    return ", ".join(kind.example for kind in kinds)


def function_named(name: str) -> Callable[..., Any]:
    """The function that ``module:function`` names; imports the module."""
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found
