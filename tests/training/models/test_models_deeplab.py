"""DeepLab-v2: where its dilations are, what its classifiers see, and that ImageNet's files still fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rtda_deploy.errors import ConfigError
from rtda_training.models import DeepLabV2, build_backbone, load_backbone_weights

pytestmark = pytest.mark.usefixtures("published_width")

torch.set_num_threads(1)


@pytest.mark.parametrize(("name", "spread"), [("resnet18", ("conv1", "conv2")), ("resnet101", ("conv2",))])
def test_the_last_two_stages_dilate_instead_of_striding(name: str, spread: tuple[str, ...]) -> None:
    with torch.device("meta"):
        backbone = DeepLabV2(name).backbone
    kernels = {key: layer for key, layer in backbone.named_modules() if isinstance(layer, nn.Conv2d)}
    strided = {key for key, layer in kernels.items() if layer.stride != (1, 1)}
    assert strided == {"conv1", f"layer2.0.{spread[0]}", "layer2.0.downsample.0"}
    for key, layer in kernels.items():
        stage, _, rest = key.partition(".")
        dilation = {"layer3": 2, "layer4": 4}.get(stage, 1) if rest.endswith(spread) else 1
        assert (layer.dilation[0], layer.dilation[1]) == (dilation, dilation), key
        expected = {7: 3, 3: dilation, 1: 0}[layer.kernel_size[0]]
        assert layer.padding == (expected, expected), key


def test_a_dilated_stage_sees_as_far_as_its_dilation_says() -> None:
    """Two blocks of two 3x3 kernels: 4 x 4 cells each way in layer4, 4 x 2 in layer3."""
    backbone = DeepLabV2("resnet18").backbone.eval()
    for stage, channels, reach in ((backbone.layer3, 128, 4 * 2), (backbone.layer4, 256, 4 * 4)):
        cells = torch.zeros(1, channels, 37, 37, requires_grad=True)
        for parameter in stage.parameters():
            nn.init.constant_(parameter, 0.01)  # nothing cancels, every ReLU is open
        stage(cells)[0, 0, 18, 18].backward()
        assert cells.grad is not None
        rows = cells.grad.abs().sum(dim=(0, 1, 3)).nonzero()[:, 0]
        assert (int(rows.min()), int(rows.max())) == (18 - reach, 18 + reach)


@pytest.mark.parametrize("head", ["head", "aux_heads.0"])
def test_the_classifier_is_the_sum_of_four_dilated_ones(head: str) -> None:
    classifier = DeepLabV2("resnet18", num_classes=2).get_submodule(head)
    for parameter in classifier.parameters():
        nn.init.ones_(parameter)
    impulse = torch.zeros(1, 512 if head == "head" else 256, 65, 65)
    impulse[0, 0, 32, 32] = 1.0
    with torch.no_grad():
        found = classifier(impulse)[0, 1] - 4.0  # four biases of one
    expected = torch.zeros(65, 65)
    for rate in (6, 12, 18, 24):
        for down in (-rate, 0, rate):
            for across in (-rate, 0, rate):
                expected[32 + down, 32 + across] += 1.0
    assert torch.equal(found, expected)


def test_the_auxiliary_head_reads_layer3() -> None:
    model = DeepLabV2("resnet18").eval()
    with torch.no_grad():
        output = model(torch.randn(1, 3, 64, 64), aux=True)
        expected = nn.functional.interpolate(
            model.aux_heads[0](output.features[2]), size=(64, 64), mode="bilinear", align_corners=False
        )
    assert torch.allclose(output.aux[0], expected, atol=1e-5)


def test_classifiers_start_small_and_unbiased() -> None:
    torch.manual_seed(0)
    model = DeepLabV2("resnet18")
    for head in (model.head, model.aux_heads):
        for name, parameter in head.named_parameters():
            spread = float(parameter.detach().std())
            assert spread == 0.0 if name.endswith("bias") else spread == pytest.approx(0.01, rel=0.05), name


def test_a_size_of_any_multiple_of_8_gives_exactly_an_eighth() -> None:
    with torch.device("meta"):
        model = DeepLabV2("resnet18").eval()
        for height, width in ((8, 8), (40, 72), (512, 1024), (720, 1280)):
            output = model(torch.empty(1, 3, height, width))
            assert output.coarse.shape[2:] == (height // 8, width // 8)
            assert output.logits.shape[2:] == (height, width)


def test_imagenets_file_loads_whole_into_the_dilated_backbone(tmp_path: Path) -> None:
    plain = build_backbone("resnet18")
    torch.save({**plain.state_dict(), "fc.weight": torch.zeros(1000, 512)}, tmp_path / "resnet18.pth")
    model = DeepLabV2("resnet18")
    report = load_backbone_weights(model, tmp_path / "resnet18.pth")
    assert (report.matched, report.total, report.ignored) == (100, 100, ("fc.weight",))
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in model.backbone.state_dict().items())


def test_another_output_stride_is_refused() -> None:
    with pytest.raises(ConfigError, match="no resnet18 of output stride 16") as caught:
        build_backbone("resnet18", output_stride=16)
    assert "32, 8" in caught.value.hint
