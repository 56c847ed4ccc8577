"""Python 3.8, the robot's: where there is one, and how packages come into an environment of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import List, Optional

from tensorrt_bindings import NoBindings


def install(folder: Path, requirements: List[str]) -> None:
    """What pip installs into the environment ``folder``; ``requirements`` may hold pip's options.

    Raises:
        NoBindings: If it cannot be installed; the message holds pip's first error.
    """
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as empty:  # pip keeps no second copy of half a gigabyte
        done = subprocess.run([*command, "--cache-dir", empty, *requirements], capture_output=True, text=True)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise NoBindings(f"{' '.join(requirements)} cannot be installed: {' '.join(lines[:1]) or 'pip failed'}")


def find_python38() -> Optional[str]:
    """A Python 3.8 that really runs; pyenv's shims do not where no such version is chosen."""
    candidates = [os.environ.get("PYTHON38"), *map(str, sorted(Path.home().glob(".pyenv/versions/3.8*/bin/python")))]
    code = "import ensurepip, sys, venv; print(sys.version_info[:2] == (3, 8))"
    for candidate in [*candidates, shutil.which("python3.8")]:
        if not candidate:
            continue
        try:
            done = subprocess.run([candidate, "-c", code], capture_output=True, text=True, timeout=30)
        except OSError:
            continue
        if done.stdout == "True\n":
            return candidate
    return None
