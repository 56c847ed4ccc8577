"""The contract every segmentation network passes: each variant on each backbone, in both modes."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtda_deploy.errors import ConfigError, ModelError
from rtda_training.models import BiSeNet, ResNet, SegOutput

torch.set_num_threads(1)

SIZE = 64
CHANNELS = {"resnet18": (64, 128, 256, 512), "resnet101": (256, 512, 1024, 2048)}


@pytest.fixture(
    scope="module",
    params=[("resnet18", "rtda"), ("resnet18", "paper"), ("resnet101", "rtda"), ("resnet101", "paper")],
    ids="-".join,
)
def network(request: pytest.FixtureRequest) -> BiSeNet:
    torch.manual_seed(7)
    return BiSeNet(*request.param)


def pictures(count: int = 2, height: int = SIZE, width: int = SIZE) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def scale(x: Tensor) -> float:
    return float(x.abs().max()) + 1.0


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_both_modes_give_the_same_type_and_shapes(network: BiSeNet, training: bool) -> None:
    with torch.no_grad():
        output = network.train(training)(pictures(2, 32, 64))
    assert isinstance(output, SegOutput)
    assert output.logits.shape == (2, 19, 32, 64)
    assert output.coarse.shape == (2, 19, 4, 8)
    assert [tuple(a.shape) for a in output.aux] == ([(2, 19, 32, 64)] * 2 if training else [])
    strides = (4, 8, 16, 32)
    expected = [(2, c, 32 // s, 64 // s) for c, s in zip(CHANNELS[network.backbone.name], strides)]
    assert [tuple(f.shape) for f in output.features] == expected


def test_logits_are_the_coarse_logits_upsampled(network: BiSeNet) -> None:
    with torch.no_grad():
        output = network.eval()(pictures())
    expected = F.interpolate(output.coarse, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    assert torch.allclose(output.logits, expected, atol=1e-5 * scale(expected))  # same formula: rounding only


def test_the_published_order_of_operations_gives_the_same_logits(network: BiSeNet) -> None:
    with torch.no_grad():
        ours, published = network.eval()(pictures()).logits, network.published_logits(pictures())
    assert torch.allclose(ours, published, atol=1e-5 * scale(ours))  # a 1x1 convolution commutes with bilinear


def test_auxiliary_heads_run_when_asked_and_only_then(network: BiSeNet) -> None:
    with torch.no_grad():
        assert len(network.eval()(pictures(), aux=True).aux) == 2
        assert network.train()(pictures(), aux=False).aux == ()


def test_a_gradient_reaches_every_parameter(network: BiSeNet) -> None:
    network.train().zero_grad()
    output = network(pictures(4))
    labels = torch.randint(0, 19, (4, SIZE, SIZE), generator=torch.Generator().manual_seed(2))
    sum(F.cross_entropy(x, labels) for x in (output.logits, *output.aux)).backward()
    unreached = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    network.zero_grad()
    # A bias in front of a batch norm is subtracted again: its true gradient is zero, what is left is rounding.
    assert [name for name in unreached if ".arm" not in name or not name.endswith("conv.bias")] == []


def test_the_deploy_view_is_the_coarse_logits_and_nothing_else(network: BiSeNet) -> None:
    view = network.train().deploy_view()
    assert network.training, "taking a view must not change the network's mode"
    assert not view.training
    assert not any("aux" in name for name in view.state_dict())
    with torch.no_grad():
        assert torch.equal(view(pictures(1)), network.eval()(pictures(1)).coarse)


def test_the_deploy_view_owns_its_weights(network: BiSeNet) -> None:
    before = copy.deepcopy(network.head.state_dict())
    view = network.deploy_view()
    for parameter in view.parameters():
        parameter.zero_()
    assert all(torch.equal(before[key], value) for key, value in network.head.state_dict().items())


def test_a_state_dict_round_trip_gives_the_same_logits(network: BiSeNet) -> None:
    other = BiSeNet(network.backbone.name, network.variant)
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(other.eval()(pictures()).logits, network.eval()(pictures()).logits)


def test_one_seed_gives_one_start(network: BiSeNet) -> None:
    def fresh(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return BiSeNet(network.backbone.name, network.variant).state_dict()

    first, same, other = fresh(3), fresh(3), network.state_dict()  # the network's own seed is 7
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["backbone.conv1.weight"], other["backbone.conv1.weight"])
    assert not torch.equal(
        next(v for k, v in first.items() if k.startswith("head.") and v.ndim == 4),
        next(v for k, v in other.items() if k.startswith("head.") and v.ndim == 4),
    )


def test_channels_last_gives_the_same_logits(network: BiSeNet) -> None:
    last = copy.deepcopy(network).to(memory_format=torch.channels_last).eval()
    with torch.no_grad():
        expected = network.eval()(pictures()).logits
        found = last(pictures().to(memory_format=torch.channels_last)).logits
    # Another summation order through up to 101 layers, in float32.
    assert torch.allclose(found, expected, atol=1e-4 * scale(expected))


def test_a_picture_that_does_not_divide_by_32_is_refused_with_the_nearest_size(network: BiSeNet) -> None:
    for net in (network.eval(), network.deploy_view()):
        with pytest.raises(ModelError, match=r"multiples of 32, got 50x130") as caught:
            net(pictures(1, 50, 130))
        assert "64x128" in caught.value.hint


def test_one_picture_in_training_is_refused_with_the_batch_size_to_use(network: BiSeNet) -> None:
    with pytest.raises(ModelError, match="at least 2 pictures") as caught:
        network.train()(pictures(1))
    assert "batch_size >= 2" in caught.value.hint


def test_one_picture_in_training_is_fine_with_frozen_or_synchronised_batch_norms() -> None:
    frozen = BiSeNet().train()
    for module in frozen.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert len(frozen(pictures(1)).aux) == 2
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(BiSeNet()).train()
    synchronised._check_batch(pictures(1))  # the norm itself runs on GPUs only


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 4, 64, 64), (1, 3, 0, 64)])
def test_what_is_no_batch_of_pictures_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="expected"):
        BiSeNet().eval()(torch.zeros(shape))


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="resnet19") as caught:
        BiSeNet("resnet19")
    assert "resnet18, resnet101" in caught.value.hint
    with pytest.raises(ConfigError, match="mine") as caught:
        BiSeNet(variant="mine")
    assert "rtda, paper" in caught.value.hint
    with pytest.raises(ConfigError, match="num_classes must be positive, got 0"):
        BiSeNet(num_classes=0)


def test_the_number_of_classes_is_the_number_of_logit_channels() -> None:
    output = BiSeNet(num_classes=11).eval()(pictures(1), aux=True)
    assert {x.shape[1] for x in (output.logits, output.coarse, *output.aux)} == {11}


def test_the_deploy_view_traces_without_a_warning_and_keeps_its_size_free() -> None:
    view = BiSeNet(num_classes=3).deploy_view()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.jit.trace itself
        traced = torch.jit.trace(view, pictures(1))
    assert torch.allclose(traced(pictures(2, 64, 96)), view(pictures(2, 64, 96)), atol=1e-4)


def test_the_resnets_have_torchvisions_names_and_sizes() -> None:
    # torchvision's 11,689,512 and 44,549,160 parameters without the classifier (512 or 2048 x 1000 + 1000).
    eighteen, hundred = ResNet("resnet18"), ResNet("resnet101")
    assert sum(p.numel() for p in eighteen.parameters()) == 11_689_512 - 513_000
    assert sum(p.numel() for p in hundred.parameters()) == 44_549_160 - 2_049_000
    names = eighteen.state_dict()
    assert {name.split(".")[0] for name in names} == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}
    expected_block = {
        f"layer2.0.{layer}.{tensor}"
        for layer in ("bn1", "bn2", "downsample.1")
        for tensor in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    } | {"layer2.0.conv1.weight", "layer2.0.conv2.weight", "layer2.0.downsample.0.weight"}
    assert {name for name in names if name.startswith("layer2.0.")} == expected_block
    strides = {name: m.stride[0] for name, m in hundred.named_modules() if isinstance(m, nn.Conv2d) and m.stride[0] > 1}
    assert strides == {"conv1": 2} | {f"layer{i}.0.{conv}": 2 for i in (2, 3, 4) for conv in ("conv2", "downsample.0")}
