"""Install the sdist and the wheel, each into an empty environment outside the checkout, and run the demo from there.

    python tools/release_check.py [--dist dist] [--python python3.11] [--skip-demo]

Builds both first (``python -m build``). ``torch`` is installed with them in the version that constraints.txt names, so
that no other package chooses one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Build, install, run; the first failure ends it with its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="folder of the two files (default: dist)")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environments")
    parser.add_argument("--skip-demo", action="store_true", help="run --version and doctor instead of the demo")
    asked = parser.parse_args()
    dist = asked.dist.resolve()
    for old in [*dist.glob("rtda_deploy-*.tar.gz"), *dist.glob("rtda_deploy-*.whl")]:
        old.unlink()
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), str(ROOT)], ROOT)
    (sdist,), (wheel,) = dist.glob("rtda_deploy-*.tar.gz"), dist.glob("rtda_deploy-*.whl")
    for file in (sdist, wheel):
        with tempfile.TemporaryDirectory() as folder:
            _try(file, Path(folder), asked.python, demo=not asked.skip_demo)
    print(f"both install and run: {sdist.name}, {wheel.name}")
    return 0


def _try(file: Path, folder: Path, python: str, *, demo: bool) -> None:
    print(f"--- {file.name}", flush=True)
    _run([python, "-m", "venv", str(folder / "venv")], folder)
    constraints = ROOT / "constraints.txt"
    torch = next(line for line in constraints.read_text().splitlines() if line.startswith("torch=="))
    pip = [str(folder / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, torch, "-c", str(constraints), f"{file}[all]"], folder)
    command = str(folder / "venv/bin/rtda-deploy")
    _run([command, "--version"], folder)
    if demo:
        _run([command, "demo", "--out", str(folder / "demo")], folder)
    else:
        _run([command, "doctor"], folder)


def _run(words: List[str], folder: Path) -> None:
    kept: Dict[str, str] = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(words, cwd=str(folder), env=kept)
    if done.returncode:
        print(f"failed: {' '.join(words)}", file=sys.stderr)
        sys.exit(done.returncode)


if __name__ == "__main__":
    sys.exit(main())
