"""``make test-jetson``: the robot's side on what a Jetson Xavier has - Python 3.8 and the real TensorRT 8.5.2.2.

Makes a virtual environment with the versions of JetPack 5.1 once (about 0.6 GB, most of it TensorRT) and keeps it in
the cache folder; then runs, in it, the tests of ``tests/jetson`` and those of the builder and the sidecar; the commands
that README and docs/jetson.md print for a robot among them, with the wheel of this tree. No GPU is needed, so no engine
is built here. cuBLAS and cuDNN are left out: the libraries that TensorRT's plugins are linked to are
stand-ins, which load and do nothing.

Standard library only, and ``build`` for the wheel; arguments go to pytest. PYTHON38 names an interpreter where none is
found.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from python38 import find_python38, install  # noqa: E402
from tensorrt_bindings import NoBindings, cache_folder, stand_ins  # noqa: E402

# JetPack 5.1: numpy as its users have it, the last ONNX Runtime for Python 3.8, TensorRT exactly as on the board.
PACKAGES = ["numpy==1.24.4", "onnxruntime==1.19.2", "typer>=0.9", "rich>=12", "tomli>=1.1"]
TEST_PACKAGES = ["pytest>=7.4", "pytest-timeout>=2.2"]
TENSORRT = "tensorrt==8.5.2.2"  # installed without the CUDA packages that it names, which are gigabytes
SUITES = [
    "tests/jetson",
    "tests/deploy/test_engine_file.py",
    "tests/export/tensorrt/test_tensorrt_builder.py",
    "tests/export/tensorrt/test_tensorrt_metadata.py",
]


def main() -> int:
    python = find_python38()
    if python is None:
        return _fail(
            "no Python 3.8 that runs was found", "pyenv install 3.8   (or PYTHON38=/path/to/python3.8 make ...)"
        )
    try:
        folder = _environment(python)
    except NoBindings as err:
        return _fail(str(err), "is the package index reachable? try again")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    packages = [ROOT, ROOT / "training", ROOT / "export", ROOT / "runtime"]
    variables["PYTHONPATH"] = os.pathsep.join(str(path) for path in packages)
    variables["LD_LIBRARY_PATH"] = os.pathsep.join([str(folder / "lib"), os.environ.get("LD_LIBRARY_PATH", "")])
    variables["RTDA_TEST_JETSON"] = "1"
    command = [str(folder / "bin" / "python"), "-B", "-m", "pytest", "-p", "no:cacheprovider"]
    with tempfile.TemporaryDirectory() as built:
        variables["RTDA_TEST_WHEEL"] = _wheel(Path(built))
        return subprocess.call([*command, *(sys.argv[1:] or SUITES)], cwd=str(ROOT), env=variables)


def _wheel(folder: Path) -> str:
    """The wheel of this tree, as ``make wheel`` builds it; empty where it cannot be, and its tests are skipped."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.stderr.write(f"note   no wheel, so the printed install is not tried: {done.stderr.strip()[-300:]}\n")
    return next((str(path) for path in folder.glob("rtda_deploy-*.whl")), "")


def _environment(python: str) -> Path:
    """The virtual environment, made where it is missing or was made of other packages."""
    wanted = "\n".join([*PACKAGES, *TEST_PACKAGES, TENSORRT, python])
    folder = cache_folder() / "jetson-python38"
    stamp = folder / "made-of"
    if stamp.is_file() and stamp.read_text() == wanted:
        return folder
    shutil.rmtree(str(folder), ignore_errors=True)
    sys.stderr.write(f"setup  makes {folder}: Python 3.8 with TensorRT 8.5.2.2, a download of about 0.6 GB\n")
    for tool in ("gcc", "nm", "readelf"):
        if shutil.which(tool) is None:
            raise NoBindings(f"{tool} is not installed: sudo apt-get install gcc binutils")
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    install(folder, [*PACKAGES, *TEST_PACKAGES])
    install(folder, ["--no-deps", TENSORRT])
    (plugins,) = folder.glob("lib/python3.8/site-packages/tensorrt/libnvinfer_plugin.so.8")
    stand_ins(plugins, folder / "lib", ("libcublas", "libcudnn"))
    stamp.write_text(wanted)
    return folder


def _fail(message: str, fix: str) -> int:
    sys.stderr.write(f"error  {message}\nfix    {fix}\n")
    return 3


if __name__ == "__main__":
    sys.exit(main())
