"""The device and precision that training computes in: as asked for, or what suits the hardware."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import inspect
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from rtda_deploy.errors import ConfigError, DeviceError

__all__ = ["build_fabric", "cpu_computes_bf16", "cpu_name", "describe", "memory_kept"]

# The others wait while the first process writes pseudo labels or validates; torchrun ends all when one dies.
_PATIENCE = datetime.timedelta(hours=24)
# Buffers stay each process's own: batch norms are fixed, synchronised, or those of the first process, which saves.
_OWN_BUFFERS: dict[str, Any] = (  # newer torch has another name for it, and warns of the old one
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
    else {"broadcast_buffers": False}
)

for _name in ("lightning_fabric", "lightning.fabric"):  # which set INFO and a handler of their own when imported
    logging.getLogger(_name).setLevel(logging.WARNING)

_CPUINFO = Path("/proc/cpuinfo")
# glibc's names of what mallopt sets, of malloc.h; and what a program has that never set them, its 32 MiB grown to.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20}
_KEEPING = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}


def build_fabric(device: str, precision: str) -> Fabric:
    """A Fabric on one device, or on those of all processes that ``torchrun`` started.

    Args:
        device: ``auto`` (a CUDA GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto`` (bf16 where the hardware trains faster in it, else fp32), ``fp32`` or ``bf16``.

    Raises:
        DeviceError: If a GPU was asked for and is not there.
        ConfigError: If a name is unknown.
    """
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and (kind != "cuda" or not number.isdecimal())):
        raise ConfigError(f"device {device!r} is unknown", hint="known: auto, cpu, cuda, cuda:N")
    cuda = torch.cuda.is_available()
    if kind == "cuda" and (not cuda or int(number or 0) >= torch.cuda.device_count()):
        raise DeviceError(
            f"device {device} was asked for, torch {torch.__version__} sees {torch.cuda.device_count()} GPUs",
            hint="see rtda-deploy doctor, or train on the CPU: --set device=cpu",
        )
    accelerator = "cuda" if kind == "cuda" or (kind == "auto" and cuda) else "cpu"
    if precision == "auto":
        cuda_does = accelerator == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if cuda_does or (accelerator == "cpu" and cpu_computes_bf16()) else "fp32"
    kinds = {"bf16": "bf16-mixed", "fp32": "32-true"}
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # torchrun's
    if processes == 1:
        devices = [int(number or 0)] if accelerator == "cuda" else 1
        return Fabric(accelerator=accelerator, devices=devices, precision=kinds[precision])  # type: ignore[arg-type]
    if number:
        raise ConfigError(f"device {device} names one GPU, torchrun started {processes} processes", hint="device=cuda")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", str(processes)))
    if accelerator == "cuda" and here > torch.cuda.device_count():
        raise DeviceError(
            f"torchrun started {here} processes here, torch sees {torch.cuda.device_count()} GPUs",
            hint=f"torchrun --nproc_per_node {torch.cuda.device_count()}: one process per GPU",
        )
    backend = "nccl" if accelerator == "cuda" else "gloo"
    strategy = DDPStrategy(process_group_backend=backend, timeout=_PATIENCE, **_OWN_BUFFERS)
    fabric = Fabric(
        accelerator=accelerator,
        devices=here,
        num_nodes=processes // here,
        strategy=strategy,
        precision=kinds[precision],  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def describe(fabric: Fabric) -> str:
    """The device and precision for people, such as ``cpu, bf16``."""
    where = torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else "cpu"
    where += f" x {fabric.world_size}" if fabric.world_size > 1 else ""
    return f"{where}, {'bf16' if 'bf16' in str(fabric._precision.precision) else 'fp32'}"


@contextlib.contextmanager
def memory_kept(device: torch.device) -> Iterator[None]:
    """While a network trains on a CPU, keep the memory of its tensors from step to step.

    Left alone, glibc gives large tensors back to the kernel, which clears every page of the next step's anew: a quarter
    of a step at 1024x512. Whatever was kept is given back at the end. Does nothing elsewhere, or under another malloc.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    for name, value in _KEEPING.items():
        libc.mallopt(name, value)
    try:
        yield
    finally:
        for name, value in _USUAL.items():
            libc.mallopt(name, value)
        libc.malloc_trim(0)


def cpu_computes_bf16(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether the CPU trains faster in bfloat16 than in float32.

    It does with AMX, and on AMD's with AVX512-BF16. Intel's without AMX multiply bfloat16 as well, but no faster than
    float32, so that the conversions are lost: a step takes 1.2 to 1.3 times as long (docs/results/training.md).
    """
    try:
        known = set(cpuinfo.read_text().split())
    except OSError:
        return False
    return "amx_bf16" in known or {"avx512_bf16", "AuthenticAMD"} <= known


def cpu_name(cpuinfo: Path = _CPUINFO) -> str:
    """What the processor calls itself; its architecture where it does not say."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
