"""What all tests share: one tiny network, as a checkpoint and as ONNX, and tiny pictures for it."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Iterator

import numpy as np
import pytest
from narrow import narrow_networks, published_networks

# Two test processes share two cores: more threads would only wait for each other. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Which engine provider="auto" takes must not depend on the machine, nor a test write into its user's cache.
os.environ.setdefault("RTDA_CONTEST", "0")

# Tests that load ONNX Runtime before anything of ours must not report to its makers either.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# A shell's background jobs ignore Ctrl-C, and so would every program that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TINY_HW = (64, 64)


@pytest.fixture(autouse=True)
def _loggers_as_imported() -> None:
    """A command that ran in the tests' own process, perhaps for a shared fixture, has set the packages' log levels."""
    for name in ("deploy", "training", "export", "runtime"):
        logging.getLogger(f"rtda_{name}").setLevel(logging.NOTSET)


@pytest.fixture()
def published_width() -> Iterator[None]:
    """The networks as they are, where the others have few channels: ``tests/narrow.py``."""
    with published_networks():
        yield


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``last.pth`` of a narrow BiSeNet-R18 (rtda, 19 classes, 64x64, random weights), ``verify/`` beside; read only."""
    torch = pytest.importorskip("torch", reason="checkpoints need torch (Python >= 3.10)")
    from rtda_deploy.spec import ModelSpec
    from rtda_training.checkpoint import Checkpoint, write_checkpoint
    from rtda_training.labels import CITYSCAPES
    from rtda_training.models import BiSeNet

    narrow_networks()
    torch.set_num_threads(1)
    torch.manual_seed(7)
    model = BiSeNet("resnet18", "rtda", CITYSCAPES.num_classes).eval()
    spec = ModelSpec(
        size_hw=TINY_HW,
        class_names=CITYSCAPES.names,
        palette=CITYSCAPES.palette,
        provenance={"architecture": {"name": "BiSeNet", "backbone": "resnet18", "variant": "rtda"}},
    )
    folder = tmp_path_factory.mktemp("tiny")
    write_pictures(folder / "verify", 2)
    return write_checkpoint(folder / "last.pth", Checkpoint(spec, model.state_dict()))


@pytest.fixture(scope="session")
def tiny_onnx(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network as ``model.onnx``; not to be written to."""
    pytest.importorskip("onnx", reason="exporting needs onnx")
    from rtda_export import onnx_from_checkpoint

    return onnx_from_checkpoint(tiny_checkpoint, tmp_path_factory.mktemp("tiny-onnx") / "model.onnx")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``folder:`` data set: six street-like pictures of 96x64 in ``images/``, Cityscapes' ids in ``labels/``."""
    return write_data_set(tmp_path_factory.mktemp("data") / "set", 6)


def write_pictures(folder: Path, count: int, size_hw: tuple[int, int] = TINY_HW) -> Path:
    """Smooth random pictures ``0.png`` ..."""
    cv2 = pytest.importorskip("cv2", reason="pictures need OpenCV")
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for index in range(count):
        coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        assert cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(coarse, (size_hw[1], size_hw[0])))
    return folder


def write_data_set(folder: Path, count: int) -> Path:
    """Sky, building and road in bands whose colours and borders change; labels are exact."""
    cv2 = pytest.importorskip("cv2", reason="pictures need OpenCV")
    rng = np.random.default_rng(2)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        label = np.full((64, 96), 10, np.uint8)  # sky
        horizon = int(rng.integers(16, 28))
        label[horizon:40, : int(rng.integers(30, 96))] = 2  # building
        label[40:] = 0  # road
        label[60:, :8] = 255
        colours = np.zeros((256, 3), np.uint8)
        colours[[10, 2, 0, 255]] = [(200, 150, 90), (60, 70, 90), (90, 90, 90), (0, 0, 0)]
        noise = rng.integers(-20, 21, (64, 96, 3))
        frame = np.clip(colours[label].astype(int) + noise, 0, 255).astype(np.uint8)
        assert cv2.imwrite(str(folder / "images" / f"{index:02d}.png"), frame)
        assert cv2.imwrite(str(folder / "labels" / f"{index:02d}.png"), label)
    return folder
