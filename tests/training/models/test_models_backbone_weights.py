"""ImageNet weights reach the backbone whole, or the load fails and says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rtda_deploy.errors import CheckpointError, ConfigError, FileAccessError, MissingPackageError
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


def saved_npz(tmp_path: Path, weights: dict[str, Any], name: str = "resnet18.npz") -> Path:
    path = tmp_path / name
    np.savez(path, **weights)
    return path


def arrays(weights: dict[str, Tensor]) -> dict[str, Any]:
    return {key: tensor.numpy() for key, tensor in weights.items()}


def test_an_npz_file_loads_whole_whatever_its_byte_order(tmp_path: Path) -> None:
    weights = imagenet_weights()
    content = {key: array.astype(array.dtype.newbyteorder(">")) for key, array in arrays(weights).items()}
    model = BiSeNet()
    assert load_backbone_weights(model, saved_npz(tmp_path, content)).matched == 100
    assert all(torch.equal(value, weights[key]) for key, value in model.backbone.state_dict().items())


def test_objects_in_an_npz_file_are_refused_by_name_and_not_made(tmp_path: Path) -> None:
    content = {**arrays(imagenet_weights()), "layer1.0.bn1.weight": np.array([NotATensor()], dtype=object)}
    model = BiSeNet()
    before = model.backbone.conv1.weight.detach().clone()
    with pytest.raises(CheckpointError, match=r"array 'layer1\.0\.bn1\.weight' of resnet18\.npz holds Python objects"):
        load_backbone_weights(model, saved_npz(tmp_path, content))
    assert torch.equal(before, model.backbone.conv1.weight)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 half a zip", b"\x93NUMPY\x01\x00"])
def test_a_broken_npz_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.npz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.npz is no \.npz file of plain weights"):
        load_backbone_weights(BiSeNet(), path)


def test_one_array_without_a_name_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "one.npz", "wb") as stream:
        np.save(stream, np.zeros(3, np.float32))
    with pytest.raises(CheckpointError, match=r"one\.npz holds one array without a name"):
        load_backbone_weights(BiSeNet(), tmp_path / "one.npz")


def test_texts_and_damaged_arrays_of_an_npz_are_refused_by_name(tmp_path: Path) -> None:
    path = saved_npz(tmp_path, {**arrays(imagenet_weights()), "comment": np.array("made by me")})
    with pytest.raises(CheckpointError, match=r"array 'comment' of resnet18\.npz cannot be read"):
        load_backbone_weights(BiSeNet(), path)
    path = saved_npz(tmp_path, {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}, "cut.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"array 'conv1\.weight' of cut\.npz cannot be read"):
        load_backbone_weights(BiSeNet(), path)


def test_a_weight_that_is_no_number_is_refused(tmp_path: Path) -> None:
    weights = imagenet_weights()
    weights["layer2.0.bn1.bias"][3] = float("nan")
    with pytest.raises(CheckpointError, match=r"holds NaN or infinity in 1 of .* layer2\.0\.bn1\.bias"):
        load_backbone_weights(BiSeNet(), saved(tmp_path, weights))


def first_stages(count: int) -> dict[str, Tensor]:
    """A file that ends behind one of the maps, without counters."""
    later = tuple(f"layer{place}." for place in range(count + 1, 5))
    return {
        key: tensor
        for key, tensor in imagenet_weights().items()
        if not key.startswith((*later, "fc.")) and not key.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize(("stages", "matched"), [(1, 25), (2, 50), (3, 75)])
def test_a_file_of_whole_stages_loads_those_and_says_what_starts_at_random(
    tmp_path: Path, stages: int, matched: int
) -> None:
    weights, model = first_stages(stages), BiSeNet()
    before = {key: tensor.clone() for key, tensor in model.backbone.state_dict().items()}
    report = load_backbone_weights(model, saved_npz(tmp_path, arrays(weights)), stages=stages)
    random = tuple(f"layer{place}." for place in range(stages + 1, 5))
    assert report == BackboneReport(matched=matched, total=100, ignored=(), random=random)
    assert report.text == f"{matched} of 100 tensors; the other {100 - matched} start at random: " + ", ".join(
        name.rstrip(".") for name in random
    )
    for key, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, weights.get(key, before[key]))


def test_without_stages_such_a_file_is_refused_with_the_option_that_takes_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"25 missing: layer4\.0\.conv1\.weight") as caught:
        load_backbone_weights(BiSeNet(), saved_npz(tmp_path, arrays(first_stages(3))))
    assert "--backbone-stages 3" in caught.value.hint


def test_a_stage_with_a_hole_in_it_is_refused(tmp_path: Path) -> None:
    weights = first_stages(3)
    del weights["layer3.1.conv2.weight"]
    with pytest.raises(CheckpointError, match=r"the first 3 stages of resnet18: 1 missing: layer3\.1\.conv2") as caught:
        load_backbone_weights(BiSeNet(), saved(tmp_path, weights), stages=3)
    assert "--backbone-stages 2" in caught.value.hint


def test_of_a_whole_file_later_stages_are_left_out_and_named(tmp_path: Path) -> None:
    report = load_backbone_weights(BiSeNet(), saved(tmp_path, imagenet_weights()), stages=3)
    assert report.matched == 75 and {key.split(".")[0] for key in report.ignored} == {"fc", "layer4"}


@pytest.mark.parametrize(
    ("backbone", "options", "message", "hint"),
    [
        ("resnet18", {"path": "imagenet"}, "no package brings ImageNet weights of resnet18", "efficientnet-lite0"),
        ("resnet18", {"stages": 5}, "resnet18 has no 5 stages", "1 to 4"),
    ],
)
def test_what_there_is_not_is_refused(
    tmp_path: Path, backbone: str, options: dict[str, Any], message: str, hint: str
) -> None:
    asked = {"path": saved(tmp_path, imagenet_weights()), **options}
    with pytest.raises(ConfigError, match=message) as caught:
        load_backbone_weights(build_backbone(backbone), **asked)
    assert hint in caught.value.hint
