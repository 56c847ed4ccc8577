"""The discriminators of the papers: one logit per region, kernel 4, stride 2, padding 1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rtda_deploy.errors import ConfigError, ModelError
from rtda_training.models import DISCRIMINATORS, build_discriminator

torch.set_num_threads(1)


def probabilities(size: int = 64, num_classes: int = 19) -> Tensor:
    return torch.randn(2, num_classes, size, size, generator=torch.Generator().manual_seed(3)).softmax(dim=1)


@pytest.mark.parametrize(("name", "size"), [("fcd", 64), ("fcd-light", 64), ("light-thin", 8)])
def test_one_logit_per_region(name: str, size: int) -> None:
    assert build_discriminator(name)(probabilities()).shape == (2, 1, size, size)


@pytest.mark.parametrize("name", DISCRIMINATORS)
@pytest.mark.parametrize("bias", [True, False])
def test_the_layers_are_the_published_ones(name: str, bias: bool) -> None:
    layers = list(build_discriminator(name, bias=bias).layers)
    strided = [x for x in layers if isinstance(x, nn.Conv2d) and x.kernel_size == (4, 4)]
    assert all((x.stride, x.padding) == ((2, 2), (1, 1)) for x in strided)
    assert len(strided) == (3 if name == "light-thin" else 5)
    slopes = [x.negative_slope for x in layers if isinstance(x, nn.LeakyReLU)]
    assert slopes == [0.2] * (len(strided) - 1)
    assert isinstance(layers[-1], nn.Conv2d), "no activation after the last layer"
    assert not any(isinstance(x, nn.BatchNorm2d) for x in layers)
    assert all((x.bias is not None) == bias for x in layers if isinstance(x, nn.Conv2d))
    # Separable layers stride in the depthwise convolution; the pointwise one follows.
    assert all(x.groups == (1 if name == "fcd" else x.in_channels) for x in strided)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_a_gradient_reaches_the_input_and_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    net, x = build_discriminator(name), probabilities().requires_grad_()
    net(x).square().mean().backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in net.parameters())


def test_other_numbers_of_classes_work() -> None:
    assert build_discriminator("light-thin", num_classes=11)(probabilities(num_classes=11)).shape == (2, 1, 8, 8)


@pytest.mark.parametrize(("name", "multiple"), [("fcd", 32), ("light-thin", 8)])
def test_a_map_that_does_not_divide_is_refused(name: str, multiple: int) -> None:
    with pytest.raises(ModelError, match=f"multiples of {multiple}, got 68x68"):
        build_discriminator(name)(probabilities(68))


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="patchgan") as caught:
        build_discriminator("patchgan")
    assert "fcd, fcd-light, light-thin" in caught.value.hint


@pytest.mark.parametrize("name", ["fcd-light", "light-thin"])
def test_separable_layers_compute_in_float32_on_a_cpu_where_bf16_is_slower(name):
    network = build_discriminator(name)
    maps = torch.rand(1, 19, 64, 64).softmax(dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = network(maps)
    assert mixed.dtype == torch.float32 and torch.equal(mixed, network(maps))


@pytest.mark.parametrize("name", sorted(DISCRIMINATORS))
def test_the_first_weights_of_he_pass_on_what_differs_between_two_pictures(name):
    """What is left at the output of the difference between two inputs, by either start."""
    reach = {}
    for init in ("torch", "he"):
        torch.manual_seed(0)
        module = build_discriminator(name, num_classes=7, init=init)
        maps = torch.softmax(4 * torch.randn(8, 7, 64, 64), dim=1)
        with torch.no_grad():
            reach[init] = float(module(maps).std(dim=0).mean())
    assert reach["he"] > 10 * reach["torch"]
    assert all(not layer.bias.any() for layer in module.modules() if isinstance(layer, torch.nn.Conv2d))
    with pytest.raises(ConfigError, match="unknown init 'xavier'"):
        build_discriminator(name, init="xavier")
