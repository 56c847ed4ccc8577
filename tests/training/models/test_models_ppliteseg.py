"""PP-LiteSeg and STDC: files under the names of PaddleSeg and of STDC's authors compute what their names say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from training.models.layer_keys import Keys, plain_conv

from rtda_deploy.errors import CheckpointError
from rtda_training.models import build_backbone, build_network, load_backbone_weights, load_foreign

torch.set_num_threads(1)

DEPTHS = {"t": (2, 2, 2), "b": (4, 5, 3)}
OUTPUTS = {"t": (32, 64, 128), "b": (64, 96, 128)}


class PaddleKeys(Keys):
    """Batch norms as Paddle names their statistics; no counter."""

    def norm(self, name: str, channels: int) -> None:
        super().norm(name, channels)
        del self.tensors[f"{name}.num_batches_tracked"]
        for theirs, ours in (("_mean", "running_mean"), ("_variance", "running_var")):
            self.tensors[f"{name}.{theirs}"] = self.tensors.pop(f"{name}.{ours}")


def stdc(keys: Keys, prefix: str, depths: tuple[int, ...]) -> None:
    """STDC's features."""

    def module(name: str, i: int, o: int, kernel: int) -> None:
        keys.conv(f"{prefix}{name}.conv", i, o, kernel)
        keys.norm(f"{prefix}{name}.bn", o)

    module("features.0", 3, 32, 3)
    module("features.1", 32, 64, 3)
    place, i = 2, 64
    for o, depth in zip((256, 512, 1024), depths):
        for n in range(depth):
            shapes = ((i, o // 2, 1), (o // 2, o // 4, 3), (o // 4, o // 8, 3), (o // 8, o // 8, 3))
            for k, shape in enumerate(shapes):
                module(f"features.{place}.conv_list.{k}", *shape)
            if n == 0:
                keys.conv(f"{prefix}features.{place}.avd_layer.0", o // 2, o // 2, 3, groups=o // 2)
                keys.norm(f"{prefix}features.{place}.avd_layer.1", o // 2)
            place, i = place + 1, o


def paddle_checkpoint(variant: str) -> dict[str, Tensor]:
    """What PaddleSeg's ``PPLiteSeg`` saves, as tensors."""
    keys = PaddleKeys()

    def module(name: str, i: int, o: int, kernel: int, bias: bool = False) -> None:
        keys.conv(f"{name}._conv", i, o, kernel, bias=bias)
        keys.norm(f"{name}._batch_norm", o)

    stdc(keys, "backbone.", DEPTHS[variant])
    for k in range(3):
        module(f"ppseg_head.cm.stages.{k}.1", 1024, 128, 1, bias=True)
    module("ppseg_head.cm.conv_out", 128, 128, 3, bias=True)
    outputs = OUTPUTS[variant]
    for k, (fine, coarse, out) in enumerate(zip((256, 512, 1024), (*outputs[1:], 128), outputs)):
        arm = f"ppseg_head.arm_list.{k}"
        module(f"{arm}.conv_x", fine, coarse, 3)
        module(f"{arm}.conv_out", coarse, out, 3)
        module(f"{arm}.conv_xy_atten.0", 4, 2, 3)
        module(f"{arm}.conv_xy_atten.1", 2, 1, 3)
        keys.tensors[f"{arm}._scale"] = torch.ones(1)
        mid = 32 if variant == "t" and k == 0 else 64
        module(f"seg_heads.{k}.conv", out, mid, 3)
        keys.conv(f"seg_heads.{k}.conv_out", mid, 19, 1)
    return keys.tensors


def plain_ppliteseg(t: dict[str, Tensor], image: Tensor, variant: str) -> Tensor:
    """The network computed from those names with plain functions; logits at 1/8."""

    def norm(name: str, x: Tensor) -> Tensor:
        parts = ("_mean", "_variance", "weight", "bias")
        mean, variance, scale, shift = (t[f"{name}.{part}"] for part in parts)
        return F.batch_norm(x, mean, variance, scale, shift)

    def backbone(name: str, x: Tensor, stride: int = 1) -> Tensor:
        return norm(f"backbone.{name}.bn", plain_conv(t, f"backbone.{name}.conv", x, stride)).relu()

    def module(name: str, x: Tensor) -> Tensor:
        return norm(f"{name}._batch_norm", plain_conv(t, f"{name}._conv", x))

    def block(name: str, x: Tensor) -> Tensor:
        x = backbone(f"{name}.conv_list.0", x)
        outs = [x]
        avd = f"backbone.{name}.avd_layer"
        if f"{avd}.0.weight" in t:
            outs = [F.avg_pool2d(x, 3, 2, 1)]
            x = norm(f"{avd}.1", plain_conv(t, f"{avd}.0", x, 2, groups=x.shape[1]))
        for k in (1, 2, 3):
            x = backbone(f"{name}.conv_list.{k}", x)
            outs.append(x)
        return torch.cat(outs, 1)

    def larger(x: Tensor, other: Tensor) -> Tensor:
        return F.interpolate(x, size=other.shape[2:], mode="bilinear")

    x = backbone("features.1", backbone("features.0", image, 2), 2)
    maps, place = [], 2
    for depth in DEPTHS[variant]:
        for _ in range(depth):
            x, place = block(f"features.{place}", x), place + 1
        maps.append(x)
    pooled = [
        module(f"ppseg_head.cm.stages.{k}.1", F.adaptive_avg_pool2d(x, n)).relu() for k, n in enumerate((1, 2, 4))
    ]
    y = module("ppseg_head.cm.conv_out", sum((larger(cell, x) for cell in pooled), torch.zeros(()))).relu()
    for k in (2, 1, 0):
        arm = f"ppseg_head.arm_list.{k}"
        fine = module(f"{arm}.conv_x", maps[k]).relu()
        y = larger(y, fine)
        seen = [fine.mean(1, True), fine.max(1, True)[0], y.mean(1, True), y.max(1, True)[0]]
        share = module(f"{arm}.conv_xy_atten.1", module(f"{arm}.conv_xy_atten.0", torch.cat(seen, 1)).relu()).sigmoid()
        y = module(f"{arm}.conv_out", fine * share + y * (1 - share)).relu()
    return plain_conv(t, "seg_heads.0.conv_out", module("seg_heads.0.conv", y).relu())


@pytest.mark.usefixtures("published_width")
@pytest.mark.parametrize("variant", ["t", "b"])
def test_a_checkpoint_of_paddleseg_computes_what_its_names_say(variant: str) -> None:
    tensors = paddle_checkpoint(variant)
    found = load_foreign(None, tensors)
    backbone = {"t": "stdc1", "b": "stdc2"}[variant]
    assert found.lineage == "ppliteseg" and found.aux_loaded and found.preprocessing["std"] == (0.5, 0.5, 0.5)
    assert found.model.architecture == {"name": "PP-LiteSeg", "backbone": backbone, "variant": variant}
    image = torch.randn(1, 3, 128, 256, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, got = plain_ppliteseg(tensors, image, variant), found.model.double().eval()(image).coarse
    assert float((got - expected).abs().max()) < 1e-6 * float(expected.max() - expected.min())


@pytest.mark.usefixtures("published_width")
def test_a_file_whose_fusions_are_scaled_otherwise_is_refused() -> None:
    tensors = {**paddle_checkpoint("t"), "ppseg_head.arm_list.1._scale": torch.full((1,), 0.5)}
    with pytest.raises(CheckpointError, match="_scale"):
        load_foreign(None, tensors)


@pytest.mark.usefixtures("published_width")
def test_a_file_without_the_scales_of_its_fusions_loads() -> None:
    """As the published ones are: PaddleSeg, which loads one, warns of no other name (its issue 3307)."""
    tensors = {name: t for name, t in paddle_checkpoint("t").items() if not name.endswith("._scale")}
    assert load_foreign(None, tensors).lineage == "ppliteseg"


def mmseg_name(name: str, depths: tuple[int, ...]) -> str:
    """A name of STDC's authors as mmsegmentation's converted files have it (listed in its issues 1418 and 2076)."""
    _, place, rest = name.split(".", 2)
    stages = ["0", "1", *(f"{stage + 2}.{n}" for stage, depth in enumerate(depths) for n in range(depth))]
    for theirs, ours in (
        ("conv_list.", "layers."),
        ("avd_layer.0.", "downsample.conv."),
        ("avd_layer.1.", "downsample.bn."),
    ):
        rest = rest.replace(theirs, ours)
    return f"stages.{stages[int(place)]}.{rest}"


@pytest.mark.usefixtures("published_width")
@pytest.mark.parametrize("backbone", ["stdc1", "stdc2"])
def test_a_backbones_file_of_mmsegmentation_loads_whole(tmp_path: Path, backbone: str) -> None:
    keys, depths = Keys(), DEPTHS["t" if backbone == "stdc1" else "b"]
    stdc(keys, "", depths)
    theirs = {mmseg_name(name, depths): t.float() for name, t in keys.tensors.items()}
    seen = {  # in the listings of issues 1418 and 2076, of the file for STDC-2
        "stages.0.conv.weight",
        "stages.1.bn.num_batches_tracked",
        "stages.2.0.layers.3.bn.running_var",
        "stages.2.0.downsample.conv.weight",
        "stages.2.0.downsample.bn.bias",
        "stages.3.1.layers.0.bn.weight",
        "stages.3.2.layers.2.conv.weight",
    }
    assert backbone == "stdc1" or seen <= set(theirs)
    torch.save(theirs, tmp_path / "converted.pth")
    network = build_network("bisenet", backbone)
    report = load_backbone_weights(network, tmp_path / "converted.pth")
    assert report.matched == report.total and not report.ignored
    for name in ("features.2.avd_layer.1.weight", "features.7.conv_list.3.conv.weight"):
        assert torch.equal(network.backbone.state_dict()[name], keys.tensors[name].float())


@pytest.mark.usefixtures("published_width")
@pytest.mark.parametrize("prefix", ["", "cp.backbone.", "backbone."], ids=["imagenet", "stdc-seg", "paddle"])
def test_a_backbones_file_loads_whole_under_each_prefix(tmp_path: Path, prefix: str) -> None:
    keys = Keys()
    stdc(keys, prefix, (2, 2, 2))
    whole = {name: t.float() for name, t in keys.tensors.items()}
    torch.save({"state_dict": {**whole, "fc.weight": torch.zeros(1024, 1024)}}, tmp_path / "stdc1.pth")
    network = build_network("bisenet", "stdc1")
    report = load_backbone_weights(network, tmp_path / "stdc1.pth")
    assert report.matched == report.total == 145 and report.ignored == ("fc.weight",)
    with pytest.raises(CheckpointError, match="does not fit stdc2") as caught:
        load_backbone_weights(build_network("ppliteseg", "stdc2"), tmp_path / "stdc1.pth")
    assert "it looks like a file of stdc1: --set backbone=stdc1" in caught.value.hint


@pytest.mark.usefixtures("published_width")
def test_the_first_stages_of_stdc_load_alone(tmp_path: Path) -> None:
    keys = Keys()
    stdc(keys, "", (2, 2, 2))
    first = {name: t.float() for name, t in keys.tensors.items() if int(name.split(".")[1]) < 6}
    torch.save(first, tmp_path / "part.pth")
    backbone = build_backbone("stdc1")
    report = load_backbone_weights(backbone, tmp_path / "part.pth", stages=3)
    assert report.random == ("features.6.", "features.7.") and report.matched == len(first) - sum(
        name.endswith("num_batches_tracked") for name in first
    )


def test_the_backbone_follows_the_variant_unless_it_is_named() -> None:
    with torch.device("meta"):
        assert build_network("ppliteseg", "", "b").settings == {"backbone": "stdc2", "variant": "b"}
        assert build_network("ppliteseg").settings == {"backbone": "stdc1", "variant": "lite"}
        assert build_network("ppliteseg", "resnet18", "b").settings["backbone"] == "resnet18"
