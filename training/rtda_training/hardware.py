"""Where training computes: device and precision, as asked for or as the hardware suggests."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning_fabric import Fabric

from rtda_deploy.errors import ConfigError, DeviceError

__all__ = ["build_fabric", "describe"]


def build_fabric(device: str, precision: str) -> Fabric:
    """A Fabric on one device.

    Args:
        device: ``auto`` (a CUDA GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto`` (bf16 where the hardware computes in it, else fp32), ``fp32`` or ``bf16``.

    Raises:
        DeviceError: If a GPU was asked for and is not there.
        ConfigError: If a name is unknown.
    """
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and (kind != "cuda" or not number.isdigit())):
        raise ConfigError(f"device {device!r} is unknown", hint="known: auto, cpu, cuda, cuda:N")
    cuda = torch.cuda.is_available()
    if kind == "cuda" and (not cuda or int(number or 0) >= torch.cuda.device_count()):
        raise DeviceError(
            f"device {device} was asked for, torch {torch.__version__} sees {torch.cuda.device_count()} GPUs",
            hint="see rtda-deploy doctor, or train on the CPU: --set device=cpu",
        )
    accelerator = "cuda" if kind == "cuda" or (kind == "auto" and cuda) else "cpu"
    if precision == "auto":
        precision = "bf16" if _computes_bf16(accelerator) else "fp32"
    return Fabric(
        accelerator=accelerator,
        devices=[int(number or 0)] if accelerator == "cuda" else 1,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
    )


def describe(fabric: Fabric) -> str:
    """The device and precision for people, such as ``cpu, bf16``."""
    where = torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else "cpu"
    return f"{where}, {'bf16' if 'bf16' in str(fabric._precision.precision) else 'fp32'}"


def _computes_bf16(accelerator: str) -> bool:
    if accelerator == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()  # with AVX-512 alone it is slower than fp32 in training
    except OSError:
        return False
