"""A backbone and a network of one file and one row each: every verb finds them, and so do messages and pages."""

import json
import re

import pytest
from cli.commandline import invoke

torch = pytest.importorskip("torch", reason="training needs torch (Python >= 3.10)")
pytest.importorskip("onnx", reason="exporting needs onnx")

from torch import nn  # noqa: E402
from training.settings import TINY_CHANNELS, TinyBackbone  # noqa: E402

from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint  # noqa: E402
from rtda_training.models import (  # noqa: E402
    BACKBONES,
    NETWORKS,
    OUTPUT_STRIDE,
    BackboneKind,
    DeployView,
    SegmentationNetwork,
    SegOutput,
    build_backbone,
    build_network,
    count_macs,
    count_parameters,
    load_backbone_weights,
)
from rtda_training.models.blocks import full_size  # noqa: E402


class OneMap(SegmentationNetwork):
    """A classifier on the map at 1/8."""

    NAME = "OneMap"
    AUX_WEIGHTS = ()
    SIZE_MULTIPLE = 32
    BACKBONE = "tiny"
    VARIANTS = ("small", "large")

    def __init__(self, backbone="tiny", variant="small", num_classes=19):
        super().__init__(num_classes)
        self.settings = self.checked_settings(backbone=backbone, variant=variant)
        self.backbone = build_backbone(self.settings["backbone"])
        kernel = 1 if self.settings["variant"] == "small" else 3
        self.head = nn.Conv2d(self.backbone.channels[1], num_classes, kernel, padding=kernel // 2)
        self.aux_heads = nn.ModuleList()

    def forward(self, image, aux=None):
        features = self.backbone(image)
        coarse = self.head(features[1])
        return SegOutput(full_size(coarse, OUTPUT_STRIDE), coarse, (), features)

    def deploy_view(self):
        return OneMapView(self)


class OneMapView(DeployView):
    def _coarse(self, image):
        return self.head(self.backbone(image)[1])


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    monkeypatch.setitem(BACKBONES, "tiny", BackboneKind(TinyBackbone, TINY_CHANNELS, ignored_keys=("classifier.",)))
    monkeypatch.setitem(NETWORKS, "onemap", OneMap)


def train(data, *settings):
    domains = ["--source", f"folder:{data}", "--val", f"folder:{data}", "--out", "run"]
    small = ["steps=2", "size=64x64", "batch_size=2", "device=cpu", "save_every=0", *settings]
    return invoke("train", "source-only", *domains, *(word for text in small for word in ("--set", text)))


@pytest.mark.parametrize(
    ("settings", "text", "architecture"),
    [
        (["backbone=tiny"], "BiSeNet-tiny rtda", ("BiSeNet", "tiny", "rtda")),
        (["network=onemap", "backbone=tiny", "variant=large"], "OneMap-tiny large", ("OneMap", "tiny", "large")),
        (["network=onemap", "backbone="], "OneMap-tiny small", ("OneMap", "tiny", "small")),
    ],
)
def test_a_new_row_goes_from_training_to_the_robot(here, tiny_data, settings, text, architecture):
    outcome = train(tiny_data, *settings)
    assert outcome.code == 0, outcome.err
    assert f"model   {text} · " in outcome.err
    assert text in (here / "run" / "report.html").read_text(encoding="utf-8")
    architecture = dict(zip(("name", "backbone", "variant"), architecture))
    model = model_from_checkpoint(read_checkpoint("run/last.pth"))
    assert model.architecture == architecture and type(model) is type(build_network(architecture))
    shown = json.loads(invoke("inspect", "run/last.pth", "--json").out)
    assert shown["spec"]["provenance"]["architecture"] == architecture
    assert shown["parameters"] == count_parameters(model) > 0 and shown["macs"] == count_macs(model, (64, 64)) > 0
    outcome = invoke("export", "run/last.pth", "--to", "onnx", "--json")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        (["backbone=tinny"], "resnet18, resnet101, .*tiny"),
        (["network=onemop"], "bisenet, deeplab-v2, fcn8s, .*onemap"),
        (["network=onemap", "variant=huge"], "small, large"),
        (["network=deeplab-v2", "backbone=tiny"], "resnet101, resnet18(?!.*tiny).*"),  # it needs an output stride of 8
    ],
)
def test_a_wrong_word_is_refused_with_the_new_rows_among_the_known(here, tiny_data, settings, known):
    outcome = train(tiny_data, *settings)
    assert outcome.code == 2 and re.search(f"known: {known}\n", outcome.err), outcome.err
    assert not (here / "run").exists(), "it is refused before anything is opened"


def test_an_imagenet_file_of_a_new_row_loads_without_what_the_row_ignores(tmp_path):
    weights = {**TinyBackbone().state_dict(), "classifier.weight": torch.zeros(1000, 10)}
    torch.save(weights, tmp_path / "tiny.pth")
    model = build_network("onemap")
    assert load_backbone_weights(model, tmp_path / "tiny.pth").ignored == ("classifier.weight",)
    assert torch.equal(model.backbone.layer1[0].weight, weights["layer1.0.weight"])


@pytest.mark.parametrize(
    ("settings", "message", "nearest"),
    [
        (["network=gcnet", "size=96x72"], "size 96x72 is no multiple of 64 each way", "128x64"),
        (["network=ddrnet", "size=1000x500"], "no multiple of 64", "1024x512"),
        (["network=ppliteseg", "size=960x540"], "no multiple of 128", "1024x512"),
        (["network=gcnet", "variant=w12"], "GCNet has no variant 'w12'", "s, w24"),
        (["network=ppliteseg", "backbone=gcnet"], "PP-LiteSeg has no backbone 'gcnet'", "stdc1, resnet18"),
    ],
)
def test_what_a_light_network_does_not_take_is_refused_with_the_nearest(here, tiny_data, settings, message, nearest):
    outcome = train(tiny_data, "backbone=", *settings)
    assert outcome.code == 2 and message in outcome.err and nearest in outcome.err, outcome.err


def test_a_checkpoint_of_one_width_does_not_go_on_in_another(here, tiny_data):
    outcome = train(tiny_data, "network=gcnet", "backbone=", "variant=w24")
    assert outcome.code == 0 and "model   GCNet w24 · " in outcome.err, outcome.err
    assert invoke("export", "run/last.pth", "--to", "onnx", "--json").code == 0
    words = ["network=gcnet", "backbone=", "variant=s", "init=run/last.pth"]
    outcome = invoke(
        *("train", "source-only", "--source", f"folder:{tiny_data}", "--out", "other"),
        *(word for text in ("steps=1", "size=64x64", "device=cpu", *words) for word in ("--set", text)),
    )
    assert outcome.code == 1 and "it is a GCNet gcnet w24" in outcome.err, outcome.err
    assert "another network than GCNet gcnet s" in outcome.err and "stem.0.0.conv.weight" in outcome.err
