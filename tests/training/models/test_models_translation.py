"""CycleGAN's two networks: published sizes, exact shapes, 70x70 patches."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from rtda_deploy.errors import ConfigError, ModelError
from rtda_training.models import Generator, PatchDiscriminator, count_macs, count_parameters

torch.set_num_threads(1)


def pictures(height: int = 32, width: int = 32, count: int = 2) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(3)) * 2.0 - 1.0


def convolution(kernel: int, inputs: int, outputs: int) -> int:
    return kernel * kernel * inputs * outputs + outputs


def test_generator_parameters_are_the_published_ones() -> None:
    expected = (
        convolution(7, 3, 64)
        + convolution(3, 64, 128)
        + convolution(3, 128, 256)
        + 9 * 2 * convolution(3, 256, 256)
        + convolution(3, 256, 128)
        + convolution(3, 128, 64)
        + convolution(7, 64, 3)
    )
    with torch.device("meta"):
        assert count_parameters(Generator(64, 9)) == count_parameters(Generator()) == expected == 11_378_179


def test_discriminator_parameters_are_the_published_ones() -> None:
    ladder = ((3, 64), (64, 128), (128, 256), (256, 512), (512, 1))
    expected = sum(convolution(4, inputs, outputs) for inputs, outputs in ladder)
    with torch.device("meta"):
        assert count_parameters(PatchDiscriminator(64, 3)) == count_parameters(PatchDiscriminator()) == expected
    assert expected == 2_764_737


def test_generator_macs_count_a_transposed_convolution_on_its_input() -> None:
    cells = 512 * 1024
    expected = cells * (2 * 49 * 3 * 64 + 9 * 64 * 128 // 4 * 2 + 9 * 128 * 256 // 16 * 2 + 18 * 9 * 256 * 256 // 16)
    with torch.device("meta"):
        assert count_macs(Generator(), (512, 1024)) == expected


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 48), (20, 36)])
def test_a_generator_gives_a_picture_of_the_same_size_in_range(height: int, width: int) -> None:
    torch.manual_seed(0)
    model = Generator(4, 1)
    for parameter in model.parameters():
        parameter.data *= 100.0  # as far from the start as training never gets: it would leave the range
    found = model(pictures(height, width))
    assert found.shape == (2, 3, height, width)
    assert found.dtype == torch.float32
    assert 0.9 < float(found.detach().abs().max()) <= 1.0


def test_a_generator_in_evaluation_mode_gives_the_same() -> None:
    """Instance norm keeps no statistics: one network in training and in translating."""
    model = Generator(4, 2)
    with torch.no_grad():
        assert torch.equal(model.train()(pictures()), model.eval()(pictures()))
    assert not [key for key in model.state_dict() if "running" in key]


def test_pictures_of_a_batch_do_not_see_each_other() -> None:
    model = Generator(4, 1)
    with torch.no_grad():
        assert torch.allclose(model(pictures())[1:], model(pictures()[1:]), atol=1e-6)


def test_the_generators_layers_are_the_published_ones() -> None:
    model = Generator(4, 3)
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    kernels = [(layer.kernel_size[0], layer.stride[0], layer.padding_mode) for layer in convolutions]
    down, residual = (3, 2, "zeros"), (3, 1, "reflect")
    assert kernels == [(7, 1, "reflect"), down, down, *[residual] * 6, (7, 1, "reflect")]
    assert sum(isinstance(layer, nn.ConvTranspose2d) for layer in model.modules()) == 2
    norms = [layer for layer in model.modules() if isinstance(layer, nn.InstanceNorm2d)]
    assert len(norms) == 1 + 2 + 6 + 2, "behind every layer but the last"
    assert not any(layer.affine for layer in norms)


def test_the_generators_shortcuts_carry_what_its_blocks_leave_alone() -> None:
    torch.manual_seed(0)
    model = Generator(4, 2)
    bare = Generator(4, 0)
    layers = list(model.layers)
    bare.layers = nn.Sequential(*layers[:9], *layers[11:])  # the same network without its two blocks
    for block in layers[9:11]:
        for parameter in block.parameters():
            nn.init.zeros_(parameter)
    with torch.no_grad():
        assert torch.equal(model(pictures()), bare(pictures()))


@pytest.mark.parametrize(("layers", "expected"), [(1, 16), (2, 34), (3, 70)])
def test_a_patch_has_the_published_side(layers: int, expected: int) -> None:
    model = PatchDiscriminator(2, layers)
    local = copy.deepcopy(model)  # instance norm lets every pixel see all others a little: without it
    local.layers = nn.Sequential(*(x for x in local.layers if not isinstance(x, nn.InstanceNorm2d)))
    for parameter in local.parameters():
        nn.init.constant_(parameter, 0.01)
    image = torch.zeros(1, 3, 160, 160, requires_grad=True)
    logits = local(image)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    assert image.grad is not None
    rows = image.grad.abs().sum(dim=(0, 1, 3)).nonzero()[:, 0]
    assert int(rows.max() - rows.min()) + 1 == expected


def test_a_discriminator_gives_one_logit_for_every_8_pixels_without_a_sigmoid() -> None:
    torch.manual_seed(0)
    model = PatchDiscriminator(4)
    with torch.no_grad():
        assert model(pictures(64, 96)).shape == (2, 1, 6, 10)
        assert model(pictures(24, 24)).shape == (2, 1, 1, 1)
    assert isinstance(list(model.layers)[-1], nn.Conv2d)
    slopes = [layer.negative_slope for layer in model.modules() if isinstance(layer, nn.LeakyReLU)]
    assert slopes == [0.2] * 4
    assert [layer.num_features for layer in model.modules() if isinstance(layer, nn.InstanceNorm2d)] == [8, 16, 32]
    deeper = [layer.out_channels for layer in PatchDiscriminator(2, 5).modules() if isinstance(layer, nn.Conv2d)]
    assert deeper == [2, 4, 8, 16, 16, 16, 1], "eight widths at most"


@pytest.mark.parametrize("model", [Generator(4, 1), PatchDiscriminator(4)], ids=lambda model: type(model).__name__)
def test_a_gradient_reaches_the_input_and_every_parameter(model: nn.Module) -> None:
    image = pictures().requires_grad_()
    model(image).square().mean().backward()
    assert image.grad is not None
    assert float(image.grad.abs().sum()) > 0
    normed = {  # a bias in front of an instance norm is subtracted again: its true gradient is zero
        f"{name.rpartition('.')[0]}.{int(name.rpartition('.')[2]) - 1}.bias"
        for name, layer in model.named_modules()
        if isinstance(layer, nn.InstanceNorm2d)
    }
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert name in normed or float(parameter.grad.abs().sum()) > 0, name


@pytest.mark.parametrize("kind", [Generator, PatchDiscriminator])
def test_weights_start_normal_and_biases_at_zero(kind: type[Generator] | type[PatchDiscriminator]) -> None:
    torch.manual_seed(0)
    for name, parameter in kind(16).named_parameters():
        spread = float(parameter.detach().std()) if parameter.numel() > 1 else float(parameter.detach())
        assert spread == 0.0 if name.endswith("bias") else spread == pytest.approx(0.02, rel=0.1), name


def test_what_does_not_fit_is_refused_with_what_does() -> None:
    with pytest.raises(ModelError, match=r"multiples of 4, at least 8, got 30x33") as caught:
        Generator(4, 1)(pictures(30, 33))
    assert "32x32" in caught.value.hint
    with pytest.raises(ModelError, match="at least 8, got 4x64") as caught:
        Generator(4, 1)(pictures(4, 64))
    assert "8x64" in caught.value.hint
    with pytest.raises(ModelError, match="24x24 or more, got 16x64"):
        PatchDiscriminator(4)(pictures(16, 64))
    for model in (Generator(4, 1), PatchDiscriminator(4)):
        with pytest.raises(ModelError, match="expected pictures"):
            model(torch.zeros(1, 4, 32, 32))
    for build in (lambda: Generator(0), lambda: Generator(4, -1), lambda: PatchDiscriminator(4, 0)):
        with pytest.raises(ConfigError, match="at least 1") as refused:
            build()
        assert "published: width 64" in refused.value.hint
