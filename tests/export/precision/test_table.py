"""A precision is one file and one row: a copy of the package gets a fourth one, and everything finds it by itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, List, Sequence

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[3]

# Runs commands one after the other in this process, which saves the start of each; then builds an engine of each file.
RUN = """
import contextlib, io, json, sys
from export import tensorrt_standins
from rtda_deploy.cli import main
from rtda_export import engine_from_onnx

told = []
commands, files = json.loads(sys.argv[1])
for words in commands:
    out, err, sys.argv = io.StringIO(), io.StringIO(), ["rtda-deploy", *words]
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    told.append((code, out.getvalue(), err.getvalue()))
for file in files:
    world = tensorrt_standins.install("8.5")
    try:
        told.append((engine_from_onnx(file, precision="e8m7").path.name, world.flags(), ""))
    except Exception as err:
        told.append((str(err), [], ""))
print(json.dumps(told))
"""

ROW = """
from rtda_export.precision.e8m7 import E8M7

PRECISIONS = (*PRECISIONS, E8M7)
"""
E8M7 = '''
from rtda_export.precision.base import EngineRules, Made, Precision

__all__ = ["E8M7"]


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
    with_precision(model, {"precision": "e8m7"})
    work.out.write_bytes(stamped(model, work.spec))
    work.progress("weights", 1, 1)
    seen = f"seen {len(work.images)} pictures, {len(work.calibration)} to calibrate"
    return Made({}, notes=(seen,), miou=(50.0, 49.4 if "loses" in work.out.name else 50.0))


E8M7 = Precision(
    name="e8m7",
    agreement=0.9,
    make=make,
    content="holds bfloat16 weights",
    arithmetic={"fp16": "e8m7 runs as fast as fp16 on {device}"},
    needs_calibration=True,
    max_miou_loss=0.5,
    engine=EngineRules(flags=("FP16",), float32_refused=("{name} is float32", "", "make {stem}.e8m7.onnx")),
)
'''


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., List[Any]]:
    """Runs commands with a fourth precision; code, stdout and stderr of each."""
    folder = tmp_path_factory.mktemp("with-e8m7")
    package = folder / "rtda_export"
    shutil.copytree(ROOT / "export" / "rtda_export", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "precision" / "e8m7.py").write_text(E8M7)
    table = package / "precision" / "__init__.py"
    table.write_text(table.read_text() + ROW)

    def run(*commands: Sequence[object], engines: Sequence[Path] = ()) -> List[Any]:
        places = (folder, ROOT, ROOT / "training", ROOT / "runtime", ROOT / "tests")
        asked = json.dumps([[list(map(str, words)) for words in commands], list(map(str, engines))])
        done = subprocess.run(
            [sys.executable, "-c", RUN, asked],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, places)),
                "COLUMNS": "200",
                "NO_COLOR": "1",
                "RTDA_CACHE": str(folder / "cache"),
            },
        )
        assert done.returncode == 0, done.stderr
        found: List[Any] = json.loads(done.stdout)
        return found

    return run


def test_help_and_errors_name_it(another: Callable[..., List[Any]], one_onnx: Path) -> None:
    export, estimate, verify, unknown, uncalibrated = another(
        ("export", "--help"),
        ("estimate", "--help"),
        ("verify", "--help"),
        ("export", one_onnx, "--precision", "fp8"),
        ("export", one_onnx, "--precision", "e8m7", "--to", "onnx"),
    )
    for _, shown, _ in (export, estimate, verify):
        assert re.search(r"fp32, fp16, int8\b.* e8m7", " ".join(shown.split()))
    assert re.search(r"to make FP16, INT8\b.* or E8M7", " ".join(export[1].split()))
    assert unknown[0] == 2 and re.search("known: fp32, fp16, int8, .*e8m7", unknown[2])
    assert uncalibrated[0] == 2 and "E8M7 needs pictures to calibrate on" in uncalibrated[2]


def test_it_is_made_verified_estimated_and_built(
    another: Callable[..., List[Any]], one_onnx: Path, workshop: Any, tmp_path: Path
) -> None:
    mine, loses = (Path(shutil.copyfile(one_onnx, tmp_path / f"{name}.onnx")) for name in ("mine", "loses"))
    frames = workshop.store_frames(tmp_path / "frames")
    options = ("--precision", "e8m7", "--to", "onnx", "--calibrate", frames, "--verify", frames, "--json")
    made, again, compared, told, lost, engine, refused = another(
        ("export", mine, *options),
        ("export", tmp_path / "mine.e8m7.onnx", "--precision", "fp16"),
        ("verify", mine, tmp_path / "mine.e8m7.onnx", "--frames", frames, "--limit", "e8m7", "--json"),
        ("estimate", mine, "--device", "t4", "--precision", "e8m7", "--json"),
        ("export", loses, *options),
        engines=(tmp_path / "mine.e8m7.onnx", mine),
    )
    assert made[0] == 0, made
    (step,) = json.loads(made[1])["hops"]
    assert step["name"] == "e8m7" and step["path"] == str(tmp_path / "mine.e8m7.onnx")
    assert step["parity"]["limit"] == {"name": "e8m7", "agreement": 0.9, "logit": None}
    assert step["notes"] == ["seen 2 pictures, 2 to calibrate"]
    assert "onnx = e8m7" in made[2] and "limit 90 %" in made[2]
    page = (tmp_path / "verify.e8m7.onnx.html").read_text()
    assert "which the limit for e8m7 allows" in page or "same class on both sides" in page
    assert again[0] == 2 and "mine.e8m7.onnx is e8m7 already" in again[2]
    assert json.loads(compared[1])["limit"]["name"] == "e8m7"
    assert json.loads(told[1])["precisions"][0]["arithmetic"] == "fp16" and "as fast as fp16 on" in told[2]
    assert lost[0] == 1 and "E8M7 loses 0.60 mIoU (50.00 -> 49.40), the limit is 0.5" in lost[2]
    assert not (tmp_path / "loses.e8m7.onnx").exists()
    assert engine[:2] == ["mine.e8m7.engine", ["FP16"]] and refused[0] == "mine.onnx is float32"
