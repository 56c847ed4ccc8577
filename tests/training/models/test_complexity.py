"""Every published size and cost of these networks, rebuilt from one count under each paper's own convention.

Ours: multiply-adds of convolutions for ONE picture, no bias, no activation, no upsampling. Four papers and course
reports print other figures of the same networks; each test says what that convention adds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import nn

from rtda_deploy.errors import ModelError
from rtda_training.models import (
    BiSeNet,
    DeepLabV2,
    FCN8s,
    build_backbone,
    build_discriminator,
    build_network,
    count_macs,
    count_operations,
    count_parameters,
)

pytestmark = pytest.mark.usefixtures("published_width", "no_weights")

torch.set_num_threads(1)

SIZE_HW = (512, 1024)


@pytest.fixture()
def no_weights() -> Iterator[None]:
    """Networks have shapes alone: counting reads no value, and large ones take a second to draw."""
    with torch.device("meta"):
        yield


def giga(count: float, digits: int) -> float:
    return round(count / 1e9, digits)


@pytest.mark.parametrize(
    ("words", "deployed", "learning", "auxiliary", "gmacs"),
    [
        (("gcnet", "", "s"), 9_169_971, 20_657_075, 38_355, 11.28),
        (("gcnet", "", "w24"), 5_175_355, 11_646_427, 29_107, 6.48),
        (("ddrnet",), 5_695_987, 5_695_987, 38_355, 9.07),
        (("ppliteseg", "", "lite"), 6_324_096, 6_324_096, 113_280, 8.74),
        (("ppliteseg", "", "t"), 8_028_320, 8_028_320, 113_280, 11.42),
        (("ppliteseg", "", "b"), 12_234_752, 12_234_752, 131_712, 19.23),
    ],
)
def test_light_networks_have_the_published_parameters_and_cost(
    words: tuple[str, ...], deployed: int, learning: int, auxiliary: int, gmacs: float
) -> None:
    model = build_network(*words)
    assert count_parameters(model) == count_parameters(model.deploy_view()) == deployed
    assert count_parameters(model, training=True) == learning + auxiliary
    assert sum(parameter.numel() for parameter in model.aux_heads.parameters()) == auxiliary
    assert giga(count_macs(model, SIZE_HW), 2) == gmacs


@pytest.mark.parametrize(
    ("backbone", "variant", "inference", "auxiliary"),
    [
        ("resnet18", "rtda", 12_054_042, 14_630),
        ("resnet101", "rtda", 48_693_786, 58_406),
        ("resnet18", "paper", 13_275_539, 150_182),
    ],
)
def test_bisenet_parameters(backbone: str, variant: str, inference: int, auxiliary: int) -> None:
    model = BiSeNet(backbone, variant)
    assert count_parameters(model) == count_parameters(model.train()) == inference
    assert count_parameters(model, training=True) == inference + auxiliary
    assert count_parameters(model.deploy_view()) == inference


def test_the_parts_of_the_rtda_network_have_the_parameters_the_design_lists() -> None:
    for backbone, fusion, attention in (("resnet18", 175_902, 329_984), ("resnet101", 569_886, 5_252_096)):
        model = BiSeNet(backbone)
        assert count_parameters(model.fusion) == fusion
        assert count_parameters(model.context_path) == attention


@pytest.mark.parametrize(
    ("backbone", "variant", "published", "deployed"),
    [("resnet18", "rtda", 25.63, 25.45), ("resnet101", "rtda", 91.40, 91.22), ("resnet18", "paper", 29.58, 29.58)],
)
def test_bisenet_macs_at_1024x512(backbone: str, variant: str, published: float, deployed: float) -> None:
    """Our convention, published order: RTDA's last 1x1 runs at full resolution. Deployed, it runs at 1/8."""
    model = BiSeNet(backbone, variant)
    assert giga(count_macs(model, SIZE_HW), 2) == published
    assert giga(count_macs(model.deploy_view(), SIZE_HW), 2) == deployed


def test_the_parts_of_the_rtda_macs_add_up() -> None:
    for backbone, of_backbone, in_channels in (("resnet18", 18.95, 1024), ("resnet101", 81.50, 3328)):
        spatial = 512 * 1024 // 4 * 27 * 64 + 512 * 1024 // 16 * 576 * 128 + 512 * 1024 // 64 * 1152 * 256
        fusion = 64 * 128 * in_channels * 9 * 19
        head = 512 * 1024 * 19 * 19
        resnet = count_macs(build_backbone(backbone), SIZE_HW)
        assert giga(resnet, 2) == of_backbone
        assert giga(spatial, 2) == 5.06
        assert giga(head, 2) == 0.19
        assert count_macs(BiSeNet(backbone), SIZE_HW) == resnet + spatial + fusion + head


def test_convolutions_on_pooled_maps_are_counted_apart() -> None:
    # Two attentions, C x C each, and the fusion's two 19 x 19.
    assert count_operations(BiSeNet("resnet101"), SIZE_HW).pooled_macs == 1024**2 + 2048**2 + 2 * 19**2
    # Two attentions, the global context, the fusion.
    expected = 2 * 128**2 + 512 * 128 + 256**2
    assert count_operations(BiSeNet(variant="paper"), SIZE_HW).pooled_macs == expected


def test_macs_follow_the_size_of_the_picture() -> None:
    model = BiSeNet()
    assert count_macs(model, SIZE_HW) == 4 * count_macs(model, (256, 512))


@pytest.mark.parametrize(
    ("name", "bias", "parameters"),
    [
        ("fcd", True, 2_781_121),  # RTDA Table III: 2.781 M; SSL Table III: 2.781 M; slides: 2.7 M
        ("fcd-light", True, 191_364),  # RTDA: 0.191 M; slides: 191 K
        ("fcd-light", False, 189_424),  # SSL Table III: 0.189 M, hence without biases
        ("light-thin", True, 13_316),  # RTDA: 13.316 K
    ],
)
def test_discriminator_parameters(name: str, bias: bool, parameters: int) -> None:
    assert count_parameters(build_discriminator(name, bias=bias)) == parameters


@pytest.mark.parametrize(
    ("name", "macs"), [("fcd", 15_439_233_024), ("fcd-light", 1_067_712_512), ("light-thin", 519_045_120)]
)
def test_discriminator_macs_for_one_picture(name: str, macs: int) -> None:
    assert count_macs(build_discriminator(name), SIZE_HW) == macs


@pytest.mark.parametrize(
    ("name", "printed", "digits"), [("fcd", 30.883, 3), ("fcd-light", 2.14, 2), ("light-thin", 1.038, 3)]
)
def test_rtda_table_3_counts_two_pictures_and_four_operations_per_upsampled_pixel(
    name: str, printed: float, digits: int
) -> None:
    """fvcore on a batch of two: 2 x (MACs + 4 per upsampled pixel); no bias, no activation."""
    count = count_operations(build_discriminator(name), SIZE_HW)
    assert giga(2 * (count.macs + 4 * count.upsampled), digits) == printed


@pytest.mark.parametrize(("name", "bias", "printed"), [("fcd", True, 30.953), ("fcd-light", False, 2.178)])
def test_ssl_table_3_counts_two_pictures_with_biases_activations_and_eleven_per_pixel(
    name: str, bias: bool, printed: float
) -> None:
    """thop on a batch of two: 2 x (MACs + biases + 1 per LeakyReLU value + 11 per upsampled pixel)."""
    count = count_operations(build_discriminator(name, bias=bias), SIZE_HW)
    assert giga(2 * (count.macs + count.biases + count.leaky_relus + 11 * count.upsampled), 3) == printed


@pytest.mark.parametrize(("name", "printed", "digits"), [("fcd", 61.8, 1), ("fcd-light", 4.36, 2)])
def test_the_slides_count_four_pictures_with_biases(name: str, printed: float, digits: int) -> None:
    """4 x (MACs + biases): a batch of four, or two operations per multiply-add on a batch of two."""
    count = count_operations(build_discriminator(name), SIZE_HW)
    assert giga(4 * (count.macs + count.biases), digits) == printed


@pytest.mark.parametrize(("name", "printed"), [("fcd", 123.64), ("fcd-light", 8.72)])
def test_a_course_report_counts_eight_pictures_with_biases(name: str, printed: float) -> None:
    """8 x (MACs + biases): torchinfo's "mult-adds" on a batch of eight."""
    count = count_operations(build_discriminator(name), SIZE_HW)
    assert giga(8 * (count.macs + count.biases), 2) == printed


class Layer(NamedTuple):
    """A convolution: its kernel's side, channels in and out, and the stride of the map it gives."""

    kernel: int
    inputs: int
    outputs: int
    stride: int
    more: int  # further parameters per output channel: 1 for a bias, 2 for a batch norm

    @property
    def parameters(self) -> int:
        return self.kernel**2 * self.inputs * self.outputs + self.more * self.outputs

    @property
    def macs(self) -> int:
        return self.kernel**2 * self.inputs * self.outputs * (SIZE_HW[0] // self.stride) * (SIZE_HW[1] // self.stride)


def aspp(inputs: int) -> list[Layer]:
    return [Layer(3, inputs, 19, 8, 1)] * 4


def dilated_resnet101() -> list[Layer]:
    """Bottlenecks 1x1, 3x3, 1x1, the stride on the 3x3; the last two stages stay at 1/8."""
    layers = [Layer(7, 3, 64, 2, 2)]
    inputs, before = 64, 4
    for depth, width, stride in ((3, 64, 4), (4, 128, 8), (23, 256, 8), (3, 512, 8)):
        layers.append(Layer(1, inputs, 4 * width, stride, 2))  # the projecting shortcut
        for _ in range(depth):
            layers += [
                Layer(1, inputs, width, before, 2),
                Layer(3, width, width, stride, 2),
                Layer(1, width, 4 * width, stride, 2),
            ]
            inputs, before = 4 * width, stride
    return layers


def test_deeplab_v2_counts_are_the_sums_over_its_layers() -> None:
    layers = [*dilated_resnet101(), *aspp(2048)]
    with torch.device("meta"):
        model = DeepLabV2()
    parameters = sum(layer.parameters for layer in layers)
    assert parameters == 44_549_160 - 2_049_000 + 4 * (9 * 2048 * 19 + 19)  # torchvision's ResNet-101 without fc
    assert count_parameters(model) == parameters == 43_901_068
    assert count_parameters(model, training=True) - parameters == sum(layer.parameters for layer in aspp(1024))
    macs = sum(layer.macs for layer in layers)
    assert count_macs(model, SIZE_HW) == count_macs(model.deploy_view(), SIZE_HW) == macs
    assert giga(macs, 2) == 365.97


def fcn8s() -> list[Layer]:
    layers, inputs, stride = [], 3, 1
    for outputs, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers.append(Layer(3, inputs, outputs, stride, 1))
            inputs = outputs
        stride *= 2
    hidden = [Layer(7, 512, 4096, 32, 1), Layer(1, 4096, 4096, 32, 1)]
    scores = [Layer(1, inputs, 19, stride, 1) for inputs, stride in ((256, 8), (512, 16), (4096, 32))]
    return [*layers, *hidden, *scores]


def test_fcn8s_counts_are_the_sums_over_its_layers() -> None:
    with torch.device("meta"):
        model = FCN8s()
    parameters = sum(layer.parameters for layer in fcn8s())
    # torchvision's VGG-16 has 138,357,544, of which ImageNet's last layer 4096 x 1000 + 1000.
    assert parameters == 138_357_544 - 4_097_000 + (256 + 512 + 4096 + 3) * 19
    assert count_parameters(model) == count_parameters(model, training=True) == parameters == 134_353_017
    macs = sum(layer.macs for layer in fcn8s())
    assert count_macs(model, SIZE_HW) == count_macs(model.deploy_view(), SIZE_HW) == macs
    assert giga(macs, 2) == 221.66


def test_counting_changes_nothing_in_the_module() -> None:
    with torch.device("cpu"):
        model = BiSeNet().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    count_macs(model, SIZE_HW)
    assert model.training
    assert count_operations(model, SIZE_HW) == count_operations(model, SIZE_HW), "no hook of the first count is left"
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_other_layers_are_counted_by_their_weights() -> None:
    up = nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1)
    assert count_macs(up, (16, 16)) == 16 * 16 * 8 * 4 * 9
    grouped = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    assert count_macs(grouped, (16, 16)) == 16 * 16 * 8 * 9
    with pytest.raises(ModelError, match="Identity has no convolution"):
        count_macs(nn.Identity(), (16, 16))
