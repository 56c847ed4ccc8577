"""DDRNet-23-slim: files under the names of its authors and of mmsegmentation compute what their names say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from training.models.layer_keys import Keys, plain_conv, plain_norm

from rtda_deploy.errors import CheckpointError
from rtda_training.models import build_network, load_backbone_weights, load_foreign

pytestmark = pytest.mark.usefixtures("published_width")

torch.set_num_threads(1)

# Name, input and output channels, depth, kind ("basic" of two 3x3, "narrow" of 1x1, 3x3, 1x1) and stride.
LAYERS = (
    ("layer1", 32, 32, "basic", 1),
    ("layer2", 32, 64, "basic", 2),
    ("layer3", 64, 128, "basic", 2),
    ("layer4", 128, 256, "basic", 2),
    ("layer3_", 64, 64, "basic", 1),
    ("layer4_", 64, 64, "basic", 1),
    ("layer5_", 64, 128, "narrow", 1),
    ("layer5", 256, 512, "narrow", 2),
)
# Where mmsegmentation keeps the same layers.
MMSEG = {
    "layer1": "stem.2",
    "layer2": "stem.4",
    "compression3": "compression_1",
    "compression4": "compression_2",
    **{f"layer{n}": f"context_branch_layers.{n - 3}" for n in (3, 4, 5)},
    **{f"layer{n}_": f"spatial_branch_layers.{n - 3}" for n in (3, 4, 5)},
}


def authors_checkpoint(spp: bool = True) -> dict[str, Tensor]:
    """``DualResNet``'s state dict as ``segmentation/DDRNet_23_slim.py`` has it."""
    keys = Keys()

    def pair(conv: str, norm: str, i: int, o: int, kernel: int, bias: bool = False) -> None:
        keys.conv(conv, i, o, kernel, bias=bias)
        keys.norm(norm, o)

    pair("conv1.0", "conv1.1", 3, 32, 3, bias=True)
    pair("conv1.3", "conv1.4", 32, 32, 3, bias=True)
    for name, i, o, kind, stride in LAYERS:
        shapes = [(i, o, 3), (o, o, 3)] if kind == "basic" else [(i, i, 1), (i, i, 3), (i, o, 1)]
        for n, (a, b, kernel) in enumerate(shapes, 1):
            pair(f"{name}.0.conv{n}", f"{name}.0.bn{n}", a, b, kernel)
        if i != o or stride > 1:
            pair(f"{name}.0.downsample.0", f"{name}.0.downsample.1", i, o, 1)
        for n in (1, 2) if kind == "basic" else ():
            pair(f"{name}.1.conv{n}", f"{name}.1.bn{n}", o, o, 3)
    pair("compression3.0", "compression3.1", 128, 64, 1)
    pair("compression4.0", "compression4.1", 256, 64, 1)
    pair("down3.0", "down3.1", 64, 128, 3)
    pair("down4.0", "down4.1", 64, 128, 3)
    pair("down4.3", "down4.4", 128, 256, 3)
    for name, i, o, kernel in (
        *((f"scale{n}", 512, 128, 1) for n in range(5)),
        *((f"process{n}", 128, 128, 3) for n in range(1, 5)),
        ("compression", 640, 128, 1),
        ("shortcut", 512, 128, 1),
    ):
        first = 1 if name in ("scale1", "scale2", "scale3", "scale4") else 0  # behind its pooling
        keys.norm(f"spp.{name}.{first}", i)
        keys.conv(f"spp.{name}.{first + 2}", i, o, kernel)
    for head, i in (("final_layer", 128), ("seghead_extra", 64)):
        keys.norm(f"{head}.bn1", i)
        keys.conv(f"{head}.conv1", i, 64, 3)
        keys.norm(f"{head}.bn2", 64)
        keys.conv(f"{head}.conv2", 64, 19, 1, bias=True)
    return keys.tensors


def mmseg_checkpoint() -> dict[str, Tensor]:
    """The same weights under mmsegmentation's names, whose first two convolutions have no bias."""
    found: dict[str, Tensor] = {}
    for name, tensor in authors_checkpoint().items():
        layer, _, rest = name.partition(".")
        if name in ("conv1.0.bias", "conv1.3.bias"):
            continue
        if layer in ("final_layer", "seghead_extra"):
            aux = layer == "seghead_extra"
            place, last = ("aux_head", "aux_cls_seg") if aux else ("head", "conv_seg")
            part, _, kind = rest.partition(".")
            where = {"bn1": f"{place}.0.bn", "conv1": f"{place}.0.conv", "bn2": f"{place}.1", "conv2": last}[part]
            found[f"decode_head.{where}.{kind}"] = tensor
        else:
            found[f"backbone.{_mmseg_name(layer, rest)}"] = tensor
    return found


def _mmseg_name(layer: str, rest: str) -> str:
    place, _, kind = rest.partition(".")
    modules = {"0": "conv", "1": "bn", "3": "conv", "4": "bn"}
    if layer == "conv1":
        return f"stem.{int(place) // 3}.{modules[place]}.{kind}"
    if layer in ("compression3", "compression4", "down3"):
        return f"{MMSEG.get(layer, 'down_1')}.{modules[place]}.{kind}"
    if layer == "down4":
        return f"down_2.{int(place) // 3}.{modules[place]}.{kind}"
    if layer == "spp":
        number, kind = kind.split(".", 1)
        module = "bn" if number in ("0", "1") else "conv"
        if place.startswith("scale"):
            inner = "" if place == "scale0" else "1."
            return f"spp.scales.{place[-1]}.{inner}{module}.{kind}"
        group = f"processes.{int(place[-1]) - 1}" if place.startswith("process") else place
        return f"spp.{group}.{module}.{kind}"
    block, part, kind = rest.split(".", 2)
    if part == "downsample":
        return f"{MMSEG[layer]}.{block}.{part}.{kind}"
    return f"{MMSEG[layer]}.{block}.conv{part[-1]}.{'conv' if part.startswith('conv') else 'bn'}.{kind}"


def plain_ddrnet(t: dict[str, Tensor], image: Tensor) -> Tensor:
    """The network computed from the authors' names with plain functions; logits at 1/8."""

    def pair(conv: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
        return plain_norm(t, norm, plain_conv(t, conv, x, stride))

    def block(name: str, x: Tensor, stride: int) -> Tensor:
        out, last = x, 3 if f"{name}.conv3.weight" in t else 2
        for n in range(1, last + 1):
            here = stride if n == last - 1 else 1  # the first of two, the second of three
            out = pair(f"{name}.conv{n}", f"{name}.bn{n}", out, here)
            out = out.relu() if n < last else out
        short = f"{name}.downsample"
        return out + (pair(f"{short}.0", f"{short}.1", x, stride) if f"{short}.0.weight" in t else x)

    def layer(name: str, x: Tensor) -> Tensor:
        (_, _, _, kind, stride), *_ = [entry for entry in LAYERS if entry[0] == name]
        x = block(f"{name}.0", x, stride)
        return block(f"{name}.1", x.relu(), 1) if kind == "basic" else x

    def before(name: str, x: Tensor, first: int) -> Tensor:
        return plain_conv(t, f"spp.{name}.{first + 2}", plain_norm(t, f"spp.{name}.{first}", x).relu())

    def larger(x: Tensor, factor: int) -> Tensor:
        return F.interpolate(x, scale_factor=factor, mode="bilinear")

    x = pair("conv1.3", "conv1.4", pair("conv1.0", "conv1.1", image, 2).relu(), 2).relu()
    x = layer("layer2", layer("layer1", x).relu()).relu()
    s, d = layer("layer3", x), layer("layer3_", x)
    told = larger(pair("compression3.0", "compression3.1", s.relu()), 2)
    s, d = s + pair("down3.0", "down3.1", d.relu(), 2), d + told
    s, d = layer("layer4", s.relu()), layer("layer4_", d.relu())
    told = larger(pair("compression4.0", "compression4.1", s.relu()), 4)
    s, d = s + pair("down4.3", "down4.4", pair("down4.0", "down4.1", d.relu(), 2).relu(), 2), d + told
    s, d = layer("layer5", s.relu()), layer("layer5_", d.relu())
    pools = [F.avg_pool2d(s, 2 * stride + 1, stride, stride) for stride in (2, 4, 8)]
    pools.append(s.mean((2, 3), keepdim=True))
    maps = [before("scale0", s, 0)]
    for n, pooled in enumerate(pools, 1):
        scale = F.interpolate(before(f"scale{n}", pooled, 1), size=s.shape[2:], mode="bilinear")
        maps.append(before(f"process{n}", scale + maps[-1], 0))
    x = d + larger(before("compression", torch.cat(maps, 1), 0) + before("shortcut", s, 0), 8)
    x = plain_conv(t, "final_layer.conv1", plain_norm(t, "final_layer.bn1", x).relu())
    return plain_conv(t, "final_layer.conv2", plain_norm(t, "final_layer.bn2", x).relu())


@pytest.mark.parametrize("mmseg", [False, True], ids=["authors", "mmseg"])
def test_a_checkpoint_computes_what_its_names_say(mmseg: bool) -> None:
    tensors = authors_checkpoint()
    given: dict[str, Any] = mmseg_checkpoint() if mmseg else {f"model.{name}": t for name, t in tensors.items()}
    if mmseg:
        tensors["conv1.0.bias"] = tensors["conv1.3.bias"] = torch.zeros(32, dtype=torch.float64)
    else:
        given["loss.criterion.weight"] = torch.ones(19)  # the authors' training wraps network and loss
    found = load_foreign(None, given)
    assert found.lineage == ("ddrnet-mmseg" if mmseg else "ddrnet") and found.aux_loaded
    assert found.model.architecture == {"name": "DDRNet", "backbone": "ddrnet23-slim"}
    image = torch.randn(1, 3, 64, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, got = plain_ddrnet(tensors, image), found.model.double().eval()(image).coarse
    assert float((got - expected).abs().max()) < 1e-6 * float(expected.max() - expected.min())


def test_the_names_written_down_here_are_those_of_an_official_file() -> None:
    """What a user's mmsegmentation found in one of the authors' and printed (its pull request 2855)."""
    seen = """
        conv1.0.weight conv1.0.bias conv1.1.weight conv1.1.running_var conv1.1.num_batches_tracked conv1.3.weight
        conv1.3.bias conv1.4.bias layer1.0.conv1.weight layer1.0.bn1.weight layer1.1.conv2.weight
        layer1.1.bn2.running_mean layer2.0.conv1.weight layer3_.0.conv2.weight layer3_.1.bn2.running_var
        layer4_.0.bn1.bias layer4_.1.conv2.weight spp.shortcut.0.weight spp.shortcut.0.bias
        spp.shortcut.0.running_mean spp.shortcut.2.weight seghead_extra.bn1.weight seghead_extra.conv1.weight
        seghead_extra.bn2.bias seghead_extra.conv2.weight seghead_extra.conv2.bias final_layer.bn1.weight
        final_layer.conv1.weight final_layer.bn2.running_mean final_layer.conv2.weight final_layer.conv2.bias
    """
    assert set(seen.split()) <= set(authors_checkpoint())


def test_a_checkpoint_of_a_wider_ddrnet_is_refused_with_the_width() -> None:
    with pytest.raises(CheckpointError, match="a DDRNet of width 64") as caught:
        load_foreign(None, {**authors_checkpoint(), "conv1.0.weight": torch.zeros(64, 3, 3, 3)})
    assert "32" in caught.value.hint


@pytest.mark.parametrize("mmseg", [False, True], ids=["authors", "mmseg"])
def test_an_imagenet_file_loads_whole_under_both_layouts(tmp_path: Path, mmseg: bool) -> None:
    if mmseg:
        whole = {name.removeprefix("backbone."): t.float() for name, t in mmseg_checkpoint().items()}
        whole = {name: t for name, t in whole.items() if not name.startswith("decode_head.")}
    else:
        heads = ("final_layer.", "seghead_extra.")
        whole = {name: t.float() for name, t in authors_checkpoint().items() if not name.startswith(heads)}
    torch.save({"state_dict": whole}, tmp_path / "imagenet.pth")
    network = build_network("ddrnet")
    report = load_backbone_weights(network, tmp_path / "imagenet.pth")
    assert report.matched == report.total == 212 and {name.split(".")[0] for name in report.ignored} == {"spp"}
    theirs = "context_branch_layers.1.0.conv2.conv.weight" if mmseg else "layer4.0.conv2.weight"
    assert torch.equal(network.backbone.state_dict()["semantic.1.0.conv2.weight"], whole[theirs])
    with pytest.raises(CheckpointError) as caught:
        load_backbone_weights(build_network("gcnet"), tmp_path / "imagenet.pth")
    assert "it looks like a file of ddrnet23-slim" in caught.value.hint
