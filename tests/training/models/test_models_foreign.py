"""Checkpoints of the papers' lineages load exactly, or are refused with the keys that differ.

The names below are written down from the two repositories' own modules; the reference networks are computed from
those names with plain functions, so that a mistake in our modules cannot hide in the translation.
"""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from training.models.layer_keys import Keys

from rtda_deploy.errors import CheckpointError
from rtda_deploy.spec import ModelSpec
from rtda_training.models import BiSeNet, load_foreign

pytestmark = pytest.mark.usefixtures("published_width")

torch.set_num_threads(1)

StateDict = dict[str, Tensor]


class BiSeNetKeys(Keys):
    """With a whole ResNet, as torchvision names it."""

    def resnet(self, name: str, depths: tuple[int, ...] = (2, 2, 2, 2), bottleneck: bool = False) -> None:
        self.conv(f"{name}.conv1", 3, 64, 7)
        self.norm(f"{name}.bn1", 64)
        inputs = 64
        for stage, (depth, width) in enumerate(zip(depths, (64, 128, 256, 512)), start=1):
            outputs = width * 4 if bottleneck else width
            for index in range(depth):
                block = f"{name}.layer{stage}.{index}"
                layers = [(inputs, width, 1), (width, width, 3), (width, outputs, 1)]
                for n, (i, o, k) in enumerate(layers if bottleneck else [(inputs, width, 3), (width, width, 3)], 1):
                    self.conv(f"{block}.conv{n}", i, o, k)
                    self.norm(f"{block}.bn{n}", o)
                if inputs != outputs:
                    self.conv(f"{block}.downsample.0", inputs, outputs, 1)
                    self.norm(f"{block}.downsample.1", outputs)
                inputs = outputs


def rtda_checkpoint(backbone: str = "resnet18", num_classes: int = 19) -> StateDict:
    return dict(_rtda_checkpoint(backbone, num_classes))


def coincheung_checkpoint(num_classes: int = 19) -> StateDict:
    return dict(_coincheung_checkpoint(num_classes))


@lru_cache(maxsize=None)
def _rtda_checkpoint(backbone: str, num_classes: int) -> StateDict:
    """What the RTDA code's ``model.state_dict()`` holds: the backbone twice, and torchvision's unused fc."""
    keys = BiSeNetKeys()
    for index, (i, o) in enumerate(((3, 64), (64, 128), (128, 256)), start=1):
        keys.conv(f"saptial_path.convblock{index}.conv1", i, o, 3)
        keys.norm(f"saptial_path.convblock{index}.bn", o)
    if backbone == "resnet18":
        keys.resnet("context_path")
        channels = (256, 512)
    else:
        keys.resnet("context_path", (3, 4, 23, 3), bottleneck=True)
        channels = (1024, 2048)
    for index, c in enumerate(channels, start=1):
        keys.conv(f"attention_refinement_module{index}.conv", c, c, 1, bias=True)
        keys.norm(f"attention_refinement_module{index}.bn", c)
        keys.conv(f"supervision{index}", c, num_classes, 1, bias=True)
    keys.conv("feature_fusion_module.convblock.conv1", 256 + sum(channels), num_classes, 3)
    keys.norm("feature_fusion_module.convblock.bn", num_classes)
    keys.conv("feature_fusion_module.conv1", num_classes, num_classes, 1, bias=True)
    keys.conv("feature_fusion_module.conv2", num_classes, num_classes, 1, bias=True)
    keys.conv("conv", num_classes, num_classes, 1, bias=True)
    path = "context_path."
    twice = {f"{path}features.{k[len(path) :]}": v for k, v in keys.tensors.items() if k.startswith(path)}
    fc = {f"{path}features.fc.weight": torch.zeros(1000, channels[1]), f"{path}features.fc.bias": torch.zeros(1000)}
    return keys.tensors | twice | fc


@lru_cache(maxsize=None)
def _coincheung_checkpoint(num_classes: int) -> StateDict:
    keys = BiSeNetKeys()

    def conv_bn(name: str, i: int, o: int, kernel: int) -> None:
        keys.conv(f"{name}.conv", i, o, kernel)
        keys.norm(f"{name}.bn", o)

    keys.resnet("cp.resnet")
    for name, channels in (("arm16", 256), ("arm32", 512)):
        conv_bn(f"cp.{name}.conv", channels, 128, 3)
        keys.conv(f"cp.{name}.conv_atten", 128, 128, 1)
        keys.norm(f"cp.{name}.bn_atten", 128)
    conv_bn("cp.conv_head32", 128, 128, 3)
    conv_bn("cp.conv_head16", 128, 128, 3)
    conv_bn("cp.conv_avg", 512, 128, 1)
    for name, i, o, kernel in (
        ("conv1", 3, 64, 7),
        ("conv2", 64, 64, 3),
        ("conv3", 64, 64, 3),
        ("conv_out", 64, 128, 1),
    ):
        conv_bn(f"sp.{name}", i, o, kernel)
    conv_bn("ffm.convblk", 256, 256, 1)
    keys.conv("ffm.conv", 256, 256, 1)
    keys.norm("ffm.bn", 256)
    for name, i, width in (("conv_out", 256, 256), ("conv_out16", 128, 64), ("conv_out32", 128, 64)):
        conv_bn(f"{name}.conv", i, width, 3)
        keys.conv(f"{name}.conv_out", width, num_classes, 1, bias=True)
    return keys.tensors


class Reference:
    """The published arithmetic on the published names."""

    def __init__(self, tensors: StateDict) -> None:
        self.t = tensors

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self.t[f"{name}.weight"]
        return F.conv2d(x, weight, self.t.get(f"{name}.bias"), stride, weight.shape[-1] // 2)

    def norm(self, x: Tensor, name: str) -> Tensor:
        tensors = (self.t[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *tensors, training=False, eps=1e-5)

    def resnet(self, x: Tensor, name: str) -> list[Tensor]:
        x = F.max_pool2d(self.norm(self.conv(x, f"{name}.conv1", 2), f"{name}.bn1").relu(), 3, 2, 1)
        maps = []
        for stage in (1, 2, 3, 4):
            index = 0
            while f"{name}.layer{stage}.{index}.conv1.weight" in self.t:
                x = self._block(x, f"{name}.layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1)
                index += 1
            maps.append(x)
        return maps

    def _block(self, x: Tensor, name: str, stride: int) -> Tensor:
        count = 3 if f"{name}.conv3.weight" in self.t else 2
        strided = 2 if count == 3 else 1  # a bottleneck strides in its 3x3
        out = x
        for n in range(1, count + 1):
            out = self.norm(self.conv(out, f"{name}.conv{n}", stride if n == strided else 1), f"{name}.bn{n}")
            out = out.relu() if n < count else out
        if f"{name}.downsample.0.weight" in self.t:
            x = self.norm(self.conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
        return (out + x).relu()


def mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3), keepdim=True)


def resized(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


def rtda_reference(tensors: StateDict, image: Tensor) -> list[Tensor]:
    ref = Reference(tensors)
    spatial = image
    for n in (1, 2, 3):
        name = f"saptial_path.convblock{n}"
        spatial = ref.norm(ref.conv(spatial, f"{name}.conv1", 2), f"{name}.bn").relu()
    _, _, x16, x32 = ref.resnet(image, "context_path")

    def arm(x: Tensor, name: str) -> Tensor:
        return x * ref.norm(ref.conv(mean(x), f"{name}.conv"), f"{name}.bn").sigmoid()

    up16 = resized(arm(x16, "attention_refinement_module1"), 2)
    up32 = resized(arm(x32, "attention_refinement_module2") * mean(x32), 4)
    ffm = "feature_fusion_module"
    x = torch.cat((spatial, up16, up32), dim=1)
    x = ref.norm(ref.conv(x, f"{ffm}.convblock.conv1"), f"{ffm}.convblock.bn").relu()
    x = x + x * ref.conv(ref.conv(mean(x), f"{ffm}.conv1").relu(), f"{ffm}.conv2").sigmoid()
    aux = [resized(ref.conv(up, f"supervision{n}"), 8) for n, up in ((1, up16), (2, up32))]
    return [ref.conv(resized(x, 8), "conv"), *aux]


def coincheung_reference(tensors: StateDict, image: Tensor) -> list[Tensor]:
    ref = Reference(tensors)

    def conv_bn(x: Tensor, name: str, stride: int = 1) -> Tensor:
        return ref.norm(ref.conv(x, f"{name}.conv", stride), f"{name}.bn").relu()

    def arm(x: Tensor, name: str) -> Tensor:
        x = conv_bn(x, f"{name}.conv")
        return x * ref.norm(ref.conv(mean(x), f"{name}.conv_atten"), f"{name}.bn_atten").sigmoid()

    def doubled(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    _, _, x16, x32 = ref.resnet(image, "cp.resnet")
    at16 = conv_bn(doubled(arm(x32, "cp.arm32") + conv_bn(mean(x32), "cp.conv_avg")), "cp.conv_head32")
    at8 = conv_bn(doubled(arm(x16, "cp.arm16") + at16), "cp.conv_head16")
    spatial = image
    for name, stride in (("conv1", 2), ("conv2", 2), ("conv3", 2), ("conv_out", 1)):
        spatial = conv_bn(spatial, f"sp.{name}", stride)
    x = conv_bn(torch.cat((spatial, at8), dim=1), "ffm.convblk")
    x = x + x * ref.norm(ref.conv(mean(x), "ffm.conv"), "ffm.bn").sigmoid()
    heads = (("conv_out", x, 8), ("conv_out16", at8, 8), ("conv_out32", at16, 16))
    return [resized(ref.conv(conv_bn(y, f"{n}.conv"), f"{n}.conv_out"), factor) for n, y, factor in heads]


@pytest.mark.parametrize(
    ("checkpoint", "reference", "lineage", "variant", "backbone"),
    [
        (rtda_checkpoint, rtda_reference, "rtda", "rtda", "resnet18"),
        (lambda: rtda_checkpoint("resnet101"), rtda_reference, "rtda", "rtda", "resnet101"),
        (coincheung_checkpoint, coincheung_reference, "coincheung", "paper", "resnet18"),
    ],
    ids=["rtda-resnet18", "rtda-resnet101", "coincheung"],
)
def test_a_foreign_checkpoint_computes_what_its_code_computes(checkpoint, reference, lineage, variant, backbone):
    tensors = checkpoint()
    loaded = load_foreign(None, tensors)
    assert (loaded.lineage, loaded.model.variant, loaded.aux_loaded) == (lineage, variant, True)
    assert loaded.model.backbone.name == backbone
    image = torch.randn(1, 3, 32, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model = loaded.model.double()
        model.load_state_dict(load_foreign(model, tensors).model.state_dict())  # once more, now in float64
        output = model.eval()(image, aux=True)
        expected = reference(tensors, image)
    for found, wanted in zip((output.logits, *output.aux), expected, strict=True):
        # float64 on both sides: what is left is the order of summation.
        assert torch.allclose(found, wanted, rtol=0, atol=1e-9 * (1 + float(wanted.abs().max())))


def test_classes_are_read_off_the_shapes() -> None:
    assert load_foreign(None, rtda_checkpoint(num_classes=11)).model.num_classes == 11
    assert load_foreign(None, coincheung_checkpoint(num_classes=7)).model.num_classes == 7


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state", "model"])
def test_wrappers_and_data_parallel_prefixes_are_looked_through(wrapper: str) -> None:
    tensors = rtda_checkpoint()
    wrapped = {
        wrapper: {f"module.{key}": value for key, value in tensors.items()},
        "optimizer_state": {"param_groups": []},
        "total_steps_so_far": 4,
    }
    expected, found = load_foreign(None, tensors).model, load_foreign(None, wrapped).model
    for key, value in expected.state_dict().items():
        assert torch.equal(value, found.state_dict()[key]), key


def test_the_pre_processing_of_each_lineage_is_a_valid_model_spec() -> None:
    rtda = load_foreign(None, rtda_checkpoint()).preprocessing
    assert rtda == {
        "channel_order": "bgr",
        "pixel_scale": 1.0,
        "mean": (104.007, 116.669, 122.679),
        "std": (1.0, 1.0, 1.0),
        "interpolation": "cubic",
    }
    coincheung = load_foreign(None, coincheung_checkpoint()).preprocessing
    assert coincheung == {
        "channel_order": "rgb",
        "pixel_scale": 1 / 255,
        "mean": (0.3257, 0.3690, 0.3223),
        "std": (0.2112, 0.2148, 0.2115),
        "interpolation": "linear",
    }
    names = ModelSpec.__dataclass_fields__
    assert set(rtda) <= set(names)
    assert set(coincheung) <= set(names)


def test_a_file_that_kept_only_the_second_copy_of_the_backbone_loads() -> None:
    tensors = rtda_checkpoint()
    second_only = {k: v for k, v in tensors.items() if not k.startswith("context_path.") or ".features." in k}
    expected, found = load_foreign(None, tensors).model, load_foreign(None, second_only).model
    assert torch.equal(expected.backbone.layer4[1].conv2.weight, found.backbone.layer4[1].conv2.weight)


def test_two_copies_that_differ_are_refused() -> None:
    tensors = rtda_checkpoint()
    tensors["context_path.features.layer1.0.bn1.bias"] = torch.ones(64, dtype=torch.float64)
    with pytest.raises(CheckpointError, match=r"backbone\.layer1\.0\.bn1\.bias twice"):
        load_foreign(None, tensors)


def test_a_checkpoint_without_auxiliary_heads_says_so() -> None:
    tensors = {k: v for k, v in coincheung_checkpoint().items() if not k.startswith(("conv_out16", "conv_out32"))}
    assert not load_foreign(None, tensors).aux_loaded


def test_files_without_batch_counters_load() -> None:
    tensors = {k: v for k, v in rtda_checkpoint().items() if not k.endswith("num_batches_tracked")}
    assert load_foreign(None, tensors).lineage == "rtda"


def test_an_older_revision_is_refused_with_the_keys_that_differ() -> None:
    tensors = coincheung_checkpoint()
    for key in [k for k in tensors if k.startswith(("ffm.conv.", "ffm.bn."))]:
        del tensors[key]
    tensors |= {"ffm.conv1.weight": torch.zeros(64, 256, 1, 1), "ffm.conv2.weight": torch.zeros(256, 64, 1, 1)}
    with pytest.raises(CheckpointError) as caught:
        load_foreign(None, tensors)
    message = str(caught.value)
    assert "5 missing: fusion.attention.weight, fusion.bn.weight" in message
    assert "2 unexpected: ffm.conv1.weight, ffm.conv2.weight" in message


def test_only_the_first_five_keys_of_a_kind_are_named() -> None:
    tensors = {k: v for k, v in rtda_checkpoint().items() if "layer4" not in k}
    with pytest.raises(CheckpointError, match=r"25 missing: ([\w.]+, ){5}\.\.\."):
        load_foreign(None, tensors)


def test_a_refused_checkpoint_leaves_the_model_as_it_was() -> None:
    model = BiSeNet()
    before = model.head.weight.detach().clone()
    tensors = rtda_checkpoint()
    del tensors["supervision1.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: aux_heads\.0\.bias"):
        load_foreign(model, tensors)
    assert torch.equal(before, model.head.weight)


def test_a_model_of_another_kind_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"BiSeNet\('resnet18', 'rtda', 19\).*BiSeNet\('resnet18', 'paper', 19\)"):
        load_foreign(BiSeNet(variant="paper"), rtda_checkpoint())


def test_a_tensor_of_another_shape_is_refused() -> None:
    tensors = rtda_checkpoint()
    tensors["supervision1.weight"] = torch.zeros(7, 256, 1, 1)
    with pytest.raises(CheckpointError, match=r"1 of another shape: aux_heads\.0\.weight \(7, 256, 1, 1\)"):
        load_foreign(None, tensors)


def test_the_ancestor_that_skips_the_attention_batch_norm_is_refused() -> None:
    tensors = rtda_checkpoint()
    for n in (1, 2):
        tensors[f"attention_refinement_module{n}.bn.num_batches_tracked"] = torch.tensor(0)
    with pytest.raises(CheckpointError, match="ooooverflow"):
        load_foreign(None, tensors)


def test_what_is_of_neither_lineage_is_refused() -> None:
    with pytest.raises(CheckpointError, match="2 of 2 names are of no known lineage") as caught:
        load_foreign(None, {"encoder.weight": torch.zeros(1), "encoder.bias": torch.zeros(1)})
    assert "rtda, coincheung" in caught.value.hint
    with pytest.raises(CheckpointError, match="own names"):
        load_foreign(None, BiSeNet().state_dict())
    with pytest.raises(CheckpointError, match="no tensors"):
        load_foreign(None, {"epoch": 3})
    with pytest.raises(CheckpointError, match="no tensors"):
        load_foreign(None, {"state_dict": {}})
    with pytest.raises(CheckpointError, match="no classifier"):
        load_foreign(None, {k: v for k, v in rtda_checkpoint().items() if not k.startswith("conv.")})
