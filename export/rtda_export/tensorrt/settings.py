"""What a user may choose about a build, checked against the TensorRT at hand before anything is built."""

from __future__ import annotations

import dataclasses
from typing import Any, List, Optional, Tuple

from rtda_deploy.errors import ConfigError, ExportError

__all__ = ["TACTIC_SOURCES", "BuildSettings", "apply_settings", "check_settings"]

_EXTERNAL = ("cublas", "cublas_lt", "cudnn")  # libraries that TensorRT calls; the other sources are its own kernels
TACTIC_SOURCES = (*_EXTERNAL, "edge_mask_convolutions", "jit_convolutions")
_LEVELS = range(6)  # builder_optimization_level, TensorRT 8.6 and later


@dataclasses.dataclass(frozen=True)
class BuildSettings:
    """How an engine is built, beyond its precision.

    Attributes:
        workspace_mib: Limit on scratch memory, MiB; None: TensorRT's own, all that the GPU has.
        tactic_sources: Libraries and kernels it may choose from; None: its own choice; empty: plain kernels only.
        optimization_level: 0 (quick to build) to 5 (quick to run); None: TensorRT's own, 3.
    """

    workspace_mib: Optional[int] = None
    tactic_sources: Optional[Tuple[str, ...]] = None
    optimization_level: Optional[int] = None

    def __post_init__(self) -> None:
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise ConfigError(f"the workspace must be at least 1 MiB, got {self.workspace_mib}", hint="1024 is usual")
        for name in self.tactic_sources or ():
            if name not in TACTIC_SOURCES:
                raise ConfigError(f"unknown tactic source {name!r}", hint=f"known: {', '.join(TACTIC_SOURCES)}")
        if self.tactic_sources is not None:
            object.__setattr__(self, "tactic_sources", tuple(sorted(set(self.tactic_sources))))
        if self.optimization_level is not None and self.optimization_level not in _LEVELS:
            raise ConfigError(
                f"optimization level {self.optimization_level} is none", hint=f"{_LEVELS[0]} to {_LEVELS[-1]}"
            )


def check_settings(trt: Any, settings: BuildSettings) -> None:
    """Refuse what this TensorRT does not have.

    Raises:
        ConfigError: Naming what it has.
    """
    there = [name for name in TACTIC_SOURCES if hasattr(trt.TacticSource, name.upper())]
    for name in settings.tactic_sources or ():
        if name not in there:
            raise ConfigError(
                f"TensorRT {trt.__version__} has no tactic source {name}", hint=f"it has: {', '.join(there) or 'none'}"
            )
    if settings.optimization_level is not None and not hasattr(trt.IBuilderConfig, "builder_optimization_level"):
        raise ConfigError(
            f"TensorRT {trt.__version__} has no optimization level",
            why="it came with TensorRT 8.6; a Xavier has 8.5",
            hint="leave it out",
        )


def apply_settings(trt: Any, config: Any, settings: BuildSettings) -> None:
    """Tell a builder's config; ``settings`` passed :func:`check_settings`.

    Raises:
        ExportError: If TensorRT refuses the tactic sources.
    """
    if settings.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib << 20)
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
    if settings.tactic_sources is not None:
        _apply_sources(trt, config, settings.tactic_sources)


def _apply_sources(trt: Any, config: Any, names: Tuple[str, ...]) -> None:
    members: List[Any] = [getattr(trt.TacticSource, name.upper()) for name in names]
    bits = 0
    for member in members:
        bits |= 1 << int(member)
    if not config.set_tactic_sources(bits):
        raise ExportError(
            f"TensorRT {trt.__version__} refuses the tactic sources {', '.join(names) or '(none)'}",
            hint="leave them out: TensorRT then takes what it finds",
        )
    # 8.5 uses cuDNN and cuBLAS beside the bits, 8.6 leaves them out beside the bits: this makes both do what was asked.
    if hasattr(trt.PreviewFeature, "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"):
        feature = trt.PreviewFeature.DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805
        config.set_preview_feature(feature, not any(name in _EXTERNAL for name in names))
