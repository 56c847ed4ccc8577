"""``rtda-deploy doctor``."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import typer

from rtda_deploy.optional import Package, available, install_line, is_jetson

__all__ = ["doctor", "examine"]

Finding = Tuple[str, str, str]  # state ("ok", "missing", "problem"), detail, fix
Check = Callable[[], Finding]

_NUMPY = Package("numpy", "", "everything")
_TRAINING = (
    Package("torch", "training", "training, and .pth -> .onnx"),
    Package("lightning_fabric", "training", "training", ("lightning-fabric",)),
    Package("tensorboard", "training", "training curves"),
    Package("onnx", "export", "writing an .onnx"),
)
_FOOTAGE = Package("rosbags", "footage", "bags of ROS 1")


def doctor(
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
    markdown: bool = typer.Option(False, "--markdown", help="Print a table for a bug report."),
) -> None:
    """Say what this machine has, what is missing, and how to get it.

    Example: rtda-deploy doctor
    """
    from rtda_deploy.cli.terminal.console import print_json, print_table

    findings = examine()
    if json_:
        print_json({"findings": findings})
    elif markdown:
        lines = ["| what | state | detail |", "| --- | --- | --- |"]
        lines += [f"| {f['name']} | {f['state']} | {f['detail']} |" for f in findings]
        typer.echo("\n".join(lines))
    else:
        marks = {"ok": "✓", "missing": "·", "problem": "✗"}
        rows = [(f"{marks[f['state']]} {f['name']}", f["detail"], f["fix"]) for f in findings]
        print_table(("what", "found", "fix"), rows)


def examine() -> List[Dict[str, str]]:
    """Everything doctor looks at: name, state, detail and fix. A check that breaks is a finding, not an error."""
    from rtda_runtime.engines.kinds import engine_kinds
    from rtda_runtime.kinds import OPENCV
    from rtda_runtime.sinks.kinds import SINK_KINDS
    from rtda_runtime.sources.kinds import SOURCE_KINDS

    engines, others = engine_kinds(), (*SOURCE_KINDS, *SINK_KINDS)
    libraries = (package for kind in engines for package in kind.packages)
    further = (kind.package for kind in others if kind.package is not None)
    packages = dict.fromkeys((_NUMPY, OPENCV, *libraries, *_TRAINING, *further, _FOOTAGE))
    asked = [*(kind.checks for kind in engines), *(kind.checks for kind in others)]
    lines = dict.fromkeys(line for checks in asked for line in checks)
    checks: List[Tuple[str, Check]] = [
        ("rtda-deploy", _own_version),
        ("Python", _python),
        ("system", _system),
        ("GPU", _gpu),
        *((package.module, functools.partial(_package, package)) for package in packages),
        ("compiled postprocess", functools.partial(_named, "rtda_runtime.mask.upsample:whether_compiled")),
        *((name, functools.partial(_named, check)) for name, check in lines),
        ("disk", _disk),
    ]
    findings = []
    for name, check in checks:
        try:
            state, detail, fix = check()
        except Exception as err:
            state, detail, fix = "problem", f"{type(err).__name__}: {err}".splitlines()[0], ""
        findings.append({"name": name, "state": state, "detail": detail, "fix": fix})
    return findings


def _own_version() -> Finding:
    from rtda_deploy import __version__

    return "ok", f"{__version__} at {Path(__file__).parent.parent}", ""


def _python() -> Finding:
    where = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < (3, 10):
        return "ok", f"{where}; runs and evaluates, does not train (3.10 or newer)", ""
    return "ok", where, ""


def _system() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kind = "Jetson, " if is_jetson() else ""
    state = "ok" if sys.platform.startswith("linux") else "problem"
    return state, f"{kind}{platform.system()} {platform.machine()}, {cores} cores", "" if state == "ok" else "use Linux"


def _gpu() -> Finding:
    driver = Path("/proc/driver/nvidia/version")
    if driver.exists():
        return "ok", driver.read_text().splitlines()[0], ""
    return "missing", "no NVIDIA driver; everything runs on the CPU", ""


def _package(package: Package) -> Finding:
    if not available(package.module):
        return "missing", f"not installed; for {package.purpose}", install_line(package.module, package.extra)
    return "ok", f"{package.version() or 'installed'}; for {package.purpose}", ""


def _named(check: str) -> Finding:
    from rtda_runtime.kinds import function_named

    found: Finding = function_named(check)()
    return found


def _disk() -> Finding:
    free = shutil.disk_usage(".").free
    state = "ok" if free > 2e9 else "problem"
    return state, f"{free / 1e9:.1f} GB free here", "" if state == "ok" else "training and caches need about 2 GB"
