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

from rtda_deploy.optional import Package, available, install_line, is_jetson, require

__all__ = ["doctor", "examine"]

Finding = Tuple[str, str, str]  # state ("ok", "missing", "problem"), detail, fix
Check = Callable[[], Finding]

_BASE = (
    Package("numpy", "", "everything"),
    Package("cv2", "runtime", "cameras, video, pictures", ("opencv-python-headless", "opencv-python")),
)
_TRAINING = (
    Package("torch", "training", "training, and .pth -> .onnx"),
    Package("lightning_fabric", "training", "training", ("lightning-fabric",)),
    Package("tensorboard", "training", "training curves"),
    Package("onnx", "export", "writing an .onnx"),
)


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

    kinds = engine_kinds()
    packages = (*_BASE, *(package for kind in kinds for package in kind.packages), *_TRAINING)
    checks: List[Tuple[str, Check]] = [
        ("rtda-deploy", _own_version),
        ("Python", _python),
        ("system", _system),
        ("GPU", _gpu),
        *((package.module, functools.partial(_package, package)) for package in packages),
        ("compiled postprocess", _compiled_postprocess),
        ("OpenCV's GStreamer", _gstreamer),
        *((name, functools.partial(_named, check)) for kind in kinds for name, check in kind.checks),
        ("cameras", _cameras),
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


def _compiled_postprocess() -> Finding:
    from rtda_runtime.mask.advice import whether_compiled

    return whether_compiled()


def _named(check: str) -> Finding:
    from rtda_runtime.kinds import function_named

    found: Finding = function_named(check)()
    return found


def _gstreamer() -> Finding:
    if available("gi"):
        return "ok", "not asked: csi:// and gst: sources open through PyGObject", ""
    if not available("cv2"):
        return "missing", "no OpenCV", ""
    cv2 = require("cv2", extra="runtime")
    line = next((text for text in cv2.getBuildInformation().splitlines() if "GStreamer" in text), "")
    if "YES" in line:
        return "ok", "yes: csi:// and gst: sources open", ""
    if is_jetson():
        fix = "pip uninstall opencv-python opencv-python-headless   (they hide JetPack's OpenCV)"
        return "problem", "no: CSI cameras will not open", fix
    fix = "an environment that sees the system's PyGObject: docs/sources.md"
    return "missing", "no: csi:// and gst: sources do not open; USB, RTSP, HTTP and files do", fix


def _cameras() -> Finding:
    devices = sorted(str(path) for path in Path("/dev").glob("video*"))
    if not devices:
        return "missing", "no /dev/video*", "plug one in, or pass the device into the container"
    closed = [device for device in devices if not os.access(device, os.R_OK | os.W_OK)]
    if closed:
        return "problem", f"no permission on {', '.join(closed)}", "sudo usermod -aG video $USER, then log in again"
    return "ok", ", ".join(devices), ""


def _disk() -> Finding:
    free = shutil.disk_usage(".").free
    state = "ok" if free > 2e9 else "problem"
    return state, f"{free / 1e9:.1f} GB free here", "" if state == "ok" else "training and caches need about 2 GB"
