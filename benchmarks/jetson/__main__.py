"""Benchmarks a Jetson: ``python3 benchmarks/jetson --onnx-dir models``; :mod:`command` says more.

The folder may be copied to the board alone; it needs the wheel, NumPy and what runs the network, and Python 3.8.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    folder = Path(__file__).resolve().parent
    sys.path.insert(0, str(folder.parent))
    sys.exit(importlib.import_module(f"{folder.name}.command").main())
