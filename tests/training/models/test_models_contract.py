"""The contract every segmentation network passes: each variant on each backbone, in both modes."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtda_deploy.errors import ConfigError, ModelError
from rtda_training.models import (
    NETWORKS,
    BiSeNet,
    SegmentationNetwork,
    SegOutput,
    build_backbone,
    build_network,
    count_macs,
    count_parameters,
    network_class,
)
from rtda_training.models.blocks import Reparameterised

torch.set_num_threads(1)

SIZE = 64
CHANNELS = {
    "resnet18": (64, 128, 256, 512),
    "resnet101": (256, 512, 1024, 2048),
    "vgg16": (128, 256, 512, 512),
    "efficientnet-lite0": (144, 240, 672, 1280),
    "stdc1": (64, 256, 512, 1024),
    "stdc2": (64, 256, 512, 1024),
    "gcnet": (32, 64, 128, 256),
    "ddrnet23-slim": (32, 64, 128, 256),
}
STRIDES = {"DeepLab-v2": (4, 8, 8, 8)}
USUAL_STRIDES = (4, 8, 16, 32)
AUX_WEIGHTS = {
    "BiSeNet": (1.0, 1.0),
    "DeepLab-v2": (0.1,),
    "FCN8s": (),
    "GCNet": (0.4,),
    "DDRNet": (0.4,),
    "PP-LiteSeg": (1.0, 1.0),
}
MULTIPLES = {"BiSeNet": 32, "DeepLab-v2": 8, "FCN8s": 32, "GCNet": 64, "DDRNet": 64, "PP-LiteSeg": 128}
TAKE_ONE_PICTURE = ("DeepLab-v2", "FCN8s")  # in training; the others have batch norms after global pooling
ARCHITECTURES: list[dict[str, str | int]] = [
    *(
        {"name": "BiSeNet", "backbone": backbone, "variant": variant}
        for backbone in ("resnet18", "resnet101", "efficientnet-lite0")
        for variant in ("rtda", "paper")
    ),
    {"name": "DeepLab-v2", "backbone": "resnet18"},
    {"name": "DeepLab-v2", "backbone": "resnet101"},
    {"name": "FCN8s", "backbone": "vgg16", "hidden": 32},  # narrow: 4096 would be half a gigabyte
    {"name": "GCNet", "backbone": "gcnet", "variant": "s"},
    {"name": "GCNet", "backbone": "gcnet", "variant": "w24"},
    {"name": "DDRNet", "backbone": "ddrnet23-slim"},
    {"name": "PP-LiteSeg", "backbone": "stdc1", "variant": "lite"},
    {"name": "PP-LiteSeg", "backbone": "stdc1", "variant": "t"},
    {"name": "PP-LiteSeg", "backbone": "stdc2", "variant": "b"},
    {"name": "BiSeNet", "backbone": "stdc1", "variant": "rtda"},
]


# ResNet-101's shapes are checked for all of them on the meta device; one runs, for its bottlenecks.
RUN = [entry for entry in ARCHITECTURES if entry["backbone"] != "resnet101" or entry.get("variant") == "rtda"]


@pytest.fixture(scope="module", params=RUN, ids=lambda entry: "-".join(map(str, entry.values())))
def network(request: pytest.FixtureRequest) -> SegmentationNetwork:
    torch.manual_seed(7)
    return build_network(request.param)


def side_of(network: SegmentationNetwork) -> int:
    """Height and width of the pictures that it gets: 64, or what it takes at least."""
    return max(SIZE, network.size_multiple)


def pictures(count: int = 2, height: int = SIZE, width: int = 0) -> Tensor:
    width = width or height
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def scale(x: Tensor) -> float:
    return float(x.abs().max()) + 1.0


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_both_modes_give_the_same_type_and_shapes(network: SegmentationNetwork, training: bool) -> None:
    height = max(32, network.size_multiple)
    width = 2 * height
    with torch.no_grad():
        output = network.train(training)(pictures(2, height, width))
    assert isinstance(output, SegOutput)
    assert output.logits.shape == (2, 19, height, width)
    assert output.coarse.shape == (2, 19, height // 8, width // 8)
    heads = len(AUX_WEIGHTS[network.NAME])
    assert [tuple(a.shape) for a in output.aux] == ([(2, 19, height, width)] * heads if training else [])
    strides = STRIDES.get(network.NAME, USUAL_STRIDES)
    expected = [(2, c, height // s, width // s) for c, s in zip(network.backbone.channels, strides)]
    assert [tuple(f.shape) for f in output.features] == expected


def test_logits_are_the_coarse_logits_upsampled(network: SegmentationNetwork) -> None:
    with torch.no_grad():
        output = network.eval()(pictures(2, side_of(network)))
    expected = F.interpolate(output.coarse, size=output.logits.shape[2:], mode="bilinear", align_corners=False)
    assert torch.allclose(output.logits, expected, atol=1e-5 * scale(expected))  # same formula: rounding only


def test_in_mixed_precision_full_size_logits_are_float32_as_losses_want_them(network: SegmentationNetwork) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network.train()(pictures(2, side_of(network)))
    assert output.coarse.dtype == torch.bfloat16
    assert {logits.dtype for logits in (output.logits, *output.aux)} == {torch.float32}


def test_the_published_order_of_operations_gives_the_same_logits(network: SegmentationNetwork) -> None:
    with torch.no_grad():
        images = pictures(2, side_of(network))
        ours, published = network.eval()(images).logits, network.published_logits(images)
    assert torch.allclose(ours, published, atol=1e-5 * scale(ours))  # a 1x1 convolution commutes with bilinear


def test_auxiliary_heads_run_when_asked_and_only_then(network: SegmentationNetwork) -> None:
    with torch.no_grad():
        images = pictures(2, side_of(network))
        assert len(network.eval()(images, aux=True).aux) == len(AUX_WEIGHTS[network.NAME])
        assert network.train()(images, aux=False).aux == ()


def test_a_gradient_reaches_every_parameter(network: SegmentationNetwork) -> None:
    network.train().zero_grad()
    side = side_of(network)
    output = network(pictures(4, side))
    labels = torch.randint(0, 19, (4, side, side), generator=torch.Generator().manual_seed(2))
    sum(F.cross_entropy(x, labels) for x in (output.logits, *output.aux)).backward()
    unreached = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    network.zero_grad()
    # A bias in front of a batch norm is subtracted again: its true gradient is zero, what is left is rounding.
    in_front = (".arm", "backbone.stem.0.", "pyramid.")
    without_gradient = [n for n in unreached if n.endswith("conv.bias") and any(part in n for part in in_front)]
    assert [name for name in unreached if name not in without_gradient] == []


def test_the_deploy_view_is_the_coarse_logits_and_nothing_else(network: SegmentationNetwork) -> None:
    view = network.train().deploy_view()
    assert network.training, "taking a view must not change the network's mode"
    assert not view.training
    assert not any("aux" in name for name in view.state_dict())
    with torch.no_grad():
        images = pictures(1, side_of(network))
        expected, found = network.eval()(images).coarse, view(images)
    fused = any(isinstance(part, Reparameterised) for part in network.modules())
    close = torch.allclose(found, expected, atol=1e-5 * scale(expected))  # a fused block rounds otherwise
    assert close if fused else torch.equal(found, expected)


def test_the_deploy_view_owns_its_weights(network: SegmentationNetwork) -> None:
    before = copy.deepcopy(network.head.state_dict())
    view = network.deploy_view()
    for parameter in view.parameters():
        parameter.zero_()
    assert all(torch.equal(before[key], value) for key, value in network.head.state_dict().items())


def test_one_seed_gives_one_start(network: SegmentationNetwork) -> None:
    def fresh(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return build_network(network.architecture).state_dict()

    first, same, other = fresh(3), fresh(3), network.state_dict()  # the network's own seed is 7
    assert all(torch.equal(first[key], same[key]) for key in first)
    for part in ("backbone.", "head."):
        weight = next(k for k, v in first.items() if k.startswith(part) and v.ndim == 4)
        assert not torch.equal(first[weight], other[weight])


def test_channels_last_gives_the_same_logits(network: SegmentationNetwork) -> None:
    last = copy.deepcopy(network).to(memory_format=torch.channels_last).eval()
    with torch.no_grad():
        images = pictures(2, side_of(network))
        expected = network.eval()(images).logits
        found = last(images.to(memory_format=torch.channels_last)).logits
    # Another summation order through up to 101 layers, in float32.
    assert torch.allclose(found, expected, atol=1e-4 * scale(expected))


def test_a_picture_of_a_size_that_does_not_divide_is_refused_with_the_nearest(network: SegmentationNetwork) -> None:
    multiple = MULTIPLES[network.NAME]
    assert network.size_multiple == multiple
    for net in (network.eval(), network.deploy_view()):
        with pytest.raises(ModelError, match=rf"multiples of {multiple}, got 50x130") as caught:
            net(pictures(1, 50, 130))
        assert {128: "128x128", 64: "64x128", 32: "64x128", 8: "48x128"}[multiple] in caught.value.hint


def test_the_least_size_works(network: SegmentationNetwork) -> None:
    side = network.size_multiple
    with torch.no_grad():
        assert network.eval()(pictures(1, side, 3 * side)).logits.shape == (1, 19, side, 3 * side)
        assert network.deploy_view()(pictures(1, side, 3 * side)).shape == (1, 19, side // 8, 3 * side // 8)


def test_one_picture_in_training_works_or_is_refused_with_the_batch_size_to_use(network: SegmentationNetwork) -> None:
    image = pictures(1, side_of(network))
    if network.NAME in TAKE_ONE_PICTURE:
        assert len(network.train()(image).aux) == len(AUX_WEIGHTS[network.NAME])
        return
    with pytest.raises(ModelError, match="at least 2 pictures") as caught:
        network.train()(image)
    assert "batch_size >= 2" in caught.value.hint


def test_one_picture_in_training_is_fine_with_frozen_or_synchronised_batch_norms() -> None:
    frozen = BiSeNet().train()
    for module in frozen.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert len(frozen(pictures(1)).aux) == 2
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(BiSeNet()).train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):  # torch's, where one CPU is all
        synchronised(pictures(1))


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 4, 64, 64), (1, 3, 0, 64)])
def test_what_is_no_batch_of_pictures_is_refused(network: SegmentationNetwork, shape: tuple[int, ...]) -> None:
    for net in (network.eval(), network.deploy_view()):
        with pytest.raises(ModelError, match="expected"):
            net(torch.zeros(shape))


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda entry: "-".join(map(str, entry.values())))
def test_a_network_is_built_again_from_what_its_provenance_says(architecture: dict[str, str | int]) -> None:
    with torch.device("meta"):
        network = build_network(architecture, num_classes=11)
        assert network.architecture == architecture
        assert list(network.architecture) == list(architecture), "the order is what people read"
        assert type(network) is network_class(str(architecture["name"]))
        output = network.eval()(torch.empty(1, 3, 128, 128), aux=True)
    assert network.num_classes == network.deploy_view().num_classes == 11
    assert {x.shape[1] for x in (output.logits, output.coarse, *output.aux)} == {11}


def test_counts_are_those_at_inference(network: SegmentationNetwork) -> None:
    view = network.deploy_view()
    assert count_parameters(network, training=True) == sum(parameter.numel() for parameter in network.parameters())
    assert count_parameters(network) == sum(parameter.numel() for parameter in view.parameters())
    head_early = 128 * 128 * 19 * 19 * 63 // 64 if network.architecture.get("variant") == "rtda" else 0
    assert count_macs(network.train(), (128, 128)) == count_macs(view, (128, 128)) + head_early
    assert network.training and set(network.state_dict()) == set(build_network(network.architecture).state_dict())


def test_each_auxiliary_head_has_its_weight(network: SegmentationNetwork) -> None:
    assert AUX_WEIGHTS[network.NAME] == network.AUX_WEIGHTS
    assert len(network.aux_heads) == len(network.AUX_WEIGHTS)
    assert network.aux_weight == (network.AUX_WEIGHTS or (0.0,))[0]


@pytest.mark.parametrize(
    ("name", "backbone", "variant", "built"),
    [
        ("bisenet", "", "", {"name": "BiSeNet", "backbone": "resnet18", "variant": "rtda"}),
        ("bisenet", "resnet101", "paper", {"name": "BiSeNet", "backbone": "resnet101", "variant": "paper"}),
        ("deeplab-v2", "", "", {"name": "DeepLab-v2", "backbone": "resnet101"}),
        ("deeplab-v2", "resnet18", "rtda", {"name": "DeepLab-v2", "backbone": "resnet18"}),
        ("fcn8s", "", "", {"name": "FCN8s", "backbone": "vgg16"}),
        ("fcn8s", "vgg16", "", {"name": "FCN8s", "backbone": "vgg16"}),
        ("gcnet", "", "rtda", {"name": "GCNet", "backbone": "gcnet", "variant": "s"}),
        ("gcnet", "", "w24", {"name": "GCNet", "backbone": "gcnet", "variant": "w24"}),
        ("ddrnet", "", "rtda", {"name": "DDRNet", "backbone": "ddrnet23-slim"}),
        ("ppliteseg", "", "rtda", {"name": "PP-LiteSeg", "backbone": "stdc1", "variant": "lite"}),
        ("ppliteseg", "", "b", {"name": "PP-LiteSeg", "backbone": "stdc2", "variant": "b"}),
    ],
)
def test_users_words_build_the_network(name: str, backbone: str, variant: str, built: dict[str, str]) -> None:
    with torch.device("meta"):
        assert build_network(name, backbone, variant, 5).architecture == built


@pytest.mark.parametrize(
    ("words", "message", "known"),
    [
        (("unet",), "unknown network 'unet'", "bisenet, deeplab-v2, fcn8s"),
        (("fcn8s", "resnet18"), "FCN8s has no backbone 'resnet18'", "vgg16"),
        (("bisenet", "vgg16"), "BiSeNet has no backbone 'vgg16'", "resnet18, resnet101"),
        (("deeplab-v2", "vgg16"), "DeepLab-v2 has no backbone 'vgg16'", "resnet101, resnet18"),
        (("bisenet", "gcnet"), "BiSeNet has no backbone 'gcnet'", "resnet18, resnet101"),
        (("gcnet", "", "w12"), "GCNet has no variant 'w12'", "s, w24"),
        (("bisenet", "resnet18", "mine"), "BiSeNet has no variant 'mine'", "rtda, paper"),
        (("deeplab-v2", "resnet18", "paper"), "DeepLab-v2 has no variant 'paper'", "leave variant away"),
        (("fcn8s", "vgg16", "", 0), "num_classes must be positive, got 0", "19"),
        (({"name": "BiSeNet", "backbone": "resnet18"},), "described by backbone, name, variant, got", "Upgrade"),
        (({"name": "FCN8s", "backbone": "vgg16", "norm": "x"},), "got backbone, name, norm", "Upgrade"),
        (({"name": "FCN8s", "backbone": "vgg19", "hidden": 8},), "no backbone 'vgg19'", "vgg16"),
        (({"name": "FCN8s", "backbone": "vgg16", "hidden": 0},), "hidden must be positive, got 0", "4096"),
        (({"backbone": "vgg16"},), "unknown network 'None'", "fcn8s"),
        (({"name": "FCN8s", "backbone": "vgg16"}, "vgg16"), "brings its own backbone", "alone"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(words: tuple[Any, ...], message: str, known: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_network(*words)
    assert known in caught.value.hint


def test_a_choice_can_be_checked_without_building() -> None:
    expected = {  # the usual word first; rows that were added since come last
        "bisenet": (32, {"backbone": ("resnet18", "resnet101"), "variant": ("rtda", "paper")}),
        "deeplab-v2": (8, {"backbone": ("resnet101", "resnet18")}),
        "fcn8s": (32, {"backbone": ("vgg16",)}),
        "gcnet": (64, {"backbone": ("gcnet",), "variant": ("s", "w24")}),
        "ddrnet": (64, {"backbone": ("ddrnet23-slim",)}),
        "ppliteseg": (128, {"backbone": ("stdc1",), "variant": ("lite", "t", "b")}),
    }
    for name, (multiple, settings) in expected.items():
        known = NETWORKS[name].known_settings()
        first = {key: words[: len(settings[key])] for key, words in known.items()}
        assert (NETWORKS[name].SIZE_MULTIPLE, first) == (multiple, settings)
    assert all(network_class(found.NAME) is network_class(name) is found for name, found in NETWORKS.items())


def test_the_deploy_view_traces_without_a_warning_and_keeps_its_size_free(network: SegmentationNetwork) -> None:
    view, side = network.deploy_view(), side_of(network)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.jit.trace itself
        traced = torch.jit.trace(view, pictures(1, side))
    other = pictures(2, side, max(96, 2 * side if side == network.size_multiple else 0))
    expected = view(other)
    assert torch.allclose(traced(other), expected, atol=1e-4 * scale(expected))


@pytest.mark.usefixtures("published_width")
def test_the_backbones_have_their_published_widths() -> None:
    made = {
        "resnet18": build_backbone("resnet18"),
        "resnet101": build_backbone("resnet101"),
        "vgg16": build_backbone("vgg16", hidden=1),
        "efficientnet-lite0": build_backbone("efficientnet-lite0"),
        "gcnet": build_backbone("gcnet"),
        "ddrnet23-slim": build_backbone("ddrnet23-slim"),
        "stdc1": build_backbone("stdc1"),
        "stdc2": build_backbone("stdc2"),
    }
    assert {name: backbone.channels for name, backbone in made.items()} == CHANNELS


@pytest.mark.usefixtures("published_width")
def test_the_resnets_have_torchvisions_names_and_sizes() -> None:
    # torchvision's 11,689,512 and 44,549,160 parameters without the classifier (512 or 2048 x 1000 + 1000).
    eighteen, hundred = build_backbone("resnet18"), build_backbone("resnet101")
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
