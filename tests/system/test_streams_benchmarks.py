"""The short forms of the benchmarks of cameras run, and say what they are asked to say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict

import pytest
from system.camera_servers import rtsp_is_missing

pytestmark = pytest.mark.system

_BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def _run(name: str, *options: str) -> Dict[str, Any]:
    if rtsp_is_missing():
        pytest.skip(rtsp_is_missing())
    done = subprocess.run([sys.executable, str(_BENCHMARKS / name), *options, "--json"], capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr  # 1: a limit was missed, which a busy machine may
    report: Dict[str, Any] = json.loads(done.stdout)
    return report


def test_age_of_pictures_from_the_time_in_them() -> None:
    report = _run("camera_age.py", "--seconds", "5")
    ours, plain, alone = (report["rows"][name] for name in ("Pipeline", "cv2 loop", "decoder alone"))
    assert 0 < alone["p50_ms"] < ours["p50_ms"] < plain["p50_ms"]
    assert plain["trend_ms_per_s"] > 100 > abs(ours["trend_ms_per_s"]), "a loop that reads in turns falls behind"
    assert report["dropped"] > 0


def test_restarts_lose_nothing_but_the_pictures_in_between() -> None:
    report = _run("camera_restarts.py", "--times", "2", "--down", "0.2")
    assert report["restarts"] == 2
    assert report["checks"]["each loss counted once"] and report["checks"]["sequence numbers grow"]
    assert report["checks"]["threads as before"] and report["checks"]["file handles as before"]
