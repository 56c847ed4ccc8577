from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import rtda_runtime

_FOLDER = Path(rtda_runtime.__file__).parent
_MODULES = sorted(
    ".".join(("rtda_runtime", *path.relative_to(_FOLDER).with_suffix("").parts))
    for path in _FOLDER.rglob("*.py")
    if path.stem != "__init__"
)


def _loaded_by(program: str) -> set[str]:
    code = f"import sys; {program}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_costs_nothing_beyond_the_standard_library() -> None:
    assert not _loaded_by("import rtda_runtime") & {"numpy", "cv2", "onnxruntime", "torch"}


def test_no_module_loads_a_heavy_package_when_imported() -> None:
    loaded = _loaded_by("import " + ", ".join(_MODULES))
    assert "numpy" in loaded
    assert not loaded & {"cv2", "onnxruntime", "onnx", "torch", "av", "rtda_training", "rtda_export", "typer", "rich"}


def test_segmenting_loads_no_torch(model_path: object) -> None:
    program = (
        "import numpy, rtda_runtime; "
        f"rtda_runtime.Segmenter.open({str(model_path)!r}).segment(numpy.zeros((9, 9, 3), numpy.uint8))"
    )
    assert not _loaded_by(program) & {"torch", "onnx", "rtda_training", "rtda_export"}


def test_every_public_name_exists() -> None:
    assert rtda_runtime.__all__ == sorted(rtda_runtime.__all__)
    assert set(rtda_runtime.__all__) == set(rtda_runtime._HOMES)
    for name in rtda_runtime.__all__:
        assert getattr(rtda_runtime, name) is not None
        assert name in dir(rtda_runtime)
