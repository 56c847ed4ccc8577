"""A precision is one file and one row: a copy of the package gets a fourth one, and everything finds it by itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[3]

FP16_IMPORT = "from rtda_export.precision.fp16 import FP16\n"
ROWS = "PRECISIONS: Tuple[Precision, ...] = (FP32, FP16, INT8"
BF16 = '''
from rtda_export.precision.base import EngineRules, Made, Precision

__all__ = ["BF16"]


def make(work):
    """Weights rounded to 8 bits of mantissa, in a float32 file."""
    import numpy as np
    from onnx import numpy_helper

    from rtda_export.graph.from_torch import read_onnx, stamped
    from rtda_export.precision.metadata import with_precision

    model = read_onnx(work.reference)
    for weight in model.graph.initializer:
        if weight.data_type == 1:
            bits = numpy_helper.to_array(weight).copy().view(np.uint32) & 0xFFFF0000
            weight.CopyFrom(numpy_helper.from_array(bits.view(np.float32), weight.name))
    with_precision(model, {"precision": "bf16"})
    work.out.write_bytes(stamped(model, work.spec))
    work.progress("weights", 1, 1)
    seen = f"seen {len(work.images)} pictures, {len(work.calibration)} to calibrate"
    return Made({}, notes=(seen,), miou=(50.0, MIOU))


BF16 = Precision(
    name="bf16",
    agreement=AGREEMENT,
    make=make,
    content="holds bfloat16 weights",
    arithmetic={"fp16": "bf16 runs as fast as fp16 on {device}"},
    needs_calibration=True,
    max_miou_loss=0.5,
    engine=EngineRules(flags=("FP16",), float32_refused=("{name} is float32", "", "make {stem}.bf16.onnx")),
)
'''


@pytest.fixture
def another(tmp_path: Path) -> Any:
    """Runs Python with a fourth precision; ``agreement`` and ``miou`` are what its row and its file have."""
    package = tmp_path / "with-bf16" / "rtda_export"
    shutil.copytree(ROOT / "export" / "rtda_export", package, ignore=shutil.ignore_patterns("__pycache__"))
    table = package / "precision" / "__init__.py"
    text = table.read_text()
    for line, more in ((FP16_IMPORT, "from rtda_export.precision.bf16 import BF16\n"), (ROWS, ", BF16")):
        assert line in text
        text = text.replace(line, line + more)
    table.write_text(text)

    def run(*words: object, agreement: float = 0.9, miou: float = 50.0) -> subprocess.CompletedProcess[str]:
        module = BF16.replace("AGREEMENT", str(agreement)).replace("MIOU", str(miou))
        (package / "precision" / "bf16.py").write_text(module)
        places = (package.parent, ROOT, ROOT / "training", ROOT / "runtime", ROOT / "tests")
        more = {"PYTHONPATH": os.pathsep.join(map(str, places)), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, *map(str, words)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **more, "COLUMNS": "200", "NO_COLOR": "1", "RTDA_CACHE": str(tmp_path / "cache")},
        )

    return run


def test_help_and_errors_name_it(another: Any, one_onnx: Path) -> None:
    for verb, words in (("export", "fp32, fp16, int8 or bf16"), ("estimate", "fp32, fp16, int8 or bf16")):
        assert words in " ".join(another("-m", "rtda_deploy", verb, "--help").stdout.split())
    assert "to make FP16, INT8 or BF16" in " ".join(another("-m", "rtda_deploy", "export", "--help").stdout.split())
    assert "fp32, fp16, int8 or bf16" in " ".join(another("-m", "rtda_deploy", "verify", "--help").stdout.split())
    refused = another("-m", "rtda_deploy", "export", one_onnx, "--precision", "fp8")
    assert refused.returncode == 2 and "known: fp32, fp16, int8, bf16" in refused.stderr
    uncalibrated = another("-m", "rtda_deploy", "export", one_onnx, "--precision", "bf16", "--to", "onnx")
    assert uncalibrated.returncode == 2 and "BF16 needs pictures to calibrate on" in uncalibrated.stderr


def test_it_is_made_verified_and_known_again(another: Any, one_onnx: Path, workshop: Any, tmp_path: Path) -> None:
    mine = Path(shutil.copyfile(one_onnx, tmp_path / "mine.onnx"))
    frames = workshop.store_frames(tmp_path / "frames")
    options = ("--precision", "bf16", "--to", "onnx", "--calibrate", frames, "--verify", frames)
    done = another("-m", "rtda_deploy", "export", mine, *options, "--json")
    assert done.returncode == 0, done.stderr
    (step,) = json.loads(done.stdout)["hops"]
    assert step["name"] == "bf16" and step["path"].endswith("mine.bf16.onnx")
    assert step["parity"]["limit"] == {"name": "bf16", "agreement": 0.9, "logit": None}
    assert step["notes"] == ["seen 2 pictures, 2 to calibrate"]
    page = (tmp_path / "verify.bf16.onnx.html").read_text()
    assert "which the limit for bf16 allows" in page or "same class on both sides" in page
    assert "onnx = bf16" in done.stderr and "limit 90 %" in done.stderr

    build = (
        "import sys; from export import tensorrt_standins; from rtda_export import engine_from_onnx\n"
        "world = tensorrt_standins.install('8.5')\n"
        "print(engine_from_onnx(sys.argv[1], precision='bf16').path.name, world.flags())"
    )
    assert another("-c", build, tmp_path / "mine.bf16.onnx").stdout == "mine.bf16.engine ['FP16']\n"
    assert "ConfigError: mine.onnx is float32" in another("-c", build, mine).stderr

    again = another("-m", "rtda_deploy", "export", tmp_path / "mine.bf16.onnx", "--precision", "fp16")
    assert again.returncode == 2 and "mine.bf16.onnx is bf16 already" in again.stderr
    told = another("-m", "rtda_deploy", "estimate", mine, "--device", "t4", "--precision", "bf16", "--json")
    assert json.loads(told.stdout)["precisions"][0]["arithmetic"] == "fp16"
    assert "bf16 runs as fast as fp16 on" in told.stderr


def test_its_limits_hold(another: Any, one_onnx: Path, workshop: Any, tmp_path: Path) -> None:
    mine = Path(shutil.copyfile(one_onnx, tmp_path / "mine.onnx"))
    frames = workshop.store_frames(tmp_path / "frames")
    options = ("--precision", "bf16", "--to", "onnx", "--calibrate", frames, "--verify", frames)
    loses = another("-m", "rtda_deploy", "export", mine, *options, miou=49.4)
    assert loses.returncode == 1 and "BF16 loses 0.60 mIoU (50.00 -> 49.40), the limit is 0.5" in loses.stderr
    differs = another("-m", "rtda_deploy", "export", mine, *options, agreement=1.5)
    assert differs.returncode == 1 and "mine.bf16.onnx does not answer as mine.onnx" in differs.stderr
    assert not (tmp_path / "mine.bf16.onnx").exists()
    kept = another("-m", "rtda_deploy", "export", mine, *options, "--force", miou=49.4)
    assert kept.returncode == 0, kept.stderr
    limit = ("verify", mine, tmp_path / "mine.bf16.onnx", "--frames", frames, "--limit", "bf16", "--json")
    assert json.loads(another("-m", "rtda_deploy", *limit).stdout)["limit"]["name"] == "bf16"
