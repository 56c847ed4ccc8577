"""The C++ program of docs/interop.md, compiled where ONNX Runtime's headers are: its mask is ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import List

import cv2
import numpy as np
import pytest

from rtda_runtime import Segmenter

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("torch", reason="makes a checkpoint")
pytest.importorskip("onnx")

pytestmark = pytest.mark.system

_SOURCE = Path(__file__).parents[2] / "runtime" / "cpp" / "segment.cpp"
_FOLDERS = ("/usr/include/onnxruntime", "/usr/local/include/onnxruntime", "/usr/local/include", "/usr/include")


def _headers() -> Path:
    """The folder that ``ONNXRUNTIME_INCLUDE`` names, or one where Debian or a release's archive puts them."""
    named = os.environ.get("ONNXRUNTIME_INCLUDE")
    for folder in [named] if named else _FOLDERS:
        if (Path(folder) / "onnxruntime_cxx_api.h").is_file():
            return Path(folder)
    pytest.skip(
        f"no onnxruntime_cxx_api.h in {named or ', '.join(_FOLDERS)}: neither pip nor npm ships it; "
        "ONNXRUNTIME_INCLUDE=FOLDER names the include folder of a release's archive"
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``segment``, linked with the library inside the pip package."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler: apt-get install g++")
    headers, folder = _headers(), tmp_path_factory.mktemp("cpp")
    found = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))
    if not found:
        pytest.skip("this onnxruntime package has no libonnxruntime.so of its own")
    library = folder / "libonnxruntime.so.1"  # the name that the loader asks for
    library.symlink_to(found[0])
    words = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-isystem", headers, _SOURCE, library]
    words += [f"-Wl,-rpath,{folder}", "-o", folder / "segment"]
    made = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return folder / "segment"


@pytest.fixture(scope="module")
def models(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``bytes.onnx``, which takes and gives uint8, and ``usual.onnx``, normalised planes to logits."""
    from rtda_export import onnx_from_checkpoint

    folder = tmp_path_factory.mktemp("models")
    onnx_from_checkpoint(tiny_checkpoint, folder / "usual.onnx", size_hw=(64, 96))
    onnx_from_checkpoint(tiny_checkpoint, folder / "bytes.onnx", size_hw=(64, 96), input="uint8", output="mask")
    return folder


def _run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True)


def _frames() -> List[np.ndarray]:
    rng = np.random.default_rng(3)
    return [cv2.resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), (96, 64)) for _ in range(3)]


def test_the_program_writes_the_mask_that_we_make(program: Path, models: Path, tmp_path: Path) -> None:
    with Segmenter.open(models / "bytes.onnx", "cpu") as same, Segmenter.open(models / "usual.onnx", "cpu") as usual:
        for frame in _frames():
            assert cv2.imwrite(str(tmp_path / "frame.ppm"), frame)
            done = _run(program, models / "bytes.onnx", tmp_path / "frame.ppm", tmp_path / "mask.pgm")
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
            mask = cv2.imread(str(tmp_path / "mask.pgm"), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(mask, same.segment(frame).mask)
            assert len(np.unique(mask)) >= 2, "a mask of one class would prove nothing"
            # Two classes within float32's rounding of each other may change places.
            assert (mask == usual.segment(frame).mask).mean() >= 0.999


@pytest.mark.parametrize(
    ("model", "content", "said"),
    [
        ("bytes.onnx", b"P6\n2 2\n255\n" + bytes(12), "is 2x2, the network takes 96x64: resize it first"),
        ("bytes.onnx", b"P6\n96 64\n255\n" + bytes(7), "is cut off"),
        ("bytes.onnx", b"P3\n96 64\n255\n", "is no PPM"),
        ("usual.onnx", b"", "export it with --input uint8 --output mask"),
        ("none.onnx", b"", "none.onnx"),
    ],
)
def test_what_it_cannot_use_is_said_in_one_line(
    program: Path, models: Path, tmp_path: Path, model: str, content: bytes, said: str
) -> None:
    (tmp_path / "frame.ppm").write_bytes(content)
    done = _run(program, models / model, tmp_path / "frame.ppm", tmp_path / "mask.pgm")
    assert done.returncode == 1 and done.stderr.startswith("error  ") and said in done.stderr
    assert not (tmp_path / "mask.pgm").exists()
