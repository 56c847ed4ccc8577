"""Small networks and pictures for the export tests, as fixtures; they skip where torch or onnx is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, ClassVar, Dict, List, Tuple

import numpy as np
import pytest
from narrow import narrow_networks

from rtda_deploy.spec import ModelSpec

narrow_networks()

SIZE_HW = (64, 64)


class Workshop:
    """Makes checkpoints, ONNX files and pictures."""

    card = '{"version":1,"pictures":9}'  # export carries the text, whatever it says
    classes = ("road", "car", "tree", "sky", "person")
    # What a checkpoint's provenance says, by the word the tests use; FCN-8s narrow, for its size.
    architectures: ClassVar[Dict[str, Dict[str, Any]]] = {
        "rtda": {"name": "BiSeNet", "backbone": "resnet18", "variant": "rtda"},
        "paper": {"name": "BiSeNet", "backbone": "resnet18", "variant": "paper"},
        "lite0": {"name": "BiSeNet", "backbone": "efficientnet-lite0", "variant": "rtda"},
        "deeplab-v2": {"name": "DeepLab-v2", "backbone": "resnet18"},
        "fcn8s": {"name": "FCN8s", "backbone": "vgg16", "hidden": 32},
        "gcnet": {"name": "GCNet", "backbone": "gcnet", "variant": "s"},
        "ddrnet": {"name": "DDRNet", "backbone": "ddrnet23-slim"},
        "ppliteseg": {"name": "PP-LiteSeg", "backbone": "stdc1", "variant": "lite"},
        "ppliteseg-t": {"name": "PP-LiteSeg", "backbone": "stdc1", "variant": "t"},
    }
    # Whose float files graph/test_light_networks.py looks at, each at a size that it takes.
    light: ClassVar[Dict[str, Tuple[int, int]]] = {
        "gcnet": (64, 128),
        "ddrnet": (64, 128),
        "ppliteseg": (128, 128),
        "ppliteseg-t": (128, 256),
    }

    def spec(self, variant: str = "rtda", size_hw: Tuple[int, int] = SIZE_HW, **changes: Any) -> ModelSpec:
        spec = ModelSpec(
            size_hw=size_hw,
            class_names=self.classes,
            palette=((128, 64, 128), (0, 0, 142), (107, 142, 35), (70, 130, 180), (220, 20, 60)),
            provenance={"architecture": self.architectures[variant]},
        )
        return spec.replace(**changes)

    def model(self, variant: str) -> Any:
        """A network whose batch norms and biases have values of their own, as after training."""
        torch = pytest.importorskip("torch", reason="training and .pth -> .onnx need torch (Python >= 3.10)")
        from rtda_training.models import build_network

        torch.set_num_threads(1)
        torch.manual_seed(3)
        model = build_network(self.architectures[variant], num_classes=len(self.classes))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.running_mean, -0.3, 0.3)
                torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.uniform_(module.bias, -0.3, 0.3)
            elif isinstance(module, torch.nn.Conv2d) and module.bias is not None:
                torch.nn.init.uniform_(module.bias, -0.3, 0.3)
        return model.eval()

    def checkpoint(
        self, folder: Path, variant: str = "rtda", change: Callable[[Any], object] = id, **spec: Any
    ) -> Path:
        """``best.pth`` in ``folder``; ``change`` may alter the model's weights in place."""
        model = self.model(variant)
        import torch

        from rtda_training.checkpoint import Checkpoint, write_checkpoint

        with torch.no_grad():
            change(model)
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        return write_checkpoint(folder / "best.pth", Checkpoint(self.spec(variant, **spec), weights, card=self.card))

    def onnx(self, checkpoint: Path, path: Path, **options: Any) -> Path:
        pytest.importorskip("onnx")
        from rtda_export import onnx_from_checkpoint

        return onnx_from_checkpoint(checkpoint, path, **options)

    def frames(self, count: int = 2, size_hw: Tuple[int, int] = (48, 80)) -> List[np.ndarray]:
        cv2 = pytest.importorskip("cv2")
        rng = np.random.default_rng(0)
        coarse = [rng.integers(0, 256, (6, 8, 3), dtype=np.uint8) for _ in range(count)]
        return [cv2.resize(picture, (size_hw[1], size_hw[0])) for picture in coarse]

    def store_frames(self, folder: Path, count: int = 2) -> Path:
        cv2 = pytest.importorskip("cv2")
        folder.mkdir(parents=True, exist_ok=True)
        for index, frame in enumerate(self.frames(count)):
            assert cv2.imwrite(str(folder / f"{index}.png"), frame)
        return folder


@pytest.fixture(scope="session")
def workshop() -> Workshop:
    return Workshop()


@pytest.fixture(scope="session", params=[name for name in Workshop.architectures if name not in Workshop.light])
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def checkpoint(variant: str, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``best.pth`` of each network; not to be written to."""
    return workshop.checkpoint(tmp_path_factory.mktemp(variant), variant)


@pytest.fixture(scope="session")
def exported(checkpoint: Path, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint's ONNX; not to be written to."""
    return workshop.onnx(checkpoint, tmp_path_factory.mktemp("onnx") / "best.onnx")


@pytest.fixture(scope="session")
def one_checkpoint(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One variant only, for what does not depend on it, with pictures in ``verify/``; not to be written to."""
    folder = tmp_path_factory.mktemp("one")
    workshop.store_frames(folder / "verify")
    return workshop.checkpoint(folder)


@pytest.fixture(scope="session")
def one_onnx(one_checkpoint: Path, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workshop.onnx(one_checkpoint, tmp_path_factory.mktemp("one-onnx") / "best.onnx")
