"""The compiled kernel where nothing can be kept on the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_a_full_disk_and_no_cache_cost_a_compilation_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    program = """
import resource, sys
import numpy as np
from rtda_runtime.mask import upsample
from rtda_runtime import upsample_argmax
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file may grow, as on a full disk
mask = upsample_argmax(np.eye(3, dtype=np.float32).reshape(3, 1, 3), (2, 6))
sys.exit(0 if upsample.compiles() and mask[0, 0] == 0 and mask[1, 5] == 2 else 5)
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
