"""Real TensorRT bindings without TensorRT's libraries, so that names and signatures can be checked anywhere.

The bindings of TensorRT are a wheel of about 1 MB; the libraries behind them are gigabytes, and on some indexes not to
be had. This downloads the bindings alone and has gcc make a stand-in for every library they are linked to, in which
each function returns a null pointer. ``import tensorrt`` then gives the real module with its real classes, enums and
docstrings; ``Builder()`` and ``Runtime()`` fail exactly as they do on a machine without a driver.

    python tools/tensorrt_bindings.py 11.4.0.106     prints the environment: PYTHONPATH=... LD_LIBRARY_PATH=...

Standard library only. What it makes is kept in $RTDA_CACHE, else $XDG_CACHE_HOME/rtda-deploy,
else ~/.cache/rtda-deploy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Dict, List, Tuple

# One of each dialect, and the ends of 10.x; the package that holds each.
PACKAGES = {
    "8.6.1": "tensorrt-bindings",
    "10.0.1": "tensorrt-cu12-bindings",
    "10.16.1.11": "tensorrt-cu12-bindings",
    "11.4.0.106": "tensorrt-cu13-bindings",
}


class NoBindings(Exception):
    """The bindings cannot be had here; the text says why."""


def cache_folder() -> Path:
    """Where downloads are kept between runs."""
    if os.environ.get("RTDA_CACHE"):
        return Path(os.environ["RTDA_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtda-deploy"


def environment(version: str, *, libraries: bool = True) -> Dict[str, str]:
    """The variables under which ``import tensorrt`` gives the real bindings of ``version``; made when first asked for.

    Args:
        version: One of :data:`PACKAGES`.
        libraries: Whether the stand-in libraries are found; without, the import fails as with bindings alone.

    Raises:
        NoBindings: If the wheel cannot be downloaded, or gcc is missing.
    """
    folder = prepare(version)
    return {"PYTHONPATH": str(folder / "site"), "LD_LIBRARY_PATH": str(folder / "lib") if libraries else ""}


def prepare(version: str) -> Path:
    """Download, unpack and link; a folder with ``site`` and ``lib``, whole or absent."""
    tag = "cp{}{}".format(*sys.version_info[:2])
    target = cache_folder() / "tensorrt-bindings" / f"{version}-{tag}"
    if target.is_dir():
        return target
    for tool in ("gcc", "nm", "readelf"):
        if shutil.which(tool) is None:
            raise NoBindings(f"{tool} is not installed: sudo apt-get install gcc binutils")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=str(target.parent)) as name:
        whole = Path(name) / "whole"
        _download(f"{PACKAGES[version]}=={version}", whole / "site")
        _front_door(whole / "site")
        stand_ins(next((whole / "site").rglob("tensorrt.so")), whole / "lib", ("libnv",))
        try:
            whole.rename(target)
        except OSError:  # another process was faster
            if not target.is_dir():
                raise
    return target


def _download(requirement: str, site: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", folder, requirement]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = sorted(Path(folder).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise NoBindings(f"{requirement} cannot be downloaded: {' '.join(lines[:1]) or 'pip failed'}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(site)


def _front_door(site: Path) -> None:
    """The package ``tensorrt`` re-exports the bindings, as the one in a full installation does."""
    door = site / "tensorrt" / "__init__.py"
    door.parent.mkdir()
    door.write_text("from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n")


def stand_ins(extension: Path, lib: Path, prefixes: Tuple[str, ...]) -> None:
    """Make a library in ``lib`` for every one that ``extension`` needs and whose name begins with one of ``prefixes``.

    A function that is asked for with a library's name as its version is put into that library; one without a version
    into the first, unless it is Python's own. Each returns 0: a null pointer.
    """
    lib.mkdir(parents=True, exist_ok=True)
    dynamic = _output("readelf", "--dynamic", "--wide", str(extension)).splitlines()
    needed = [line.split("[")[1].rstrip("]") for line in dynamic if "(NEEDED)" in line]
    functions: Dict[str, List[str]] = {name: [] for name in needed if name.startswith(prefixes)}
    if not functions:
        return
    undefined = _output("nm", "--dynamic", "--undefined-only", "--format=posix", str(extension)).splitlines()
    for symbol, kind in (line.split()[:2] for line in undefined if line.strip()):
        name, _, version = symbol.partition("@")
        owner = version.lstrip("@") or next(iter(functions))
        if kind == "U" and owner in functions and not name.startswith(("Py", "_Py")):
            functions[owner].append(name)
    for library, names in functions.items():
        _compile(lib / library, names)


def _compile(path: Path, names: List[str]) -> None:
    code = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in sorted(set(names))) or "int rtda_empty;\n"
    with tempfile.TemporaryDirectory() as folder:
        versions = Path(folder) / "versions"
        versions.write_text(f"{path.name} {{ global: *; }};\n")
        command = ["gcc", "-x", "c", "-shared", "-fPIC", f"-Wl,-soname,{path.name}", "-o", str(path), "-"]
        command.insert(-1, f"-Wl,--version-script={versions}")
        done = subprocess.run(command, input=code, capture_output=True, text=True)
    if done.returncode != 0:
        raise NoBindings(f"gcc made no {path.name}: {done.stderr.strip()[:200]}")


def _output(*command: str) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] not in PACKAGES:
        sys.exit("usage  python tools/tensorrt_bindings.py VERSION; known: " + ", ".join(PACKAGES))
    try:
        print(" ".join(f"{name}={value}" for name, value in environment(sys.argv[1]).items()))
    except NoBindings as err:
        sys.exit(f"error  {err}")


if __name__ == "__main__":
    main()
