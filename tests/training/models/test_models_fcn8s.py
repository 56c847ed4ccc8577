"""FCN-8s on VGG-16: torchvision's names, its matrices as convolutions, and scores added from coarse to fine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtda_deploy.errors import CheckpointError
from rtda_training.models import BackboneReport, FCN8s, build_backbone, load_backbone_weights

pytestmark = pytest.mark.usefixtures("published_width")

torch.set_num_threads(1)

HIDDEN = 8
# Places of the thirteen 3x3 convolutions in torchvision's ``features``, and their channels.
CONVOLUTIONS = {
    0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256),
    17: (256, 512), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512),
}  # fmt: skip


def imagenet_weights(hidden: int = HIDDEN) -> dict[str, Tensor]:
    """A VGG-16 file as torchvision publishes it, but for the width of its classifier."""
    generator = torch.Generator().manual_seed(5)
    shapes: dict[str, tuple[int, ...]] = {}
    for place, (inputs, outputs) in CONVOLUTIONS.items():
        shapes |= {f"features.{place}.weight": (outputs, inputs, 3, 3), f"features.{place}.bias": (outputs,)}
    for place, (inputs, outputs) in {0: (512 * 7 * 7, hidden), 3: (hidden, hidden), 6: (hidden, 1000)}.items():
        shapes |= {f"classifier.{place}.weight": (outputs, inputs), f"classifier.{place}.bias": (outputs,)}
    return {key: torch.randn(shape, generator=generator) * 0.05 for key, shape in shapes.items()}


def saved(tmp_path: Path, weights: dict[str, Tensor]) -> Path:
    path = tmp_path / "vgg16.pth"
    torch.save(weights, path)
    return path


def test_names_and_shapes_are_torchvisions() -> None:
    with torch.device("meta"):
        published = build_backbone("vgg16").state_dict()
        expected = {key: tensor.shape for key, tensor in imagenet_weights(1).items() if key.startswith("features")}
    assert {key: tensor.shape for key, tensor in published.items() if key.startswith("features")} == expected
    rest = {key: tuple(tensor.shape) for key, tensor in published.items() if not key.startswith("features")}
    assert rest == {
        "classifier.0.weight": (4096, 512, 7, 7),
        "classifier.0.bias": (4096,),
        "classifier.3.weight": (4096, 4096, 1, 1),
        "classifier.3.bias": (4096,),
    }


@pytest.mark.parametrize("target", ["network", "backbone"])
def test_imagenets_file_loads_whole_and_its_matrices_give_the_same_as_convolutions(tmp_path: Path, target: str) -> None:
    weights = imagenet_weights()
    model = FCN8s(hidden=HIDDEN) if target == "network" else build_backbone("vgg16", hidden=HIDDEN)
    report = load_backbone_weights(model, saved(tmp_path, weights))
    assert report == BackboneReport(matched=30, total=30, ignored=("classifier.6.weight", "classifier.6.bias"))
    backbone = (model.backbone if isinstance(model, FCN8s) else model).eval()
    assert torch.equal(backbone.features[28].weight, weights["features.28.weight"])
    pool5 = torch.randn(2, 512, 7, 7, generator=torch.Generator().manual_seed(1))
    hidden = F.linear(pool5.flatten(1), weights["classifier.0.weight"], weights["classifier.0.bias"]).relu()
    expected = F.linear(hidden, weights["classifier.3.weight"], weights["classifier.3.bias"]).relu()
    with torch.no_grad():
        found = backbone.fc7(pool5)[:, :, 3, 3]  # the one place where the 7x7 kernel sees the whole map
    assert float(expected.max()) > 0.1
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("classifier.3.bias"), r"1 missing: classifier\.3\.bias"),
        (lambda w: [w.pop(key) for key in list(w) if key.startswith("classifier")], "4 missing: classifier"),
        (lambda w: w.update({"features.1.running_mean": torch.zeros(64)}), r"1 unexpected: features\.1"),
        (lambda w: w.update({"classifier.0.weight": torch.zeros(9, 25088)}), r"\(9, 25088\) instead of \(8, 512, 7, 7"),
        # As many numbers, but not out x in: never to be reshaped.
        (lambda w: w.update({"classifier.0.weight": torch.zeros(16, 12544)}), r"\(16, 12544\) instead of"),
    ],
    ids=["a bias missing", "features only", "batch norms", "another width", "as many numbers"],
)
def test_a_file_that_does_not_fit_whole_is_refused_and_changes_nothing(
    tmp_path: Path, change: object, message: str
) -> None:
    weights = imagenet_weights()
    assert callable(change)
    change(weights)
    model = FCN8s(hidden=HIDDEN)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"does not fit vgg16: .*{message}"):
        load_backbone_weights(model, saved(tmp_path, weights))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_features_are_the_maps_after_the_second_to_the_fifth_pooling() -> None:
    backbone = build_backbone("vgg16", hidden=HIDDEN).eval()
    pooled: list[Tensor] = []
    for layer in backbone.features:
        if isinstance(layer, nn.MaxPool2d):
            layer.register_forward_hook(lambda module, inputs, output: pooled.append(output))
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 32, 64))
    assert len(pooled) == 5
    assert all(torch.equal(a, b) for a, b in zip(features, pooled[1:]))


def test_a_signal_survives_the_layers_of_an_untrained_network() -> None:
    """Nothing normalises it on the way: a smaller start would end in zeros, a larger one in noise."""
    torch.manual_seed(0)
    backbone = build_backbone("vgg16", hidden=64).eval()
    with torch.no_grad():
        pool5 = backbone(torch.randn(1, 3, 64, 64))[3]
        assert 0.3 < float(pool5.std()) < 3.0
        assert 0.3 < float(backbone.fc7(pool5).std()) < 3.0


def impulse_response(place: str) -> Tensor:
    """What one cell of a map, of value 1, adds to the coarse logits when every score is the map's first channel."""
    model = FCN8s(1, HIDDEN)
    maps = {"pool3": torch.zeros(1, 256, 32, 32), "pool4": torch.zeros(1, 512, 16, 16), "fc7": torch.zeros(1, 8, 8, 8)}
    for name in maps:
        weight = getattr(model.head, name).weight
        nn.init.zeros_(weight)
        nn.init.ones_(weight[:, :1])
    middle = maps[place].shape[2] // 2
    maps[place][0, 0, middle, middle] = 1.0
    with torch.no_grad():
        return torch.as_tensor(model.head(maps["pool3"], maps["pool4"], maps["fc7"]))[0, 0]


@pytest.mark.parametrize(("place", "factor"), [("pool3", 1), ("pool4", 2), ("fc7", 4)])
def test_each_score_reaches_the_coarse_logits_enlarged_by_its_stride(place: str, factor: int) -> None:
    found = impulse_response(place)
    assert float(found.sum()) == pytest.approx(factor**2)  # bilinear keeps the mean
    rows = torch.arange(32.0) + 0.5
    centre = float((found.sum(dim=1) * rows).sum() / found.sum())
    assert centre == pytest.approx((32 // factor // 2 + 0.5) * factor)  # the cell's own middle: nothing is shifted


def test_dropout_works_in_training_only() -> None:
    torch.manual_seed(0)
    model = FCN8s(hidden=64)
    picture = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(model.train()(picture).logits, model(picture).logits)
        assert torch.equal(model.eval()(picture).logits, model(picture).logits)
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
