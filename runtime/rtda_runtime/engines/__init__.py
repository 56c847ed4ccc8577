"""Engines: :func:`open_engine` opens any file the runtime can run; ``kinds`` is the table of those that can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Tuple

from rtda_deploy.lazy import lazy
from rtda_runtime.engines.kinds import EngineKind, providers, register

if TYPE_CHECKING:
    from rtda_runtime.engines.base import Engine as Engine
    from rtda_runtime.engines.kinds import open_engine as open_engine

    PROVIDERS: Tuple[str, ...]

__all__ = ["PROVIDERS", "Engine", "EngineKind", "open_engine", "providers", "register"]

_loaded, __dir__ = lazy(__name__, {"Engine": "rtda_runtime.engines.base", "open_engine": "rtda_runtime.engines.kinds"})


def __getattr__(name: str) -> Any:
    """``PROVIDERS`` is :func:`providers` by its earlier name."""
    return providers() if name == "PROVIDERS" else _loaded(name)
