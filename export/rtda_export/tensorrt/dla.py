"""The Deep Learning Accelerator of a Xavier or an Orin: which layers it takes. Experimental.

A DLA saves energy and leaves the GPU free; it is no way to a lower latency. Every change between DLA and GPU costs a
copy, and a BiSeNet's global pooling, attention and resizing fall to the GPU. So the report counts the changes.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Tuple

from rtda_deploy.errors import ConfigError, DeviceError

__all__ = ["DlaCoverage", "use_dla"]

_NAMED = 6  # layers that the text names before it only counts


@dataclasses.dataclass(frozen=True)
class DlaCoverage:
    """Which layers of a network the DLA takes, as TensorRT says before it builds.

    Attributes:
        core: The DLA core.
        on_dla: Names of the layers that it takes.
        on_gpu: Name and kind of those that fall back to the GPU.
        changes: Times that neighbouring layers run on different devices.
    """

    core: int
    on_dla: Tuple[str, ...]
    on_gpu: Tuple[Tuple[str, str], ...]
    changes: int

    @property
    def text(self) -> str:
        """One line for people."""
        count = len(self.on_dla) + len(self.on_gpu)
        left = ", ".join(f"{name} ({kind})" for name, kind in self.on_gpu[:_NAMED])
        more = f" and {len(self.on_gpu) - _NAMED} more" if len(self.on_gpu) > _NAMED else ""
        fallen = f"; on the GPU: {left}{more}" if self.on_gpu else ""
        return (
            f"DLA {self.core} (experimental): takes {len(self.on_dla)} of {count} layers, "
            f"{self.changes} changes between DLA and GPU{fallen}"
        )


def use_dla(trt: Any, builder: Any, config: Any, network: Any, core: int) -> DlaCoverage:
    """Put the network on DLA ``core``, what it does not take on the GPU; precision flags must be set before.

    Raises:
        DeviceError: If there is no DLA here.
        ConfigError: If there is none of this number.
    """
    cores = builder.num_DLA_cores
    if cores < 1:
        raise DeviceError(
            "there is no DLA here that TensorRT can use",
            why="a Xavier and an Orin have two, other GPUs none; not every TensorRT for them supports it",
            hint="build for the GPU: leave --dla out",
        )
    if not 0 <= core < cores:
        raise ConfigError(f"there is no DLA core {core}", hint=f"there are {cores}, the first is 0")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    on_dla, on_gpu, changes, before = [], [], 0, None
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        takes = bool(config.can_run_on_DLA(layer))
        if takes:
            on_dla.append(layer.name)
        else:
            on_gpu.append((layer.name, str(layer.type).rpartition(".")[2].lower()))
        changes += before is not None and before != takes
        before = takes
    return DlaCoverage(core, tuple(on_dla), tuple(on_gpu), changes)
