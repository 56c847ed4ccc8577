"""Small networks and pictures for the export tests; weights differ from a fresh start so that folding has work to do."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, List, Tuple

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training and .pth -> .onnx need torch (Python >= 3.10)")
pytest.importorskip("onnx", reason="export needs onnx")

from rtda_deploy.spec import ModelSpec  # noqa: E402
from rtda_export import onnx_from_checkpoint  # noqa: E402
from rtda_training.checkpoint import Checkpoint, write_checkpoint  # noqa: E402
from rtda_training.models import BiSeNet  # noqa: E402

torch.set_num_threads(1)

CLASSES = ("road", "car", "tree", "sky", "person")
SIZE_HW = (64, 64)


def make_spec(variant: str, size_hw: Tuple[int, int] = SIZE_HW) -> ModelSpec:
    return ModelSpec(
        size_hw=size_hw,
        class_names=CLASSES,
        palette=((128, 64, 128), (0, 0, 142), (107, 142, 35), (70, 130, 180), (220, 20, 60)),
        provenance={"architecture": {"name": "BiSeNet", "backbone": "resnet18", "variant": variant}},
    )


def make_model(variant: str) -> BiSeNet:
    """A network whose batch norms have statistics, slopes and shifts of their own, as after training."""
    torch.manual_seed(3)
    model = BiSeNet("resnet18", variant, len(CLASSES))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
            ):
                torch.nn.init.uniform_(tensor, low, high)
    return model.eval()


def make_checkpoint(folder: Path, variant: str, change: Callable[[BiSeNet], None] = lambda model: None) -> Path:
    model = make_model(variant)
    with torch.no_grad():
        change(model)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return write_checkpoint(folder / "best.pth", Checkpoint(make_spec(variant), weights))


def make_frames(count: int = 2, size_hw: Tuple[int, int] = (48, 80)) -> List[np.ndarray]:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (6, 8, 3), dtype=np.uint8) for _ in range(count)]
    return [cv2.resize(picture, (size_hw[1], size_hw[0])) for picture in coarse]


def store_frames(folder: Path, count: int = 2) -> Path:
    cv2 = pytest.importorskip("cv2")
    folder.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(make_frames(count)):
        assert cv2.imwrite(str(folder / f"{index}.png"), frame)
    return folder


@pytest.fixture(scope="session", params=["rtda", "paper"])
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def checkpoint(variant: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``best.pth`` of each variant, with pictures in ``verify/``; not to be written to."""
    folder = tmp_path_factory.mktemp(variant)
    store_frames(folder / "verify")
    return make_checkpoint(folder, variant)


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint's ONNX; not to be written to."""
    return onnx_from_checkpoint(checkpoint, tmp_path_factory.mktemp("onnx") / "best.onnx")


@pytest.fixture(scope="session")
def one_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One variant only, for what does not depend on it."""
    folder = tmp_path_factory.mktemp("one")
    store_frames(folder / "verify")
    return make_checkpoint(folder, "rtda")


@pytest.fixture(scope="session")
def one_onnx(one_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_from_checkpoint(one_checkpoint, tmp_path_factory.mktemp("one-onnx") / "best.onnx")
