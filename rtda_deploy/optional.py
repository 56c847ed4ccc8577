"""Optional packages: asked for where they are needed, with the install line that is right on this machine."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Optional, Tuple

from rtda_deploy.errors import MissingPackageError
from rtda_deploy.telemetry import silent_import

__all__ = ["WITH_OPENCV", "Package", "available", "install_line", "is_jetson", "require"]

_SEEN = "a virtual environment sees it if made with --system-site-packages"
_JETPACK_PACKAGES = {
    "cv2": f"sudo apt-get install libopencv-python   (JetPack's own, with GStreamer; pip's would hide it; {_SEEN})",
    "tensorrt": f"sudo apt-get install python3-libnvinfer   (JetPack's own; pip has none for a Jetson; {_SEEN})",
    "cuda": "pip install 'cuda-python>=11.8,<11.8.4'   (JetPack 5; JetPack 6: 'cuda-python>=12.6,<13')",
}
WITH_OPENCV = ("runtime", "gpu-cu12", "gpu-cu13", "training", "export")  # extras that install pip's OpenCV


class Package(NamedTuple):
    """An optional package.

    Attributes:
        module: Import name, such as ``cv2``.
        extra: The extra of this distribution that installs it; empty: it is always there.
        purpose: What it is needed for, such as ``running an .onnx``.
        others: Distributions that may hold it, where they have another name than the module.
    """

    module: str
    extra: str
    purpose: str
    others: Tuple[str, ...] = ()

    def version(self) -> Optional[str]:
        """Of the distribution that is installed; None: none of these names is. The module is not imported."""
        from importlib import metadata  # takes as long to import as all that --help needs

        for name in (self.module, *self.others):
            try:
                return metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return None


def is_jetson() -> bool:
    """Whether this machine is an NVIDIA Jetson (its L4T release file or device tree says so)."""
    if Path("/etc/nv_tegra_release").exists():
        return True
    try:
        return "nvidia,tegra" in Path("/proc/device-tree/compatible").read_text(errors="replace")
    except OSError:
        return False


def available(module: str) -> bool:
    """Whether ``module`` is installed, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def install_line(module: str, extra: str) -> str:
    """The command that installs ``module`` here: pip with our extra.

    On a Jetson apt, for what JetPack brings, and the package alone where the extra would install pip's OpenCV.
    """
    if is_jetson() and module in _JETPACK_PACKAGES:
        return _JETPACK_PACKAGES[module]
    if extra in ("training", "export", "fleet") and sys.version_info < (3, 10):
        return f"use Python 3.10 or newer ({platform.python_version()} here), then: pip install 'rtda-deploy[{extra}]'"
    if is_jetson() and extra in WITH_OPENCV:
        name = module.partition(".")[0].replace("_", "-")
        return f"pip install {name}   (alone: the extra {extra} brings pip's OpenCV, which would hide JetPack's)"
    return f"pip install 'rtda-deploy[{extra}]'"


def require(module: str, *, extra: str, purpose: str = "") -> ModuleType:
    """Import an optional package, or say how to get it.

    Args:
        module: Import name, such as ``"cv2"``.
        extra: The extra of this distribution that installs it.
        purpose: What it is needed for, such as ``"to read pictures"``.

    Raises:
        MissingPackageError: If it is not installed, or is but cannot be loaded.
    """
    try:
        with silent_import(module):
            return importlib.import_module(module)
    except ImportError as err:
        needed = f" (needed {purpose})" if purpose else ""
        package = module.split(".")[0]
        found = isinstance(err, ModuleNotFoundError) and err.name == package
        state = f"{package} is not installed" if found else f"{module} is installed but does not load: {err}"
        raise MissingPackageError(f"package {state}{needed}", hint=install_line(module, extra)) from err
