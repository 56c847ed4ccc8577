"""ImageNet weights reach the backbone whole, or the load fails and says why."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rtda_deploy.errors import CheckpointError, FileAccessError, MissingPackageError
from rtda_training.models import BackboneReport, BiSeNet, build_backbone, load_backbone_weights

pytestmark = pytest.mark.usefixtures("published_width")

torch.set_num_threads(1)


def imagenet_weights(seed: int = 5) -> dict[str, Tensor]:
    """A ResNet-18 file as torchvision publishes it, ImageNet classifier included."""
    torch.manual_seed(seed)
    return {
        **build_backbone("resnet18").state_dict(),
        "fc.weight": torch.zeros(1000, 512),
        "fc.bias": torch.zeros(1000),
    }


def saved(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "resnet18.pth"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("target", ["network", "backbone"])
def test_a_standard_file_loads_whole(tmp_path: Path, target: str) -> None:
    weights = imagenet_weights()
    model = BiSeNet() if target == "network" else build_backbone("resnet18")
    report = load_backbone_weights(model, saved(tmp_path, weights))
    assert report == BackboneReport(matched=100, total=100, ignored=("fc.weight", "fc.bias"))
    backbone = model.backbone if isinstance(model, BiSeNet) else model
    assert all(torch.equal(value, weights[key]) for key, value in backbone.state_dict().items())


def test_an_old_file_without_batch_counters_loads_whole(tmp_path: Path) -> None:
    weights = {k: v for k, v in imagenet_weights().items() if not k.endswith("num_batches_tracked")}
    assert len(weights) == 102  # of torchvision's resnet18-5c106cde.pth
    report = load_backbone_weights(BiSeNet(), saved(tmp_path, weights))
    assert report.matched == report.total == 100


def test_a_wrapped_file_loads_whole(tmp_path: Path) -> None:
    wrapped = {"state_dict": {f"module.{k}": v for k, v in imagenet_weights().items()}, "epoch": 90}
    assert load_backbone_weights(BiSeNet(), saved(tmp_path, wrapped)).matched == 100


def test_a_file_with_a_tensor_missing_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    weights = imagenet_weights()
    del weights["layer3.1.conv2.weight"]
    model = BiSeNet()
    before = model.backbone.conv1.weight.detach().clone()
    with pytest.raises(CheckpointError, match=r"1 missing: layer3\.1\.conv2\.weight"):
        load_backbone_weights(model, saved(tmp_path, weights))
    assert torch.equal(before, model.backbone.conv1.weight)


def test_a_file_of_a_deeper_network_of_the_same_block_is_refused(tmp_path: Path) -> None:
    # ResNet-34 has every tensor of ResNet-18, in the same shapes, and more blocks.
    weights = imagenet_weights()
    weights["layer1.2.conv1.weight"] = torch.zeros(64, 64, 3, 3)
    with pytest.raises(CheckpointError, match=r"does not fit resnet18: 1 unexpected: layer1\.2\.conv1\.weight"):
        load_backbone_weights(BiSeNet(), saved(tmp_path, weights))


def test_a_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    weights = imagenet_weights()
    weights["conv1.weight"] = torch.zeros(64, 4, 7, 7)
    with pytest.raises(CheckpointError, match=r"conv1\.weight \(64, 4, 7, 7\) instead of \(64, 3, 7, 7\)"):
        load_backbone_weights(BiSeNet(), saved(tmp_path, weights))


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match="no weights file"):
        load_backbone_weights(BiSeNet(), tmp_path / "none.pth")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.pth is no file of plain weights"):
        load_backbone_weights(BiSeNet(), path)


class NotATensor:
    """What a pickled model drags along."""


def test_a_file_with_code_in_it_is_not_executed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="plain weights"):
        load_backbone_weights(BiSeNet(), saved(tmp_path, {"model": NotATensor()}))


def test_a_safetensors_file_loads_or_names_the_missing_package(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.safetensors"
    try:
        from safetensors.torch import save_file
    except ImportError:
        path.write_bytes(b"")
        with pytest.raises(MissingPackageError, match="safetensors"):
            load_backbone_weights(BiSeNet(), path)
        return
    save_file(imagenet_weights(), path)
    assert load_backbone_weights(BiSeNet(), path).matched == 100
    path.write_bytes(b"not one")
    with pytest.raises(CheckpointError, match="no file of plain weights"):
        load_backbone_weights(BiSeNet(), path)
