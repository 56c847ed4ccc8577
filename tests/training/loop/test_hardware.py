"""What training does to the machine it runs on: freed memory is kept for the next step, and given back at the end."""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rtda_training.loop.hardware import build_fabric, cpu_computes_bf16, describe, memory_kept

_MIB = 1 << 20
_ROUNDS = 4
_PAGES = 64 * _MIB // resource.getpagesize()  # of each tensor below

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")


@pytest.mark.parametrize(
    ("flags", "computes"),
    [
        ("GenuineIntel avx512f avx512_bf16 amx_bf16", True),
        ("AuthenticAMD avx512_bf16 avx512f", True),
        ("GenuineIntel avx512f avx512_bf16", False),  # where fp32 is as fast, and converts nothing
        ("AuthenticAMD avx2 avx512f avx512_vnni", False),
        ("", False),
    ],
)
def test_bf16_is_chosen_where_the_cpu_computes_in_it(tmp_path, flags: str, computes: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: fpu {flags} sse\n")
    assert cpu_computes_bf16(cpuinfo) == computes
    assert not cpu_computes_bf16(tmp_path / "none")
    assert describe(build_fabric("cpu", "auto")) == ("cpu, bf16" if cpu_computes_bf16() else "cpu, fp32")


@pytest.fixture(scope="module")
def measured() -> dict[str, int]:
    """What ``_measure`` finds, in a process whose memory nothing else has used."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


@glibc
def test_a_steps_tensors_get_the_memory_of_the_last_steps(measured: dict[str, int]) -> None:
    assert measured["before"] >= _ROUNDS * _PAGES
    assert measured["kept"] < _PAGES // 4


@glibc
def test_what_was_kept_is_given_back_however_it_ends(measured: dict[str, int]) -> None:
    assert measured["given back"] > 200 * _MIB


@glibc
@pytest.mark.parametrize("case", ["on a GPU", "with another malloc"])
def test_where_it_does_not_help_nothing_is_changed(measured: dict[str, int], case: str) -> None:
    assert measured[case] >= _ROUNDS * _PAGES


def _measure() -> dict[str, int]:
    """Pages that the kernel had to clear in each case, and bytes given back."""
    found = {"before": _page_faults()}
    with memory_kept(torch.device("cuda")):
        found["on a GPU"] = _page_faults()
    usual = platform.libc_ver
    platform.libc_ver = lambda: ("musl", "")  # type: ignore[assignment, misc]
    with memory_kept(torch.device("cpu")):
        found["with another malloc"] = _page_faults()
    platform.libc_ver = usual
    try:
        with memory_kept(torch.device("cpu")):
            torch.ones(18 * _MIB)
            found["kept"] = _page_faults()
            torch.ones(64 * _MIB)
            held = _resident_bytes()
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        found["given back"] = held - _resident_bytes()
    return found


def _page_faults() -> int:
    """Of tensors of 64 MiB and more, one after the other, each with room in the last one's place.

    Without that room an aligned tensor does not always fit where one of its size was: glibc looks for some bytes more.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for step in range(_ROUNDS, 0, -1):
        torch.ones(16 * _MIB + step * _MIB // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    print(json.dumps(_measure()))  # noqa: T201
