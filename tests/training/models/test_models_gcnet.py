"""GCNet: blocks of four paths are one convolution exactly; files under the names of the authors' code."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training.models.layer_keys import Keys, plain_conv, plain_norm, plain_norm_relu_conv

from rtda_deploy.errors import CheckpointError
from rtda_training.adapt.labelers.ema import average_into
from rtda_training.models import build_network, load_backbone_weights, load_foreign
from rtda_training.models.backbones.gcnet import GcBlock
from rtda_training.models.blocks import fuse_paths
from rtda_training.stages.segmentation import reestimate

torch.set_num_threads(1)


def settled(network: nn.Module) -> nn.Module:
    """Batch norms with values of their own, as after training; the rest as it starts."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.3, 3.0),
                (module.weight, -1.5, 1.5),
                (module.bias, -0.5, 0.5),
            ):
                assert tensor is not None
                nn.init.uniform_(tensor, low, high)
    return network.eval()


@pytest.mark.parametrize(("channels", "stride"), [((6, 6), 1), ((6, 10), 1), ((6, 6), 2), ((6, 10), 2)])
@torch.no_grad()
def test_a_fused_block_answers_alike_up_to_its_borders(channels: tuple[int, int], stride: int) -> None:
    torch.manual_seed(1)
    block = settled(GcBlock(*channels, stride, ends_in_relu=False))
    images = torch.randn(2, channels[0], 9, 12)
    before = block(images)
    assert fuse_paths(block) == 1 and fuse_paths(block) == 1, "fusing again changes nothing"
    assert {name.split(".")[0] for name in block.state_dict()} == {"fused"}
    assert float((block(images) - before).abs().max()) < 1e-5 * float(before.max() - before.min())


@torch.no_grad()
def test_the_view_has_one_convolution_for_each_of_thirty_blocks_and_answers_alike() -> None:
    torch.manual_seed(2)
    network = settled(build_network("gcnet"))
    images = torch.randn(1, 3, 64, 128)
    expected, keys = network(images).coarse, list(network.state_dict())
    view = network.deploy_view()
    assert fuse_paths(view) == 30
    assert not [name for name in view.state_dict() if "path_" in name]
    assert float((view(images) - expected).abs().max()) < 1e-5 * float(expected.max() - expected.min())
    assert list(network.state_dict()) == keys, "the network that learns stays as it is"


@torch.no_grad()
def test_a_teacher_is_averaged_unfused_and_fused_where_it_is_deployed() -> None:
    torch.manual_seed(3)
    student, other = settled(build_network("gcnet")), settled(build_network("gcnet"))
    teacher = copy.deepcopy(other)
    average_into(teacher, student, 0.5)
    assert list(teacher.state_dict()) == list(student.state_dict())
    images = torch.randn(1, 3, 64, 64)
    expected, found = teacher(images).coarse, teacher.deploy_view()(images)
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.max() - expected.min())
    average_of_fused = student.deploy_view()
    average_into(average_of_fused, other.deploy_view(), 0.5)
    assert not torch.allclose(average_of_fused(images), expected, atol=1e-2), "which an average of fused ones is not"


def test_batch_norms_measured_again_are_what_is_fused() -> None:
    torch.manual_seed(4)
    network = build_network("gcnet")
    images = 2.0 + torch.randn(4, 3, 64, 128)
    before = network.deploy_view()(images)
    reestimate(network, [images])
    with torch.no_grad():
        expected, found = network.eval()(images).coarse, network.deploy_view()(images)
    spread = float(expected.max() - expected.min())
    assert float((found - expected).abs().max()) < 1e-5 * spread < float((found - before).abs().max())


def gcnet_checkpoint(width: int = 32, pyramid: int = 128, classifier: str = "conv_seg") -> dict[str, Tensor]:
    """Names and shapes of the authors' mmsegmentation code, of width 32 or 24, with both of its heads."""
    keys = Keys()

    def module(name: str, i: int, o: int, kernel: int) -> None:
        keys.conv(f"{name}.conv", i, o, kernel)
        keys.norm(f"{name}.bn", o)

    def block(name: str, i: int, o: int, keeps: bool = True) -> None:
        for path, kernel in (("path_3x3_1", 3), ("path_3x3_2", 3), ("path_1x1", 1)):
            module(f"{name}.{path}.conv1", i, o, kernel)
            module(f"{name}.{path}.conv2", o, o, 1)
        if keeps:
            keys.norm(f"{name}.path_residual", i)

    def blocks(name: str, i: int, o: int, depth: int, smaller: bool) -> None:
        for n in range(depth):
            block(f"{name}.{n}", o if n else i, o, keeps=n > 0 or (i == o and not smaller))

    c = width
    module("backbone.stem.0", 3, c, 3)
    module("backbone.stem.1", c, c, 3)
    for n in range(2, 6):
        block(f"backbone.stem.{n}", c, c)
    for n in range(6, 10):
        block(f"backbone.stem.{n}", c if n == 6 else 2 * c, 2 * c, keeps=n > 6)
    for n, (i, o, depth) in enumerate(((2 * c, 4 * c, 5), (4 * c, 8 * c, 5), (8 * c, 16 * c, 2))):
        blocks(f"backbone.semantic_branch_layers.{n}", i, o, depth, smaller=True)
    for n, (i, o, depth) in enumerate(((2 * c, 2 * c, 4), (2 * c, 2 * c, 4), (2 * c, 4 * c, 2))):
        blocks(f"backbone.detail_branch_layers.{n}", i, o, depth, smaller=False)
    module("backbone.compression_1", 4 * c, 2 * c, 1)
    module("backbone.down_1", 2 * c, 4 * c, 3)
    module("backbone.compression_2", 8 * c, 2 * c, 1)
    module("backbone.down_2.0", 2 * c, 4 * c, 3)
    module("backbone.down_2.1", 4 * c, 8 * c, 3)
    for name, i, o, kernel in (
        ("scales.0", 16 * c, pyramid, 1),
        *((f"scales.{n}.1", 16 * c, pyramid, 1) for n in range(1, 5)),
        *((f"processes.{n}", pyramid, pyramid, 3) for n in range(4)),
        ("compression", 5 * pyramid, 4 * c, 1),
        ("shortcut", 16 * c, 4 * c, 1),
    ):
        keys.norm(f"backbone.spp.{name}.bn", i)
        keys.conv(f"backbone.spp.{name}.conv", i, o, kernel)
    for head, i, last in (("head", 4 * c, classifier), ("aux_head_c4", 2 * c, "aux_cls_seg_c4")):
        keys.norm(f"decode_head.{head}.0", i)
        module(f"decode_head.{head}.2", i, 64, 3)
        keys.conv(f"decode_head.{last}", 64, 19, 1, bias=True)
    return keys.tensors


def plain_gcnet(t: dict[str, Tensor], image: Tensor) -> Tensor:
    """The network computed from those names with plain functions; logits at 1/8."""

    def module(name: str, x: Tensor, stride: int = 1) -> Tensor:
        return plain_norm(t, f"{name}.bn", plain_conv(t, f"{name}.conv", x, stride))

    def block(name: str, x: Tensor, stride: int, relu: bool) -> Tensor:
        paths = ("path_3x3_1", "path_3x3_2", "path_1x1")
        out = sum(module(f"{name}.{path}.conv2", module(f"{name}.{path}.conv1", x, stride)) for path in paths)
        assert isinstance(out, Tensor)
        if f"{name}.path_residual.weight" in t:
            out = out + plain_norm(t, f"{name}.path_residual", x)
        return out.relu() if relu else out

    def blocks(name: str, x: Tensor, depth: int, stride: int) -> Tensor:
        for n in range(depth):
            x = block(f"backbone.{name}.{n}", x, stride if n == 0 else 1, relu=n < depth - 1)
        return x

    def larger(x: Tensor, factor: int) -> Tensor:
        return F.interpolate(x, scale_factor=factor, mode="bilinear")

    x = module("backbone.stem.1", module("backbone.stem.0", image, 2).relu(), 2).relu()
    for n in range(2, 10):
        x = block(f"backbone.stem.{n}", x, 2 if n == 6 else 1, relu=True)
    s, d = blocks("semantic_branch_layers.0", x, 5, 2), blocks("detail_branch_layers.0", x, 4, 1)
    told = larger(module("backbone.compression_1", s.relu()), 2)
    s, d = s + module("backbone.down_1", d.relu(), 2), d + told
    s, d = blocks("semantic_branch_layers.1", s.relu(), 5, 2), blocks("detail_branch_layers.1", d.relu(), 4, 1)
    told = larger(module("backbone.compression_2", s.relu()), 4)
    down = module("backbone.down_2.1", module("backbone.down_2.0", d.relu(), 2).relu(), 2)
    s, d = s + down, d + told
    s, d = blocks("semantic_branch_layers.2", s.relu(), 2, 2), blocks("detail_branch_layers.2", d.relu(), 2, 1)
    x = d + larger(plain_pyramid(lambda name, y: plain_norm_relu_conv(t, f"backbone.spp.{name}", y), s), 8)
    x = plain_norm(t, "decode_head.head.0", x).relu()
    return plain_conv(t, "decode_head.conv_seg", module("decode_head.head.2", x).relu())


def plain_pyramid(layer: Callable[[str, Tensor], Tensor], x: Tensor) -> Tensor:
    pools = [
        F.avg_pool2d(x, 5, 2, 2),
        F.avg_pool2d(x, 9, 4, 4),
        F.avg_pool2d(x, 17, 8, 8),
        x.mean((2, 3), keepdim=True),
    ]
    maps = [layer("scales.0", x)]
    for n, pooled in enumerate(pools):
        scale = F.interpolate(layer(f"scales.{n + 1}.1", pooled), size=x.shape[2:], mode="bilinear")
        maps.append(layer(f"processes.{n}", scale + maps[-1]))
    return layer("compression", torch.cat(maps, 1)) + layer("shortcut", x)


@pytest.mark.usefixtures("published_width")
def test_a_checkpoint_of_the_authors_code_computes_what_its_names_say() -> None:
    tensors = gcnet_checkpoint()
    found = load_foreign(None, {"state_dict": tensors})
    assert found.lineage == "gcnet" and found.aux_loaded and found.model.architecture["variant"] == "s"
    assert found.preprocessing["channel_order"] == "rgb" and found.preprocessing["mean"] == (0.485, 0.456, 0.406)
    image = torch.randn(1, 3, 64, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, got = plain_gcnet(tensors, image), found.model.double().eval()(image).coarse
    assert float((got - expected).abs().max()) < 1e-6 * float(expected.max() - expected.min())


@pytest.mark.usefixtures("published_width")
def test_the_width_is_read_off_the_file_and_fits_no_other() -> None:
    thin = gcnet_checkpoint(24, 96, "cls_seg")
    assert load_foreign(None, thin).model.architecture["variant"] == "w24"
    with pytest.raises(CheckpointError, match=r"GCNet\('gcnet', 'w24', 19\), the model a GCNet\('gcnet', 's', 19\)"):
        load_foreign(build_network("gcnet"), thin)
    key = "backbone.stem.0.conv.weight"
    with pytest.raises(CheckpointError, match="a GCNet of width 64") as caught:
        load_foreign(None, {**thin, key: torch.zeros(64, 3, 3, 3)})
    assert "32 (s), 24 (w24)" in caught.value.hint


@pytest.mark.usefixtures("published_width")
def test_a_fused_checkpoint_is_refused_because_it_cannot_learn() -> None:
    fused = {name: t for name, t in gcnet_checkpoint().items() if ".path_" not in name}
    fused["backbone.stem.2.reparam_3x3.weight"] = torch.zeros(32, 32, 3, 3)
    with pytest.raises(CheckpointError, match=r"fused already, such as backbone\.stem\.2\.reparam_3x3") as caught:
        load_foreign(None, fused)
    assert "before the fusion" in caught.value.hint


@pytest.mark.usefixtures("published_width")
def test_a_backbones_file_loads_whole_under_the_published_names(tmp_path: Path) -> None:
    whole = {
        name.removeprefix("backbone."): t.float() for name, t in gcnet_checkpoint().items() if "decode" not in name
    }
    torch.save({"state_dict": whole}, tmp_path / "gcnet.pth")
    network = build_network("gcnet")
    report = load_backbone_weights(network, tmp_path / "gcnet.pth")
    assert report.matched == report.total == 1035 and {name.split(".")[0] for name in report.ignored} == {"spp"}
    assert torch.equal(
        network.backbone.stem[1][0].path_1x1.conv1.conv.weight, whole["stem.6.path_1x1.conv1.conv.weight"]
    )
    with pytest.raises(CheckpointError, match="does not fit resnet18") as caught:
        load_backbone_weights(build_network("bisenet"), tmp_path / "gcnet.pth")
    assert "it looks like a file of gcnet" in caught.value.hint
