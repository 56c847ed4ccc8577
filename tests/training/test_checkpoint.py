"""Checkpoints: a round trip, the papers' lineages, and everything that is none."""

import os
import pickle

import pytest
import torch

from rtda_deploy.errors import CheckpointError, FileAccessError, SpecError
from rtda_deploy.spec import ModelSpec
from rtda_training.checkpoint import Checkpoint, model_from_checkpoint, read_checkpoint, write_checkpoint
from rtda_training.labels import CITYSCAPES
from rtda_training.models import BiSeNet, build_network


def spec(**changes):
    provenance = {"architecture": {"name": "BiSeNet", "backbone": "resnet18", "variant": "rtda"}}
    return ModelSpec((64, 64), CITYSCAPES.names, CITYSCAPES.palette, provenance=provenance).replace(**changes)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return BiSeNet("resnet18", "rtda").eval()


@pytest.mark.parametrize(
    "architecture",
    [
        {"name": "BiSeNet", "backbone": "resnet101", "variant": "paper"},
        {"name": "DeepLab-v2", "backbone": "resnet18"},
        {"name": "FCN8s", "backbone": "vgg16", "hidden": 16},
    ],
    ids=lambda entry: entry["name"],
)
def test_every_network_makes_the_round_trip(architecture, tmp_path):
    network = build_network(architecture).eval()
    named = spec(provenance={"architecture": network.architecture})
    path = write_checkpoint(tmp_path / "a.pth", Checkpoint(named, network.state_dict(), {"step": 3}))
    read = read_checkpoint(path)
    assert read.spec == named and read.training == {"step": 3}
    found = model_from_checkpoint(read)
    assert type(found) is type(network) and found.architecture == architecture and not found.training
    picture = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(found(picture).coarse, network(picture).coarse)


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        (None, "upgrade rtda-deploy"),
        ("BiSeNet", "upgrade rtda-deploy"),
        ({"name": "SegFormer"}, "this version builds BiSeNet, DeepLab-v2, FCN8s, GCNet, DDRNet, PP-LiteSeg; upgrade"),
        ({"name": "bisenet", "backbone": "resnet18", "variant": "rtda"}, "upgrade rtda-deploy"),
        ({"name": "BiSeNet", "backbone": "resnet19", "variant": "rtda"}, "resnet18, resnet101"),
        ({"name": "BiSeNet", "backbone": "resnet18"}, "Upgrade"),
        ({"name": "FCN8s", "backbone": "vgg16", "hidden": "many"}, "4096"),
    ],
)
def test_an_unknown_architecture_is_refused_with_the_known_ones(architecture, said):
    with pytest.raises(CheckpointError, match="is of architecture") as caught:
        model_from_checkpoint(Checkpoint(spec(provenance={"architecture": architecture}), {}))
    assert said in caught.value.hint


def test_plain_torch_reads_the_file_without_running_code(model, tmp_path):
    path = write_checkpoint(tmp_path / "a.pth", Checkpoint(spec(), model.state_dict()))
    content = torch.load(path, weights_only=True)
    assert set(content) == {"format", "version", "spec", "weights", "training"}


class _Evil:
    def __reduce__(self):
        return os.system, ("touch EVIL_RAN",)


@pytest.mark.parametrize("writer", [lambda o, p: torch.save(o, p), lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_a_pickle_with_code_in_it_is_refused_and_does_not_run(tmp_path, monkeypatch, writer):
    monkeypatch.chdir(tmp_path)
    writer({"weights": _Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "EVIL_RAN").exists()
    assert "not run" in caught.value.message


@pytest.mark.parametrize("content", [b"hello, I am a text", b"PK\x03\x04 half a zip", bytes(1000)])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        read_checkpoint(tmp_path / "x.pth")


def test_missing_and_empty_files_are_refused(tmp_path):
    (tmp_path / "empty.pth").touch()
    for name in ("empty.pth", "none.pth"):
        with pytest.raises(FileAccessError, match=name):
            read_checkpoint(tmp_path / name)


def test_another_network_is_refused_with_the_keys_that_differ(tmp_path):
    torch.save({"encoder.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"encoder\.weight"):
        read_checkpoint(tmp_path / "other.pth")


def test_weights_that_do_not_fit_their_architecture_are_named(model, tmp_path):
    weights = dict(model.state_dict())
    weights["head.extra"] = weights.pop("head.weight")
    path = write_checkpoint(tmp_path / "a.pth", Checkpoint(spec(), weights))
    with pytest.raises(CheckpointError, match=r"missing: head\.weight.*unexpected: head\.extra"):
        model_from_checkpoint(read_checkpoint(path))


def test_a_broken_spec_inside_is_refused(model, tmp_path):
    path = write_checkpoint(tmp_path / "a.pth", Checkpoint(spec(), {}))
    content = torch.load(path)
    content["spec"] = content["spec"].replace('"version": 1', '"version": 99')
    torch.save(content, path)
    with pytest.raises(SpecError, match="version 99"):
        read_checkpoint(path)


def test_rtdas_own_keys_load_with_its_own_normalisation(model, tmp_path):
    names = {
        "backbone.": "context_path.",
        "spatial_path.0.conv.": "saptial_path.convblock1.conv1.",
        "spatial_path.0.bn.": "saptial_path.convblock1.bn.",
        "spatial_path.1.conv.": "saptial_path.convblock2.conv1.",
        "spatial_path.1.bn.": "saptial_path.convblock2.bn.",
        "spatial_path.2.conv.": "saptial_path.convblock3.conv1.",
        "spatial_path.2.bn.": "saptial_path.convblock3.bn.",
        "context_path.arm16.": "attention_refinement_module1.",
        "context_path.arm32.": "attention_refinement_module2.",
        "fusion.block.conv.": "feature_fusion_module.convblock.conv1.",
        "fusion.block.bn.": "feature_fusion_module.convblock.bn.",
        "fusion.squeeze.": "feature_fusion_module.conv1.",
        "fusion.excite.": "feature_fusion_module.conv2.",
        "head.": "conv.",
        "aux_heads.0.": "supervision1.",
        "aux_heads.1.": "supervision2.",
    }
    foreign = {}
    for key, tensor in model.state_dict().items():
        ours = next(prefix for prefix in sorted(names, key=len, reverse=True) if key.startswith(prefix))
        foreign[f"module.{names[ours]}{key[len(ours) :]}"] = tensor
        if ours == "backbone.":
            foreign[f"module.context_path.features.{key[len(ours) :]}"] = tensor
    torch.save(foreign, tmp_path / "rtda.pth")
    found = read_checkpoint(tmp_path / "rtda.pth")
    assert found.spec.channel_order == "bgr" and found.spec.pixel_scale == 1.0
    assert found.spec.mean == (104.007, 116.669, 122.679) and found.spec.std == (1.0, 1.0, 1.0)
    assert found.spec.size_hw == (512, 1024)
    picture = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model_from_checkpoint(found)(picture).logits, model(picture).logits)


def test_a_full_disk_leaves_the_old_checkpoint_whole(model, tmp_path, monkeypatch):
    path = write_checkpoint(tmp_path / "a.pth", Checkpoint(spec(), {"x": torch.ones(2)}))

    def full(content, stream):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(FileAccessError, match="No space left"):
        write_checkpoint(path, Checkpoint(spec(), {}))
    monkeypatch.undo()
    assert torch.equal(read_checkpoint(path).weights["x"], torch.ones(2))
    assert os.listdir(tmp_path) == ["a.pth"]
