"""``rtda-deploy doctor``."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import typer

from rtda_deploy.cli.mask_advice import whether_compiled

__all__ = ["doctor", "examine"]

Finding = Dict[str, str]  # name, state ("ok", "missing", "problem"), detail, fix

_PACKAGES = (
    # import name, extra, what it is for
    ("numpy", "", "everything"),
    ("cv2", "runtime", "cameras, video, pictures"),
    ("onnxruntime", "runtime", "running an .onnx"),
    ("torch", "training", "training, and .pth -> .onnx"),
    ("lightning_fabric", "training", "training"),
    ("tensorboard", "training", "training curves"),
    ("onnx", "export", "writing an .onnx"),
    ("tensorrt", "tensorrt-cu12", "building and running engines"),
    ("pycuda", "pycuda", "running engines (or cuda-python)"),
    ("cuda", "tensorrt-cu12", "running engines: cuda-python (or pycuda)"),
    ("openvino", "openvino", "a faster CPU engine"),
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


def examine() -> List[Finding]:
    """Everything doctor looks at; a check that breaks is a finding, not an error."""
    checks: List[Tuple[str, Callable[[], Tuple[str, str, str]]]] = [
        ("rtda-deploy", _own_version),
        ("Python", _python),
        ("system", _system),
        ("GPU", _gpu),
        *((name, _package_check(name, extra, purpose)) for name, extra, purpose in _PACKAGES),
        ("compiled postprocess", whether_compiled),
        ("OpenCV's GStreamer", _gstreamer),
        ("ONNX Runtime on", _providers),
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


def _own_version() -> Tuple[str, str, str]:
    from rtda_deploy import __version__

    return "ok", f"{__version__} at {Path(__file__).parent.parent}", ""


def _python() -> Tuple[str, str, str]:
    where = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < (3, 10):
        return "ok", f"{where}; runs and evaluates, does not train (3.10 or newer)", ""
    return "ok", where, ""


def _system() -> Tuple[str, str, str]:
    from rtda_deploy.optional import is_jetson

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kind = "Jetson, " if is_jetson() else ""
    state = "ok" if sys.platform.startswith("linux") else "problem"
    return state, f"{kind}{platform.system()} {platform.machine()}, {cores} cores", "" if state == "ok" else "use Linux"


def _gpu() -> Tuple[str, str, str]:
    driver = Path("/proc/driver/nvidia/version")
    if driver.exists():
        return "ok", driver.read_text().splitlines()[0], ""
    return "missing", "no NVIDIA driver; everything runs on the CPU", ""


def _package_check(module: str, extra: str, purpose: str) -> Callable[[], Tuple[str, str, str]]:
    def check() -> Tuple[str, str, str]:
        from rtda_deploy.optional import available, install_line

        if not available(module):
            return "missing", f"not installed; for {purpose}", install_line(module, extra)
        version = _version(module)
        return "ok", f"{version or 'installed'}; for {purpose}", ""

    return check


def _version(module: str) -> Optional[str]:
    import importlib.metadata as metadata

    names = {
        "cv2": ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
        "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
        "lightning_fabric": ("lightning-fabric",),
        "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    }
    for name in names.get(module, (module,)):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _gstreamer() -> Tuple[str, str, str]:
    from rtda_deploy.optional import available, is_jetson, require

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


def _providers() -> Tuple[str, str, str]:
    from rtda_deploy.optional import available, require

    if not available("onnxruntime"):
        return "missing", "not installed", "pip install 'rtda-deploy[runtime]'"
    ort: Any = require("onnxruntime", extra="runtime")
    return "ok", ", ".join(name.replace("ExecutionProvider", "") for name in ort.get_available_providers()), ""


def _cameras() -> Tuple[str, str, str]:
    devices = sorted(str(path) for path in Path("/dev").glob("video*"))
    if not devices:
        return "missing", "no /dev/video*", "plug one in, or pass the device into the container"
    closed = [device for device in devices if not os.access(device, os.R_OK | os.W_OK)]
    if closed:
        return "problem", f"no permission on {', '.join(closed)}", "sudo usermod -aG video $USER, then log in again"
    return "ok", ", ".join(devices), ""


def _disk() -> Tuple[str, str, str]:
    free = shutil.disk_usage(".").free
    state = "ok" if free > 2e9 else "problem"
    return state, f"{free / 1e9:.1f} GB free here", "" if state == "ok" else "training and caches need about 2 GB"
