"""``make test-oldest``: the robot's side on Python 3.8 with the oldest versions that pyproject.toml allows.

Makes a virtual environment of ``requirements.txt`` once (about 0.4 GB) and keeps it in the cache folder; then runs, in
it, the tests of what needs no torch. What the tests themselves need is not old: pytest and its like, and onnx, which
writes their models.

Standard library only; arguments go to pytest. PYTHON38 names an interpreter where none is found.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from python38 import find_python38, install  # noqa: E402
from tensorrt_bindings import NoBindings, cache_folder  # noqa: E402

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
# onnx 1.14.1: the last whose protobuf goes with what NumPy 1.21 and ONNX Runtime 1.12 ask for.
TEST_PACKAGES = ["pytest>=8", "pytest-timeout>=2.2", "hypothesis>=6.90", "pyyaml>=6", "websockets>=12", "onnx==1.14.1"]
SUITES = [
    "tests/deploy",
    "tests/runtime",
    "tests/export/tensorrt/test_tensorrt_builder.py",
    "tests/export/tensorrt/test_tensorrt_metadata.py",
]


def main() -> int:
    python = find_python38()
    if python is None:
        sys.stderr.write(
            "error  no Python 3.8 that runs was found\nfix    pyenv install 3.8   (or PYTHON38=... make)\n"
        )
        return 3
    try:
        folder = _environment(python)
    except NoBindings as err:
        sys.stderr.write(f"error  {err}\nfix    is the package index reachable? try again\n")
        return 3
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    packages = [ROOT, ROOT / "training", ROOT / "export", ROOT / "runtime"]
    variables["PYTHONPATH"] = os.pathsep.join(str(path) for path in packages)
    command = [str(folder / "bin" / "python"), "-B", "-m", "pytest", "-p", "no:cacheprovider", "-m", "not system"]
    return subprocess.call([*command, *(sys.argv[1:] or SUITES)], cwd=str(ROOT), env=variables)


def _environment(python: str) -> Path:
    """The virtual environment, made where it is missing or was made of other packages."""
    wanted = "\n".join([REQUIREMENTS.read_text(), *TEST_PACKAGES, python])
    folder = cache_folder() / "oldest-python38"
    stamp = folder / "made-of"
    if stamp.is_file() and stamp.read_text() == wanted:
        return folder
    shutil.rmtree(str(folder), ignore_errors=True)
    sys.stderr.write(f"setup  makes {folder}: Python 3.8 with the oldest packages, a download of about 0.2 GB\n")
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    # In one go: nothing that the tests need may lift a version.
    install(folder, ["--only-binary=:all:", "-r", str(REQUIREMENTS), *TEST_PACKAGES])
    stamp.write_text(wanted)
    return folder


if __name__ == "__main__":
    sys.exit(main())
