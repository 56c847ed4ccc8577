"""Libraries that report to their makers are kept from it, unless the user asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cli.commandline import environment

_OPENVINO = """
try:
    import openvino_telemetry
    sends = True
except ImportError:
    sends = False
"""
_ONNXRUNTIME = """
import os
at_import, told = os.environ.get("ORT_DISABLE_TELEMETRY"), []
def disable_telemetry_events(): told.append(True)
"""
_PROGRAM = """
{first}
from rtda_deploy.optional import require
ov, ort = require("openvino", extra="openvino"), require("onnxruntime", extra="runtime")
import openvino_telemetry  # the user's own program still finds it
print(ov.sends, ort.at_import, bool(ort.told))
"""


@pytest.mark.parametrize(
    ("variables", "first", "said"),
    [
        ({}, "", "False 1 True"),
        ({}, "import onnxruntime", "False None True"),  # loaded before us, so too late for the variable
        ({}, "import openvino_telemetry", "False 1 True"),
        ({"RTDA_TELEMETRY": "1"}, "", "True None False"),
        ({"RTDA_TELEMETRY": "0"}, "", "False 1 True"),
        ({"ORT_DISABLE_TELEMETRY": "0"}, "", "False 0 True"),
    ],
)
def test_libraries_are_told_to_send_nothing(variables: dict[str, str], first: str, said: str, tmp_path: Path) -> None:
    for module, text in (("openvino", _OPENVINO), ("openvino_telemetry", ""), ("onnxruntime", _ONNXRUNTIME)):
        (tmp_path / f"{module}.py").write_text(text)
    clean = {key: value for key, value in environment().items() if key != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(first=first)],
        env={**clean, "PYTHONPATH": str(tmp_path), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == said


def test_the_installed_openvino_does_without_its_sender(tmp_path: Path) -> None:
    pytest.importorskip("openvino_telemetry")
    program = (
        "import sys; from rtda_deploy.optional import require; require('openvino', extra='openvino');"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')])"
    )
    home = {key: value for key, value in environment(HOME=str(tmp_path)).items() if key != "CI"}
    done = subprocess.run([sys.executable, "-c", program], env=home, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert not list(tmp_path.iterdir())
